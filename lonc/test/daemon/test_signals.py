"""Signals become calls in the reactor's turn."""

from __future__ import annotations

import signal
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactor
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon.signals import Signals
from lonc.test.fixtures.beginnings import notes_of


class TurningReactor(MemoryReactor):
    """A reactor that starts, and turns, when it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def start(self) -> None:
        """Run what waits for the start."""
        self.hasRun = True
        for call, arguments, _ in self.whenRunningHooks:
            call(*arguments)

    def callLater(self, seconds: float, call: Callable[..., object], *arguments: object) -> None:
        """Run it in the next turn."""
        self.calls.append((call, arguments))

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        """Run it in the next turn."""
        self.calls.append((call, arguments))

    def turn(self) -> None:
        """Run what has come up."""
        calls, self.calls = self.calls, []
        for call, arguments in calls:
            call(*arguments)


class SignalsTests(SynchronousTestCase):
    """S17: what signals do."""

    def setUp(self) -> None:
        self.reactor = TurningReactor()
        self.arrived: list[str] = []
        self.signals = Signals(
            self.reactor,
            {
                signal.SIGUSR1: lambda: self.arrived.append("USR1"),
                signal.SIGUSR2: lambda: [][0],
            },
        )
        self.before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(self.signals.uninstall)

    def test_taken_over_once_the_reactor_runs(self) -> None:
        """S17: nothing changes before the reactor runs, since it takes some for itself then."""
        self.signals.install(own_process=False)
        self.assertEqual(signal.getsignal(signal.SIGUSR1), self.before)
        self.reactor.start()
        self.assertNotEqual(signal.getsignal(signal.SIGUSR1), self.before)

    def test_acts_in_the_reactors_turn(self) -> None:
        """S17: a signal interrupts nothing; those that come before it begins are one with it."""
        notes = notes_of(self)
        self.signals.install(own_process=False)
        self.reactor.start()
        for _ in range(300):
            signal.raise_signal(signal.SIGUSR1)
        self.assertEqual(self.arrived, [])
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.arrived, ["USR1"])
        self.assertEqual(notes.at(LogLevel.info), ["signal SIGUSR1"])
        signal.raise_signal(signal.SIGUSR1)
        self.reactor.turn()
        self.assertEqual(self.arrived, ["USR1"] * 2)

    def test_under_way(self) -> None:
        """S17: those that come while one is at work become one more, however that ends."""
        work: list[Deferred[None]] = []

        def begin() -> Deferred[None]:
            work.append(Deferred())
            return work[-1]

        self.signals = Signals(self.reactor, {signal.SIGUSR1: begin})
        self.signals.install(False)
        self.reactor.start()
        for _ in range(3):
            signal.raise_signal(signal.SIGUSR1)
            self.reactor.turn()
        self.assertEqual(len(work), 1)
        work[0].errback(IndexError())
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
        self.reactor.turn()
        self.assertEqual(len(work), 2)
        work[1].callback(None)
        self.reactor.turn()
        self.assertEqual(len(work), 2)

    def test_failure_is_logged(self) -> None:
        """S17: what fails is logged, and the next signal is taken as ever."""
        self.signals.install(own_process=False)
        self.reactor.start()
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)
        self.reactor.turn()
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
        self.assertEqual(self.arrived, ["USR1"])

    def test_given_back(self) -> None:
        """At the end the signals are what they were."""
        self.signals.install(own_process=False)
        self.reactor.start()
        self.signals.uninstall()
        self.assertEqual(signal.getsignal(signal.SIGUSR1), self.before)
