"""
When the service manager is notified: lonc is ready, reloads, stops, and its event loop runs.
"""

# Twisted's LoopingCall has no annotations:
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from lonc.daemon.systemd import Manager
from lonc.report.events import Logger

#: Seconds between two status lines where the manager does not watch.
STATUS = 10.0

#: Seconds that a stop may take beside the drain: a second for clients, the rest for a slow disk.
AFTER_DRAIN = 10.0

log = Logger()

T = TypeVar("T")


class Notices:
    """
    Notifies the service manager that the daemon is ready, reloading, alive or stopping.

    :param status: returns a one-line summary of the daemon.
    """

    def __init__(self, reactor: Any, manager: Manager, status: Callable[[], str]) -> None:
        self._reactor = reactor
        self._manager = manager
        self._status = status
        self._alive = LoopingCall(self._say_alive)
        self._alive.clock = reactor
        self._reloads = 0
        self._stopping = False

    def started(self) -> None:
        """Say that lonc is ready, once the reactor runs."""
        if self._manager.present:
            self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        if self._stopping:
            return
        self._manager.ready(self._status())
        # Twice as often as the manager requires: one that is late does no harm.
        self._alive.start(self._manager.watchdog / 2 or STATUS, now=False)

    def _say_alive(self) -> None:
        try:
            status = self._status()
        except Exception:  # the loop turns all the same
            log.failure("a fault inside lonc")
            status = ""
        self._manager.alive(status)

    def reload(self, begin: Callable[[], Deferred[str]]) -> Deferred[str]:
        """
        Notify the manager before and after a reload, however it ends.

        :param begin: begins the reload.
        """
        self._reloads += 1
        self._manager.reloading()
        reload = begin()
        reload.addBoth(self._reloaded)
        return reload

    def _reloaded(self, result: T) -> T:
        self._reloads -= 1
        if not self._reloads and not self._stopping:  # the manager waits for the last one
            self._manager.ready(self._status())
        return result

    def stopping(self, drain: float) -> None:
        """
        The end begins; the loop turns on until :meth:`stopped`.

        :param drain: seconds that requests in flight get.
        """
        self._stopping = True
        self._manager.stopping(drain + AFTER_DRAIN)

    def stopped(self) -> None:
        """Send nothing more: everything has ended."""
        if self._alive.running:
            self._alive.stop()
