"""The tests of :mod:`lonc.wire`."""
