"""
Readable durations, times, sizes, numbers and long lists.
"""

from __future__ import annotations

import time
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Format a duration: ``0.4 ms``, ``12 s``, ``3 min``, ``3 h``, ``4 d``."""
    for limit, unit, name, digits in (
        (0.001, 0.001, "ms", 2),
        (0.01, 0.001, "ms", 1),
        (1.0, 0.001, "ms", 0),
        (10.0, 1.0, "s", 1),
        (120.0, 1.0, "s", 0),
        (7200.0, 60.0, "min", 0),
        (172_800.0, 3600.0, "h", 0),
    ):
        if seconds < limit:
            return f"{seconds / unit:.{digits}f} {name}" if seconds else "0"
    return f"{seconds / 86_400.0:.0f} d"


def measured(seconds: float) -> str:
    """Format a duration, or ``-`` if none was measured."""
    return duration(seconds) if seconds else "-"


def count(number: int, noun: str) -> str:
    """Format a number with its noun: ``1 host``, ``2 hosts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ago(when: float | None, now: float) -> str:
    """Format how long ago a Unix time was; empty for 0.0 and None."""
    return duration(max(0.0, now - when)) + " ago" if when else ""


def clock_time(when: float) -> str:
    """Format a Unix time, without the date if it is within twelve hours."""
    day = "%H:%M:%S" if abs(time.time() - when) < 43_200.0 else "%Y-%m-%d %H:%M"
    return time.strftime(day, time.localtime(when))


def size(number: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def fitting(lines: Sequence[str], limit: int) -> list[str]:
    """Return the first lines that fit into ``limit`` characters, and the number left out."""
    kept: list[str] = []
    for line in lines:
        limit -= len(line) + 1
        if limit < 0:
            return [*kept, f"and {len(lines) - len(kept)} more"]
        kept.append(line)
    return kept
