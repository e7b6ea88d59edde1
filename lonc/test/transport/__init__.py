"""The tests of :mod:`lonc.transport`."""
