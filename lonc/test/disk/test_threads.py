"""Disk calls in threads, with limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.disk.threads import PLACES, Disk, NoPlace, Stuck
from lonc.test.fixtures.threads import SlowThreads

T = TypeVar("T")


class DiskTests(SynchronousTestCase):
    """Disk calls with a time limit; those that hang occupy a few threads at most."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = SlowThreads()
        self.disk = Disk(self.clock, self.threads)

    def run_for(self, path: str, work: Callable[[], T]) -> Deferred[T]:
        return Deferred.fromCoroutine(self.disk.run(path, 10.0, work))

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
