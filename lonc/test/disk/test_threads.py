"""Thread pools, and disk calls with a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.disk.threads import PLACES, Disk, NoPlace, Stuck, Threads
from lonc.test.fixtures.threads import SlowThreads

T = TypeVar("T")


class DiskTests(SynchronousTestCase):
    """Disk calls with a time limit; those that hang occupy a few threads at most."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = SlowThreads()
        self.disk = Disk(self.clock, self.threads, lambda: 10.0)

    def run_for(self, path: str, work: Callable[[], T]) -> Deferred[T]:
        return Deferred.fromCoroutine(self.disk.run(path, work))

    def test_result(self) -> None:
        """The result is returned."""
        call = self.run_for("a", lambda: 7)
        self.assertNoResult(call)
        self.threads.finish()
        self.assertEqual(self.successResultOf(call), 7)

    def test_error(self) -> None:
        """The exception is raised, and the slot is free again."""
        for _ in range(PLACES + 1):
            call = self.run_for("a", lambda: 1 // 0)
            self.threads.finish()
            self.failureResultOf(call, ZeroDivisionError)

    def test_hangs(self) -> None:
        """A call that hangs fails after the limit, with its path in the message."""
        call = self.run_for("/x/file", lambda: 7)
        self.clock.advance(9.9)
        self.assertNoResult(call)
        self.clock.advance(0.1)
        failure = self.failureResultOf(call, Stuck)
        self.assertIn("/x/file", failure.getErrorMessage())
        self.assertNotIsInstance(failure.value, NoPlace)

    def test_still_there(self) -> None:
        """A call that hangs counts as in progress until it returns, in whatever way."""
        call = self.run_for("a", lambda: 1 // 0)
        self.clock.advance(10.0)
        self.failureResultOf(call, Stuck)
        self.assertTrue(self.disk.is_at("a"))
        self.assertFalse(self.disk.is_at("b"))
        self.threads.finish()
        self.assertFalse(self.disk.is_at("a"))

    def test_few_threads(self) -> None:
        """Calls that hang keep their slots, and later ones are not started."""
        calls = [self.run_for(str(number), int) for number in range(PLACES + 3)]
        self.assertEqual(len(self.threads.begun), PLACES)
        self.clock.advance(10.0)
        for call in calls[:PLACES]:
            self.failureResultOf(call, Stuck)
        for call in calls[PLACES:]:
            self.failureResultOf(call, NoPlace)
        late = self.run_for("late", int)
        self.clock.advance(10.0)
        self.failureResultOf(late, NoPlace)
        self.assertEqual(len(self.threads.begun), PLACES)

    def test_goes_on(self) -> None:
        """When one of them returns, the next call gets its slot."""
        stuck = [self.run_for(str(number), int) for number in range(PLACES)]
        self.clock.advance(9.0)
        late = self.run_for("late", lambda: 8)
        self.clock.advance(1.0)
        for call in stuck:
            self.failureResultOf(call, Stuck)
        self.assertFalse(self.disk.is_at("late"))
        self.threads.finish()
        self.assertTrue(self.disk.is_at("late"))
        for _ in range(PLACES):
            self.threads.finish()
        self.assertEqual(self.successResultOf(late), 8)


reactor: Any = global_reactor


class ThreadsTests(TestCase):
    """A limited number of threads, which the process does not wait for."""

    def setUp(self) -> None:
        self.threads = Threads(reactor, "tests", 2)
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)

    async def test_outcome(self) -> None:
        """The result or the exception is delivered in the reactor's thread."""
        self.assertEqual(await self.threads(lambda: 7), 7)
        self.assertIs(threading.current_thread(), threading.main_thread())
        with self.assertRaises(ZeroDivisionError):
            await self.threads(lambda: 1 // 0)
        self.assertIsNot(await self.threads(threading.current_thread), threading.main_thread())

    async def test_hangs(self) -> None:
        """A call that hangs leaves the other threads, and is in a daemon thread."""
        hangs = self.threads(self.gate.wait)
        for number in range(5):
            self.assertEqual(await self.threads(partial(int, number)), number)
        self.assertTrue((await self.threads(threading.current_thread)).daemon)
        self.assertNoResult(hangs)
        self.gate.set()
        await hangs

    async def test_most(self) -> None:
        """No more than the limit run at a time; the others follow in order."""
        order: list[int] = []
        first: list[Deferred[Any]] = [self.threads(self.gate.wait) for _ in range(2)]
        later: list[Deferred[Any]] = [
            self.threads(partial(order.append, number)) for number in range(3)
        ]
        self.assertEqual(await Threads(reactor, "others", 1)(lambda: 7), 7)
        self.assertEqual(order, [])
        self.gate.set()
        await gatherResults([*first, *later])
        self.assertEqual(sorted(order), [0, 1, 2])

    async def test_given_up(self) -> None:
        """A cancelled call does not affect others."""
        given_up = self.threads(lambda: 7)
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        self.assertEqual(await self.threads(lambda: 8), 8)

    async def test_no_thread(self) -> None:
        """If no thread can be started the call fails, and the next one may succeed."""
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            self.patch(threading.Thread, "start", start)
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", refuse)
        refused = self.threads(lambda: 7)
        self.failureResultOf(refused, OSError)
        self.assertEqual(await self.threads(lambda: 8), 8)
