"""Threads for one kind of work, over the real reactor."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from lonc.disk.threads import Threads

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
