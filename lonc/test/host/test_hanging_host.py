"""
A lond that answers slowly is not DEAD, one that completes handshakes and answers nothing is (rows
F1, S10, S12 and F4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from twisted.logger import LogLevel

from lonc.host.audit import EARLIEST, ROUND, SHORTEST
from lonc.host.connection import PING
from lonc.test.fixtures.doubles import FakeClient, a_host, echo, leave_pending
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST, Cause


class HangingTestCase(HostTestCase):
    """
    A host whose lond may hang.

    :ivar answers: whether its connections answer requests.
    :ivar pong: what they say to ``ping``; empty for nothing.
    """

    def setUp(self) -> None:
        super().setUp()
        self.answers_requests = True
        self.pong = b"l2\n"

    def answer(self, line: bytes) -> bytes | None:
        """Answer as the lond does now."""
        if line == PING:
            return self.pong or None
        return echo(line) if self.answers_requests else None

    def stage(self, **settings: Any) -> Stage:
        """Return a stage with such londs."""
        stage = Stage(self, **{"request_timeout": 10, **settings})

        stage.answering(self.answer)
        return stage

    def hang(self) -> None:
        """Let nothing be answered any more."""
        self.answers_requests, self.pong = False, b""

    def hang_after_an_answer(self, stage: Stage) -> None:
        """Let one request be answered, and nothing after it."""
        stage.send(b"get\n")
        self.hang()
        stage.client(b"slow\n")

    def pings(self, stage: Stage) -> list[int]:
        """Return how often each connection was asked ``ping``."""
        return [lond.asked.count(PING) for lond in stage.londs]


class DoubtTests(HangingTestCase):
    """After an unanswered request a new connection has to answer ``ping`` first."""

    def test_dead(self) -> None:
        """Its retries run out by connections that do not answer, and it is DEAD for good."""
        self.hang()
        stage = self.stage(retries=3)
        clients = stage.clients_of(60, b"get\n")
        stage.advance(10)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("unproven", 2))
        stage.advance(6)
        self.assertEqual(stage.status.state, "DEAD")
        self.assertEqual(self.answers(clients), [CON_LOST] * 60)
        self.assertEqual(stage.lost(Cause.TIMEOUT), 10)
        (line,) = self.notes.at(LogLevel.critical)
        self.assertIn("no answer to ping after 2 s", line)
        stage.advance(300)
        self.assertEqual((stage.status.state, stage.revived), ("DEAD", []))
        self.assertEqual(stage.client(b"get\n").read, CON_LOST)

    def test_limit(self) -> None:
        """What timed out does not count as an answer that took long: the limit stays short."""
        stage = self.stage(retries=2, request_timeout=60)
        stage.send(b"get\n", seconds=1)
        self.hang()
        stage.clients_of(9, b"get\n")
        stage.advance(60)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("unproven", 1))
        stage.advance(1 + SHORTEST)
        self.assertEqual(stage.status.state, "DEAD")

    def test_back(self) -> None:
        """It comes back by any line to ``ping``."""
        for pong in (b"l2\n", b"unknown_cmd\n", b"\n"):
            self.hang()
            stage = self.stage(retries=1)
            stage.send(b"get\n", seconds=20)
            self.assertEqual(stage.status.state, "DEAD")
            self.answers_requests, self.pong = True, pong
            stage.advance(30)
            self.assertEqual((stage.status.state, stage.status.retries_left), ("up", 1))
            self.assertEqual(stage.revived, ["l2"])
            client = stage.send(b"get\n")
            self.assertEqual(client.read, echo(b"get\n"))

    def test_back_but_slow(self) -> None:
        """F4: a DEAD host also comes back if its lond, once fast, takes seconds to answer."""
        stage = self.stage(retries=1, request_timeout=60)
        stage.send(b"get\n", seconds=1)
        self.hang()
        stage.send(b"get\n", seconds=62)
        self.assertEqual(stage.status.state, "DEAD")
        for _ in range(60):
            stage.advance(1)
            if stage.service.machine.pool.proving:
                break
        (probing,) = stage.service.machine.pool.proving
        stage.advance(6)
        self.assertEqual(stage.service.machine.pool.proving, [probing])
        stage.londs[-1].say(b"l2\n")
        self.assertEqual(stage.status.state, "up")

    def test_probe_cut_off(self) -> None:
        """F4: it is probed again where the memory for its endless answer was wanted elsewhere."""
        self.hang()
        stage = self.stage(retries=1)
        stage.send(b"get\n", seconds=20)
        while not stage.service.machine.pool.proving:
            stage.advance(1)
        (probing,) = stage.service.machine.pool.proving
        probing.free_memory()
        self.assertEqual(stage.status.state, "DEAD")
        self.pong = b"l2\n"
        stage.advance(60)
        self.assertEqual(stage.status.state, "up")

    def test_doubt_ends(self) -> None:
        """A probe ends the doubt without any request, and restores all retries."""
        self.answers_requests = False
        stage = self.stage()
        stage.send(b"slow\n", seconds=10)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("unproven", 1))
        stage.advance(1)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("up", 2))
        self.assertEqual((self.notes.at(LogLevel.critical), stage.revived), ([], []))

    def test_one_answer(self) -> None:
        """One answer to anybody ends the doubt, also on a connection that stood before."""
        self.hang()
        stage = self.stage(retries=5)
        stage.clients_of(2, b"get\n")
        stage.advance(5)
        late = stage.send(b"late\n", seconds=5)
        self.assertEqual(stage.status.state, "unproven")
        stage.londs[-1].say(b"answer\n")
        self.assertEqual((late.read, stage.status.state), (b"answer\n", "up"))
        self.assertEqual(stage.status.retries_left, 5)
        stage.client(b"get\n")
        stage.send(b"get\n")
        self.assertEqual(stage.londs[-1].asked, [b"get\n"])

    def test_slow_is_not_dead(self) -> None:
        """A host that answers others keeps its retries, and is not doubted."""
        stage = self.stage(retries=1)
        self.answers_requests = False
        stage.send(b"slow\n", seconds=5)
        self.answers_requests = True
        stage.send(b"quick\n", seconds=5)
        self.assertEqual((stage.lost(Cause.TIMEOUT), stage.status.state), (1, "up"))
        self.assertEqual(self.pings(stage), [0, 0])


class NoPingTests(HangingTestCase):
    """A lond that answers requests and never ``ping``."""

    def test_request_in_its_place(self) -> None:
        """In doubt a new connection gets a request that waits, and its answer ends the doubt."""
        self.pong = b""
        stage = self.stage(retries=4, max_connections=1)
        stage.send(b"get\n")
        self.answers_requests = False
        stage.send(b"slow\n", seconds=10)
        self.answers_requests = True
        waiting = stage.send(b"get\n", seconds=SHORTEST)
        self.assertEqual((waiting.read, stage.status.state), (echo(b"get\n"), "up"))
        self.assertEqual(self.pings(stage), [0, 1, 0])

    def test_dead_again(self) -> None:
        """Tried with requests, it is DEAD again when as many as it has retries time out."""
        stage = self.stage(retries=2, max_connections=1)
        self.hang_after_an_answer(stage)
        stage.advance(15)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("unproven", 2))
        states = []
        for _ in range(25):
            stage.send(b"get\n", seconds=1)
            states.append((stage.status.state, stage.status.retries_left))
        self.assertIn(("unproven", 1), states)
        self.assertIn(("DEAD", 0), states)
        self.assertNotIn("up", [state for state, _ in states])

    def test_hangs_as_a_whole(self) -> None:
        """Once a request in place of ``ping`` has hung too, only an answer brings it back."""
        stage = self.stage(retries=1)
        self.hang_after_an_answer(stage)
        stage.advance(20)
        stage.client(b"in its place\n")
        for _ in range(5):
            stage.advance(60)
            stage.client(b"get\n")
        self.assertEqual((stage.status.state, stage.revived), ("DEAD", ["l2"]))
        self.pong = b"l2\n"
        stage.advance(60)
        self.assertEqual(stage.status.state, "up")

    def test_never(self) -> None:
        """Where requests were answered since, it comes back by a handshake each time."""
        self.pong = b""
        stage = self.stage(retries=1)
        for _ in range(3):
            self.answers_requests = True
            client = stage.send(b"get\n", seconds=1)
            self.assertEqual((client.read, stage.status.state), (echo(b"get\n"), "up"))
            self.answers_requests = False
            stage.send(b"slow\n", seconds=10)
            self.assertEqual(stage.status.state, "DEAD")
            stage.advance(60)
            self.assertEqual(stage.status.state, "unproven")

    def test_back_by_ping(self) -> None:
        """One that was not asked before it hung is up again once it answers, without a request."""
        stage = self.stage(retries=1)
        self.hang_after_an_answer(stage)
        stage.advance(30)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("unproven", 1))
        self.pong = b"l2\n"
        stage.advance(60)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("up", 1))


class AuditTests(HangingTestCase):
    """A lond whose ``ping`` hangs while all else works."""

    def rounds(self, stage: Stage, clients: Sequence[FakeClient], rounds: int) -> int:
        """Let each client ask so often; return how many answers that brought."""
        before = sum(len(client.answers) for client in clients)
        for _ in range(rounds):
            for client in clients:
                client.write(b"get\n")
            stage.turn()
        return sum(len(client.answers) for client in clients) - before

    def test_few_at_a_time(self) -> None:
        """At most a third of the connections are asked at a time; the others go on."""
        stage = self.stage(request_timeout=60)
        self.pong = b""
        clients = [stage.client() for _ in range(10)]
        answers = self.rounds(stage, clients, 3 * ROUND)
        self.assertEqual(len(stage.service.machine.pool.proving), 3)
        self.assertEqual(answers, 10 * 3 * ROUND)
        stage.advance(SHORTEST)
        self.assertEqual(stage.service.machine.pool.proving, [])
        self.assertEqual(stage.status.retries_left, 2)

    def test_found_out_later(self) -> None:
        """That ``ping`` tells nothing is noticed also of a lond that answered it before."""
        stage = self.stage(request_timeout=60, max_connections=1)
        client = stage.client()
        self.rounds(stage, [client], 2 * ROUND)
        self.assertGreater(self.pings(stage)[0], 1)
        self.pong = b""
        for _ in range(2):
            self.rounds(stage, [client], ROUND)
            stage.advance(SHORTEST + 1)
        before = len(stage.londs)
        self.assertEqual(self.rounds(stage, [client], 3 * ROUND), 3 * ROUND)
        self.assertEqual(sum(self.pings(stage)[before:]), 0)
        self.assertEqual(sum("answers to ping differ" in line for line in self.warnings), 1)

    def test_now_and_then(self) -> None:
        """Where it hangs now and then, and is answered between, it goes on being asked."""
        stage = self.stage(request_timeout=60, max_connections=1)
        client = stage.client()
        self.rounds(stage, [client], 2 * ROUND)
        for _ in range(4):
            self.pong = b""
            self.rounds(stage, [client], ROUND)
            stage.advance(SHORTEST + 1)
            self.pong = b"l2\n"
            self.rounds(stage, [client], 2 * ROUND)
        self.assertTrue(stage.status.ping_tells)
        self.assertGreater(self.pings(stage)[-1], 0)

    def test_a_slow_lond_has_longer(self) -> None:
        """The limit is ten times what its answers usually take."""
        stage = self.stage(request_timeout=60, max_connections=1)
        client = stage.client()
        self.answers_requests, self.pong = False, b""
        for number in range(EARLIEST):
            client.write(b"get\n")
            stage.advance(0.5)
            stage.londs[0].say(b"%d\n" % number)
        self.assertEqual(len(stage.service.machine.pool.proving), 1)
        stage.advance(3.5)
        self.assertEqual(len(stage.service.machine.pool.proving), 1)
        stage.advance(2)
        self.assertEqual(len(stage.service.machine.pool.proving), 0)


class SlowHostTests(HostTestCase):
    """Which time-outs count against a host."""

    def test_one_after_the_other(self) -> None:
        """F5: a request that was sent after a failure, and times out, is a failure again."""
        stage = Stage(self, request_timeout=10, connect_timeout=99, retries=2, max_connections=2)
        stage.connect(2)
        stage.network.on_connect = leave_pending
        stage.clients_of(1)
        stage.advance(10)
        self.assertEqual(stage.status.retries_left, 1)
        stage.clients_of(1)
        stage.advance(10)
        self.assertEqual(stage.status.state, "DEAD")

    def test_sent_before_another_failure(self) -> None:
        """F5: what was sent before a connection broke, and times out, says nothing new."""
        stage = Stage(self, request_timeout=10, retries=2)
        first, _ = stage.connect(2)
        stage.clients_of(2)
        stage.advance(1)
        first.close()
        self.assertEqual(stage.status.retries_left, 1)
        stage.advance(10)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("up", 1))

    def test_last_connection(self) -> None:
        """S12: requests wait on for the last connection if a time-out is no new failure."""
        stage = Stage(self, request_timeout=10, retries=3, max_connections=2)
        stage.connect(2)
        stage.advance(1)
        slow = stage.send(b"slow\n", seconds=1)
        idle = next(lond for lond in stage.londs if not lond.asked)
        idle.close()
        stage.service.reconfigure(a_host(), attrs.evolve(stage.settings, max_connections=1))
        waiting = stage.clients_of(2)
        stage.echoing()
        stage.advance(9)
        self.assertEqual(slow.read, CON_LOST)
        self.assertEqual(self.answers(waiting), [echo(b"ping\n")] * 2)

    def test_no_connection_while_others_answer(self) -> None:
        """F5: the same holds for a connection attempt that hangs while another one succeeds."""
        stage = Stage(self, retries=1, connect_timeout=5)
        stage.network.on_connect = leave_pending
        stage.clients_of(2)
        stage.advance(1)
        stage.network.attempts[0].accept()
        stage.advance(4)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("up", 1))


class LongRestTests(HostTestCase):
    """What a firewall forgets."""

    def test_others_that_rested(self) -> None:
        """S9: when a connection proves dead after a long rest, others with such a rest close."""
        stage = Stage(self, request_timeout=10)
        londs = stage.connect(3)
        stage.advance(600)
        stage.send(b"ping\n", seconds=10)
        self.assertEqual(stage.state, (0, 0, 0, 0))
        self.assertTrue(all(lond.wire.disconnecting for lond in londs[:2]))
        self.assertEqual(stage.status.retries_left, 1)

    def test_others_in_use(self) -> None:
        """S9: those used since stay; and a short rest says nothing of others."""
        stage = Stage(self, request_timeout=10)
        for pause in (1, 600):
            one, two = stage.connect(2)[-2:]
            stage.advance(pause)
            stage.send(b"slow\n", seconds=1)
            other, slow = (one, two) if two.asked else (two, one)
            stage.send(b"quick\n")
            other.say(b"quick\n")
            stage.advance(10)
            self.assertEqual(stage.state, (0, 0, 1, 0))
            self.assertTrue(slow.wire.closed)
            stage.service.close_connections()
