# Twisted's test cases have no annotations:
# mypy: allow-untyped-calls
"""Which network a reactor has."""

from __future__ import annotations

import os
import socket
import stat

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.test.fixtures.networks import ConnectFactory, Listener
from lonc.transport.network import ReactorNetwork, SocketNetwork, network


class ChoiceTests(SynchronousTestCase):
    """Which network serves."""

    def test_real_reactor(self) -> None:
        """With a reactor that watches descriptors, the sockets have their own epoll."""
        from twisted.internet import reactor

        self.assertIsInstance(network(reactor), SocketNetwork)

    def test_memory_reactor(self) -> None:
        """With another, what is asked for goes to the reactor, with the mode and without a lock."""
        reactor = MemoryReactorClock()
        factory, receiver = Listener(), ConnectFactory()
        chosen = network(reactor)
        self.assertIsInstance(chosen, ReactorNetwork)
        chosen.listenUNIX("path", factory, 7, 0o640)
        chosen.connectTCP("127.0.0.1", 5663, receiver, 3)
        self.assertEqual(reactor.unixServers, [("path", factory, 7, 0o640, 0)])
        self.assertEqual(reactor.tcpClients, [("127.0.0.1", 5663, receiver, 3, None)])


class RealReactorTests(TestCase):
    """With the real reactor."""

    async def test_relay(self) -> None:
        """It connects, listens with the mode given, and leaves another's file alone."""
        from twisted.internet import reactor

        chosen = network(reactor)
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.relpath(os.path.join(folder, "s"))
        listener, receiver = Listener(), ConnectFactory()
        port = chosen.listenUNIX(path, listener, 5, 0o640)
        mode = stat.S_IMODE(os.stat(path).st_mode)
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port_number = server.getsockname()
            chosen.connectTCP(host, port_number, receiver, 5)
            await receiver.built
            server.accept()[0].close()
            await receiver.done
        assert receiver.made is not None
        seen: list[object] = [mode, receiver.made.events, receiver.events[2:]]
        os.unlink(path)
        with open(path, "w"):
            pass
        stopped = port.stopListening()
        assert stopped is not None
        await stopped
        seen.append(os.path.exists(path))
        self.assertEqual(seen, [0o640, ["ConnectionDone"], ["lost: ConnectionDone"], True])
