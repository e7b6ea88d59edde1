"""The embedded cluster's web server, over real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.config.download import download
from lonc.config.hosts import parse_host_table
from lonc.config.table_fetcher import FetchError
from lonc.lond.cluster import ClusterError
from lonc.lond.table_server import TableServer, table_text

reactor: Any = global_reactor


class TextTests(SynchronousTestCase):
    """A table as text."""

    def test_back_and_forth(self) -> None:
        """The text is parsed to the same hosts, for each kind of fifth field."""
        rows = (
            "a:msu:library:a.test:10.0.0.1",
            "b:msu:access:b.test:[2001:db8::1]",
            "c:msu:access:c.test:http",
            "d:msu:access:d.test:https:test.edu",
            "e:msu:access:e.test:other.test",
        )
        text = "".join(f"{row}\n" for row in rows).encode()
        self.assertEqual(table_text(parse_host_table(text, "x").hosts.values()), text)


class TableServerTests(TestCase):
    """The web server of the table."""

    def setUp(self) -> None:
        self.table = b"first\n"
        self.server = TableServer(reactor, 0, lambda: self.table)
        self.server.startService()
        self.addCleanup(self.server.stopService)
        self.url = f"http://127.0.0.1:{self.server.port}"

    async def test_table(self) -> None:
        """It serves the current table."""
        for self.table in (b"first\n", b"second\n"):
            found = await download(reactor, f"{self.url}/adm/dns/hosts", 100)
            self.assertEqual(found.content, self.table)

    async def test_nothing_else(self) -> None:
        """It serves nothing else."""
        for path in ("/", "/adm", "/adm/dns/", "/adm/dns/other"):
            asked = Deferred.fromCoroutine(download(reactor, self.url + path, 100))
            error = await self.assertFailure(asked, FetchError)
            self.assertRegex(str(error), "it answers with status 40[45]")

    async def test_port_in_use(self) -> None:
        """The error has the port in use."""
        second = TableServer(reactor, self.server.port, lambda: b"")
        error = self.assertRaises(ClusterError, second.startService)
        self.assertIn(f"cannot listen on port {self.server.port} at 127.0.0.1: Address", str(error))
        await second.stopService()
        await download(reactor, f"{self.url}/adm/dns/hosts", 100)
