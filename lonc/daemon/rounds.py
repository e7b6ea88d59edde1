# LoopingCall has no annotations:
# mypy: allow-untyped-calls
"""
Periodic work that goes on after errors, and the look at every time limit, several times a second
(rows F1, S9 and S11).
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


#: Seconds between two looks at the time limits: a request ends so much late at the most.
SWEEP: Final = 0.25

#: Seconds by which a look is late after a pause: the process was stopped, the machine suspended, or
#: a turn of the reactor took long. What has arrived meanwhile has not been read.
LATE: Final = 1.0

#: Turns of the reactor after a pause in which what has arrived is read, at most. One deals with
#: 2,000 events, and fewer than this times as many sockets are open.
TURNS: Final = 32


class Sweep:
    """
    Looks at every time limit; after a pause, not before all that has arrived in it is read.

    :param network: knows whether there is something to read.
    :param look: looks at every time limit; it raises nothing.
    """

    def __init__(self, reactor: IReactorTime, network: Network, look: Callable[[], object]) -> None:
        self._reactor = reactor
        self._network = network
        self._look = look
        self._last = reactor.seconds()
        self._turns = 0  # that are left to read in

    def __call__(self) -> None:
        """Look at every time limit, now or when what has arrived is read."""
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
