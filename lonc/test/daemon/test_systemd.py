"""What a service manager is told, and hands over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon import systemd
from lonc.daemon.systemd import Manager, name_of
from lonc.test.fixtures.beginnings import notes_of, short_folder
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
        self.assertEqual((manager.watchdog, manager.claim("x")), (0.0, None))


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
first, again, missing = manager.claim("/first"), manager.claim("/first"), manager.claim("/third")
print(os.read(first, 9).decode(), again, missing, os.get_inheritable(first))
print(manager.claim_rest(), manager.claim_rest(), manager.claim("other"))
"""


class InheritedTests(SynchronousTestCase):
    """Descriptors that were stored during a restart."""

    def test_taken(self) -> None:
        """A descriptor is claimed by its name, once; those without a path are left alone."""
        self.check("late")

    def test_taken_by_twisted(self) -> None:
        """The same if Twisted has already read the variables, and removed two."""
        self.check("early")

    def test_for_another_process(self) -> None:
        """Variables for another process are removed, and nothing is claimed."""
        handed = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "/first"}
        program = (
            "import os; from lonc.daemon.systemd import Manager; "
            "print(Manager(os.environ).claim('/first'), os.environ.get('LISTEN_FDNAMES'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **handed},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("None None\n", ""))

    def test_no_socket(self) -> None:
        """A descriptor that is no socket is skipped with a warning, closed and removed."""
        notes = notes_of(self)
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        self.patch(systemd, "FIRST", reading)
        environment = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "/x", "LISTEN_PID": str(os.getpid())}
        self.assertIsNone(Manager(environment).claim("/x"))
        self.assertEqual(notes.at(LogLevel.warn), ["no socket was kept as /x: it is skipped"])
        self.assertRaises(OSError, os.fstat, reading)

    def check(self, when: str) -> None:
        """Pass a socket to another process; check what it claims."""
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
        self.assertEqual(
            (done.stdout, done.stderr), ("hello None None False\n{'/second': 4} {} None\n", "")
        )
