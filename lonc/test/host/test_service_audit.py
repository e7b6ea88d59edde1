# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""Whether answers still belong to their requests, on connections that never rest (row F2)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from twisted.logger import LogLevel

from lonc.host.audit import EARLIEST, ROUND, TRIES
from lonc.host.connection import PING
from lonc.test.fixtures.doubles import FakeClient, ScriptedLond, echo
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST


class ShiftedLond:
    """Says a line too many at one request, and so each later answer comes one request late."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._owed: list[bytes] = []

    def __call__(self, request: bytes) -> bytes:
        """Answer with what is owed first."""
        self._at -= 1
        if self._at == 0:
            self._owed.append(b"nobody asked\n")
        self._owed.append(echo(request))
        return self._owed.pop(0)


class AuditTests(HostTestCase):
    """One connection, for which many wait."""

    def busy(self, requests: int, *answers: Callable[[bytes], bytes | None]) -> Stage:
        """Let so many wait for a connection; its lond answers so, that of the next so."""
        stage = Stage(self, max_connections=1, request_timeout=10, queue_timeout=3600)
        ways = [*answers, echo]

        def prepare(lond: ScriptedLond) -> None:
            lond.answer = ways.pop(0) if len(ways) > 1 else ways[0]

        stage.network.prepare = prepare
        self.clients: list[tuple[bytes, FakeClient]] = []
        for number in range(requests):
            line = b"get:%d\n" % number
            self.clients.append((line, stage.client(line)))
        stage.turn()
        return stage

    def wrong(self) -> int:
        """Return how many got an answer that is another's."""
        right = {b"", CON_LOST}
        return sum(client.read not in {*right, echo(line)} for line, client in self.clients)

    def doubts(self) -> list[str]:
        """Return what was told about answers in doubt."""
        return [line for line in self.notes.at(LogLevel.critical) if "out of step" in line]

    def test_boundary(self) -> None:
        """It is asked after 56 answers, but after the answer to a ping not before the 63rd."""
        for line, answers in ((b"get\n", 56), (b"get:ping\n", 63)):
            stage = Stage(self, max_connections=1)
            stage.echoing()
            stage.clients_of(100, line)
            stage.turn()
            self.assertEqual(stage.londs[0].asked.index(PING), answers, line)

    def test_in_step(self) -> None:
        """Now and then it is asked; twice at first. Clients, counts and log notice nothing."""
        stage = self.busy(3 * ROUND + 1)
        (lond,) = stage.londs
        pings = [number for number, line in enumerate(lond.asked) if line == PING]
        self.assertEqual(pings, [EARLIEST, EARLIEST + 1, 2 * EARLIEST + 2, 3 * EARLIEST + 3])
        self.assertEqual(
            [client.read for _, client in self.clients], [echo(x) for x, _ in self.clients]
        )
        status = stage.status
        self.assertEqual((status.requests, status.answers), (3 * ROUND + 1, 3 * ROUND + 1))
        self.assertEqual((self.warnings, self.doubts(), stage.state), ([], [], (0, 0, 1, 0)))

    def test_line_too_many(self) -> None:
        """Wherever it comes, 64 answers go wrong at most; who waits is served by another one."""
        for at in (1, 2, ROUND - 1, ROUND, ROUND + 1, ROUND + 3, 2 * ROUND):
            self.notes.events.clear()
            stage = self.busy(5 * ROUND, ShiftedLond(at))
            self.assertLessEqual(self.wrong(), ROUND + 1, at)
            self.assertEqual([client.read for _, client in self.clients].count(CON_LOST), 0)
            self.assertEqual([client.read for _, client in self.clients].count(b""), 0)
            (line,) = self.doubts()
            self.assertIn(f"{EARLIEST} answers", line)
            self.assertEqual((len(stage.londs), stage.status.state), (2, "up"))

    def test_each_answer_alike(self) -> None:
        """A lond whose answers are all the same is found out by what it says to ping."""
        shifted = ShiftedLond(2)

        def answer(request: bytes) -> bytes:
            return echo(PING) if shifted(request) == echo(PING) else b"ok\n"

        stage = self.busy(2 * ROUND, answer)
        self.assertEqual((len(self.doubts()), len(stage.londs)), (1, 2))

    def test_no_answer_to_ping(self) -> None:
        """Its connection ends after the request timeout; those who wait are served by another."""

        def answer(request: bytes) -> bytes | None:
            return None if request == PING else echo(request)

        stage = self.busy(2 * ROUND, answer)
        self.assertEqual(self.clients[-1][1].read, b"")
        stage.advance(10)
        self.assertEqual(
            [client.read for _, client in self.clients], [echo(x) for x, _ in self.clients]
        )
        self.assertEqual(sum(stage.status.con_lost.values()), 0)

    def test_answers_that_differ(self) -> None:
        """A lond that never says the same cannot be asked: its connections serve a round each."""
        numbers = count()

        def answer(request: bytes) -> bytes:
            return b"%d\n" % next(numbers) if request == PING else echo(request)

        stage = self.busy(6 * ROUND, *[answer] * 10)
        self.assertEqual(
            [client.read for _, client in self.clients], [echo(x) for x, _ in self.clients]
        )
        self.assertEqual([lond.asked.count(PING) for lond in stage.londs[:5]], [TRIES, 0, 0, 0, 0])
        self.assertEqual(self.doubts(), [])
        self.assertEqual(sum("answers to ping differ" in line for line in self.warnings), 1)

    def test_other_answer_after_a_while(self) -> None:
        """A lond that was upgraded in place is learned anew."""
        stage = self.busy(2 * ROUND)
        stage.londs[0].answer = lambda request: b"new\n" if request == PING else echo(request)
        stage.echoing()
        for _ in range(ROUND):
            stage.client(b"get\n")
            stage.turn()
        self.assertEqual(len(self.doubts()), 1)
        self.assertEqual(stage.status.state, "up")

    def test_one_client(self) -> None:
        """One that asks again at once leaves no rest either, and needs no second connection."""
        stage = Stage(self)
        stage.echoing()
        client = stage.client()
        for _ in range(ROUND + 5):
            client.write(b"get\n")
            stage.turn()
        self.assertEqual(client.read, echo(b"get\n") * (ROUND + 5))
        (lond,) = stage.londs
        self.assertEqual(lond.asked.count(PING), 2)

    def test_rest(self) -> None:
        """After a rest as long as any answer may take, the count begins anew."""
        stage = Stage(self)
        stage.echoing()
        client = stage.client()
        for _ in range(3):
            for _ in range(EARLIEST - 1):
                client.write(b"get\n")
                stage.turn()
            stage.advance(stage.settings.request_timeout)
        (lond,) = stage.londs
        self.assertNotIn(PING, lond.asked)

    def test_out_of_turn(self) -> None:
        """A line that comes while it is idle puts in doubt what came just before, and no more."""
        for pause, told in ((0.0, 1), (59.0, 1), (60.0, 0)):
            self.notes.events.clear()
            stage = Stage(self)
            (lond,) = stage.connect()
            stage.advance(pause)
            lond.say(b"more\n")
            self.assertEqual(len(self.doubts()), told)
            self.assertEqual(stage.state, (0, 0, 0, 0))

    def test_stopping(self) -> None:
        """A host that stops meanwhile ends, and so does one whose connections are closed."""
        for end in (Stage.stop, lambda stage: stage.service.close_connections()):
            stage = self.busy(EARLIEST, lambda request: None if request == PING else echo(request))
            self.assertEqual(stage.state, (0, 0, 0, 1))
            end(stage)
            stage.advance(10)
            self.assertEqual(stage.state, (0, 0, 0, 0))
            self.assertEqual(sum(stage.status.con_lost.values()), 0)
