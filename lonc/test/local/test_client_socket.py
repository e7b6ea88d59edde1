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
        """Return a socket that is not open yet."""
        return ClientSocket(self.host, self.clients, self.network, Keeper(), self.clock)

    def open(self, mode: int = 0o660, group: int | None = None) -> None:
        """Open the socket at the path."""
        self.socket.open(self.path, mode, group)


class FileTests(ClientSocketCase):
    """S4, F14, S19: the file."""

    @property
    def mode(self) -> int:
        """Return the mode of the socket's file."""
        return stat.S_IMODE(os.stat(self.path).st_mode)

    def assert_served(self) -> None:
        """A client finds somebody at the path: this socket."""
        with socket.socket(socket.AF_UNIX) as client:
            self.assertEqual(client.connect_ex(self.path), 0)
        self.assertTrue(self.socket.intact)

    def refusal(self, group: int | None = None) -> str:
        """Return why it cannot be opened."""
        return str(self.assertRaises(SocketError, self.open, group=group))

    def test_open(self) -> None:
        """S4, F14: clients find it, with the mode and group asked for and a backlog of 1024."""
        group = os.getgid() or 65534  # root may give it to any
        self.open(0o600, group)
        self.assert_served()
        self.assertEqual((self.mode, os.stat(self.path).st_gid), (0o600, group))
        self.assertEqual((self.network.backlogs, BACKLOG), ([1024], 1024))

    def test_close(self) -> None:
        """S4: the file goes at once; the Deferred fires when the port has closed."""
        self.open()
        closed = self.socket.close()
        self.assertFalse(os.path.exists(self.path) or self.socket.intact)
        self.assertNoResult(closed)
        self.turn()
        self.successResultOf(closed)
        self.assertTrue(self.network.ports[0].closed)
        self.successResultOf(self.socket.close())

    def test_over_a_stale_one(self) -> None:
        """S4: what a crash left behind is replaced."""
        self.bound(listening=True).close()
        self.open()
        self.assert_served()

    def test_in_use(self) -> None:
        """S4: a socket that is in use stays whole, and can be tried again once it is free."""
        other = self.bound(listening=True)
        self.assertIn("already listening", self.refusal())
        self.assertFalse(self.socket.intact)
        other.close()
        self.open()
        self.assert_served()

    def test_mode_changes(self) -> None:
        """F13, F14: another mode is given to the socket that is there, and nobody is closed."""
        self.open()
        self.open(0o666)
        self.turn()
        self.assert_served()
        self.assertEqual((self.mode, len(self.network.ports)), (0o666, 1))

    def test_group_is_not_ours(self) -> None:
        """F14: a group that lonc may not give is named; it listens, for its own user and group."""

        def chown(path: str, user: int, group: int) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "chown", chown)
        why = f"{self.path}: not for group 7: Operation not permitted"
        self.assertEqual(self.refusal(group=7), why)
        self.assert_served()

    def test_moves(self) -> None:
        """F13: another path is listened on, and the old file goes."""
        self.open()
        old, self.path = self.path, f"{self.path}2"
        self.open()
        self.assertFalse(os.path.exists(old))
        self.assert_served()
        self.turn()
        self.assertEqual([port.closed for port in self.network.ports], [True, False])

    def test_removed(self) -> None:
        """S19: a file that was removed is made again, and the end of the old port spares it."""
        self.open()
        os.unlink(self.path)
        self.assertFalse(self.socket.intact)
        self.open()
        self.turn()
        self.assert_served()

    def test_replaced(self) -> None:
        """S19: what somebody else put there is not ours, and stays when ours is closed."""
        self.open()
        os.unlink(self.path)
        self.bound(listening=True)
        self.assertFalse(self.socket.intact)
        self.assertIn("already listening", self.refusal())
        self.socket.close()
        self.turn()
        self.assertTrue(os.path.exists(self.path))

    def test_another_takes_its_place(self) -> None:
        """S19: after close another may open at the same path before the first port has ended."""
        self.open()
        self.socket.close()
        self.socket = self.made()
        self.open()
        self.turn()
        self.assert_served()

    def test_cannot_listen(self) -> None:
        """Section 8: what the network says is passed on with the path."""

        def refuse(path: str, factory: Factory, backlog: int, mode: int) -> FakePort:
            raise CannotListenError(None, path, OSError("no room"))

        self.patch(self.network, "listenUNIX", refuse)
        self.assertEqual(self.refusal(), f"{self.path}: no room")

    def test_folder_missing(self) -> None:
        """Section 8: a folder that is not there is a reason as well."""
        self.path = os.path.join(self.path, "l2")
        self.assertEqual(self.refusal(), f"{self.path}: No such file or directory")


class DismissTests(ClientSocketCase):
    """Clients have a second to read what they are owed, and to hang up."""

    def come(self, room: float = float("inf")) -> FakeClient:
        """Return a client that has asked, and whose answer is there."""
        self.open()
        client = FakeClient(self.clock, self.network.ports[0].factory, room)
        client.write(b"ping\n")
        self.host.answer()
        return client

    def dismissed(self) -> Deferred[None]:
        """Close the socket, and dismiss the clients."""
        return Deferred.fromCoroutine(self.socket.dismiss(self.socket.close()))

    def test_at_once(self) -> None:
        """The file goes at once. Once the last client has hung up nothing is waited for."""
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
        """Who does not read is cut off after a second."""
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
        """Who was accepted before the socket was closed goes too."""
        self.open()
        dismissed = self.dismissed()
        late = self.network.client(self.path)
        self.turn()
        self.turn()
        self.successResultOf(dismissed)
        self.assertTrue(late.wire.closed)
