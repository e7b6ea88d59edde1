"""The tests of :mod:`lonc.daemon`."""
