"""The HTTP port, and the pages of a running daemon."""

from __future__ import annotations

import os
import shutil
from typing import Any
from unittest import SkipTest

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent

from lonc.test.fixtures.daemon import Child, DaemonTestCase, free_port
from lonc.test.fixtures.management import PortsReactor
from lonc.test.fixtures.statuses import a_status
from lonc.test.fixtures.web_reports import Reports, metric_families
from lonc.transport.endpoint_port import PortError
from lonc.web.port import HTTPPort, address

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class HTTPPortTests(SynchronousTestCase):
    """The port in memory."""

    def setUp(self) -> None:
        self.reactor: Any = PortsReactor()  # which is a network, too

    def started(self, description: str | None) -> HTTPPort:
        """Return a started port."""
        port = HTTPPort(self.reactor, self.reactor, Reports(a_status("l1")), description)
        port.startService()
        return port

    def test_off(self) -> None:
        """Without the setting, nothing listens, and that is no problem."""
        port = self.started(None)
        self.assertEqual(list(port.sampling()), [])
        self.assertEqual(self.reactor.ports, {})
        self.assertTrue(port.listening)

    def test_samples(self) -> None:
        """Each sampling adds a point to the graphs, one host per step."""
        port = self.started("tcp:8663")
        for _ in range(2):
            self.assertEqual(len(list(port.sampling())), 1)
        self.assertEqual(len(port._history.total.rate), 1)

    def test_moves(self) -> None:
        """F13: a reload can make it listen, move, and stop."""
        port = self.started(None)
        self.successResultOf(Deferred.fromCoroutine(port.relocate("tcp:8663")))
        self.assertEqual(list(self.reactor.ports), [8663])
        gone = Deferred.fromCoroutine(port.relocate(None))
        self.reactor.ports[8663].closed.callback(None)
        self.successResultOf(gone)
        self.assertEqual(port.description, None)

    def test_in_use(self) -> None:
        """Section 8: if the port is in use, the error of one line names it."""
        self.reactor.taken.add(8663)
        error = self.assertRaises(PortError, self.started, "tcp:8663")
        advice = "; --http takes another port or none, as in make run HTTP=none"
        self.assertEqual(str(error), f"HTTP port tcp:8663: it is taken{advice}")

    def test_address(self) -> None:
        """The address of the page is shown in a readable form."""
        for description, told in (
            ("tcp:8663:interface=127.0.0.1", "http://127.0.0.1:8663/"),
            ("tcp:port=8663", "http://localhost:8663/"),
            (r"tcp6:8663:interface=\:\:1", "http://[::1]:8663/"),
            ("unix:/lonc.http", "unix:/lonc.http"),
            (None, "none (see --http)"),
        ):
            self.assertEqual(address(description), told)


class RunningTests(DaemonTestCase):
    """The pages of a running daemon."""

    timeout = 600

    async def fetched(self, path: str) -> tuple[int, str]:
        """Return status and text of a page."""
        answer = await HTTPClient(Agent(reactor)).get(f"{self.url}{path}")
        return answer.code, await answer.text()

    async def served(self) -> Child:
        """Start lonc with an HTTP port; return it once it serves."""
        port = str(free_port("127.0.0.1"))
        self.url = f"http://127.0.0.1:{port}/"
        lonc = self.standalone(
            *("--lond-port", str(free_port("127.0.0.1", "127.0.0.2"))),
            *("--http", f"tcp:{port}:interface=127.0.0.1"),
        )
        await lonc.says("Ctrl-C ends it")
        return lonc

    async def test_pages(self) -> None:
        """All pages are served, with current data."""
        lonc = await self.served()
        self.assertIn(f"page      {self.url}", lonc.out)
        await self.ask("l2", "ping")
        status, page = await self.fetched("")
        self.assertEqual(status, 200)
        self.assertIn("l2", page)
        self.assertEqual((await self.fetched("hosts/l2"))[0], 200)
        self.assertEqual((await self.fetched("hosts/l9"))[0], 404)
        for path in ("healthz", "readyz"):
            self.assertEqual(await self.fetched(path), (200, "ok\n"))
        _, text = await self.fetched("metrics")
        samples = {
            (sample.name, sample.labels.get("host")): sample.value
            for family in metric_families(text)
            for sample in family.samples
        }
        self.assertEqual(samples["lonc_answers_total", "l2"], 1.0)
        self.assertEqual(samples["lonc_host_up", "l2"], 1.0)
        self.assert_no_traceback(lonc)

    async def test_browser(self) -> None:
        """A real browser shows the hosts."""
        if CHROMIUM is None:
            raise SkipTest("there is no chromium here")
        await self.served()
        out, _, _ = await getProcessOutputAndValue(
            CHROMIUM,
            ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", self.url],
            {**os.environ, "HOME": self.work},
        )
        self.assertIn(b"l2", out)
