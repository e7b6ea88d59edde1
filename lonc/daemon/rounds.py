# LoopingCall has no annotations:
# mypy: allow-untyped-calls
"""
Periodic calls that continue after errors, and the sweep that checks all time limits several times a
second (rows F1, S9 and S11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from lonc.control.errors import ReloadFailed
from lonc.report.events import Logger
from lonc.transport.network import Network

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
    Calls functions periodically; unlike a LoopingCall, it does not stop at the first error.

    :param clock: the reactor's clock.
    :param periods: function -> seconds between two calls; none is called while it is still running.
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


#: Seconds between two checks of the time limits: the maximum delay with which a request ends.
SWEEP: Final = 0.25

#: Delay in seconds from which a check counts as following a pause: the process was stopped, the
#: machine suspended, or an iteration of the reactor was slow. Data that arrived meanwhile is
#: unread.
LATE: Final = 1.0

#: Maximum number of iterations of the reactor after a pause for reading data that has arrived. One
#: iteration handles 2,000 events, and the number of open sockets is less than this many times that.
TURNS: Final = 32


class Sweep:
    """
    Checks all time limits; after a pause, only once the data that arrived in it has been read.

    :param network: has the information whether there is unread data.
    :param look: checks all time limits; must not raise.
    """

    def __init__(self, reactor: IReactorTime, network: Network, look: Callable[[], object]) -> None:
        self._reactor = reactor
        self._network = network
        self._look = look
        self._last = reactor.seconds()
        self._turns = 0  # remaining iterations for reading

    def __call__(self) -> None:
        """Check all time limits, now or after unread data has been read."""
        now = self._reactor.seconds()
        paused, self._last = now - self._last > SWEEP + LATE, now
        if self._turns:
            return
        if paused:
            self._turns = TURNS
            self._reactor.callLater(0, self._after_reading)
        else:
            self._look()

    def _after_reading(self) -> None:
        self._turns = self._turns - 1 if self._network.behind else 0
        if self._turns:
            self._reactor.callLater(0, self._after_reading)
        else:
            self._look()
