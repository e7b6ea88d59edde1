"""
Signals to the daemon (protocol, section 8; row S17).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from twisted.internet.defer import maybeDeferred

from lonc.report.events import Logger

#: Signals that report faults, belong to job control, or cannot be caught.
_LEFT = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGCONT, signal.SIGCHLD, signal.SIGWINCH, signal.SIGSEGV, signal.SIGBUS),
    *(signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS, signal.SIGXCPU),
}

#: All others: by default they end the process and leave its sockets and pid file behind.
SIGNALS = signal.valid_signals() - _LEFT


log = Logger()


def hold() -> None:
    """
    Block all signals that would end the process until `Signals` handles them.

    Sockets and files created from now on must be removed at the end. Only for lonc's
    own process.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


class Signals:
    """
    Calls functions for signals, in the reactor's thread.

    Repeated signals that arrive before the function was called, or while it is running, cause only
    one more call.

    :param reactor: the reactor.
    :param actions: signal -> function. Its exceptions are logged; if it returns a Deferred or a
        coroutine, it runs until that has ended.
    """

    def __init__(
        self, reactor: Any, actions: Mapping[signal.Signals, Callable[[], object]]
    ) -> None:
        self._reactor = reactor
        self._actions = actions
        self._own_process = False
        self._before: dict[signal.Signals, Any] = {}
        self._waiting: set[int] = set()
        self._under_way: set[int] = set()

    def install(self, own_process: bool) -> None:
        """
        Install the handlers once the reactor runs.

        Not earlier: the reactor installs its own handler for TERM when it starts, and ends the
        process by that signal where an administrator expects exit status 0.

        :param own_process: whether the process is lonc's own, and `hold` was called: then signals
            without an action are ignored, and at the end all are.
        """
        self._own_process = own_process
        self._reactor.callWhenRunning(self._take_over)

    def _take_over(self) -> None:
        for number in self._actions:
            self._before[number] = signal.signal(number, self._arrived)
        if self._own_process:
            for other in SIGNALS - set(self._actions):
                if signal.getsignal(other) == signal.SIG_DFL:
                    signal.signal(other, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if number not in self._waiting:
            self._waiting.add(number)
            self._reactor.callFromThread(self._act, number)

    def _act(self, number: int) -> None:
        if number in self._under_way:
            return
        self._waiting.discard(number)
        self._under_way.add(number)
        name = signal.Signals(number).name
        log.info("signal {name}", name=name)
        acting = maybeDeferred(self._actions[signal.Signals(number)])
        acting.addErrback(lambda failure: log.failure("signal {name} failed", failure, name=name))
        acting.addBoth(self._acted, number)

    def _acted(self, result: object, number: int) -> None:
        self._under_way.discard(number)
        if number in self._waiting:
            self._reactor.callLater(0, self._act, number)

    def uninstall(self) -> None:
        """Restore the previous handlers; lonc's own process ignores signals from now on."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._own_process else before)
        self._before.clear()
