"""
Disk work in threads: a few at a time, and none waited for longer than a limit.

A disk that hangs keeps a thread until it answers, and nothing can be done about that. So what hangs
keeps its place, and as many as there are places is all that a bad disk ever takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")

#: Disk calls at a time.
PLACES = 4


class InThread(Protocol):
    """Who runs a function elsewhere: ``deferToThread``, or :class:`lonc.daemon.threads.Threads`."""

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
