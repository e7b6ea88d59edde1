"""
Work in threads: a pool for each kind, independent of all others, and disk calls with a limit.

A disk that hangs keeps a thread until it answers, and nothing can be done about that. So what hangs
keeps its place, and as many as there are places is all that a bad disk ever takes.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")

#: Disk calls at a time.
PLACES = 4


class InThread(Protocol):
    """Who runs a function elsewhere: ``deferToThread``, or :class:`lonc.disk.threads.Threads`."""

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        """Run it; fire with what it returns or raises."""


class Stuck(Exception):
    """A disk call did not return in time. It goes on in its thread, and may still succeed."""


class NoPlace(Stuck):
    """A disk call was not begun: those before it hang."""


class Disk:
    """
    Runs disk calls.

    :param clock: the reactor's time.
    :param in_thread: runs a function in a thread.
    """

    def __init__(self, clock: IReactorTime, in_thread: InThread) -> None:
        self._clock = clock
        self._in_thread = in_thread
        self._places = DeferredSemaphore(PLACES)
        self._inside: set[str] = set()

    def is_at(self, path: str) -> bool:
        """Return whether a call for this path has not returned yet."""
        return path in self._inside

    async def run(self, path: str, limit: float, work: Callable[[], T]) -> T:
        """
        Run a call for a path, and return what it returns or raises.

        :param limit: seconds to wait for a place, and again for the call.
        :raise NoPlace: it was not begun.
        :raise Stuck: it was, and has not returned.
        """
        try:
            await self._places.acquire().addTimeout(limit, self._clock)
        except TimeoutError:
            raise NoPlace(f"{path}: other disk calls hang") from None
        outcome: Deferred[T] = Deferred()
        self._inside.add(path)

        def returned(result: T | Failure) -> None:
            self._inside.discard(path)
            self._places.release()
            if not outcome.called:
                outcome.callback(result)

        self._in_thread(work).addBoth(returned)
        try:
            return await outcome.addTimeout(limit, self._clock)
        except TimeoutError:
            raise Stuck(f"{path}: no answer from the disk after {limit:g} s") from None


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
        self._waiting: deque[tuple[Callable[[], object], Deferred[Any]]] = deque()

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
