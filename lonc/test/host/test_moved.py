# trial's assertions, MemoryReactor and Twisted's services have no annotations:
# mypy: allow-untyped-calls
"""Hosts without an address in the table, and what happens when their names lead elsewhere."""

from __future__ import annotations

import attrs
from twisted.internet.defer import execute
from twisted.logger import LogLevel

from lonc.disk.threads import InThread
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase, a_table
from lonc.test.fixtures.doubles import ScriptedLond, echo
from lonc.test.fixtures.threads import SlowThreads
from lonc.wire.request import CON_LOST, without_addressee

MOVED = "the host's address has changed"

#: Two hosts of one name, one of another, and one with an address.
TABLE = """\
l2:msu:access:two.test:https:test
l3:msu:access:two.test:
l4:msu:access:four.test:http
l5:msu:access:two.test:127.0.0.5
"""


class MovedTests(ServiceTestCase):
    """F12: the names of a whole daemon's hosts."""

    def setUp(self) -> None:
        super().setUp()
        self.threads["names"] = lambda work: self.in_thread(work)
        self.in_thread: InThread = execute
        self.table = a_table(TABLE)
        self.network.prepare = self.prepare
        self.daemon = self.started()

    def prepare(self, lond: ScriptedLond) -> None:
        """Have londs that serve several hosts, and answer each request with itself."""
        lond.know_hosts()
        lond.answer = lambda request: echo(without_addressee(request)[1])

    @property
    def targets(self) -> list[str]:
        """Where connections were made to, in order."""
        return [attempt.host for attempt in self.network.attempts]

    def moved(self) -> list[str]:
        """Return the hosts that were said to have another address, and forget that."""
        ids = [e["host_id"] for e in self.notes.events if e.get("log_format") == MOVED]
        self.assertEqual(len(ids), self.notes.at(LogLevel.critical).count(MOVED))
        self.notes.events.clear()
        return ids

    def test_one_look_up_for_all(self) -> None:
        """All connections to a name, whichever host's, are made with one look-up."""
        for host_id in ("l2", "l3", "l2"):
            self.assertEqual(self.ask(host_id), b"re:ping\n")
        self.assertEqual(self.names_asked, ["two.test"])
        self.assertEqual(self.targets, ["127.0.0.2"])  # they share a machine

    def test_both_families(self) -> None:
        """The IPv6 address is tried when the IPv4 address does not answer, and the other way."""
        self.addresses = ["127.0.0.2", "::2"]
        self.network.on_connect = lambda attempt: (
            attempt.refuse() if attempt.host == "127.0.0.2" else attempt.accept()
        )
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        self.assertEqual(self.targets, ["127.0.0.2", "::2"])

    def test_moved(self) -> None:
        """
        A name that has another address after its time is up changes all its hosts: new requests
        go there, and a request in flight has its answer on the old connection.
        """
        for host_id in ("l2", "l3", "l4", "l5"):
            self.ask(host_id)
        self.addresses = ["127.0.0.9"]
        self.clock.advance(self.first.name_lifetime - 10)
        self.advance(1)
        self.assertEqual(self.moved(), [])
        self.network.londs[0].answer = lambda request: None
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

    def test_dead_host_has_moved(self) -> None:
        """A host that was DEAD where it was before has its retries at its new address."""
        self.network.on_connect = lambda attempt: (
            attempt.refuse() if attempt.host == "127.0.0.2" else attempt.accept()
        )
        self.assertEqual(self.ask("l2"), CON_LOST)
        self.addresses = ["127.0.0.9"]
        self.clock.advance(self.first.name_lifetime)
        self.advance(1)
        self.assertIn("l2", self.moved())
        self.assertEqual(self.ask("l2"), b"re:ping\n")

    def test_moved_while_it_is_connected_to(self) -> None:
        """A request that brings the news about is sent to the new address, by one connection."""
        self.ask("l2")
        self.daemon.close_connections("l2")
        self.addresses = ["127.0.0.9"]
        self.in_thread = threads = SlowThreads()
        self.clock.advance(self.first.name_lifetime)
        client = self.client("l2", b"ping\n")
        self.advance(0)
        threads.finish()
        self.advance(1)
        self.assertEqual(client.read, b"re:ping\n")
        self.assertEqual(self.targets, ["127.0.0.2", "127.0.0.9"])

    def test_lifetime_changes(self) -> None:
        """HUP: another lifetime counts from the next look-up on."""
        self.settings = attrs.evolve(self.first, name_lifetime=20.0)
        self.daemon.reload()
        self.ask("l2")
        for seconds, count in ((19, 1), (2, 2)):
            self.clock.advance(seconds)
            self.advance(1 if count == 2 else 0)
            self.assertEqual(len(self.names_asked), count)
