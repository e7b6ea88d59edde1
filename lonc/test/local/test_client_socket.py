"""The socket of a host and its clients, from opening to the end."""

from __future__ import annotations

import errno
import os
import socket
import stat

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from lonc.local.client_socket import BACKLOG, FAREWELL, ClientSocket
from lonc.test.fixtures.doubles import FakeClient, FakeNetwork, FakePort
from lonc.test.fixtures.local_client import ClientTestCase
from lonc.test.fixtures.streams import SocketFileCase
from lonc.transport.network import Keeper
from lonc.transport.unix_socket import SocketError


class ClientSocketCase(ClientTestCase, SocketFileCase):
    """A host's socket, which is not open yet."""

    def setUp(self) -> None:
        super().setUp()
        self.network = FakeNetwork(self.clock)
        self.addCleanup(self.network.let_go)
        self.socket = self.made()

    def made(self) -> ClientSocket:
        """Return a new socket, not yet open."""
        return ClientSocket(self.host, self.clients, self.network, Keeper(), self.clock)

    def open(self, mode: int = 0o660, group: int | None = None) -> None:
        """Open the socket at the path."""
        self.socket.open(self.path, mode, group)


class FileTests(ClientSocketCase):
    """The file of the socket (S4, F14, S19)."""

    @property
    def mode(self) -> int:
        """Return the mode of the socket's file."""
        return stat.S_IMODE(os.stat(self.path).st_mode)

    def assert_served(self) -> None:
        """Check that a client can connect at the path, and that the file is intact."""
        with socket.socket(socket.AF_UNIX) as client:
            self.assertEqual(client.connect_ex(self.path), 0)
        self.assertTrue(self.socket.intact)

    def refusal(self, group: int | None = None) -> str:
        """Return why it cannot be opened."""
        return str(self.assertRaises(SocketError, self.open, group=group))

    def test_open(self) -> None:
        """S4, F14: it listens with the given mode and group, and a backlog of 1024."""
        group = os.getgid() or 65534  # root may give it to any
        self.open(0o600, group)
        self.assert_served()
        self.assertEqual((self.mode, os.stat(self.path).st_gid), (0o600, group))
        self.assertEqual((self.network.backlogs, BACKLOG), ([1024], 1024))

    def test_close(self) -> None:
        """S4: the file is removed at once; the Deferred fires when the port is closed."""
        self.open()
        closed = self.socket.close()
        self.assertFalse(os.path.exists(self.path) or self.socket.intact)
        self.assertNoResult(closed)
        self.turn()
        self.successResultOf(closed)
        self.assertTrue(self.network.ports[0].closed)
        self.successResultOf(self.socket.close())

    def test_over_a_stale_one(self) -> None:
        """S4: a socket left behind by a crash is replaced."""
        self.bound(listening=True).close()
        self.open()
        self.assert_served()

    def test_in_use(self) -> None:
        """S4: a socket in use is left alone; opening succeeds once it is free."""
        other = self.bound(listening=True)
        self.assertIn("already listening", self.refusal())
        self.assertFalse(self.socket.intact)
        other.close()
        self.open()
        self.assert_served()

    def test_mode_changes(self) -> None:
        """F13, F14: a new mode is applied to the existing socket, which stays open."""
        self.open()
        self.open(0o666)
        self.turn()
        self.assert_served()
        self.assertEqual((self.mode, len(self.network.ports)), (0o666, 1))

    def test_group_is_not_ours(self) -> None:
        """F14: a group that lonc may not set is an error, but the socket is open without it."""

        def chown(path: str, user: int, group: int) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "chown", chown)
        why = f"{self.path}: not for group 7: Operation not permitted"
        self.assertEqual(self.refusal(group=7), why)
        self.assert_served()

    def test_moves(self) -> None:
        """F13: it listens at the new path, and the old file is removed."""
        self.open()
        old, self.path = self.path, f"{self.path}2"
        self.open()
        self.assertFalse(os.path.exists(old))
        self.assert_served()
        self.turn()
        self.assertEqual([port.closed for port in self.network.ports], [True, False])

    def test_removed(self) -> None:
        """S19: a removed file is created again, and the end of the old port leaves it."""
        self.open()
        os.unlink(self.path)
        self.assertFalse(self.socket.intact)
        self.open()
        self.turn()
        self.assert_served()

    def test_replaced(self) -> None:
        """S19: a file that replaced ours is left alone when ours is closed."""
        self.open()
        os.unlink(self.path)
        self.bound(listening=True)
        self.assertFalse(self.socket.intact)
        self.assertIn("already listening", self.refusal())
        self.socket.close()
        self.turn()
        self.assertTrue(os.path.exists(self.path))

    def test_another_takes_its_place(self) -> None:
        """S19: another socket can be opened at the path before the first port has stopped."""
        self.open()
        self.socket.close()
        self.socket = self.made()
        self.open()
        self.turn()
        self.assert_served()

    def test_cannot_listen(self) -> None:
        """Section 8: the error of the network is reported with the path."""

        def refuse(path: str, factory: Factory, backlog: int, mode: int) -> FakePort:
            raise CannotListenError(None, path, OSError("no room"))

        self.patch(self.network, "listenUNIX", refuse)
        self.assertEqual(self.refusal(), f"{self.path}: no room")

    def test_folder_missing(self) -> None:
        """Section 8: a missing folder is reported."""
        self.path = os.path.join(self.path, "l2")
        self.assertEqual(self.refusal(), f"{self.path}: No such file or directory")


class DismissTests(ClientSocketCase):
    """Clients have a second to read their last answers, and to disconnect."""

    def come(self, room: float = float("inf")) -> FakeClient:
        """Return a client that has sent a request and received its answer."""
        self.open()
        client = FakeClient(self.clock, self.network.ports[0].factory, room)
        client.write(b"ping\n")
        self.host.answer()
        return client

    def dismissed(self) -> Deferred[None]:
        """Close the socket, and dismiss the clients."""
        return Deferred.fromCoroutine(self.socket.dismiss(self.socket.close()))

    def test_at_once(self) -> None:
        """The file is removed at once; it is done when the last client has disconnected."""
        client = self.come()
        self.assertEqual(self.socket.clients, 1)
        dismissed = self.dismissed()
        self.assertFalse(os.path.exists(self.path))
        self.turn()
        self.assertNoResult(dismissed)
        client.hang_up()
        self.turn()
        self.successResultOf(dismissed)
        self.assertEqual((client.read, self.socket.clients), (b"re:ping\n", 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_does_not_read(self) -> None:
        """A client that does not read is disconnected after a second."""
        client = self.come(room=0.0)
        dismissed = self.dismissed()
        self.clock.advance(FAREWELL - 0.1)
        self.assertNoResult(dismissed)
        self.clock.advance(0.1)
        self.turn()
        self.turn()
        self.successResultOf(dismissed)
        self.assertTrue(client.wire.closed)

    def test_comes_meanwhile(self) -> None:
        """It is done when clients accepted before the socket is closed are disconnected, too."""
        self.open()
        dismissed = self.dismissed()
        self.assertNoResult(dismissed)
        late = self.network.client(self.path)
        done: list[bool] = []
        dismissed.addCallback(lambda _: done.append(late.wire.closed))
        self.turn()
        self.turn()
        self.assertEqual(done, [True])
