"""
How long requests take: counts in fixed buckets, and what the last five minutes look like.

It stands on the way of every request, so it is two list operations and a comparison for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

#: Upper ends of the buckets, in seconds. The usual answer of a lond takes milliseconds, the longest
#: wait that is allowed some minutes; each bucket is about twice as wide as the one before.
BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 300.0),
)

#: Seconds for which :meth:`Times.turn` closes a slot, and slots that "of late" is made of: five
#: minutes, the time in which people look whether something is wrong.
SLOT: Final = 30.0
SLOTS: Final = 10

#: The longest duration of a slot without any.
_NONE: Final = -1.0


class Times:
    """
    Durations of one kind, of one host.

    :ivar counts: how many fell into each bucket of :data:`BOUNDS`, and at the end those above.
    :ivar total: their sum, in seconds.
    """

    __slots__ = ("_begun", "_highest", "_slots", "counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        #: The counts at the beginning of this slot, and its longest duration.
        self._begun = self.counts[:]
        self._highest = _NONE
        #: The same of the slots before.
        self._slots: deque[tuple[list[int], float]] = deque(maxlen=SLOTS)

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        if seconds > self._highest:
            self._highest = seconds

    def turn(self) -> None:
        """Begin another slot; to be called every :data:`SLOT` seconds."""
        self._slots.append((self._begun, self._highest))
        if self._highest != _NONE:
            self._begun = self.counts[:]
            self._highest = _NONE
        while self._slots and self._slots[0][1] == _NONE:
            self._slots.popleft()

    def of_late(self) -> Mapping[str, float]:
        """
        Say what the last five minutes were like.

        :return: ``p50``, ``p99`` and ``max`` in seconds; all 0.0 where there was nothing.
        """
        before = self._slots[0][0] if self._slots else self._begun
        counts = [now - then for now, then in zip(self.counts, before, strict=True)]
        highest = max(self._highest, 0.0, *(high for _, high in self._slots))
        return {
            "p50": _quantile(counts, 0.50, highest),
            "p99": _quantile(counts, 0.99, highest),
            "max": highest,
        }

    def cumulative(self) -> list[int]:
        """Return how many took no longer than each bound, and last how many there are at all."""
        return list(accumulate(self.counts))


class HostTimes:
    """
    What one host's requests and connections take.

    :ivar queue: the wait for a connection.
    :ivar lond: from the request to its answer.
    :ivar total: both.
    :ivar handshake: from the connect to the end of the handshake, for each that succeeded.
    """

    __slots__ = ("handshake", "lond", "queue", "total")

    def __init__(self) -> None:
        self.queue = Times()
        self.lond = Times()
        self.total = Times()
        self.handshake = Times()

    def turn(self) -> None:
        """Begin another slot; to be called every :data:`SLOT` seconds."""
        for times in (self.queue, self.lond, self.total, self.handshake):
            times.turn()

    def of_late(self) -> Mapping[str, Mapping[str, float]]:
        """Say what the requests of the last five minutes were like: see :meth:`Times.of_late`."""
        kinds = {"queue": self.queue, "lond": self.lond, "total": self.total}
        return {name: times.of_late() for name, times in kinds.items()}


def _quantile(counts: list[int], share: float, highest: float) -> float:
    """Find it in its bucket as if those there were spread evenly."""
    wanted = share * sum(counts)
    if not wanted:
        return 0.0
    seen = 0
    for index, count in enumerate(counts):
        if seen + count >= wanted and count:
            low = BOUNDS[index - 1] if index else 0.0
            high = min(BOUNDS[index] if index < len(BOUNDS) else highest, highest)
            return min(low + (high - low) * (wanted - seen) / count, highest)
        seen += count
    return highest
