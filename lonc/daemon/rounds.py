# LoopingCall has no annotations:
# mypy: allow-untyped-calls
"""
Periodic work that goes on after errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from lonc.control.errors import ReloadFailed
from lonc.report.events import Logger

log = Logger()


def guarded(act: Callable[[], object]) -> Callable[[], Deferred[None]]:
    """
    Return a function that calls another one and logs its errors.

    :param act: may return a Deferred or a coroutine. A ReloadFailed has been logged already.
    """

    def call() -> Deferred[None]:
        done = maybeDeferred(act)
        done.addErrback(lambda failure: failure.trap(ReloadFailed))
        done.addErrback(lambda failure: log.failure("a fault inside lonc", failure))
        return done.addCallback(lambda _: None)

    return call


class Rounds:
    """
    Calls functions periodically: a LoopingCall alone stops at its first error.

    :param clock: the reactor's time.
    :param periods: function -> seconds between two calls; none is called while it still runs.
    """

    def __init__(self, clock: IReactorTime, periods: Mapping[Callable[[], object], float]) -> None:
        self._calls = [(LoopingCall(guarded(act)), seconds) for act, seconds in periods.items()]
        for call, _ in self._calls:
            call.clock = clock

    def start(self) -> None:
        """Call everything now, and then periodically."""
        for call, seconds in self._calls:
            call.start(seconds)

    def stop(self) -> None:
        """Make no more calls."""
        for call, _ in self._calls:
            if call.running:
                call.stop()
