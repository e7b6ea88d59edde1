"""A line too many does not shift answers for long (row F2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from twisted.logger import LogLevel

from lonc.host.audit import CHANGES, EARLIEST, ROUND, TRIES
from lonc.host.connection import PING
from lonc.test.fixtures.doubles import FakeClient, ScriptedLond, echo
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST


class AuditTests(HostTestCase):
    """What is asked, and what follows from the answer."""

    def setUp(self) -> None:
        super().setUp()
        self.requests = 0
        self.extra_at: tuple[int, ...] = ()
        self.pong: Callable[[], bytes | None] = lambda: b"l2\n"
        self.reply: Callable[[bytes], bytes] = echo

    def stage(self, **settings: Any) -> Stage:
        """Return a stage whose londs send a line too many at some of the requests."""
        stage = Stage(self, **{"max_connections": 1, **settings})

        def prepare(lond: ScriptedLond) -> None:
            lond.answer = lambda line: self.answer(lond, line)

        stage.network.prepare = prepare
        return stage

    def answer(self, lond: ScriptedLond, line: bytes) -> bytes | None:
        """Answer as the lond does."""
        if line == PING:
            return self.pong()
        self.requests += 1
        if self.requests in self.extra_at:
            lond.say(b"extra\n")
        return self.reply(line)

    def ask(self, stage: Stage, number: int) -> list[FakeClient]:
        """Let so many clients ask at once, each something else; return them."""
        clients = [stage.client(b"ask:%d\n" % each) for each in range(number)]
        stage.turn(3 * number)
        return clients

    def wrong(self, clients: list[FakeClient]) -> int:
        """Return how many have read another answer than theirs."""
        return sum(client.read != echo(b"ask:%d\n" % each) for each, client in enumerate(clients))

    @property
    def critical(self) -> list[str]:
        """The critical lines that were logged."""
        return self.notes.at(LogLevel.critical)

    def test_asked(self) -> None:
        """F2: a busy connection is asked after 63 answers at most: the first time twice."""
        stage = self.stage(max_line=100)
        clients = self.ask(stage, 1000)
        self.assertEqual(self.wrong(clients), 0)
        (lond,) = stage.londs
        runs = b"".join(b"?" if each == PING else b"." for each in lond.asked).split(b"?")
        self.assertLessEqual(max(map(len, runs)), ROUND)
        self.assertEqual([len(run) for run in runs[:4]], [EARLIEST, 0, EARLIEST, EARLIEST])
        self.assertEqual((stage.status.requests, stage.status.answers), (1000, 1000))

    def test_boundary(self) -> None:
        """It is asked after 56 answers, but after the answer to a ping not before the 63rd."""
        for line, answers in ((b"get\n", 56), (b"get:ping\n", 63)):
            stage = self.stage()
            stage.clients_of(100, line)
            self.assertEqual(stage.londs[0].asked.index(PING), answers, line)

    def test_rest(self) -> None:
        """After a rest as long as any answer may take, the count begins anew."""
        stage = self.stage()
        for _ in range(3):
            self.ask(stage, EARLIEST - 1)
            stage.advance(stage.settings.request_timeout)
        self.assertNotIn(PING, stage.londs[0].asked)

    def test_other_answer_after_a_while(self) -> None:
        """A lond that was upgraded in place is learned anew."""
        stage = self.stage()
        self.ask(stage, 2 * ROUND)
        self.pong = lambda: b"new\n"
        self.ask(stage, 2 * ROUND)
        self.assertEqual((len(self.critical), stage.status.state), (1, "up"))

    def test_line_too_many(self) -> None:
        """F2: after a surplus line at most 64 answers are wrong, and none of those that follow."""
        for at in (1, 20, 47, 48, 49, 63, 64, 200, 333):
            self.requests, self.extra_at = 0, (at,)
            self.notes.events.clear()
            stage = self.stage()
            clients = self.ask(stage, 1000)
            self.assertTrue(1 <= self.wrong(clients) <= 64, at)
            self.assertNotIn(CON_LOST, self.answers(clients))
            self.assertEqual(len(stage.londs), 2)
            self.assertEqual(stage.status.retries_left, 2)
            (line,) = self.critical
            self.assertRegex(line, r"\b([1-5]?[0-9]|6[0-4]) answers")

    def test_one_client(self) -> None:
        """F2: the same holds for a single client that asks again as soon as it has its answer."""
        self.extra_at = (20,)
        stage = self.stage()
        client = stage.client()
        lond: ScriptedLond | None = None
        late: list[bytes] = []

        def answer(line: bytes) -> bytes | None:
            # It is slow: the client gets what came before, and asks again, before it answers.
            self.requests += line != PING
            late.append(b"l2\n" if line == PING else echo(line))
            return b"extra\n" if self.requests in self.extra_at else None

        def prepare(made: ScriptedLond) -> None:
            nonlocal lond
            lond, made.answer = made, answer
            late.clear()

        stage.network.prepare = prepare
        wrong = 0
        for each in range(500):
            client.wire.clear()
            client.write(b"ask:%d\n" % each)
            for _ in range(6):
                stage.turn()
                if not client.read and late and lond is not None:
                    lond.say(late.pop(0))
            wrong += client.read != echo(b"ask:%d\n" % each)
        self.assertTrue(2 <= wrong <= 64, wrong)
        self.assertEqual(len(self.critical), 1)

    def test_mixed_with_pings(self) -> None:
        """F2: a client's own ping right before the question hides nothing."""
        self.extra_at = (30,)
        for place in range(3):
            self.requests = 0
            stage = self.stage()
            clients = []
            for each in range(600):
                line = PING if each % 3 == place else b"ask:%d\n" % each
                clients.append((line, stage.client(line)))
            stage.turn(2000)
            right = {PING: b"l2\n"}
            wrong = sum(client.read != right.get(line, echo(line)) for line, client in clients)
            self.assertTrue(1 <= wrong <= 64, wrong)

    def test_each_id_has_its_own_answer(self) -> None:
        """F2: a lond of several ids is asked on a connection that is for one, and for that one."""
        stage = self.stage()
        before = stage.network.prepare

        def prepare(lond: ScriptedLond) -> None:
            lond.know_hosts()
            before(lond)

        stage.network.prepare = prepare
        clients = [stage.client(b"sethost:l2:ask:%d\n" % each) for each in range(200)]
        stage.turn(600)
        right = [echo(b"sethost:l2:ask:%d\n" % each) for each in range(200)]
        self.assertEqual(self.answers(clients), right)
        (lond,) = stage.londs
        self.assertIn(b"sethost:l2\n", lond.raw)
        self.assertIn(PING, lond.raw)

    def test_answers_that_differ(self) -> None:
        """F2: where ping is answered in another way each time, connections are replaced."""
        numbers: Iterator[int] = count()
        self.pong = lambda: b"%d\n" % next(numbers)
        stage = self.stage()
        clients = self.ask(stage, 1000)
        self.assertEqual(self.wrong(clients), 0)
        self.assertGreaterEqual(len(stage.londs), 1000 // ROUND)
        self.assertTrue(all(len(lond.asked) <= ROUND + 5 for lond in stage.londs))
        self.assertEqual([lond.asked.count(PING) for lond in stage.londs[:3]], [TRIES, 0, 0])
        self.assertEqual([line for line in self.warnings if "ping" in line], self.warnings)
        self.assertEqual((len(self.warnings), self.critical), (1, []))
        self.assertFalse(stage.status.ping_tells)

    def test_answers_that_change(self) -> None:
        """F2: an answer to ping that changes now and then counts as a fault only a few times."""
        numbers: Iterator[int] = count()
        self.pong = lambda: b"%d\n" % (next(numbers) // 3)
        stage = self.stage()
        self.assertEqual(self.wrong(self.ask(stage, 2000)), 0)
        self.assertEqual(sum("differ" in line for line in self.warnings), 1)
        self.assertLessEqual(len(self.critical), CHANGES + 1)
        self.assertEqual(stage.status.con_lost["broken"], 0)

    def test_no_answer(self) -> None:
        """F2: an unanswered ping only ends the connection: waiting requests use the next one."""
        self.pong = lambda: None
        stage = self.stage(request_timeout=10)
        clients = self.ask(stage, 200)
        stage.advance(10)
        stage.turn(600)
        self.assertEqual(self.wrong(clients), 0)
        self.assertEqual(sum(stage.status.con_lost.values()), 0)

    def test_others_are_served_meanwhile(self) -> None:
        """S8: a request that arrives while a slow lond is checked gets another connection."""
        self.pong = lambda: None
        stage = self.stage(max_connections=2)
        client = stage.client()
        for _ in range(EARLIEST):
            client.write(b"ask:1\n")
            stage.turn()
        late = stage.send(b"late\n", seconds=0.5)
        self.assertEqual(late.read, echo(b"late\n"))

    def test_hangs_up(self) -> None:
        """F2: a lond that closes the connection at ping costs no client an answer."""
        stage = self.stage()

        def pong() -> None:
            stage.londs[-1].close()

        self.pong = pong
        clients = self.ask(stage, 200)
        self.assertEqual(self.wrong(clients), 0)
        self.assertEqual(stage.status.state, "up")

    def test_line_out_of_turn_later(self) -> None:
        """F2: it puts in doubt what came just before, and nothing after a rest."""
        for pause, told in ((59.0, 1), (60.0, 0)):
            self.notes.events.clear()
            stage, lond = self.connected()
            stage.advance(pause)
            lond.say(b"extra\n")
            self.assertEqual((len(self.critical), stage.state), (told, (0, 0, 0, 0)))
            self.assertTrue(all("1 answers" in line for line in self.critical))

    def test_stop_while_asked(self) -> None:
        """S3: an end while a connection is asked waits for that answer, and loses nothing."""
        self.pong = lambda: None
        stage = self.stage()
        self.ask(stage, 60)
        done = stage.stop()
        self.assertEqual(done, [])
        stage.londs[0].say(b"l2\n")
        stage.advance(2)  # for those who do not read
        self.assertEqual(len(stage.londs[0].asked), EARLIEST + 1)
        self.assertEqual(done, [True])

    def test_closed_while_asked(self) -> None:
        """S14: connections closed on request while one is asked: no client has lost anything."""
        self.pong = lambda: None
        stage = self.stage()
        self.ask(stage, 60)
        before = sum(stage.status.con_lost.values())
        self.assertEqual(before, 0)
        stage.service.close_connections()
        self.assertEqual(stage.status.con_lost["closed"], 60 - EARLIEST)
