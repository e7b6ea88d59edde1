"""The tests of :mod:`lonc.host`."""
