"""The user that lonc acts as (see also ``test_privileges``), and the signals to its process."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactor
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon.own_process import Signals, acting_as
from lonc.test.fixtures.beginnings import notes_of


def rights() -> tuple[object, ...]:
    """Return the rights of the process, and its umask."""
    umask = os.umask(0o022)
    os.umask(umask)
    return os.geteuid(), os.getegid(), sorted(os.getgroups()), umask


class ActingTests(SynchronousTestCase):
    """Running a block with the rights of another user."""

    def test_nobody_else(self) -> None:
        """Without a user, or without being root, nothing changes."""
        before = rights()
        for uid in (None, 1):
            self.patch(os, "geteuid", lambda: 4711)
            with acting_as(uid, None) as for_another:
                self.assertFalse(for_another)
                self.assertEqual(rights()[1:], before[1:], uid)
            self.patch(os, "geteuid", lambda: before[0])
            self.assertEqual(rights(), before)
        with acting_as(None, None) as for_another:
            self.assertFalse(for_another)

    def test_back_again(self) -> None:
        """Root has its rights back after the block, also if it raises an exception."""
        if os.geteuid() != 0:
            self.skipTest("only root can act as another user")
        before, nobody = rights(), pwd.getpwnam("nobody")
        with self.assertRaises(ZeroDivisionError), acting_as(nobody.pw_uid, None, 0o027) as another:
            self.assertTrue(another)
            self.assertEqual(
                (os.geteuid(), os.getegid(), 0 in os.getgroups()),
                (nobody.pw_uid, nobody.pw_gid, False),
            )
            self.assertEqual(rights()[3], 0o027)
            raise ZeroDivisionError
        self.assertEqual(rights(), before)

    def test_still_root(self) -> None:
        """With a group alone, or with root as the user, the user stays root."""
        if os.geteuid() != 0:
            self.skipTest("only root can act as another user")
        before, nobody = rights(), pwd.getpwnam("nobody")
        with acting_as(None, nobody.pw_gid) as another:
            self.assertEqual((another, os.getegid()), (False, nobody.pw_gid))
        with acting_as(0, None) as another:
            self.assertFalse(another)
        self.assertEqual(rights(), before)


class TurningReactor(MemoryReactor):
    """A reactor that starts and iterates when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def start(self) -> None:
        """Call what waits for the start."""
        self.hasRun = True
        for call, arguments, _ in self.whenRunningHooks:
            call(*arguments)

    def callLater(self, seconds: float, call: Callable[..., object], *arguments: object) -> None:
        """Call it in the next iteration."""
        self.calls.append((call, arguments))

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        """Call it in the next iteration."""
        self.calls.append((call, arguments))

    def turn(self) -> None:
        """Make one iteration."""
        calls, self.calls = self.calls, []
        for call, arguments in calls:
            call(*arguments)


class SignalsTests(SynchronousTestCase):
    """S17: the handling of signals."""

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
        """S17: handlers are installed once the reactor runs, after its own."""
        self.signals.install(own_process=False)
        self.assertEqual(signal.getsignal(signal.SIGUSR1), self.before)
        self.reactor.start()
        self.assertNotEqual(signal.getsignal(signal.SIGUSR1), self.before)

    def test_acts_in_the_reactors_turn(self) -> None:
        """S17: the action is called by the reactor, once for several signals."""
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
        """S17: signals during the action cause one more call, however it ends."""
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
        """S17: an error is logged, and the next signal is handled."""
        self.signals.install(own_process=False)
        self.reactor.start()
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)
        self.reactor.turn()
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
        self.assertEqual(self.arrived, ["USR1"])

    def test_given_back(self) -> None:
        """At the end the previous handlers are restored."""
        self.signals.install(own_process=False)
        self.reactor.start()
        self.signals.uninstall()
        self.assertEqual(signal.getsignal(signal.SIGUSR1), self.before)
