"""The tests of :mod:`lonc.management`."""
