"""
How long requests take: counts in fixed buckets, and what the last five minutes look like.

On a request's way its duration is only appended to a list. The durations are counted later, many
at a time: sorted, with one search for each bucket.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import inf
from operator import add, sub
from typing import Final, TypedDict

import attrs

#: Upper ends of the buckets, in seconds. The usual answer of a lond takes milliseconds, the longest
#: wait that is allowed some minutes; each bucket is about twice as wide as the one before.
BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 300.0),
)

#: Those of all buckets, the last one included.
_ENDS: Final = (*BOUNDS, inf)

#: Seconds for which :meth:`Times.begin_slot` closes one, and slots that "of late" is made of: five
#: minutes, the time in which people look whether something is wrong.
SLOT: Final = 30.0
SLOTS: Final = 10

_NOTHING: Final = (0,) * (len(BOUNDS) + 1)

_NONE_LOST: Final[Mapping[str, Times]] = {}

#: The longest duration of a slot without any.
_NONE: Final = -1.0


class Durations(TypedDict):
    """
    Durations of five minutes: the median, the 99th percentile and the longest in seconds, all 0.0
    where there was none, and how many there were.
    """

    p50: float
    p99: float
    max: float
    count: int


#: Where the time of requests went: ``queue``, ``lond`` and ``total``.
Parts = Mapping[str, Durations]


@attrs.frozen
class Totals:
    """
    Durations of one kind, as they are at a time.

    :ivar counts: how many fell into each bucket of :data:`BOUNDS`, and at the end those above.
    :ivar seconds: their sum.
    :ivar late: the counts of the last five minutes.
    :ivar highest: the longest of these, in seconds.
    """

    counts: Sequence[int]
    seconds: float
    late: Sequence[int]
    highest: float

    def __add__(self, other: Totals) -> Totals:
        """Return both together, as of one kind."""
        return Totals(
            list(map(add, self.counts, other.counts)),
            self.seconds + other.seconds,
            list(map(add, self.late, other.late)),
            max(self.highest, other.highest),
        )

    def instant(self) -> Totals:
        """Return as many durations of no time at all."""
        return Totals(_at_once(self.counts), 0.0, _at_once(self.late), 0.0)

    def cumulative(self) -> list[int]:
        """Return how many took no longer than each bound, and last how many there are at all."""
        return list(accumulate(self.counts))

    def median(self) -> float:
        """Return the median of the last five minutes, else that of all, in seconds."""
        if any(self.late):
            return _quantile(self.late, 0.50, self.highest)
        return _quantile(self.counts, 0.50, BOUNDS[-1])

    def of_late(self) -> Durations:
        """
        Say what the last five minutes were like.

        :return: ``p50``, ``p99`` and ``max`` in seconds, all 0.0 where there was nothing; and
            ``count``, how many there were.
        """
        return {
            "p50": _quantile(self.late, 0.50, self.highest),
            "p99": _quantile(self.late, 0.99, self.highest),
            "max": self.highest,
            "count": sum(self.late),
        }


class Times:
    """Counts durations of one kind."""

    __slots__ = ("_begun", "_counts", "_highest", "_seconds", "_slots")

    def __init__(self) -> None:
        # These are shared, and replaced as a whole: most hosts of a network are quiet.
        self._counts: Sequence[int] = _NOTHING
        self._seconds = 0.0
        #: The counts at the beginning of this slot, and its longest duration.
        self._begun: Sequence[int] = _NOTHING
        self._highest = _NONE
        #: The same of earlier slots with any durations, the oldest first, each after its age in
        #: slots.
        self._slots: Sequence[tuple[int, Sequence[int], float]] = ()

    def add(self, *durations: float) -> None:
        """Count durations, in seconds."""
        counts, ordered, begin = list(self._counts), sorted(durations), 0
        # Few steps, for as many come here as there are answers; sorting is quick, since those that
        # were answered together have waited for much the same time.
        bucket = bisect_left(BOUNDS, ordered[0])
        while begin < len(ordered):
            end = bisect_right(ordered, _ENDS[bucket], begin)
            counts[bucket] += end - begin
            begin, bucket = end, bucket + 1
        self._counts = counts
        self._seconds += sum(ordered)
        self._highest = max(self._highest, ordered[-1])

    def begin_slot(self) -> None:
        """Begin another slot; to be called every :data:`SLOT` seconds."""
        slots = [(age + 1, begun, high) for age, begun, high in self._slots if age < SLOTS]
        if self._highest != _NONE:
            slots.append((1, self._begun, self._highest))
        self._slots = tuple(slots)
        self._begun = self._counts
        self._highest = _NONE

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self._counts)

    @property
    def quiet(self) -> bool:
        """Whether none was counted in the last five minutes."""
        return self._highest == _NONE and not self._slots

    def totals(self) -> Totals:
        """Return what was counted so far."""
        before = self._slots[0][1] if self._slots else self._begun
        late = list(map(sub, self._counts, before))
        highest = max(self._highest, 0.0, *(high for _, _, high in self._slots))
        return Totals(self._counts, self._seconds, late, highest)


#: No durations. It is shared, and nothing is added to it: many hosts have no requests.
_NEVER: Final = Times()


class HostTimes:
    """
    What one host's requests take, in seconds.

    Most requests find an idle connection: for these there is one duration to count, not three.

    :ivar direct: how long answers took, to requests that found an idle connection; a request's way
        has no more to do than to append to these lists.
    :ivar queue: how long others had to wait.
    :ivar waited: how long each of these took in all, from the time it came.
    """

    __slots__ = ("_direct", "_lost", "_queue", "_waited", "_whole", "direct", "queue", "waited")

    def __init__(self) -> None:
        self.direct: list[float] = []
        self.queue: list[float] = []
        self.waited: list[float] = []
        # What was counted up; `_whole` is `_queue` and `_waited` together.
        self._direct = self._queue = self._waited = self._whole = _NEVER
        self._lost: Mapping[str, Times] = _NONE_LOST

    def count_up(self) -> None:
        """Put what was appended into buckets; to be called often, for it takes room until then."""
        if self.direct:
            if self._direct is _NEVER:
                self._direct = Times()
            self._direct.add(*self.direct)
            del self.direct[:]
        if self.waited:
            if self._whole is _NEVER:
                self._queue, self._waited, self._whole = Times(), Times(), Times()
            self._queue.add(*self.queue)
            self._waited.add(*map(sub, self.waited, self.queue))
            self._whole.add(*self.waited)
            del self.queue[:], self.waited[:]

    def add_lost(self, queue: float, lond: float) -> None:
        """
        Count a request that ran out of time, as one that took at least as long.

        :param queue: how long it waited for a connection.
        :param lond: how long for the answer; 0.0 where it was not sent.
        """
        self._lost = self._lost or {name: Times() for name in ("queue", "lond", "total")}
        self._lost["queue"].add(queue)
        if lond:
            self._lost["lond"].add(lond)
        self._lost["total"].add(queue + lond)

    @property
    def answers(self) -> int:
        """How many answers there were."""
        self.count_up()
        return self._direct.count + self._waited.count

    def begin_slot(self) -> None:
        """Begin another slot; to be called every :data:`SLOT` seconds."""
        self.count_up()
        for times in (self._direct, self._queue, self._waited, self._whole, *self._lost.values()):
            times.begin_slot()

    def answered(self) -> Totals:
        """Return how long answers took from the time when the request was sent."""
        self.count_up()
        return self._waited.totals() + self._direct.totals()

    def totals(self) -> Mapping[str, Totals]:
        """Return ``queue``, ``lond`` and ``total``, of requests that were answered or timed out."""
        self.count_up()
        direct = self._direct.totals()
        answered = {
            "queue": self._queue.totals() + direct.instant(),
            "lond": self.answered(),
            "total": self._whole.totals() + direct,
        }
        for name, times in self._lost.items():
            answered[name] += times.totals()
        return answered

    def of_late(self) -> Parts:
        """Say what the requests of the last five minutes were like: see :meth:`Totals.of_late`."""
        self.count_up()
        if self._direct.quiet and self._whole.quiet and all(x.quiet for x in self._lost.values()):
            return _QUIET
        totals = self.totals()
        return {name: totals[name].of_late() for name in ("queue", "lond", "total")}


def _at_once(counts: Sequence[int]) -> list[int]:
    return [sum(counts), *[0] * len(BOUNDS)]


def _quantile(counts: Sequence[int], share: float, highest: float) -> float:
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


#: What most hosts of a network report.
_QUIET: Final[Parts] = dict.fromkeys(("queue", "lond", "total"), Times().totals().of_late())
