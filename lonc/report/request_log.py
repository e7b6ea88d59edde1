"""
The slowest recent requests, and tracing of requests as they end.

For a usual request this costs one comparison with :attr:`RequestLog.threshold`.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final

import attrs
from twisted.internet.defer import Deferred, succeed

from lonc.report.records import RequestRecord
from lonc.wire.escaping import to_text

#: How many of the slowest requests are kept.
SLOWEST: Final = 100

#: Seconds for which they are kept.
LATE: Final = 600.0

#: Requests buffered for a watcher that fetches them slowly.
HELD: Final = 1000

#: Bytes of a request that are shown to a watcher.
LONGEST: Final = 2000

_EVERY: Final = -1.0


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
