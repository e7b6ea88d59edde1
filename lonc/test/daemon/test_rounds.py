"""What is done again and again, whatever goes wrong."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from lonc.control.errors import ReloadFailed
from lonc.daemon.rounds import Rounds, guarded


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
