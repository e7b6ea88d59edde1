"""Hosts without an address in the table, and what happens when their names lead elsewhere."""

from __future__ import annotations

import time

import attrs
from twisted.internet.defer import execute
from twisted.logger import LogLevel

from lonc.disk.threads import InThread
from lonc.host.resolver import LookUpError, NoSuchName
from lonc.report.events import without_host
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase, a_table
from lonc.test.fixtures.doubles import ScriptedLond, echo
from lonc.wire.request import CON_LOST, without_addressee

MOVED = "the host's address has changed"

#: Two hosts of one name, one of another, and one with an address.
TABLE = """\
l2:msu:access:two.test:https:test
l3:msu:access:TWO.test.:
l4:msu:access:four.test:http
l5:msu:access:two.test:127.0.0.5
"""


class MovedTests(ServiceTestCase):
    """F12: the names of a whole daemon's hosts."""

    def setUp(self) -> None:
        super().setUp()
        self.threads["names"] = lambda work: self.in_thread(work)
        self.in_thread: InThread = execute
        self.error: LookUpError | None = None
        self.table = a_table(TABLE)
        self.network.prepare = self.prepare
        self.daemon = self.started()

    def prepare(self, lond: ScriptedLond) -> None:
        """Have londs that serve several hosts, and answer each request with itself."""
        lond.know_hosts()
        lond.answer = lambda request: echo(without_addressee(request)[1])

    def resolve(self, name: str) -> list[str]:
        """Look a name up, or fail."""
        found = super().resolve(name)
        if self.error is not None:
            raise self.error
        return found

    @property
    def targets(self) -> list[str]:
        """Where connections were made to, in order."""
        return [attempt.host for attempt in self.network.attempts]

    def moved(self) -> list[str]:
        """Return the hosts that were said to have another address, and forget that."""
        said = [e for e in self.notes.events if without_host(e).get("log_format") == MOVED]
        ids = [event["host_id"] for event in said]
        self.assertEqual(len(ids), self.notes.at(LogLevel.critical).count(MOVED))
        self.notes.events.clear()
        return ids

    def test_one_look_up_for_all(self) -> None:
        """All connections to a name, whichever host's, are made with one look-up."""
        for host_id in ("l2", "l3", "l2"):
            self.assertEqual(self.ask(host_id), b"re:ping\n")
        self.assertEqual(self.names_asked, ["two.test"])
        self.assertEqual(self.targets, ["127.0.0.2"])  # they share a machine

    def pass_lifetime(self, times: int = 1) -> None:
        """Let the addresses of names be looked up again so often."""
        for _ in range(times):
            self.clock.advance(self.first.name_lifetime)
            self.advance(1)

    def test_moved(self) -> None:
        """
        A name that has another address changes all its hosts, however it is spelt. What is
        connected to the old one serves until that is missing from three answers running, and then
        for what it owes; new connections are made to the new one.
        """
        for host_id in ("l2", "l3", "l4", "l5"):
            self.ask(host_id)
        self.addresses = ["127.0.0.9"]
        self.pass_lifetime(2)
        self.assertEqual(self.moved(), [])
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        self.assertEqual(self.targets, ["127.0.0.2", "127.0.0.2", "127.0.0.5"])
        self.network.londs[0].answer = lambda request: None
        self.clock.advance(self.first.name_lifetime / 3 - 10)
        owed = self.client("l2", b"slow\n")
        self.clock.advance(10)
        self.advance(1)
        self.assertEqual(self.moved(), ["l2", "l3", "l4"])
        self.network.londs[0].say(b"done\n")
        self.assertEqual(owed.read, b"done\n")
        del self.network.attempts[:]
        for host_id in ("l2", "l3", "l4", "l5"):
            self.assertEqual(self.ask(host_id), b"re:ping\n")
        self.assertEqual(self.targets, ["127.0.0.9"] * 2)

    def test_one_of_two_addresses_is_gone(self) -> None:
        """Only connections to an address that is gone are retired."""
        self.addresses = ["127.0.0.2", "127.0.0.3"]
        self.ask("l4")
        self.addresses = ["127.0.0.2"]
        self.pass_lifetime(3)
        self.assertEqual(self.moved(), ["l4"])
        self.ask("l4")
        self.assertEqual(self.targets, ["127.0.0.2"])

    def test_dead_host_has_moved(self) -> None:
        """A host that was DEAD where it was before has its retries at its new address."""
        self.network.on_connect = lambda attempt: (
            attempt.refuse() if attempt.host == "127.0.0.2" else attempt.accept()
        )
        self.assertEqual(self.ask("l2"), CON_LOST)
        self.addresses = ["127.0.0.9"]
        self.pass_lifetime()
        self.assertEqual(self.ask("l2"), b"re:ping\n")

    def test_name_server_in_trouble(self) -> None:
        """
        While a name cannot be looked up, its last addresses are connected to; the status says since
        when, for every host of that name.
        """
        self.patch(time, "time", lambda: 1793682120.0 + self.clock.seconds())
        self.ask("l2")
        self.managing(self.daemon).close_connections("l2")
        began = time.time()
        self.error = LookUpError("try again")
        self.pass_lifetime()
        for host_id in ("l2", "l3"):
            self.assertEqual(self.ask(host_id), b"re:ping\n")
            since = self.daemon.reporter.status(host_id).name_failing_since
            self.assertTrue(began < since <= time.time(), since)
        self.assertEqual(self.daemon.reporter.status("l5").name_failing_since, 0.0)
        self.assertEqual(self.targets, ["127.0.0.2"] * 2)
        self.error = None
        self.clock.advance(60)
        self.advance(1)
        self.assertEqual(self.daemon.reporter.status("l2").name_failing_since, 0.0)

    def test_no_such_name(self) -> None:
        """
        A name that is gone keeps the connections that stand, has none made, and is not the host's
        fault; it is where nothing stands.
        """
        self.ask("l2")
        self.error = NoSuchName("no such name")
        self.pass_lifetime()
        self.network.londs[0].answer = lambda request: None
        clients = [self.client("l2", b"ping\n") for _ in range(3)]
        self.advance(0)
        for _ in clients:
            self.network.londs[0].say(b"pong\n")
        self.assertEqual([client.read for client in clients], [b"pong\n"] * 3)
        self.assertEqual(self.targets, ["127.0.0.2"])
        self.assertEqual(self.daemon.reporter.status("l2").state, "up")
        self.network.londs[0].close()
        self.assertEqual(self.ask("l2"), CON_LOST)
        self.assertEqual(self.daemon.reporter.status("l2").state, "DEAD")

    def test_lifetime_changes(self) -> None:
        """HUP: another lifetime counts from the next look-up on."""
        self.settings = attrs.evolve(self.first, name_lifetime=20.0)
        self.daemon.reload()
        self.ask("l2")
        for seconds, count in ((19, 1), (2, 2)):
            self.clock.advance(seconds)
            self.advance(1 if count == 2 else 0)
            self.assertEqual(len(self.names_asked), count)
