"""When a service manager is told what."""

from __future__ import annotations

import os
import signal

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon.systemd import AFTER_DRAIN, STATUS, Manager, Notices
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.daemon import DaemonTestCase
from lonc.test.fixtures.manager import stand_in

#: What is told at the stop of a daemon that may take 5 s for it.
STOPPING = ["STOPPING=1", f"EXTEND_TIMEOUT_USEC={round((5.0 + AFTER_DRAIN) * 1e6)}"]


def spoil(notices: Notices, name: str) -> None:
    """Put a fault in the place of a method."""

    def breaks() -> str:
        raise ValueError("a fault")

    setattr(notices, name, breaks)


class NoticesTests(SynchronousTestCase):
    """Notifications to a manager with a watchdog of 4 seconds."""

    def setUp(self) -> None:
        self.manager = stand_in(self, short_folder(self))
        self.clock = MemoryReactorClock()
        self.notices = self.made(WATCHDOG_USEC="4000000")

    def made(self, **environment: str) -> Notices:
        """Return the notices of a new process."""
        manager = Manager({"NOTIFY_SOCKET": self.manager.path, **environment})
        return Notices(self.clock, manager, lambda: "2 hosts")

    def run_reactor(self) -> None:
        """Let the reactor begin to run."""
        for call, arguments, keywords in self.clock.whenRunningHooks:
            call(*arguments, **keywords)

    def test_alive(self) -> None:
        """
        lonc is ready once the reactor runs, and then alive twice in the time of the watchdog, until
        it has stopped.
        """
        self.notices.started()
        self.assertEqual(self.manager.new(), [])
        self.run_reactor()
        self.assertEqual(self.manager.new(), [["READY=1", "STATUS=2 hosts"]])
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.manager.new(), [["WATCHDOG=1", "STATUS=2 hosts"]] * 2)
        self.notices.stopping(5.0)
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.manager.new(), [STOPPING, ["WATCHDOG=1", "STATUS=2 hosts"]])
        self.notices.stopped()
        self.clock.pump([1.0] * 4)
        self.assertEqual(self.manager.new(), [])

    def test_fault(self) -> None:
        """A fault in the status is logged, and lonc still counts as alive."""
        self.notices = self.made(WATCHDOG_USEC="4000000")
        self.notices.started()
        self.run_reactor()
        self.manager.new()
        spoil(self.notices, "_status")
        self.clock.pump([1.0] * 4)
        self.assertEqual(self.manager.new(), [["WATCHDOG=1", "STATUS="]] * 2)
        self.assertEqual(len(self.flushLoggedErrors()), 2)
        self.notices.stopped()

    def test_status_without_a_watchdog(self) -> None:
        """Without a watchdog the status is renewed too."""
        notices = self.made()
        notices.started()
        self.run_reactor()
        self.manager.new()
        self.clock.advance(STATUS)
        self.assertEqual(len(self.manager.new()), 1)
        notices.stopped()

    def test_reload(self) -> None:
        """A reload is announced, and its end once the last one has ended, however it did."""
        first: Deferred[str] = Deferred()
        second: Deferred[str] = Deferred()
        answer = self.notices.reload(lambda: first)
        self.notices.reload(lambda: second).addErrback(lambda _: None)
        told = self.manager.new()
        self.assertEqual(len(told), 2)
        for line, began in told:  # by the clock that is never set
            self.assertRegex(f"{line} {began}", r"^RELOADING=1 MONOTONIC_USEC=\d+$")
        first.callback("changed")
        self.assertEqual(self.successResultOf(answer), "changed")
        self.assertEqual(self.manager.new(), [])
        second.errback(ValueError())
        self.assertEqual(self.manager.new(), [["READY=1", "STATUS=2 hosts"]])

    def test_stopped_while_it_reloads(self) -> None:
        """After a stop has begun, the end of a reload is not announced."""
        reload: Deferred[str] = Deferred()
        self.notices.reload(lambda: reload)
        self.notices.stopping(5.0)
        reload.callback("")
        self.assertEqual([lines[0] for lines in self.manager.new()], ["RELOADING=1", "STOPPING=1"])

    def test_no_manager(self) -> None:
        """Without a manager nothing is done, and there is no timer."""
        notices = Notices(self.clock, Manager({}), lambda: "")
        notices.started()
        self.run_reactor()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RealTests(DaemonTestCase):
    """`twistd` with a manager."""

    async def test_life(self) -> None:
        """Start, signs of life, reload and stop are notified in this order."""
        lond = self.lond("l2", "127.0.0.2")
        self.configure(lond.port)
        manager = stand_in(self, self.folder)
        lonc = self.twistd(
            "-n",
            "lonc",
            "--config",
            self.path("loncapa.conf"),
            NOTIFY_SOCKET=manager.path,
            WATCHDOG_USEC="200000",
        )
        await self.until(lambda: manager.has("READY=1"))
        self.assertTrue(all(os.path.exists(self.socket(each)) for each in ("l1", "l2")))
        self.assertIn("STATUS=2 hosts, 0 DEAD, ", "\n".join(manager.told[-1]))
        await self.until(lambda: manager.has("WATCHDOG=1"))
        manager.new()
        lonc.kill(signal.SIGHUP)
        await self.until(lambda: manager.has("READY=1"))
        self.assertTrue(manager.has("RELOADING=1"))
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertTrue(manager.has("STOPPING=1"))
        self.assert_no_traceback(lonc)
