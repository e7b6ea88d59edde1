"""Recent requests: the figures of a host, the slowest requests, and tracing."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from lonc.report.recent import (
    ENOUGH,
    HELD,
    LATE,
    MEDIANS,
    NOTHING_LATELY,
    SLOWEST,
    TURNS,
    Lately,
    Recent,
    RequestLog,
)
from lonc.report.times import SLOTS


class RecentTests(SynchronousTestCase):
    """They are derived from counts since the start, and from medians."""

    def setUp(self) -> None:
        self.recent = Recent()

    def turn(self, requests: int = 0, median: float = 0.0, count: int = 0, **lost: int) -> None:
        """Let half a minute pass."""
        self.recent.begin_slot(
            requests, lost, {"p50": median, "p99": 9.0, "max": 9.0, "count": count}
        )

    def lately(self, requests: int, con_lost: Mapping[str, int]) -> Lately:
        """Return the figures of the last five minutes."""
        return self.recent.lately(requests, con_lost, NOTHING_LATELY.seconds)

    def test_at_first(self) -> None:
        """At first, all requests are within the last five minutes."""
        lately = self.lately(5, {"timeout": 2, "dead": 0})
        self.assertEqual((lately.requests, lately.con_lost), (5, {"timeout": 2}))

    def test_five_minutes(self) -> None:
        """Requests before the last five minutes are not counted."""
        self.turn(5, timeout=2)
        for _ in range(SLOTS - 1):
            self.turn(8, timeout=2, broken=1)
        lately = self.lately(9, {"timeout": 3, "broken": 1})
        self.assertEqual((lately.requests, lately.con_lost), (4, {"timeout": 1, "broken": 1}))
        self.turn(9, timeout=3, broken=1)
        lately = self.lately(9, {"timeout": 3, "broken": 1})
        self.assertEqual((lately.requests, lately.con_lost), (1, {"timeout": 1}))

    def test_first_ones(self) -> None:
        """The first requests are counted for five minutes, too, not until half a minute is over."""
        for _ in range(SLOTS - 1):
            self.turn(5, timeout=2)
            lately = self.lately(6, {"timeout": 3})
            self.assertEqual((lately.requests, lately.con_lost), (6, {"timeout": 3}))
        self.turn(5, timeout=2)
        lately = self.lately(6, {"timeout": 3})
        self.assertEqual((lately.requests, lately.con_lost), (1, {"timeout": 1}))

    def usual(self) -> float:
        """Return the usual median."""
        return self.lately(0, {}).usual

    def half_an_hour(self, median: float, count: int = ENOUGH) -> None:
        """Let half an hour pass."""
        for _ in range(TURNS):
            self.turn(median=median, count=count)

    def test_usual(self) -> None:
        """After the first half hour, the median of the last day is usual."""
        for _ in range(TURNS - 1):
            self.turn(median=3.0, count=ENOUGH)
        self.assertEqual(self.usual(), 0.0)
        self.turn(median=3.0, count=ENOUGH)
        self.assertEqual(self.usual(), 3.0)
        for median in (1.0, 2.0, 5.0, 4.0):
            self.half_an_hour(median)
        self.assertEqual(self.usual(), 3.0)
        for _ in range(MEDIANS):
            self.half_an_hour(0.5)
        self.assertEqual(self.usual(), 0.5)

    def test_too_few(self) -> None:
        """Half hours with too few answers do not count."""
        self.half_an_hour(9.0, count=ENOUGH - 1)
        self.assertEqual(self.usual(), 0.0)


class RequestLogTests(SynchronousTestCase):
    """Which requests are kept, and for how long."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.log = RequestLog(lambda: self.now)

    def note(self, lond: float, host_id: str = "l2", line: bytes = b"get:secret\n") -> None:
        """Record a request if it is above the threshold, as its host does."""
        if lond > self.log.threshold:
            self.log.note(host_id, 7, line, "get", "answered", 3, lond=lond)

    def test_slowest(self) -> None:
        """A hundred are kept; a slower one replaces the fastest, which is the threshold."""
        for number in range(SLOWEST + 50):
            self.note(float(number))
        held = sorted(record.lond for record in self.log.slowest(None))
        self.assertEqual(held, [float(number) for number in range(50, SLOWEST + 50)])
        self.assertEqual(self.log.threshold, 50.0)

    def test_of_late(self) -> None:
        """After ten minutes they are forgotten."""
        for _ in range(SLOWEST):
            self.note(9.0)
        self.now += LATE + 1.0
        self.assertEqual(list(self.log.slowest(None)), [])
        self.note(0.1)
        [record] = self.log.slowest("l2")
        self.assertEqual((record.lond, record.size, record.reply_size), (0.1, 11, 3))
        self.assertEqual(list(self.log.slowest("l3")), [])

    def test_no_contents(self) -> None:
        """Only the command word of a request is kept."""
        watcher = self.log.add_watcher(None, contents=False)
        self.note(1.0)
        for record in (*self.log.slowest(None), *watcher.seen):
            self.assertNotIn("secret", str(record))

    def test_watched(self) -> None:
        """A watcher gets every request of its host, with its contents if requested."""
        for _ in range(SLOWEST):
            self.note(9.0)
        watcher = self.log.add_watcher("l3", contents=True)
        waiting = watcher.wait()
        self.note(0.1)
        self.assertNoResult(waiting)
        self.note(0.2, "l3")
        self.successResultOf(waiting)
        [record] = watcher.seen
        self.assertEqual((record.lond, record.contents), (0.2, "get:secret"))
        self.log.remove_watcher(watcher)
        self.assertEqual(self.log.threshold, 9.0)

    def test_slow_watcher(self) -> None:
        """For a slow watcher the latest requests are kept; nothing waits if there are any."""
        watcher = self.log.add_watcher(None, contents=False)
        for number in range(HELD + 5):
            self.note(float(number))
        self.assertEqual((len(watcher.seen), watcher.seen[-1].lond), (HELD, float(HELD + 4)))
        self.successResultOf(watcher.wait())

    def test_wait_is_over(self) -> None:
        """A request that ends after a watcher has stopped waiting is there for its next call."""
        watcher = self.log.add_watcher(None, contents=False)
        waiting = watcher.wait()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.note(1.0)
        self.assertEqual(len(watcher.seen), 1)
