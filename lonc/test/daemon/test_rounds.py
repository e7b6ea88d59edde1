"""Periodic work, and the sweep that checks all time limits."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from lonc.control.errors import ReloadFailed
from lonc.daemon.rounds import LATE, SWEEP, TURNS, Rounds, Sweep, guarded
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase
from lonc.test.fixtures.doubles import FakeNetwork, ScriptedLond
from lonc.wire.request import CON_LOST


class RoundsTests(SynchronousTestCase):
    """Periodic calls."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.done: list[str] = []
        self.under_way: Deferred[None] = Deferred()

    def often(self) -> None:
        """Fail each time."""
        self.done.append("often")
        raise KeyError

    async def seldom(self) -> None:
        """Take some time."""
        self.done.append("seldom")
        await self.under_way

    def test_periods(self) -> None:
        """Each is called at its own period, despite errors, but not while it is running."""
        rounds = Rounds(self.clock, {self.often: 1.0, self.seldom: 2.0})
        rounds.start()
        self.assertEqual(self.done, ["often", "seldom"])
        self.clock.pump([1.0] * 4)
        self.assertEqual((self.done.count("often"), self.done.count("seldom")), (5, 1))
        self.under_way.callback(None)
        self.clock.pump([1.0] * 4)
        self.assertEqual((self.done.count("often"), self.done.count("seldom")), (9, 3))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 9)
        rounds.stop()
        rounds.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_guarded(self) -> None:
        """Later errors are logged too, except for failed reloads, which have been logged."""
        later: Deferred[None] = Deferred()
        guarded(lambda: later)()
        later.errback(KeyError())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        with capturedLogs() as events:
            guarded(lambda: fail(ReloadFailed("no")))()
        self.assertEqual(events, [])


class Turns(Clock):
    """A clock with iterations: what is called later in one is called in the next."""

    def turn(self) -> None:
        """Make one iteration."""
        due, self.calls = self.calls, []
        for call in due:
            call.func(*call.args, **call.kw)


class SweepTests(SynchronousTestCase):
    """Checks that are in time, and checks after a pause."""

    def setUp(self) -> None:
        self.clock = Turns()
        self.network = FakeNetwork(self.clock)
        self.looks: list[float] = []
        self.sweep = Sweep(
            self.clock, self.network, lambda: self.looks.append(self.clock.seconds())
        )

    def after(self, seconds: float) -> int:
        """Let time pass, and sweep; return the number of checks so far."""
        self.clock.advance(seconds)
        self.sweep()
        return len(self.looks)

    def test_in_time(self) -> None:
        """A check that is at most a second late is made at once."""
        self.assertEqual([self.after(SWEEP), self.after(SWEEP + LATE)], [1, 2])

    def test_late(self) -> None:
        """A later one is made an iteration later, and the next at once again."""
        self.assertEqual(self.after(SWEEP + LATE + 0.1), 0)
        self.clock.turn()
        self.assertEqual(len(self.looks), 1)
        self.assertEqual(self.after(SWEEP), 2)

    def test_much_has_arrived(self) -> None:
        """It waits until everything has been read; meanwhile there is no check."""
        self.network.behind = True
        self.after(60)
        for _ in range(5):
            self.clock.turn()
            self.sweep()
        self.assertEqual(self.looks, [])
        self.network.behind = False
        self.clock.turn()
        self.assertEqual(self.looks, [60.0])

    def test_more_and_more_arrives(self) -> None:
        """That wait is limited, however much arrives."""
        self.network.behind = True
        self.after(60)
        for _ in range(TURNS):
            self.assertEqual(self.looks, [])
            self.clock.turn()
        self.assertEqual(self.looks, [60.0])


class PauseTests(ServiceTestCase):
    """A daemon that was suspended for a minute."""

    def silence(self, lond: ScriptedLond) -> None:
        """Make a lond answer only when the test says so."""
        lond.answer = lambda request: None

    def test_answer_is_there(self) -> None:
        """F1: a request whose answer arrived meanwhile gets it, despite its time limit."""
        self.network.prepare = self.silence
        daemon = self.started()
        client = self.client("l2", b"ping\n")
        self.advance(1)
        self.clock.callLater(60, self.network.londs[-1].say, b"pong\n")
        self.clock.advance(120)
        self.advance(1)
        self.assertEqual(client.read, b"pong\n")
        self.assertEqual(daemon.reporter.status("l2").con_lost["timeout"], 0)

    def test_no_answer(self) -> None:
        """F1: one without an answer is lost at once."""
        self.network.prepare = self.silence
        self.started()
        client = self.client("l2", b"ping\n")
        self.advance(1)
        self.clock.advance(60)
        self.clock.advance(0)
        self.assertEqual(client.read, CON_LOST)
