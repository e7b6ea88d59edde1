"""The tests of :mod:`lonc.control`."""
