"""The tests of :mod:`lonc.web`."""
