"""The tests of :mod:`lonc.cli`."""
