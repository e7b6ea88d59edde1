"""The tests of :mod:`lonc.client`."""
