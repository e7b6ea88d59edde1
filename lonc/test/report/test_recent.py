"""The figures of a host's last five minutes and last day."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from lonc.report.recent import ENOUGH, MEDIANS, NOTHING_LATELY, TURNS, Lately, Recent
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
        for median in (1.0, 2.0):
            self.half_an_hour(median)
        self.assertEqual(self.usual(), 2.0)
        for _ in range(MEDIANS):
            self.half_an_hour(0.5)
        self.assertEqual(self.usual(), 0.5)

    def test_too_few(self) -> None:
        """Half hours with too few answers do not count."""
        self.half_an_hour(9.0, count=ENOUGH - 1)
        self.assertEqual(self.usual(), 0.0)
