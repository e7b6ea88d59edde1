"""The tests of :mod:`lonc.lond`."""
