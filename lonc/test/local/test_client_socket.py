"""The socket of a host and its clients, to the end."""

from __future__ import annotations

import os
import tempfile

from twisted.internet.defer import Deferred

from lonc.local.client_socket import FAREWELL, ClientSocket
from lonc.test.fixtures.doubles import FakeClient, FakeNetwork
from lonc.test.fixtures.local_client import ClientTestCase
from lonc.transport.unix_socket import NoKeeper


class DismissTests(ClientTestCase):
    """Clients have a second to read what they are owed, and to hang up."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="lonc-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "l2")
        network = FakeNetwork(self.clock)
        self.socket = ClientSocket(self.host, self.clients, network, NoKeeper(), self.clock)
        self.socket.open(self.path, 0o660, None)
        (self.port,) = network.ports
        self.addCleanup(self.port.let_go)

    def come(self, room: float = float("inf")) -> FakeClient:
        """Return a client that has asked, and whose answer is there."""
        client = FakeClient(self.clock, self.port.factory, room)
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
        dismissed = self.dismissed()
        late = FakeClient(self.clock, self.port.factory)
        self.turn()
        self.turn()
        self.successResultOf(dismissed)
        self.assertTrue(late.wire.closed)
