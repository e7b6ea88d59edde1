"""
A pool of threads for one kind of work, independent of all other kinds.
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
    Runs functions, each in a thread of its own, with a limit on how many run at a time.

    A system call that hangs occupies its thread. Nothing waits for such a thread at the end: it is
    a daemon thread and ends with the process. Functions that still wait then never run.

    :param reactor: where the results are delivered.
    :param name: of the work, for the threads' names.
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

        :return: fires with what it returns or raises; fails with OSError if no thread can be
            started. Cancelling it does not stop the function.
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
