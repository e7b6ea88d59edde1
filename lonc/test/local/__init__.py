"""The tests of :mod:`lonc.local`."""
