"""
Thread pools, one for each kind of work, and disk calls with a time limit.

A call to a hanging disk cannot be interrupted and occupies its thread. So it also keeps its slot,
which limits the number of threads that a hanging disk can occupy.
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

#: Maximum number of concurrent disk calls.
PLACES = 4


class InThread(Protocol):
    """Runs a function in a thread: ``deferToThread``, or :class:`lonc.disk.threads.Threads`."""

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        """Run it; fires with its result or exception."""


class Stuck(Exception):
    """A disk call did not return in time. It continues in its thread, and may still succeed."""


class NoPlace(Stuck):
    """A disk call was not started, because earlier ones hang."""


class Disk:
    """
    Runs disk calls.

    :param clock: the reactor's clock.
    :param in_thread: runs a function in a thread.
    :param limit: returns the seconds to wait for a slot, and again for a call.
    """

    def __init__(
        self, clock: IReactorTime, in_thread: InThread, limit: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._in_thread = in_thread
        self._limit = limit
        self._places = DeferredSemaphore(PLACES)
        self._inside: set[str] = set()

    def is_at(self, path: str) -> bool:
        """Return whether a call for this path has not returned yet."""
        return path in self._inside

    async def run(self, path: str, work: Callable[[], T]) -> T:
        """
        Run a call for a path; return its result or raise its exception.

        :raises NoPlace: it was not started.
        :raises Stuck: it was started, but has not returned.
        """
        limit = self._limit()
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
    Runs each function in a new thread, with a limit on their number.

    A system call that hangs occupies its thread. Nothing waits for such a thread at the end: it is
    a daemon thread and ends with the process. Functions that are still queued then never run.

    :param reactor: where the results are delivered.
    :param name: a word for the work, for the threads' names.
    :param most: maximum number of threads.
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

        :return: fires with its result or exception; fails with OSError if no thread can be
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
