# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""The management port's commands for pauses, delayed requests and the trace."""

from __future__ import annotations

import contextlib
from typing import Any, Final, Protocol

from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp

from lonc.control.access import Level
from lonc.control.commands import (
    DropDelayed,
    Pause,
    RequeueDelayed,
    Resume,
    RetryDelayed,
    ShowDelayed,
    Trace,
)
from lonc.control.errors import BadArguments
from lonc.control.listings import Listed, page
from lonc.report.request_log import Watcher

#: Seconds of a pause at most: a year. Without an end is possible too.
LONGEST_PAUSE: Final = 366 * 86400.0

#: Seconds after which who traces hears that there was nothing, and asks again.
TRACE_WAIT: Final = 1.0

#: Characters of why there is a pause, and of who wants it: they go with each report on the host.
LONGEST_REASON: Final = 500


class Steered(Listed, Protocol):
    """What these commands need of the daemon; ``host_id`` is ``None`` for all hosts."""

    async def show_delayed(self, file: str) -> tuple[bytes, bool]:
        """
        Return what is in a delayed request, as far as it fits, and whether it goes on.

        :raises lonc.control.errors.UnknownFile: there is none.
        """

    async def drop_delayed(self, file: str) -> None:
        """Delete one; errors as of :meth:`show_delayed`."""

    async def requeue_delayed(self, file: str) -> None:
        """Put one that is kept back; errors as of :meth:`show_delayed`."""

    def retry_delayed(self, host_id: str | None) -> None:
        """Try a host's delayed requests now."""

    async def pause(
        self, host_id: str | None, by: str, reason: str, seconds: float, fail: bool
    ) -> None:
        """
        Send a host nothing; return when nothing is in flight any more.

        :param seconds: how long; 0.0 until :meth:`resume`.
        :param fail: whether requests get ``con_lost`` and do not wait.
        """

    def resume(self, host_id: str | None) -> None:
        """End a host's pause."""

    def watch(self, host_id: str | None, contents: bool) -> Watcher:
        """Have requests noted as they end, with their lines if they are wanted."""

    def leave(self, watcher: Watcher) -> None:
        """Watch no more."""


class Steering(amp.CommandLocator):
    """
    Carries them out; a part of the daemon's side of a connection.

    :ivar clock: the reactor.
    """

    clock: IReactorTime

    def steered(self) -> Steered:
        """Return what carries the commands out."""
        raise NotImplementedError

    def asked(self, asked: str, host: str = "") -> str | None:
        """
        Note what is asked for, and return for which host, ``None`` for all.

        :raises lonc.control.errors.UnknownHost: there is no such host.
        """
        raise NotImplementedError

    def chosen(self, host: str) -> str | None:
        """Return the same without a note."""
        raise NotImplementedError

    def require(self, level: Level, what: str) -> None:
        """
        See that whoever asks may have what is asked for.

        :raises lonc.control.errors.NotAllowed: that is not so.
        """
        raise NotImplementedError

    @ShowDelayed.responder
    async def _show_delayed(self, file: str) -> dict[str, Any]:
        self.asked(f"show delayed request {file}")
        content, more = await self.steered().show_delayed(file)
        return {"content": content, "more": more}

    @DropDelayed.responder
    async def _drop_delayed(self, file: str) -> dict[str, Any]:
        self.asked(f"drop delayed request {file}")
        await self.steered().drop_delayed(file)
        return {}

    @RequeueDelayed.responder
    async def _requeue_delayed(self, file: str) -> dict[str, Any]:
        self.asked(f"put back delayed request {file}")
        await self.steered().requeue_delayed(file)
        return {}

    @RetryDelayed.responder
    def _retry_delayed(self, host: str) -> dict[str, Any]:
        self.steered().retry_delayed(self.asked("retry delayed requests", host))
        return {}

    @Pause.responder
    async def _pause(
        self, host: str, by: str, reason: str, seconds: float, fail: bool
    ) -> dict[str, Any]:
        if not 0.0 <= seconds <= LONGEST_PAUSE:
            raise BadArguments(f"a pause has 0 to {LONGEST_PAUSE:.0f} seconds")
        by, reason = by[:LONGEST_REASON], reason[:LONGEST_REASON]
        chosen = self.asked(f"pause, for {by}: {reason}", host)
        await self.steered().pause(chosen, by, reason, seconds, fail)
        return {}

    @Resume.responder
    def _resume(self, host: str) -> dict[str, Any]:
        self.steered().resume(self.asked("resume", host))
        return {}

    _watcher: Watcher | None = None

    @Trace.responder
    async def _trace(self, host: str, after: Any, contents: bool) -> dict[str, Any]:
        if contents:
            self.require(Level.OWN, "the requests themselves")
        watcher = self._watcher
        chosen = self.asked("trace", host) if watcher is None else self.chosen(host)
        if watcher is None or (watcher.host_id, watcher.contents) != (chosen, contents):
            self.stop_tracing()
            self._watcher = watcher = self.steered().watch(chosen, contents)
        with contextlib.suppress(TimeoutError):
            await watcher.wait().addTimeout(TRACE_WAIT, self.clock)
        rows = watcher.take()
        answer = page(Trace, rows, None)
        watcher.put_back(rows[len(answer["rows"]) :])
        return answer

    def stop_tracing(self) -> None:
        """Watch requests no more: whoever asked has gone."""
        if self._watcher is not None:
            self.steered().leave(self._watcher)
            self._watcher = None
