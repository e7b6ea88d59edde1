"""Readable numbers."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from lonc.report.units import ago, clock_time, duration, size


class UnitsTests(SynchronousTestCase):
    """Durations, times and sizes."""

    def test_duration(self) -> None:
        """Two or three digits and a unit."""
        told = {0.0: "0", 0.0004: "0.40 ms", 0.0042: "4.2 ms", 0.25: "250 ms", 2.5: "2.5 s"}
        told |= {90.0: "90 s", 600.0: "10 min", 36_000.0: "10 h", 864_000.0: "10 d"}
        self.assertEqual({seconds: duration(seconds) for seconds in told}, told)

    def test_ago(self) -> None:
        """An unknown time is empty; after a clock was set back, the result is 0."""
        self.assertEqual([ago(None, 9.0), ago(0.0, 9.0), ago(4.0, 9.0)], ["", "", "5.0 s ago"])
        self.assertEqual(ago(10.0, 9.0), "0 ago")

    def test_clock_time(self) -> None:
        """Times more than twelve hours away have a date."""
        now = time.time()
        told = [len(clock_time(now + days * 86_400.0)) for days in (-3, 0, 3)]
        self.assertEqual(told, [len("2026-01-01 12:00"), len("12:00:00"), len("2026-01-01 12:00")])

    def test_size(self) -> None:
        """Bytes, and the binary units."""
        self.assertEqual([size(1023), size(1536), size(5 << 20)], ["1023 B", "1.5 KiB", "5.0 MiB"])
