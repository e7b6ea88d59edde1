"""The commands of the management port, on a daemon in memory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.test.iosim import FakeTransport, connect

from lonc.config.settings import PARAMETERS, SettingsError
from lonc.control.access import OWNER, user_name
from lonc.control.client import ClientConnection, ManagementClient
from lonc.control.errors import BadArguments, NotDone, UnknownFile, UnknownHost
from lonc.control.reporter import Reporter
from lonc.control.responders import UNREADABLE, Responders
from lonc.control.server import ManagementFactory
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase, a_table
from lonc.transport.unix_socket import Peer

REQUEST = "1.1.put.l2"

T = TypeVar("T")


class RespondersTestCase(ServiceTestCase):
    """A running daemon, managed by its owner over AMP in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon = self.started()
        factory = ManagementFactory(
            partial(Responders, self.daemon.parts()), self.clock, visitor_of=lambda _: OWNER
        )
        server, client = factory.buildProtocol(None), ClientConnection()
        self.pump = connect(
            server, FakeTransport(server, isServer=True), client, FakeTransport(client, False)
        )
        self.lonc = ManagementClient(client, self.clock, timeout=10.0)

    def ask(self, call: Coroutine[Any, Any, T]) -> Deferred[T]:  # type: ignore[override]
        """Send a command, and deliver everything."""
        asked = Deferred.fromCoroutine(call)
        for _ in range(3):
            self.pump.flush()
            self.clock.advance(0)
        self.pump.flush()
        return asked

    def result(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the answer, which must be immediate."""
        answer: T = self.successResultOf(self.ask(call))
        return answer


class ClientTests(RespondersTestCase):
    """``clients``."""

    def test_clients(self) -> None:
        """A client is listed with its user, what it has sent and what it waits for since when."""
        self.patch(time, "time", lambda: 1793682120.0)
        self.echoing()
        for host_id, uid in (("l1", 0), ("l2", 4_000_000_001), ("l2", -1)):
            client = self.client(host_id, b"ping\n")
            client.wire.peer = Peer(4711, uid)
        self.advance(0)
        self.advance(7.0)
        rows = self.result(self.lonc.clients())
        self.assertEqual(
            [(row.host_id, row.pid, row.user) for row in rows],
            [("l1", 4711, "root"), ("l2", 4711, "4000000001"), ("l2", 4711, "")],
        )
        self.assertEqual((rows[0].requests, rows[0].waits_for), (1, ""))
        self.assertAlmostEqual(rows[0].since, 1793682113.0)
        self.assertEqual(self.result(self.lonc.clients("l1")), rows[:1])

    def test_hanging(self) -> None:
        """A client whose lond does not answer has waited since its request was sent."""
        self.client("l1", b"get\n")
        self.advance(7.0)
        (row,) = self.result(self.lonc.clients("l1"))
        self.assertEqual(row.waits_for, "lond")
        self.assertLess(abs(row.waiting - 7.0), 1.0)

    def test_two_pages(self) -> None:
        """More clients than fit into an answer are listed once each, in order of connecting."""
        for _ in range(99):
            self.client("l1")
        self.daemon.in_force.settings = attrs.evolve(self.first, max_clients=1000)
        self.daemon._clients.reconfigure(self.daemon.in_force.settings)
        for _ in range(600):
            self.client("l2")
        rows = self.result(self.lonc.clients())
        self.assertEqual([row.number for row in rows], list(range(1, 700)))
        self.assertEqual([row.host_id for row in rows], ["l1"] * 99 + ["l2"] * 600)


class SettingsTests(RespondersTestCase):
    """``settings``."""

    def test_settings(self) -> None:
        """Each setting is listed, with the value in the file if it differs, or is unusable."""
        rows = self.result(self.lonc.settings())
        self.assertEqual([row.name for row in rows], sorted(each.variable for each in PARAMETERS))
        self.assertEqual({row.differs for row in rows}, {""})
        written = {"loncRetries": ("7", "loncapa.conf, line 3")}
        self.settings = attrs.evolve(self.first, retries=7, written=written)
        rows = self.result(self.lonc.settings())
        self.assertEqual({r.name: r.differs for r in rows if r.differs}, {"loncRetries": "7"})
        self.settings = SettingsError("no")
        rows = self.result(self.lonc.settings())
        self.assertEqual({row.differs for row in rows}, {UNREADABLE})

    def test_next_start(self) -> None:
        """F13: a change that takes effect at the next start is not listed as in force."""
        written = {"loncLogFormat": ("json", "loncapa.conf, line 3")}
        self.daemon.in_force.settings = attrs.evolve(
            self.first, written={"loncLogFormat": ("seed", "default")}
        )
        self.settings = attrs.evolve(self.first, log_format="json", written=written)
        self.successResultOf(self.daemon.reload())
        rows = {row.name: row for row in self.result(self.lonc.settings())}
        row = rows["loncLogFormat"]
        self.assertEqual((row.value, row.source, row.differs), ("seed", "default", "json"))


class DelayedTests(RespondersTestCase):
    """``delayed``."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.first.delayed_dir, REQUEST)
        with open(self.path, "wb") as file:
            file.write(b"put:a:b\n")

    def test_list(self) -> None:
        """A delayed request is listed, shown and deleted."""
        (row,) = self.result(self.lonc.delayed())
        self.assertEqual((row.file, row.host_id, row.command), (REQUEST, "l2", "put"))
        shown = self.result(self.lonc.show_delayed(REQUEST))
        self.assertEqual(shown, (b"put:a:b\n", False))
        self.result(self.lonc.drop_delayed(REQUEST))
        self.assertFalse(os.path.exists(self.path))

    def test_unknown(self) -> None:
        """A request that does not exist is an error."""
        for act in (
            self.lonc.show_delayed,
            self.lonc.drop_delayed,
            self.lonc.requeue_delayed,
        ):
            self.failureResultOf(self.ask(act("2.2.put.l2")), UnknownFile)

    def test_host_not_in_the_table(self) -> None:
        """Requests for a host that is not in the table are counted, and listed with the reason."""
        os.rename(self.path, f"{self.path[:-2]}l9")
        self.advance(1.5)
        list(self.daemon.reporter.looking())
        about = self.daemon.reporter.about()
        self.assertEqual((about.delayed_unknown, about.totals["delayed"]), (1, 1))
        (row,) = self.result(self.lonc.delayed("l9"))
        self.assertEqual((row.host_id, row.last_answer), ("l9", "the host table has no l9"))
        self.assertEqual(self.result(self.lonc.delayed("l1")), [])
        self.failureResultOf(self.ask(self.lonc.delayed("l8")), UnknownHost)

    def test_pages(self) -> None:
        """Any number is listed in the order of sending."""
        os.unlink(self.path)
        names = [f"1.{count}.4711.put.l2" for count in range(1, 1500)]
        for name in names:
            with open(os.path.join(self.first.delayed_dir, name), "wb") as file:
                file.write(b"put:a:b\n")
        self.assertEqual([row.file for row in self.result(self.lonc.delayed())], names)

    def test_kept(self) -> None:
        """A kept request is counted in the daemon's status, and moved back."""
        os.makedirs(self.first.kept_dir, exist_ok=True)
        os.rename(self.path, os.path.join(self.first.kept_dir, REQUEST))
        self.advance(1.5)
        self.assertEqual(self.daemon.reporter.about().kept, 1)
        self.result(self.lonc.requeue_delayed(f"kept/{REQUEST}"))
        self.assertTrue(os.path.exists(self.path))


class PauseTests(RespondersTestCase):
    """``pause`` and ``resume``."""

    def test_in_flight(self) -> None:
        """A pause is answered when no request is in flight; others wait until it ends."""
        first = self.client("l1", b"ping\n")
        self.advance(0)
        pausing = self.ask(self.lonc.pause("l1", "ann", "a disk", 60))
        second = self.client("l1", b"pong\n")
        self.advance(0)
        self.assertNoResult(pausing)
        (lond,) = self.network.londs
        lond.say(b"one\n")
        self.advance(0)
        self.pump.flush()
        self.successResultOf(pausing)
        self.assertEqual((first.read, second.read), (b"one\n", b""))
        paused = self.daemon.reporter.status("l1").paused
        self.assertEqual((paused["by"], paused["reason"], paused["fail"]), ("ann", "a disk", False))
        self.assertAlmostEqual(paused["until"] - paused["since"], 60.0)
        self.result(self.lonc.resume(""))
        self.assertEqual(self.daemon.reporter.status("l1").paused, {})
        self.advance(0)
        lond.say(b"two\n")
        self.advance(0)
        self.assertEqual(second.read, b"two\n")

    def test_endless(self) -> None:
        """A pause without an end has none in the status; by default it is by the client's user."""
        self.result(self.lonc.pause("l1"))
        paused = self.daemon.reporter.status("l1").paused
        self.assertEqual((paused["until"], paused["reason"]), (0.0, ""))
        self.assertEqual(paused["by"], user_name(os.geteuid()))
        self.advance(10.0)
        self.assertEqual(self.daemon.reporter.status("l1").paused["until"], 0.0)
        self.assertEqual(self.daemon.reporter.status("l2").paused, {})

    def test_no_number(self) -> None:
        """A duration that is not a number, or out of range, is refused."""
        error = self.failureResultOf(self.ask(self.lonc.pause("l1", seconds=None)))  # type: ignore
        error.trap(BadArguments)
        self.assertIn("Pause", str(error.value))
        for seconds in (-1, math.inf, math.nan):
            error = self.failureResultOf(self.ask(self.lonc.pause("l1", seconds=seconds)))
            error.trap(BadArguments)
        self.assertEqual(self.daemon.reporter.status("l1").paused, {})


class ReloadTests(RespondersTestCase):
    """The last reload in the daemon's status."""

    def test_done(self) -> None:
        """It has its outcome, and each change of a setting or a host."""
        self.daemon.in_force.settings = attrs.evolve(
            self.first, written={"loncMaxClients": ("100", "default")}
        )
        written = {"loncMaxClients": ("7", "loncapa.conf, line 3")}
        self.settings = attrs.evolve(self.first, max_clients=7, written=written)
        self.table = a_table("l1:msu:library:l1.test:127.0.0.1\n")
        changes = ["loncMaxClients: 7, was 100 (loncapa.conf, line 3)", "l2: gone"]
        told = self.successResultOf(self.daemon.reload())
        self.assertEqual(told.split("\n")[1:], changes)
        about = self.daemon.reporter.about()
        self.assertEqual(about.last_reload["outcome"], "done")
        self.assertEqual(about.last_reload["changes"], changes)
        self.assertEqual(about.reloads, {"done": 1, "failed": 0})

    def test_failed(self) -> None:
        """If the file is unusable, it has the reason."""
        self.settings = SettingsError("a.conf, line 1: no")
        self.daemon.reload().addErrback(lambda failure: None)
        about = self.daemon.reporter.about()
        self.assertEqual(about.last_reload["outcome"], "failed")
        self.assertEqual(about.last_reload["changes"], ["a.conf, line 1: no"])
        self.assertEqual(about.reloads, {"done": 0, "failed": 1})

    def test_many(self) -> None:
        """Of a thousand changes, it has as many as fit into AMP."""
        self.table = a_table(
            "".join(f"h{n}:msu:access:h{n}.test:127.1.{n // 250}.{n % 250}\n" for n in range(1000))
        )
        reading = self.daemon.reload()
        while not reading.called:
            self.clock.advance(0)
        self.successResultOf(reading)
        changes = self.daemon.reporter.about().last_reload["changes"]
        self.assertRegex(changes[-1], r"^and \d+ more$")
        self.assertLess(sum(map(len, changes)), 6000)


class HandingOverTests(RespondersTestCase):
    """Pauses while a new process takes over."""

    def test_refused(self) -> None:
        """They are refused, because the new process has received the pauses already."""
        self.daemon._succession.hand_over.under_way = True
        pausing = self.failureResultOf(self.ask(self.lonc.pause("l2", "me", "", 0.0)), NotDone)
        self.assertIn("try again", str(pausing.value))
        self.failureResultOf(self.ask(self.lonc.resume("l2")), NotDone)
        self.daemon._succession.hand_over.under_way = False
        self.result(self.lonc.pause("l2", "me", "", 0.0))


class ProblemsTests(RespondersTestCase):
    """``problems``."""

    def test_pages(self) -> None:
        """All are listed, in several pages, for which the hosts are checked once."""
        looks: list[object] = []
        looking = Reporter.looking

        def noted(reporter: Reporter) -> Iterator[object]:
            looks.append(None)
            return looking(reporter)

        self.patch(Reporter, "looking", noted)
        problems = self.daemon.problems
        for number in range(300):
            problems.tell("port-not-open", f"port {number}", "it is taken")
        rows = self.result(self.lonc.problems())
        self.assertEqual([row.subject for row in rows], [f"port {n}" for n in range(300)])
        self.assertEqual(len(looks), 1)
