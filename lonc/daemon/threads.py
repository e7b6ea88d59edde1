"""
Threads for one kind of work, so that it waits for no other kind and no other waits for it.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


class Threads:
    """
    Runs functions, each in a thread of its own, a number of them at a time; others wait their turn.

    A call of the system's that hangs keeps its thread. Nobody waits for such a thread at the end:
    it is a daemon thread, which goes with the process. What still waits then is never begun.

    :param reactor: where the outcome is told.
    :param name: what the work is, for the threads' names.
    :param most: threads at a time.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, most: int) -> None:
        self.most = most
        self._reactor = reactor
        self._name = name
        self._running = 0
        self._waiting: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        """
        Run a function in a thread.

        :return: fires with what it returns or raises; fails with OSError when the system gives no
            thread. To cancel it changes nothing for the function.
        """
        outcome: Deferred[T] = Deferred()
        self._waiting.append((work, outcome))
        self._begin()
        return outcome

    def _begin(self) -> None:
        while self._waiting and self._running < self.most:
            work, outcome = self._waiting.popleft()
            thread = threading.Thread(
                target=self._work, args=(work, outcome), name=f"lonc {self._name}", daemon=True
            )
            self._running += 1
            try:
                thread.start()
            except RuntimeError as error:
                self._running -= 1
                outcome.errback(OSError(errno.EAGAIN, str(error)))

    def _work(self, work: Callable[[], T], outcome: Deferred[T]) -> None:
        result: T | Failure
        try:
            result = work()
        except BaseException:
            result = Failure()  # type: ignore[no-untyped-call]
        self._reactor.callFromThread(self._ended, result, outcome)

    def _ended(self, result: T | Failure, outcome: Deferred[T]) -> None:
        self._running -= 1
        self._begin()
        if not outcome.called:
            outcome.callback(result)
