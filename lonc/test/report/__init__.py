"""The tests of :mod:`lonc.report`."""
