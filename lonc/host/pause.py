"""
Why a host's requests do not go out for a while: it is paused, not served by its lond, or stops.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lonc.report.status import PauseStatus
from lonc.wire.request import Cause


@attrs.frozen
class Pause:
    """
    Why nothing is sent to a host for a while.

    :ivar by: who wants it.
    :ivar since: since when, in Unix time.
    :ivar until: until when, in Unix time; 0.0 for no end.
    :ivar fail: whether requests get ``con_lost`` at once.
    """

    by: str
    reason: str
    since: float
    until: float
    fail: bool


class Hold:
    """
    Whether the requests for one host are held back, and what becomes of them.

    :param clock: of the end of a pause.
    :param resume: called when a pause has had its time.
    :ivar paused: the pause, if any.
    :ivar served: whether its lond serves it.
    :ivar stopping: whether its service stops, or has stopped.
    """

    __slots__ = ("_clock", "_end", "_resume", "paused", "served", "stopping")

    def __init__(self, clock: IReactorTime, resume: Callable[[], None]) -> None:
        self._clock = clock
        self._resume = resume
        self._end: IDelayedCall | None = None
        self.paused: Pause | None = None
        self.served = True
        self.stopping = False

    @property
    def holds(self) -> bool:
        """Whether no request goes out."""
        return self.paused is not None or not self.served or self.stopping

    @property
    def cause(self) -> Cause | None:
        """Why a request gets ``con_lost`` now; None while it waits for the end of a pause."""
        if self.stopping:
            return Cause.CLOSED
        if not self.served:
            return Cause.NOT_SERVED
        return Cause.PAUSED if self.paused is not None and self.paused.fail else None

    @property
    def status(self) -> PauseStatus:
        """The fields of the pause; none where there is none."""
        return PauseStatus() if self.paused is None else PauseStatus(**attrs.asdict(self.paused))  # type: ignore[typeddict-item]

    def pause(self, pause: Pause | None, seconds: float = 0.0) -> None:
        """
        Begin a pause in place of one that there may be, or end that.

        :param seconds: after which it ends by itself; 0.0 for never.
        """
        self.end_timer()
        self.paused = pause
        if seconds:
            self._end = self._clock.callLater(seconds, self._resume)

    def end_timer(self) -> None:
        """Leave a pause as it is until the host has stopped."""
        end, self._end = self._end, None
        if end is not None and end.active():
            end.cancel()
