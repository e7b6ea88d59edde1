# LoopingCall has no annotations:
# mypy: allow-untyped-calls
"""
What is done again and again while the daemon runs, and goes on whatever goes wrong.
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
    Return a call that begins to do something, and logs what goes wrong with it.

    :param act: may return a Deferred or a coroutine. Its ReloadFailed has been logged.
    """

    def call() -> Deferred[None]:
        done = maybeDeferred(act)
        done.addErrback(lambda failure: failure.trap(ReloadFailed))
        done.addErrback(lambda failure: log.failure("a fault inside lonc", failure))
        return done.addCallback(lambda _: None)

    return call


class Rounds:
    """
    Does things periodically: a LoopingCall by itself stops for good at its first error.

    :param clock: the reactor's time.
    :param periods: what to do, and every how many seconds; what is under way is not begun again.
    """

    def __init__(self, clock: IReactorTime, periods: Mapping[Callable[[], object], float]) -> None:
        self._calls = [(LoopingCall(guarded(act)), seconds) for act, seconds in periods.items()]
        for call, _ in self._calls:
            call.clock = clock

    def start(self) -> None:
        """Do everything once, now, and then periodically."""
        for call, seconds in self._calls:
            call.start(seconds)

    def stop(self) -> None:
        """Do nothing more."""
        for call, _ in self._calls:
            if call.running:
                call.stop()
