"""Lists are sent in pages."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from lonc.control.access import OWNER, Caller
from lonc.report.recent import RequestLog
from lonc.report.records import ConnectionStatus
from lonc.test.fixtures.management import ConnectedTests
from lonc.test.fixtures.statuses import NOW, a_status


class PagesTests(ConnectedTests):
    """Lists that are longer than an AMP value."""

    def test_long_list(self) -> None:
        """Any number of hosts arrives in order, whatever the length of ids and log lines."""
        hosts = [
            a_status(f"{number:04d}" + "x" * (number % 250), last_log="\N{SNOWMAN}" * 20_000)
            for number in range(1000)
        ]
        self.daemon.hosts = hosts[500:] + hosts[:500]
        listed = self.answer(self.client.hosts())
        self.assertEqual([host.host_id for host in listed], [host.host_id for host in hosts])
        self.assertEqual({host.last_log for host in listed}, {"\N{SNOWMAN}" * 333})
        self.daemon.hosts = [a_status("a", last_log="\udc80")]  # which UTF-8 cannot encode
        self.assertEqual(self.answer(self.client.hosts())[0].last_log, "\\udc80")

    def test_page_is_full(self) -> None:
        """A page has as many hosts as fit into 16 KiB."""
        self.daemon.hosts = [a_status(f"{n:04d}", last_log="x" * 1000) for n in range(200)]
        responders = self.daemon.responders(Caller(lambda: OWNER, self.factory.log))
        pages = []
        after, more = "", True
        while more:
            page: Any = responders.list_hosts(after)
            pages.append(page["hosts"])
            after, more = page["hosts"][-1]["host_id"], page["more"]
        self.assertEqual(sum(map(len, pages)), 200)
        self.assertGreater(min(map(len, pages[:-1])), 7)
        self.assertLess(max(map(len, pages)), 17)

    def test_connection_closes_between_pages(self) -> None:
        """A connection that closes between two pages hides and repeats no other."""
        rows = [
            ConnectionStatus(number=n, host_id="msul1", state="idle", since=NOW, seconds=1.0)
            for n in range(1, 2001)
        ]
        self.daemon.connections = rows
        listing = Deferred.fromCoroutine(self.client.connections())
        self.pump.pump()  # the question
        self.daemon.connections = rows[100:]
        self.pump.flush()
        listed = [each.number for each in self.successResultOf(listing)]
        self.assertEqual(listed, list(range(1, 2001)))  # all of those that closed were told before

    def test_machine_of_two(self) -> None:
        """A connection that two host ids share is listed once."""
        one = ConnectionStatus(number=7, host_id="msul1", state="idle", since=NOW, seconds=1.0)
        self.daemon.connections = [one, attrs.evolve(one, host_id="msua1")]
        self.assertEqual(self.answer(self.client.connections()), [one])
        (listed,) = self.answer(self.client.connections("msua1"))
        self.assertEqual(listed.host_id, "msua1")

    def test_hosts_come_and_go_between_pages(self) -> None:
        """A host is listed once even if others come and go between two pages."""
        self.daemon.hosts = [a_status(f"{n:04d}", last_log="x" * 1000) for n in range(0, 300, 2)]
        stays = {host.host_id for host in self.daemon.hosts if int(host.host_id) % 4 == 0}
        listing = Deferred.fromCoroutine(self.client.hosts())
        self.pump.pump()  # the question
        self.daemon.hosts = [host for host in self.daemon.hosts if host.host_id in stays]
        self.daemon.hosts += [a_status(f"{n:04d}") for n in range(1, 300, 2)]
        self.pump.flush()
        listed = [host.host_id for host in self.successResultOf(listing)]
        self.assertEqual(listed, sorted(set(listed)))
        self.assertLess(stays, set(listed))


class WayTests(ConnectedTests):
    """The modules between a command and its data."""

    def test_slow(self) -> None:
        """``lonc slow`` passes five modules of this package on its way to its data and back."""
        passed: set[str] = set()

        def note(frame: FrameType, event: str, argument: object) -> None:
            if event == "call":
                passed.add(frame.f_globals.get("__name__", ""))

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            self.answer(self.client.slow())
        finally:
            sys.setprofile(before)
        self.assertIn(RequestLog.__module__, passed)
        self.assertEqual(
            {each for each in passed if each.startswith("lonc.control.")},
            {
                f"lonc.control.{each}"
                for each in ("access", "client", "commands", "responders", "server")
            },
        )
