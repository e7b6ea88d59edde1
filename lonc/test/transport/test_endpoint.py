"""Parsing of endpoint descriptions."""

from __future__ import annotations

from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.properties import given, settings, st
from lonc.transport.endpoint import Endpoint, quoted


class EndpointTests(SynchronousTestCase):
    """The parts of a description."""

    def test_parts(self) -> None:
        """They are kind, positional and named arguments; a backslash escapes a character."""
        for description, parts in (
            ("tcp:80", ("tcp", ("80",), {})),
            ("tcp:80:interface=127.0.0.1", ("tcp", ("80",), {"interface": "127.0.0.1"})),
            (r"tcp6:80:interface=\:\:1", ("tcp6", ("80",), {"interface": "::1"})),
            ("lonctls:a.edu:1", ("lonctls", ("a.edu", "1"), {})),
            (r"unix:/a\:b\=c\\d:mode=600", ("unix", ("/a:b=c\\d",), {"mode": "600"})),
            ("unix:address=/a=b", ("unix", (), {"address": "/a=b"})),
            ("tcp::x", ("tcp", ("", "x"), {})),
            ("", ("", (), {})),
        ):
            self.assertEqual(Endpoint.parse(description), Endpoint(*parts), description)

    def test_argument(self) -> None:
        """An argument is found by name, or is the first positional one, or is missing."""
        for description, port in (("tcp:80", "80"), ("tcp:port=80", "80"), ("tcp:a=b", "")):
            self.assertEqual(Endpoint.parse(description).argument("port"), port)

    def test_unix_path(self) -> None:
        """Only UNIX sockets have a path."""
        for description, path in (("unix:/a", "/a"), ("unix:address=/a", "/a"), ("tcp:80", None)):
            self.assertEqual(Endpoint.parse(description).unix_path, path)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.text(min_size=1))
    def test_as_twisted(self, path: str) -> None:
        """Twisted reads a quoted text in the same way."""
        description = f"unix:{quoted(path)}:mode=600"
        self.assertEqual(Endpoint.parse(description).unix_path, path)
        endpoint = serverFromString(MemoryReactor(), description)
        assert isinstance(endpoint, UNIXServerEndpoint)
        self.assertEqual(endpoint._address, path)
