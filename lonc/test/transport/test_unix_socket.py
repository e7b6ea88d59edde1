"""UNIX sockets in the file system."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.doubles import FakeNetwork, FakePort
from lonc.transport.unix_socket import (
    BACKLOG,
    LocalSocket,
    NoKeeper,
    SocketError,
    clear_stale_socket,
)


class SocketTestCase(SynchronousTestCase):
    """A short path for a socket."""

    def setUp(self) -> None:
        # Not below trial's folder: a socket's path has to be short.
        folder = tempfile.TemporaryDirectory(prefix="lonc-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "l1")

    def bound(self, listening: bool = False, backlog: int = 1) -> socket.socket:
        """Return a socket that somebody else has at the path."""
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.bind(self.path)
        if listening:
            other.listen(backlog)
        return other


class StaleSocketTests(SocketTestCase):
    """S4: what a crash left behind goes, and nothing else."""

    def refusal(self) -> str:
        """Return why the path cannot be cleared."""
        with self.assertRaises(SocketError) as caught:
            clear_stale_socket(self.path)
        self.assertTrue(os.path.lexists(self.path))
        return str(caught.exception)

    def test_nothing_there(self) -> None:
        """Where nothing is, nothing has to go."""
        clear_stale_socket(self.path)

    def test_left_by_a_crash(self) -> None:
        """S4: a socket that nobody listens on is removed."""
        self.bound(listening=True).close()
        clear_stale_socket(self.path)
        self.assertFalse(os.path.lexists(self.path))

    def test_in_use(self) -> None:
        """S4: a socket that is listened on stays, and the process is named."""
        self.bound(listening=True)
        self.assertEqual(
            self.refusal(), f"{self.path}: process {os.getpid()} is already listening there"
        )

    def test_in_use_and_full(self) -> None:
        """S4: one whose queue is full is in use as well."""
        self.bound(listening=True, backlog=0)
        waiting = []
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.setblocking(False)
            waiting.append(client.connect_ex(self.path))
        self.assertNotEqual(waiting[-1], 0)
        self.assertEqual(self.refusal(), f"{self.path}: a process is already listening there")

    def test_no_socket(self) -> None:
        """A file, a folder or a link to a stale socket is not lonc's to remove."""
        with open(self.path, "w"):
            pass
        self.assertIn("other than a socket is in the way", self.refusal())
        os.unlink(self.path)
        os.mkdir(self.path)
        self.assertIn("other than a socket is in the way", self.refusal())
        os.rmdir(self.path)
        os.symlink("elsewhere", self.path)
        self.assertIn("other than a socket is in the way", self.refusal())

    def test_folder_missing(self) -> None:
        """A folder that is a file is named with the reason."""
        with open(self.path, "w"):
            pass
        with self.assertRaises(SocketError) as caught:
            clear_stale_socket(f"{self.path}/l1")
        self.assertEqual(str(caught.exception), f"{self.path}/l1: Not a directory")


class LocalSocketTests(SocketTestCase):
    """S4, F14, S19: a host's own socket."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.network = FakeNetwork(self.clock)
        self.addCleanup(self.let_go)
        self.socket = self.made()

    def let_go(self) -> None:
        """Close every port."""
        for port in self.network.ports:
            port.let_go()

    def made(self) -> LocalSocket:
        """Return a socket that is not open yet."""
        return LocalSocket(self.network, Factory(), NoKeeper())

    @property
    def mode(self) -> int:
        """Return the mode of the socket's file."""
        return stat.S_IMODE(os.stat(self.path).st_mode)

    def connects(self) -> bool:
        """Whether a client finds somebody at the path."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.path) == 0

    def test_open(self) -> None:
        """S4, F14: clients find it, with the mode and group asked for and a backlog of 1024."""
        group = os.getgid() or 65534  # root may give it to any
        self.socket.open(self.path, 0o600, group)
        self.assertTrue(self.connects() and self.socket.intact)
        self.assertEqual((self.mode, os.stat(self.path).st_gid), (0o600, group))
        self.assertEqual((self.network.backlogs, BACKLOG), ([1024], 1024))

    def test_close(self) -> None:
        """S4: the file goes at once; the Deferred fires when the port has closed."""
        self.socket.open(self.path, 0o660, None)
        closed = self.socket.close()
        self.assertFalse(os.path.exists(self.path) or self.socket.intact)
        self.assertNoResult(closed)
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertTrue(self.network.ports[0].closed)
        self.successResultOf(self.socket.close())

    def test_over_a_stale_one(self) -> None:
        """S4: what a crash left behind is replaced."""
        self.bound(listening=True).close()
        self.socket.open(self.path, 0o660, None)
        self.assertTrue(self.connects())

    def test_in_use(self) -> None:
        """S4: a socket that is in use stays whole, and can be tried again once it is free."""
        other = self.bound(listening=True)
        self.assertRaises(SocketError, self.socket.open, self.path, 0o660, None)
        self.assertFalse(self.socket.intact)
        other.close()
        self.socket.open(self.path, 0o660, None)
        self.assertTrue(self.socket.intact)

    def test_mode_changes(self) -> None:
        """F13, F14: another mode is given to the socket that is there, and nobody is closed."""
        self.socket.open(self.path, 0o660, None)
        self.socket.open(self.path, 0o666, None)
        self.assertEqual((self.mode, len(self.network.ports)), (0o666, 1))
        self.clock.advance(0)
        self.assertTrue(self.connects())

    def test_group_is_not_ours(self) -> None:
        """F14: a group that lonc may not give is named; it listens, for its own user and group."""

        def chown(path: str, user: int, group: int) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "chown", chown)
        error = self.assertRaises(SocketError, self.socket.open, self.path, 0o660, 7)
        self.assertEqual(str(error), f"{self.path}: not for group 7: Operation not permitted")
        self.assertTrue(self.connects() and self.socket.intact)

    def test_moves(self) -> None:
        """F13: another path is listened on, and the old file goes."""
        self.socket.open(self.path, 0o660, None)
        old, self.path = self.path, f"{self.path}2"
        self.socket.open(self.path, 0o660, None)
        self.assertEqual((os.path.exists(old), self.connects()), (False, True))
        self.clock.advance(0)
        self.assertEqual([port.closed for port in self.network.ports], [True, False])

    def test_removed(self) -> None:
        """S19: a file that was removed is made again, and the end of the old port spares it."""
        self.socket.open(self.path, 0o660, None)
        os.unlink(self.path)
        self.assertFalse(self.socket.intact)
        self.socket.open(self.path, 0o660, None)
        self.clock.advance(0)
        self.assertTrue(self.connects() and self.socket.intact)

    def test_replaced(self) -> None:
        """S19: what somebody else put there is not ours, and stays when ours is closed."""
        self.socket.open(self.path, 0o660, None)
        os.unlink(self.path)
        self.bound(listening=True)
        self.assertFalse(self.socket.intact)
        self.assertRaises(SocketError, self.socket.open, self.path, 0o660, None)
        self.socket.close()
        self.clock.advance(0)
        self.assertTrue(os.path.exists(self.path))

    def test_another_takes_its_place(self) -> None:
        """S19: after close another may open at the same path before the first port has ended."""
        self.socket.open(self.path, 0o660, None)
        self.socket.close()
        second = self.made()
        second.open(self.path, 0o660, None)
        self.clock.advance(0)
        self.assertTrue(second.intact and self.connects())

    def test_cannot_listen(self) -> None:
        """Section 8: what the network says is passed on with the path."""

        class Refusing(FakeNetwork):
            def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> FakePort:
                raise CannotListenError(None, path, OSError("no room"))

        with self.assertRaises(SocketError) as caught:
            LocalSocket(Refusing(self.clock), Factory(), NoKeeper()).open(self.path, 0o660, None)
        self.assertEqual(str(caught.exception), f"{self.path}: no room")

    def test_folder_missing(self) -> None:
        """Section 8: a folder that is not there is a reason as well."""
        os.rmdir(os.path.dirname(self.path))
        self.addCleanup(os.mkdir, os.path.dirname(self.path))
        with self.assertRaises(SocketError) as caught:
            self.socket.open(self.path, 0o660, None)
        self.assertEqual(str(caught.exception), f"{self.path}: No such file or directory")
