"""The tests of :mod:`lonc.disk`."""
