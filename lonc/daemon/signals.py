"""
Signals to the daemon (protocol, section 8; row S17).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from twisted.logger import Logger

log = Logger()


class Signals:
    """
    Turns signals into calls in the reactor's own turn.

    :param reactor: the reactor.
    :param actions: signal -> what to call. What it raises is logged.
    """

    def __init__(
        self, reactor: Any, actions: Mapping[signal.Signals, Callable[[], object]]
    ) -> None:
        self._reactor = reactor
        self._actions = actions
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """
        Take the signals over once the reactor runs.

        Not sooner: the reactor takes TERM when it starts, and would end the process by that
        signal where an administrator expects exit status 0.
        """
        self._reactor.callWhenRunning(self._take_over)

    def _take_over(self) -> None:
        for number in self._actions:
            self._before[number] = signal.signal(number, self._arrived)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._act, signal.Signals(number))

    def _act(self, number: signal.Signals) -> None:
        log.info("signal {name}", name=number.name)
        try:
            self._actions[number]()
        except Exception:
            log.failure("signal {name} failed", name=number.name)

    def uninstall(self) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
