"""Durations in buckets, and those of late."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lonc.report.times import BOUNDS, SLOTS, HostTimes, Times
from lonc.test.fixtures.properties import given, st

NOTHING = {"p50": 0.0, "p99": 0.0, "max": 0.0, "count": 0.0}


class TimesTests(SynchronousTestCase):
    """Counts since the start, and the last five minutes."""

    def test_bucket_holds_its_upper_end(self) -> None:
        """As Prometheus has it: less than or equal."""
        times = Times()
        times.add(BOUNDS[3])
        self.assertEqual(times.totals().counts[3], 1)
        self.assertEqual(times.totals().cumulative(), [0] * 3 + [1] * (len(BOUNDS) - 2))

    def test_above_all_bounds(self) -> None:
        """What is longer than the last bound is counted at the end."""
        times = Times()
        times.add(BOUNDS[-1] + 1.0)
        self.assertEqual(times.totals().counts[-1], 1)
        self.assertGreater(times.totals().of_late()["p50"], BOUNDS[-1])
        self.assertEqual(times.totals().of_late()["max"], BOUNDS[-1] + 1.0)

    def test_nothing(self) -> None:
        """Without a request there is nothing to say, however many slots pass."""
        times = Times()
        for _ in range(3 * SLOTS):
            self.assertEqual(times.totals().of_late(), NOTHING)
            times.begin_slot()

    def test_instant(self) -> None:
        """No time at all is a duration like any other."""
        times = Times()
        times.add(0.0)
        times.begin_slot()
        times.add(1.0)
        self.assertLess(times.totals().of_late()["p50"], 0.001)
        self.assertEqual(times.totals().of_late()["max"], 1.0)

    def test_five_minutes_pass(self) -> None:
        """A duration counts in its slot and in the ten after it, then no more."""
        times = Times()
        times.add(2.0)
        for _ in range(SLOTS):
            times.begin_slot()
            self.assertEqual(times.totals().of_late()["max"], 2.0)
        times.begin_slot()
        self.assertEqual(times.totals().of_late(), NOTHING)
        self.assertEqual(sum(times.totals().counts), 1)
        self.assertEqual(times.totals().seconds, 2.0)

    def test_gap_between(self) -> None:
        """A slot without any does not end what came before it."""
        times = Times()
        times.add(2.0)
        times.begin_slot()
        times.begin_slot()
        times.add(1.0)
        self.assertEqual(times.totals().of_late()["max"], 2.0)
        for _ in range(SLOTS - 1):
            times.begin_slot()
        self.assertEqual(times.totals().of_late()["max"], 1.0)

    @given(st.lists(st.floats(0.0, 1000.0), min_size=1))
    def test_order(self, durations: list[float]) -> None:
        """The median is not above the p99, nor that above the longest, which was there."""
        times = Times()
        for duration in durations:
            times.add(duration)
        late = times.totals().of_late()
        self.assertLessEqual(0.0, late["p50"])
        self.assertLessEqual(late["p50"], late["p99"])
        self.assertLessEqual(late["p99"], late["max"])
        self.assertEqual(late["max"], max(durations))


class HostTimesTests(SynchronousTestCase):
    """What of a request's time was whose."""

    def test_of_one_host(self) -> None:
        """What the requests of one host take does not count for another."""
        asked, quiet = HostTimes(), HostTimes()
        asked.direct.append(0.1)
        asked.queue.append(0.1)
        asked.waited.append(0.2)
        self.assertEqual((asked.answers, quiet.answers), (2, 0))

    def test_together(self) -> None:
        """Those that did not wait count as waits of no time, and are in all three kinds."""
        times = HostTimes()
        for _ in range(3):
            times.direct.append(0.5)
        times.queue.append(2.0)
        times.waited.append(3.0)
        totals = times.totals()
        self.assertEqual(
            {name: sum(each.counts) for name, each in totals.items()},
            {"queue": 4, "lond": 4, "total": 4},
        )
        self.assertEqual(
            [totals[name].seconds for name in ("queue", "lond", "total")], [2.0, 2.5, 4.5]
        )
        self.assertEqual(
            {name: each["max"] for name, each in times.of_late().items()},
            {"queue": 2.0, "lond": 1.0, "total": 3.0},
        )
        for _ in range(SLOTS + 1):
            times.begin_slot()
        self.assertEqual(times.of_late(), dict.fromkeys(("queue", "lond", "total"), NOTHING))

    def test_out_of_time(self) -> None:
        """A request that ran out of time took at least as long, and is no answer."""
        times = HostTimes()
        times.direct.append(0.5)
        times.add_lost(20.0, 60.0)
        times.add_lost(30.0, 0.0)
        late = times.of_late()
        self.assertEqual(
            {name: (each["max"], each["count"]) for name, each in late.items()},
            {"queue": (30.0, 3.0), "lond": (60.0, 2.0), "total": (80.0, 3.0)},
        )
        self.assertEqual(times.answers, 1)
        for _ in range(SLOTS + 1):
            times.begin_slot()
        self.assertEqual(times.of_late(), dict.fromkeys(("queue", "lond", "total"), NOTHING))

    def test_count_up(self) -> None:
        """What was added is counted once, however often it is asked for meanwhile."""
        times = HostTimes()
        for number in range(1, 101):
            times.direct.append(0.5)
            times.queue.append(1.0)
            times.waited.append(3.0)
            times.count_up()
            self.assertEqual(times.answers, 2 * number)
        totals = times.totals()
        self.assertEqual((totals["total"].seconds, totals["lond"].seconds), (350.0, 250.0))
