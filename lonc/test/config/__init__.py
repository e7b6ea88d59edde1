"""The tests of :mod:`lonc.config`."""
