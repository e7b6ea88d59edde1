"""
Recent requests: the figures of each host, from which problems are found; the slowest requests; and
tracing of requests as they end.

Usual requests cost almost nothing: the counts of each host are sampled every half minute, and there
is one comparison with :attr:`RequestLog.threshold`.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Final

import attrs
from twisted.internet.defer import Deferred, succeed

from lonc.report.records import RequestRecord
from lonc.report.times import SLOT, SLOTS, Durations, HostTimes, Parts
from lonc.wire.escaping import to_text

#: Slots after which a median is recorded, and the number of medians kept: one each half hour, for a
#: day, which includes a host's usual load and a nightly backup.
TURNS: Final = round(1800.0 / SLOT)
MEDIANS: Final = 48

#: Number of answers in five minutes from which their median is significant.
ENOUGH: Final = 20

_NO_LOSSES: Final[Mapping[str, int]] = {}

#: Requests and losses at the beginning of the first slot.
_AT_FIRST: Final = ((0, _NO_LOSSES),)

#: How many of the slowest requests are kept.
SLOWEST: Final = 100

#: Seconds for which they are kept.
LATE: Final = 600.0

#: Requests buffered for a watcher that fetches them slowly.
HELD: Final = 1000

#: Bytes of a request that are shown to a watcher.
LONGEST: Final = 2000

_EVERY: Final = -1.0


@attrs.frozen
class Lately:
    """
    The last five minutes of a host.

    :ivar requests: number of requests.
    :ivar con_lost: those that ended with ``con_lost``, by cause, without zeros.
    :ivar usual: the median of the last 24 hours in seconds; 0.0 if there is none yet.
    :ivar seconds: durations of requests.
    """

    requests: int
    con_lost: Mapping[str, int]
    usual: float
    seconds: Parts


#: The value for a host whose recent figures were not requested.
NOTHING_LATELY: Final = Lately(0, _NO_LOSSES, 0.0, HostTimes().of_late())


class Recent:
    """Keeps the figures of one host for the last five minutes and the last day."""

    __slots__ = ("_before", "_medians", "_slots_begun")

    def __init__(self) -> None:
        #: Requests and losses at the beginning of each slot, the oldest first.
        self._before: Sequence[tuple[int, Mapping[str, int]]] = _AT_FIRST
        #: Medians of five minutes with enough answers, the oldest first.
        self._medians: Sequence[float] = ()
        self._slots_begun = 0

    def begin_slot(self, requests: int, con_lost: Mapping[str, int], total: Durations) -> None:
        """
        Begin another slot; call it every :data:`lonc.report.times.SLOT` seconds.

        :param requests: number since the start.
        :param con_lost: numbers since the start, by cause.
        :param total: durations of requests in the last five minutes.
        """
        losses = {cause: number for cause, number in con_lost.items() if number}
        before = requests, losses or _NO_LOSSES
        if self._before[-1] == before:
            before = self._before[-1]  # quiet slots share one, since there are many hosts
        self._before = [*self._before, before][-SLOTS:]
        self._slots_begun += 1
        if self._slots_begun % TURNS == 0 and total["count"] >= ENOUGH:
            self._medians = [*self._medians, total["p50"]][-MEDIANS:]

    def lately(self, requests: int, con_lost: Mapping[str, int], seconds: Parts) -> Lately:
        """Return the figures of the last five minutes, given the counts since the start."""
        asked, lost = self._before[0]
        losses = {cause: number - lost.get(cause, 0) for cause, number in con_lost.items()}
        medians = sorted(self._medians)
        return Lately(
            requests - asked,
            {cause: number for cause, number in losses.items() if number > 0},
            medians[len(medians) // 2] if medians else 0.0,
            seconds,
        )


@attrs.define(eq=False)
class Watcher:
    """
    A client that traces requests.

    :ivar host_id: the host whose requests it traces; None for all.
    :ivar contents: whether it wants the requests themselves.
    :ivar seen: the requests to fetch, the latest if there are too many.
    """

    host_id: str | None
    contents: bool
    seen: deque[RequestRecord] = attrs.field(factory=lambda: deque(maxlen=HELD))
    _waiting: Deferred[None] = attrs.field(factory=lambda: succeed(None))

    def notice(self, record: RequestRecord, line: bytes) -> None:
        """Record a request that has ended, if it is watched."""
        if self.host_id not in (None, record.host_id):
            return
        if self.contents:
            contents = to_text(line[:LONGEST].rstrip(b"\r\n"))
            record = attrs.evolve(record, contents=contents)
        self.seen.append(record)
        if not self._waiting.called:
            self._waiting.callback(None)

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires when there are requests to fetch."""
        self._waiting = succeed(None) if self.seen else Deferred()
        return self._waiting


class RequestLog:
    """
    Records slow requests, and passes requests to watchers.

    :ivar threshold: duration in seconds from which a request must be recorded.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.threshold = _EVERY
        self._wall = wall
        self._numbers = count(1)
        self._slowest: list[tuple[float, int, RequestRecord]] = []
        self._watchers: dict[Watcher, None] = {}

    def note(
        self,
        host_id: str,
        pid: int,
        line: bytes,
        command: str,
        outcome: str,
        reply_size: int = 0,
        queue: float = 0.0,
        connecting: float = 0.0,
        handshake: float = 0.0,
        lond: float = 0.0,
    ) -> None:
        """Record a request; see :class:`lonc.report.records.RequestRecord`."""
        record = RequestRecord(
            number=next(self._numbers),
            when=self._wall(),
            host_id=host_id,
            pid=pid,
            command=command,
            size=len(line),
            reply_size=reply_size,
            queue=queue,
            connecting=connecting,
            handshake=handshake,
            lond=lond,
            outcome=outcome,
        )
        for watcher in self._watchers:
            watcher.notice(record, line)
        entry = (record.total, record.number, record)
        if len(self._slowest) < SLOWEST:
            heapq.heappush(self._slowest, entry)
        elif entry > self._slowest[0]:
            heapq.heapreplace(self._slowest, entry)
        self._set_threshold()

    def _set_threshold(self) -> None:
        if self._watchers or len(self._slowest) < SLOWEST:
            self.threshold = _EVERY
        else:
            self.threshold = self._slowest[0][0]

    def _forget_old(self) -> None:
        """Forget requests that are no longer recent."""
        since = self._wall() - LATE
        self._slowest = [entry for entry in self._slowest if entry[2].when >= since]
        heapq.heapify(self._slowest)
        self._set_threshold()

    def slowest(self, host_id: str | None) -> Iterable[RequestRecord]:
        """Return the slowest recent requests of a host or of all."""
        self._forget_old()
        records = (record for _, _, record in self._slowest)
        return [record for record in records if host_id in (None, record.host_id)]

    def add_watcher(self, host_id: str | None, contents: bool) -> Watcher:
        """Trace requests until :meth:`remove_watcher`."""
        watcher = Watcher(host_id, contents)
        self._watchers[watcher] = None
        self._set_threshold()
        return watcher

    def remove_watcher(self, watcher: Watcher) -> None:
        """Stop tracing."""
        self._watchers.pop(watcher, None)
        self._set_threshold()
