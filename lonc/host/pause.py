"""
Why a host's requests are held back: it is paused, not served by its lond, or stopping.
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
    A pause of a host.

    :ivar by: who requested it.
    :ivar since: its beginning, in Unix time.
    :ivar until: its end, in Unix time; 0.0 for none.
    :ivar fail: whether requests get ``con_lost`` immediately.
    """

    by: str
    reason: str
    since: float
    until: float
    fail: bool


class Hold:
    """
    Whether the requests for one host are held back, and their outcome.

    :param clock: for the end of a pause.
    :ivar paused: the pause, if any.
    :ivar served: whether its lond serves it.
    :ivar stopping: whether its service is stopping or has stopped.
    """

    __slots__ = ("_clock", "_end", "paused", "served", "stopping")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._end: IDelayedCall | None = None
        self.paused: Pause | None = None
        self.served = True
        self.stopping = False

    @property
    def holds(self) -> bool:
        """Whether no request is sent."""
        return self.paused is not None or not self.served or self.stopping

    @property
    def cause(self) -> Cause | None:
        """Why a request now gets ``con_lost``; None if it waits for the end of a pause."""
        if self.stopping:
            return Cause.CLOSED
        if not self.served:
            return Cause.NOT_SERVED
        return Cause.PAUSED if self.paused is not None and self.paused.fail else None

    @property
    def status(self) -> PauseStatus:
        """The fields of the pause; empty without one."""
        return PauseStatus() if self.paused is None else PauseStatus(**attrs.asdict(self.paused))  # type: ignore[typeddict-item]

    def pause(self, pause: Pause, seconds: float, expired: Callable[[], None]) -> None:
        """
        Begin a pause, replacing any other.

        :param seconds: after which it ends by itself; 0.0 for never.
        :param expired: called then.
        """
        self.end_timer()
        self.paused = pause
        if seconds:
            self._end = self._clock.callLater(seconds, expired)

    def resume(self) -> None:
        """End the pause."""
        self.end_timer()
        self.paused = None

    def end_timer(self) -> None:
        """Cancel the timer, so that a pause lasts until the host has stopped."""
        end, self._end = self._end, None
        if end is not None and end.active():
            end.cancel()
