"""The tests of :mod:`lonc.delayed`."""
