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

#: What tells of a fault, belongs to a terminal's job control, or cannot be had.
_LEFT = {
    getattr(signal, name)
    for name in (
        *("SIGKILL", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCONT", "SIGCHLD", "SIGWINCH"),
        *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGXCPU"),
    )
    if hasattr(signal, name)
}

#: All others: their defaults would end a process, with its sockets and its pid file left behind.
SIGNALS = signal.valid_signals() - _LEFT


log = Logger()


def hold() -> None:
    """
    Let every signal wait that would end the process, until `Signals` has taken them over.

    What is made from here on is cleared away at the end, so it needs an orderly end. For a process
    that is lonc's own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


class Signals:
    """
    Turns signals into calls in the reactor's own turn.

    A signal that comes while the call for the one before is under way, or has not begun, becomes
    one more call together with all others of its number.

    :param reactor: the reactor.
    :param actions: signal -> what to call. What it raises is logged; where it returns a Deferred or
        a coroutine, it is under way until that has ended.
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
        Take the signals over once the reactor runs.

        Not sooner: the reactor takes TERM when it starts, and would end the process by that
        signal where an administrator expects exit status 0.

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
        """Give the signals back; what comes to a process that ends is ignored."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._own_process else before)
        self._before.clear()
