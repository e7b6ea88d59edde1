"""TCP connections that are made, over real sockets of this machine."""

from __future__ import annotations

import os
import socket

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConnector
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from lonc.test.fixtures.networks import ConnectFactory, NetworkTestCase
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.test.fixtures.streams import Recorder
from lonc.transport.tcp import keep_alive

TCP = socket.IPPROTO_TCP


class ConnectingTests(NetworkTestCase):
    """TCP connections to addresses."""

    def serve(self, host: str = "127.0.0.1") -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.create_server((host, 0), family=family)
        self.addCleanup(server.close)
        return server

    def connecting(self, receiver: ConnectFactory, server: socket.socket) -> IConnector:
        """Start to connect to a server."""
        host, port = server.getsockname()
        return self.network.connectTCP(host, port, receiver, 5)

    def assert_nothing_left(self) -> None:
        """Check that the reactor has no readers and no delayed calls."""
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))

    def unused_port(self) -> int:
        with self.serve() as server:
            port: int = server.getsockname()[1]
        return port

    def test_connects(self) -> None:
        """Data is exchanged, and the end is reported to protocol and factory."""
        for host, kind in (("127.0.0.1", IPv4Address), ("::1", IPv6Address)):
            server = self.serve(host)
            port = server.getsockname()[1]
            receiver = ConnectFactory()
            connector = self.network.connectTCP(host, port, receiver, 5)
            self.assertTrue(verifyObject(IConnector, connector))
            self.assertEqual(receiver.events, ["started"])
            self.wait()
            address = kind("TCP", host, port)
            self.assertEqual(receiver.events, ["started", f"built for {address}"])
            self.assertEqual(connector.getDestination(), address)
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            theirs, _ = server.accept()
            self.addCleanup(theirs.close)
            assert receiver.made is not None
            receiver.made.transport.write(b"question")
            self.assertEqual(theirs.recv(9), b"question")
            theirs.send(b"answer")
            self.wait()
            self.assertEqual(receiver.made.got, b"answer")
            self.assertTrue(receiver.made.transport.getTcpNoDelay())
            keep_alive(receiver.made.transport, 7, 3, 2)
            idle = receiver.made.transport.getHandle().getsockopt(TCP, socket.TCP_KEEPIDLE)
            self.assertEqual(idle, 7)
            theirs.close()
            self.wait()
            self.assertEqual(receiver.made.events, ["ConnectionDone"])
            self.assertEqual(receiver.events[2:], ["lost: ConnectionDone"])

    def test_refused(self) -> None:
        """A refused connection is reported to the factory."""
        receiver = ConnectFactory()
        self.network.connectTCP("127.0.0.1", self.unused_port(), receiver, 5)
        self.assertEqual(receiver.events, ["started"])
        self.wait()
        self.assertEqual(receiver.events, ["started", "failed: ConnectionRefusedError"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(set(os.listdir("/proc/self/fd")) - self.before, set())

    def test_timeout(self) -> None:
        """A timeout is reported to the factory, and not too early."""
        # The kernel answers nobody once a listener's queue is full.
        server = self.serve()
        server.listen(0)
        address = server.getsockname()
        for _ in range(2):
            filler = socket.socket()
            self.addCleanup(filler.close)
            filler.setblocking(False)
            filler.connect_ex(address)
        receiver = ConnectFactory()
        self.connecting(receiver, server)
        self.reactor.advance(4.9)
        self.loop.doRead()
        self.assertEqual(receiver.events, ["started"])
        self.reactor.advance(0.2)
        self.turn()
        self.assertEqual(receiver.events, ["started", "failed: TimeoutError"])
        self.assert_nothing_left()

    def test_made_in_a_pause(self) -> None:
        """A connection made while the process was stopped is no timeout."""
        server = self.serve()
        receiver = ConnectFactory()
        self.connecting(receiver, server)
        self.reactor.advance(100)
        self.assertEqual(
            receiver.events[1:], [f"built for {IPv4Address('TCP', *server.getsockname())}"]
        )
        theirs, _ = server.accept()
        self.addCleanup(theirs.close)
        theirs.send(b"hello")
        self.assertTrue(self.network.behind)
        self.wait()
        assert receiver.made is not None
        self.assertEqual(receiver.made.got, b"hello")
        self.assertFalse(self.network.behind)

    def test_name(self) -> None:
        """A name is not looked up."""
        receiver = ConnectFactory()
        self.network.connectTCP("localhost", 5663, receiver, 5)
        self.turn()
        self.assertEqual(receiver.events, ["started", "failed: UnknownHostError"])

    def test_disconnect(self) -> None:
        """A cancelled attempt fails at once, and leaves nothing."""
        receiver = ConnectFactory()
        connector = self.connecting(receiver, self.serve())
        connector.disconnect()
        self.assertEqual(receiver.events, ["started", "failed: UserError"])
        self.turn()
        self.assert_nothing_left()

    def test_disconnect_when_connected(self) -> None:
        """`disconnect` closes the connection, and the connector can connect again."""
        receiver = ConnectFactory()
        connector = self.connecting(receiver, self.serve())
        self.wait()
        connector.disconnect()
        self.turn()
        self.assertEqual(receiver.events[2:], ["lost: ConnectionDone"])
        receiver.made, receiver.built, receiver.done = Recorder(), Deferred(), Deferred()
        connector.connect()
        self.wait()
        self.assertTrue(receiver.made.transport.connected)
        connector.disconnect()
        self.turn()
        self.assert_nothing_left()

    def test_disconnect_in_connection_made(self) -> None:
        """A protocol may disconnect in `connectionMade`."""

        class Shy(Recorder):
            def connectionMade(self) -> None:
                connector.disconnect()

        receiver = ConnectFactory()
        receiver.made = Shy()
        connector = self.connecting(receiver, self.serve())
        self.wait()
        self.assertEqual(receiver.made.events, ["ConnectionDone"])
        self.assertEqual(receiver.events[2:], ["lost: ConnectionDone"])

    def test_no_protocol(self) -> None:
        """If the factory returns no protocol, the connection is closed."""
        receiver = ConnectFactory()
        receiver.made = None
        self.connecting(receiver, self.serve())
        self.wait()
        self.assertEqual(receiver.events[2:], ["lost: ConnectionDone"])

    def test_fault_in_factory(self) -> None:
        """An exception of the factory is reported to it, and logged."""

        class Faulty(ConnectFactory):
            def buildProtocol(self, addr: IAddress | None) -> Recorder | None:
                raise ZeroDivisionError

        receiver = Faulty()
        self.connecting(receiver, self.serve())
        self.wait()
        self.assertEqual(receiver.events, ["started", "failed: ZeroDivisionError"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reactor_stops(self) -> None:
        """An attempt fails when the reactor stops."""
        receiver = ConnectFactory()
        self.connecting(receiver, self.serve())
        self.loop.connectionLost(Failure(ConnectionError()))
        self.assertEqual(receiver.events, ["started", "failed: UserError"])
        self.assert_nothing_left()


class KeepaliveTests(HostTestCase):
    """The options of a connection to a lond."""

    def test_keepalive(self) -> None:
        """TCP keepalive is set up according to the settings."""
        stage = Stage(self, keepalive_time=7, keepalive_interval=3, keepalive_probes=2)
        (lond,) = stage.connect()
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        expected = {(TCP, option): value for option, value in zip(options, (7, 3, 2), strict=True)}
        self.assertEqual(lond.wire.options, expected)
