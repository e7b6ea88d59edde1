# Twisted's test cases have no annotations:
# mypy: allow-untyped-calls
"""Tests for lonc.transport.network, over real sockets on this machine."""

from __future__ import annotations

import gc
import os
import resource
import select
import socket
import stat

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionLost
from twisted.internet.interfaces import IAddress, IConnector, IListeningPort
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from lonc.test.fixtures.streams import Recorder
from lonc.transport.network import (
    ACCEPT_PAUSE,
    ACCEPTS,
    LAST_PAUSES,
    ReactorNetwork,
    SocketNetwork,
    network,
)


class Listener(Factory):
    """Makes recorders and keeps them."""

    noisy = False

    def __init__(self) -> None:
        self.made: list[Recorder] = []

    def buildProtocol(self, addr: IAddress | None) -> Recorder | None:
        self.made.append(Recorder())
        return self.made[-1]


class ReplyReceiver(ClientFactory):
    """Notes what becomes of its connection."""

    noisy = False

    def __init__(self) -> None:
        self.events: list[str] = []
        self.made: Recorder | None = Recorder()
        self.built = Deferred[None]()
        self.done = Deferred[None]()

    def startedConnecting(self, connector: IConnector) -> None:
        self.events.append("started")

    def buildProtocol(self, addr: IAddress | None) -> Recorder | None:
        self.events.append(f"built for {addr}")
        self.built.callback(None)
        return self.made

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        assert reason.type is not None
        self.events.append(f"failed: {reason.type.__name__}")

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        assert reason.type is not None
        self.events.append(f"lost: {reason.type.__name__}")
        self.done.callback(None)


class NetworkTestCase(SynchronousTestCase):
    """A network whose loop the test turns itself."""

    def setUp(self) -> None:
        gc.collect()  # what other tests have left
        self.before = set(os.listdir("/proc/self/fd"))
        self.reactor = MemoryReactorClock()
        self.network = SocketNetwork(self.reactor)
        self.loop = self.network.loop
        self.addCleanup(self.loop.connectionLost, Failure(ConnectionLost()))
        folder = self.mktemp()
        os.mkdir(folder)
        # Relative, for the path of a UNIX socket may have no more than some 100 bytes.
        self.path = os.path.relpath(os.path.join(folder, "s"))

    def listen(self, factory: Factory, backlog: int = 100, mode: int = 0o600) -> IListeningPort:
        return self.network.listenUNIX(self.path, factory, backlog, mode)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.connect(self.path)
        return client

    def turn(self) -> None:
        self.loop.doRead()
        self.reactor.advance(0)

    def wait(self) -> None:
        """Wait until the kernel has something for the loop, and give it out."""
        ready, _, _ = select.select([self.loop], [], [], 10)
        self.assertEqual(ready, [self.loop])
        self.turn()

    def stop(self, port: IListeningPort) -> None:
        """Stop listening, and see that nothing is left."""
        self.reactor.advance(0)
        stopped = port.stopListening()
        assert stopped is not None
        self.turn()
        self.successResultOf(stopped)


class ListeningTests(NetworkTestCase):
    """UNIX sockets that listen."""

    def test_serves(self) -> None:
        """Clients are accepted and served; what they wrote at once is received at once."""
        factory = Listener()
        port = self.listen(factory)
        clients = [self.connect() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        self.loop.doRead()
        self.assertEqual([made.got for made in factory.made], [b"0", b"1", b"2"])
        factory.made[1].transport.write(b"answer")
        self.assertEqual(clients[1].recv(9), b"answer")
        self.assertEqual(factory.made[1].transport.getPeer(), UNIXAddress(None))
        self.assertEqual(factory.made[1].transport.getHost(), UNIXAddress(self.path))
        for client in clients:
            client.close()
        self.stop(port)
        self.assertEqual([made.events for made in factory.made], [["ConnectionDone"]] * 3)

    def test_client_that_says_nothing_yet(self) -> None:
        """A client may connect first and write later."""
        factory = Listener()
        port = self.listen(factory)
        client = self.connect()
        self.turn()
        self.assertEqual((factory.made[0].got, factory.made[0].events), (b"", []))
        client.send(b"x")
        self.turn()
        self.assertEqual(factory.made[0].got, b"x")
        client.close()
        self.stop(port)

    def test_crowd(self) -> None:
        """More clients than are accepted at a time are all accepted."""
        factory = Listener()
        port = self.listen(factory, backlog=2 * ACCEPTS)
        clients = [self.connect() for _ in range(ACCEPTS + 5)]
        self.turn()
        self.assertEqual(len(factory.made), ACCEPTS + 5)
        for client in clients:
            client.close()
        self.stop(port)

    def test_mode(self) -> None:
        """F14: the file has the mode that was asked for, whatever the umask."""
        for mode in (0o600, 0o660, 0o666):
            umask = os.umask(0o077)
            try:
                port = self.listen(Listener(), mode=mode)
            finally:
                os.umask(umask)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), mode)
            self.stop(port)

    def test_mode_from_the_first(self) -> None:
        """F14: at no moment is the file more open than that, whatever the umask."""
        seen = []
        bind = socket.socket.bind

        def bind_and_look(listening: socket.socket, path: str) -> None:
            bind(listening, path)
            seen.append(stat.S_IMODE(os.stat(path).st_mode))

        self.patch(socket.socket, "bind", bind_and_look)
        self.addCleanup(os.umask, os.umask(0))
        for mode in (0o600, 0o660):
            port = self.listen(Listener(), mode=mode)
            self.assertEqual(seen.pop(), mode)
            self.stop(port)

    def test_stop(self) -> None:
        """A port that stops takes its file with it; its clients stay."""
        factory = Listener()
        port = self.listen(factory)
        client = self.connect()
        self.turn()
        self.stop(port)
        self.assertFalse(os.path.exists(self.path))
        client.send(b"still there")
        self.turn()
        self.assertEqual(factory.made[0].got, b"still there")
        self.successResultOf(port.stopListening() or Deferred())
        client.close()
        self.turn()
        self.assertEqual(self.reactor.readers, set())

    def test_stop_leaves_another_file(self) -> None:
        """A port that stops leaves a file alone that is not its own any more."""
        port = self.listen(Listener())
        os.rename(self.path, self.path + "1")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
        self.stop(port)
        self.assertTrue(os.path.exists(self.path))

    def test_stop_without_file(self) -> None:
        """A port whose file has gone stops all the same."""
        port = self.listen(Listener())
        os.unlink(self.path)
        self.stop(port)
        self.assertEqual(set(os.listdir("/proc/self/fd")) - self.before, set())

    def test_stopped_by_its_first_client(self) -> None:
        """A port may be stopped while it accepts; who has connected by then is accepted."""

        class Stopping(Listener):
            def buildProtocol(self, addr: IAddress | None) -> Recorder | None:
                stopped.append(port.stopListening())
                return super().buildProtocol(addr)

        stopped: list[Deferred[None] | None] = []
        factory = Stopping()
        port = self.listen(factory)
        clients = [self.connect(), self.connect()]
        self.turn()
        for each in stopped:
            assert each is not None
            self.successResultOf(each)
        for made in factory.made:
            made.transport.write(b"served")
        self.assertEqual([client.recv(9) for client in clients], [b"served"] * 2)

    def test_stop_accepts_who_has_connected(self) -> None:
        """F12: who was accepted by the kernel is served; others are refused, not cut off."""
        factory = Listener()
        port = self.listen(factory, backlog=2 * ACCEPTS)
        other = os.path.join(os.path.dirname(self.path), "other")
        os.link(self.path, other)
        clients = [self.connect() for _ in range(ACCEPTS + 5)]
        port.stopListening()
        with socket.socket(socket.AF_UNIX) as late:
            self.assertRaises(ConnectionRefusedError, late.connect, other)
        self.turn()
        for client, made in zip(clients, factory.made, strict=True):
            made.transport.write(b"con_lost")
            self.assertEqual(client.recv(9), b"con_lost")

    def test_path_in_use(self) -> None:
        """A path that exists is not taken, and the error names it."""
        port = self.listen(Listener())
        problem = self.assertRaises(CannotListenError, self.listen, Listener())
        self.assertIn(self.path, str(problem))
        self.assertIn("in use", str(problem))
        self.assertTrue(os.path.exists(self.path))
        self.stop(port)

    def test_missing_folder(self) -> None:
        """A folder that is not there is an error, and leaves no descriptor."""
        self.path = os.path.join("missing", "s")
        self.assertRaises(CannotListenError, self.listen, Listener())
        self.assertEqual(set(os.listdir("/proc/self/fd")) - self.before, set())

    def test_path_too_long(self) -> None:
        """A path that is too long for a UNIX socket is an error of the same kind."""
        self.path = "x" * 200
        self.assertRaises(CannotListenError, self.listen, Listener())

    def test_rejected(self) -> None:
        """A client for whom there is no protocol is closed, and so is one for whom it fails."""

        class Unwilling(Listener):
            def buildProtocol(self, addr: IAddress | None) -> Recorder | None:
                self.made.append(Recorder())
                if len(self.made) == 1:
                    raise ZeroDivisionError
                return None if len(self.made) == 2 else self.made[-1]

        factory = Unwilling()
        port = self.listen(factory)
        clients = [self.connect() for _ in range(3)]
        self.turn()
        clients[2].send(b"x")
        self.turn()
        self.assertEqual([client.recv(9) for client in clients[:2]], [b"", b""])
        self.assertEqual(factory.made[2].got, b"x")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        for client in clients:
            client.close()
        self.stop(port)

    def test_interface(self) -> None:
        """It is a port as Twisted means it, and knows its path."""
        port = self.listen(Listener())
        self.assertTrue(verifyObject(IListeningPort, port))
        self.assertEqual(port.getHost(), UNIXAddress(self.path))
        self.stop(port)

    def test_reactor_stops(self) -> None:
        """When the reactor stops, the port closes and its file goes."""
        factory = Listener()
        self.listen(factory)
        client = self.connect()
        self.turn()
        self.loop.connectionLost(Failure(ConnectionError()))
        self.assertEqual(factory.made[0].events, ["ConnectionError"])
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(client.recv(9), b"")

    def test_ten_thousand(self) -> None:
        """10,000 clients, one after the other, leave no descriptor."""
        factory = Listener()
        port = self.listen(factory)
        for _ in range(10_000):
            client = socket.socket(socket.AF_UNIX)
            client.connect(self.path)
            client.send(b"x")
            self.loop.doRead()
            client.close()
            self.loop.doRead()
        self.assertEqual({made.got for made in factory.made}, {b"x"})
        self.assertEqual({tuple(made.events) for made in factory.made}, {("ConnectionDone",)})
        self.assertEqual(len(factory.made), 10_000)
        self.stop(port)
        self.assertEqual(set(os.listdir("/proc/self/fd")) - self.before, set())


class NoDescriptorTests(NetworkTestCase):
    """The process has no descriptor for another client."""

    def exhaust(self) -> None:
        """Leave no descriptor."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        self.limits = soft, hard

    def test_clients_wait(self) -> None:
        """Clients wait until there are descriptors again; nothing spins, and the log says it."""
        factory = Listener()
        port = self.listen(factory)
        clients = [self.connect() for _ in range(3)]
        clients[0].send(b"x")
        self.exhaust()
        with capturedLogs() as events:
            self.loop.doRead()
        self.assertEqual(factory.made, [])
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        # Until the pause is over nothing wakes the reactor.
        self.assertEqual(select.select([self.loop], [], [], 0), ([], [], []))
        with capturedLogs() as events_later:
            self.reactor.advance(ACCEPT_PAUSE)
            self.loop.doRead()
        self.assertEqual(factory.made, [])
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
        self.reactor.advance(ACCEPT_PAUSE)
        self.loop.doRead()
        self.assertEqual([made.got for made in factory.made], [b"x", b"", b""])
        lines = [formatEvent(event) for event in events]
        self.assertEqual(lines, [f"{self.path}: no client is accepted: Too many open files"])
        self.assertEqual(events_later, [])
        for client in clients:
            client.close()
        self.turn()
        self.stop(port)

    def test_stop_meanwhile(self) -> None:
        """A port can be stopped while it waits for descriptors."""
        port = self.listen(Listener())
        self.connect()
        self.exhaust()
        self.loop.doRead()
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
        self.stop(port)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(os.path.exists(self.path))

    def test_stop_without_descriptors(self) -> None:
        """A port that stops accepts who has connected once there are descriptors again."""
        factory = Listener()
        port = self.listen(factory)
        client = self.connect()
        self.exhaust()
        stopped = port.stopListening()
        assert stopped is not None
        self.turn()
        self.assertNoResult(stopped)
        self.assertFalse(os.path.exists(self.path))
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
        self.reactor.advance(ACCEPT_PAUSE)
        self.turn()
        self.successResultOf(stopped)
        factory.made[0].transport.write(b"con_lost")
        self.assertEqual(client.recv(9), b"con_lost")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_ends(self) -> None:
        """Where no descriptor is to be had at all, it stops without those who have connected."""
        port = self.listen(Listener())
        client = self.connect()
        self.exhaust()
        stopped = port.stopListening()
        assert stopped is not None
        for _ in range(LAST_PAUSES):
            self.assertNoResult(stopped)
            self.reactor.advance(ACCEPT_PAUSE)
        self.turn()
        self.successResultOf(stopped)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
        self.assertRaises(ConnectionError, client.recv, 9)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_connect(self) -> None:
        """A connection that finds no descriptor fails, and not before `connectTCP` returned."""
        receiver = ReplyReceiver()
        self.exhaust()
        self.network.connectTCP("127.0.0.1", 9, receiver, 5)
        self.assertEqual(receiver.events, ["started"])
        self.reactor.advance(0)
        self.assertEqual(receiver.events, ["started", "failed: ConnectError"])


class ConnectingTests(NetworkTestCase):
    """TCP connections to addresses."""

    def serve(self, host: str = "127.0.0.1") -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.create_server((host, 0), family=family)
        self.addCleanup(server.close)
        return server

    def connect_to(self, server: socket.socket, receiver: ReplyReceiver) -> IConnector:
        host, port = server.getsockname()
        return self.network.connectTCP(host, port, receiver, 5)

    def unused_port(self) -> int:
        with self.serve() as server:
            port: int = server.getsockname()[1]
        return port

    def test_connects(self) -> None:
        """A connection is made, used, and its end told to protocol and factory."""
        for host, kind in (("127.0.0.1", IPv4Address), ("::1", IPv6Address)):
            server = self.serve(host)
            port = server.getsockname()[1]
            receiver = ReplyReceiver()
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
            theirs.close()
            self.wait()
            self.assertEqual(receiver.made.events, ["ConnectionDone"])
            self.assertEqual(receiver.events[2:], ["lost: ConnectionDone"])

    def test_refused(self) -> None:
        """Where nobody listens, the factory is told."""
        receiver = ReplyReceiver()
        self.network.connectTCP("127.0.0.1", self.unused_port(), receiver, 5)
        self.assertEqual(receiver.events, ["started"])
        self.wait()
        self.assertEqual(receiver.events, ["started", "failed: ConnectionRefusedError"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(set(os.listdir("/proc/self/fd")) - self.before, set())

    def test_timeout(self) -> None:
        """Where nobody answers, the factory is told when the time is over, and not before."""
        # The kernel answers nobody once a listener's queue is full.
        server = self.serve()
        server.listen(0)
        address = server.getsockname()
        for _ in range(2):
            filler = socket.socket()
            self.addCleanup(filler.close)
            filler.setblocking(False)
            filler.connect_ex(address)
        receiver = ReplyReceiver()
        self.connect_to(server, receiver)
        self.reactor.advance(4.9)
        self.loop.doRead()
        self.assertEqual(receiver.events, ["started"])
        self.reactor.advance(0.2)
        self.turn()
        self.assertEqual(receiver.events, ["started", "failed: TimeoutError"])
        self.assertEqual(self.reactor.readers, set())

    def test_made_in_a_pause(self) -> None:
        """A connection that was made while nobody looked is no time-out, however late that is."""
        server = self.serve()
        receiver = ReplyReceiver()
        self.connect_to(server, receiver)
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
        receiver = ReplyReceiver()
        self.network.connectTCP("localhost", 5663, receiver, 5)
        self.turn()
        self.assertEqual(receiver.events, ["started", "failed: UnknownHostError"])

    def test_disconnect(self) -> None:
        """An attempt that is given up fails at once, and leaves nothing."""
        server = self.serve()
        receiver = ReplyReceiver()
        connector = self.connect_to(server, receiver)
        connector.disconnect()
        self.assertEqual(receiver.events, ["started", "failed: UserError"])
        self.turn()
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_disconnect_when_connected(self) -> None:
        """A connector that disconnects closes its connection; it can connect again."""
        server = self.serve()
        receiver = ReplyReceiver()
        connector = self.connect_to(server, receiver)
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
        self.assertEqual(self.reactor.readers, set())

    def test_disconnect_in_connection_made(self) -> None:
        """A protocol may disconnect its connector as soon as it is connected."""

        class Shy(Recorder):
            def connectionMade(self) -> None:
                connector.disconnect()

        server = self.serve()
        receiver = ReplyReceiver()
        receiver.made = Shy()
        connector = self.connect_to(server, receiver)
        self.wait()
        self.assertEqual(receiver.made.events, ["ConnectionDone"])
        self.assertEqual(receiver.events[2:], ["lost: ConnectionDone"])

    def test_no_protocol(self) -> None:
        """A factory that wants no protocol loses its connection."""
        server = self.serve()
        receiver = ReplyReceiver()
        receiver.made = None
        self.connect_to(server, receiver)
        self.wait()
        self.assertEqual(receiver.events[2:], ["lost: ConnectionDone"])

    def test_fault_in_factory(self) -> None:
        """A factory that cannot make a protocol is told of its failure."""

        class Faulty(ReplyReceiver):
            def buildProtocol(self, addr: IAddress | None) -> Recorder | None:
                raise ZeroDivisionError

        server = self.serve()
        receiver = Faulty()
        self.connect_to(server, receiver)
        self.wait()
        self.assertEqual(receiver.events, ["started", "failed: ZeroDivisionError"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reactor_stops(self) -> None:
        """An attempt fails when the reactor stops."""
        server = self.serve()
        receiver = ReplyReceiver()
        self.connect_to(server, receiver)
        self.loop.connectionLost(Failure(ConnectionError()))
        self.assertEqual(receiver.events, ["started", "failed: UserError"])
        self.assertEqual(self.reactor.readers, set())


class ChoiceTests(SynchronousTestCase):
    """Which network serves."""

    def test_real_reactor(self) -> None:
        """With a reactor that watches descriptors, the sockets have their own epoll."""
        from twisted.internet import reactor

        self.assertIsInstance(network(reactor), SocketNetwork)

    def test_memory_reactor(self) -> None:
        """With another, what is asked for goes to the reactor, with the mode and without a lock."""
        reactor = MemoryReactorClock()
        factory, receiver = Listener(), ReplyReceiver()
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
        listener, receiver = Listener(), ReplyReceiver()
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
