"""Notifications to a service manager, and the descriptors that it stores."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon import systemd
from lonc.daemon.systemd import AFTER_DRAIN, STATUS, Manager, Notices, name_of
from lonc.test.fixtures.beginnings import notes_of, short_folder
from lonc.test.fixtures.daemon import DaemonTestCase
from lonc.test.fixtures.manager import stand_in


class TellTests(SynchronousTestCase):
    """Datagrams to the manager."""

    def setUp(self) -> None:
        self.stand_in = stand_in(self, short_folder(self))
        self.manager = Manager({"NOTIFY_SOCKET": self.stand_in.path})

    def test_no_line_too_many(self) -> None:
        """A newline in a text does not begin another line."""
        self.manager.tell("READY=1", "STATUS=a\nMAINPID=1")
        self.assertEqual(self.stand_in.new(), [["READY=1", "STATUS=a MAINPID=1"]])

    def test_keep(self) -> None:
        """A socket is sent with its name, and is the same socket."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.manager.store("host", reading)
        self.assertEqual(self.stand_in.new(), [["FDSTORE=1", "FDPOLL=0", "FDNAME=host"]])
        self.assertTrue(os.path.sameopenfile(self.stand_in.kept["host"], reading))

    def test_nobody_listens(self) -> None:
        """A manager that is gone, or does not read, is not waited for."""
        gone = Manager({"NOTIFY_SOCKET": self.stand_in.path + "-gone"})
        self.assertFalse(gone.tell("READY=1"))
        sent = [self.manager.tell("WATCHDOG=1", patience=0.0) for _ in range(2000)]
        self.assertEqual((sent[0], sent[-1]), (True, False))

    def test_without_a_manager(self) -> None:
        """Without a manager nothing is sent."""
        manager = Manager({})
        self.assertEqual((manager.present, manager.tell("READY=1")), (False, False))
        self.assertEqual((manager.watchdog, manager.inherited), (0.0, {}))


class EnvironmentTests(SynchronousTestCase):
    """Reading the manager's variables."""

    def test_watchdog(self) -> None:
        """The watchdog applies to this process only."""
        pid = str(os.getpid())
        self.assertEqual(Manager({"WATCHDOG_USEC": "3000000"}).watchdog, 3.0)
        own = {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": pid}
        self.assertEqual(Manager(own).watchdog, 3.0)
        self.assertEqual(Manager({**own, "WATCHDOG_PID": "1"}).watchdog, 0.0)
        self.assertEqual(Manager({"WATCHDOG_USEC": "soon"}).watchdog, 0.0)

    def test_no_child_inherits(self) -> None:
        """The variables are removed."""
        environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "LISTEN_FDS": "0", "HOME": "/"}
        Manager(environment)
        self.assertEqual(environment, {"HOME": "/"})

    def test_room(self) -> None:
        """The number of descriptors is limited if the manager gives a limit."""
        notify = {"NOTIFY_SOCKET": "/x"}
        self.assertEqual(Manager({**notify, "FDSTORE": "3"}).room, 3)
        self.assertGreater(Manager(notify).room, 500)
        self.assertEqual(Manager({"FDSTORE": "3"}).room, 0)

    def test_names(self) -> None:
        """Each path has its own name, in the form that a manager accepts."""
        self.assertEqual(name_of("/sock/msu"), "/sock/msu")
        names = {name_of(path) for path in ("/a:b", "/a%b", "/a\nb", "/a\u00e4b")}
        self.assertEqual(len(names), 4)
        for name in names:
            self.assertNotIn(":", name)
            self.assertTrue(name.isascii() and name.isprintable())
        self.assertEqual(len(name_of("/" * 300)), 255)


HANDED = """
import os, sys
given = int(sys.argv[1])
os.dup2(given, 3)
os.dup2(given, 4)
if given > 4:
    os.close(given)
if sys.argv[2] == "late":
    import twisted.internet.endpoints
os.environ["LISTEN_PID"] = str(os.getpid())
from lonc.daemon.systemd import Manager
manager = Manager(os.environ)
first = manager.inherited.pop("/first")
print(os.read(first, 9).decode(), os.get_inheritable(first), manager.inherited)
"""


class InheritedTests(SynchronousTestCase):
    """Descriptors that were stored during a restart."""

    def test_taken(self) -> None:
        """Descriptors are taken by their names; those without a path are left alone."""
        self.check("late")

    def test_taken_by_twisted(self) -> None:
        """The same if Twisted has already read the variables, and removed two."""
        self.check("early")

    def test_for_another_process(self) -> None:
        """Variables for another process are removed, and nothing is taken."""
        handed = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "/first"}
        program = (
            "import os; from lonc.daemon.systemd import Manager; "
            "print(Manager(os.environ).inherited, os.environ.get('LISTEN_FDNAMES'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **handed},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("{} None\n", ""))

    def test_no_socket(self) -> None:
        """A descriptor that is no socket is skipped with a warning, closed and removed."""
        notes = notes_of(self)
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        self.patch(systemd, "FIRST", reading)
        environment = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "/x", "LISTEN_PID": str(os.getpid())}
        self.assertEqual(Manager(environment).inherited, {})
        self.assertEqual(notes.at(LogLevel.warn), ["no socket was kept as /x: it is skipped"])
        self.assertRaises(OSError, os.fstat, reading)

    def check(self, when: str) -> None:
        """Pass a socket to another process; check what it takes."""
        reading, writing = socket.socketpair()
        self.addCleanup(reading.close)
        writing.send(b"hello")
        writing.close()
        names = "/first:/second:other:/third"
        environment = {**os.environ, "LISTEN_FDS": "4", "LISTEN_FDNAMES": names}
        done = subprocess.run(
            [sys.executable, "-c", HANDED, str(reading.fileno()), when],
            pass_fds=[reading.fileno()],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("hello False {'/second': 4}\n", ""))


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
