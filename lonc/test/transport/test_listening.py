"""UNIX sockets that listen, over real ones of this machine."""

from __future__ import annotations

import os
import resource
import select
import socket
import stat

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from lonc.test.fixtures.networks import ConnectFactory, Listener, NetworkTestCase
from lonc.test.fixtures.streams import Recorder
from lonc.transport.listening import ACCEPT_PAUSE, ACCEPTS, LAST_PAUSES


class ListeningTests(NetworkTestCase):
    """Listening UNIX sockets."""

    def test_serves(self) -> None:
        """Clients are accepted, and data sent immediately is received immediately."""
        factory, port = self.listening()
        clients = [self.connect() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        self.loop.doRead()
        self.assertEqual([made.got for made in factory.made], [b"0", b"1", b"2"])
        factory.made[1].transport.write(b"answer")
        self.assertEqual(clients[1].recv(9), b"answer")
        self.assertEqual(factory.made[1].transport.getPeer(), UNIXAddress(None))
        self.assertEqual(factory.made[1].transport.getHost(), UNIXAddress(self.path))
        self.stop(port, *clients)
        self.assertEqual([made.events for made in factory.made], [["ConnectionDone"]] * 3)

    def test_client_that_says_nothing_yet(self) -> None:
        """A client may connect first and write later."""
        factory, port = self.listening()
        client = self.connect()
        self.turn()
        self.assertEqual((factory.made[0].got, factory.made[0].events), (b"", []))
        client.send(b"x")
        self.turn()
        self.assertEqual(factory.made[0].got, b"x")
        self.stop(port, client)

    def test_crowd(self) -> None:
        """More clients than are accepted per event are all accepted."""
        factory, port = self.listening(backlog=2 * ACCEPTS)
        clients = [self.connect() for _ in range(ACCEPTS + 5)]
        self.turn()
        self.assertEqual(len(factory.made), ACCEPTS + 5)
        self.stop(port, *clients)

    def test_mode(self) -> None:
        """F14: the file has the given mode, whatever the umask."""
        for mode in (0o600, 0o660, 0o666):
            umask = os.umask(0o077)
            try:
                port = self.listen(Listener(), mode=mode)
            finally:
                os.umask(umask)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), mode)
            self.stop(port)

    def test_mode_from_the_first(self) -> None:
        """F14: the file is never more accessible than that, whatever the umask."""
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
        """A port that stops removes its file; its clients stay connected."""
        factory, port = self.listening()
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
        """A port that stops leaves a file that replaced its own."""
        port = self.listen(Listener())
        os.rename(self.path, self.path + "1")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
        self.stop(port)
        self.assertTrue(os.path.exists(self.path))

    def test_stop_without_file(self) -> None:
        """A port without its file can be stopped."""
        port = self.listen(Listener())
        os.unlink(self.path)
        self.stop(port)
        self.assertEqual(set(os.listdir("/proc/self/fd")) - self.before, set())

    def test_stopped_by_its_first_client(self) -> None:
        """A port may be stopped while it accepts; clients connected by then are accepted."""

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
        """F12: clients accepted by the kernel are served; others are refused, not reset."""
        factory, port = self.listening(backlog=2 * ACCEPTS)
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
        """An existing path is an error, which contains it."""
        port = self.listen(Listener())
        problem = self.assertRaises(CannotListenError, self.listen, Listener())
        self.assertIn(self.path, str(problem))
        self.assertIn("in use", str(problem))
        self.assertTrue(os.path.exists(self.path))
        self.stop(port)

    def test_missing_folder(self) -> None:
        """A missing folder is an error, and leaves no descriptor open."""
        self.path = os.path.join("missing", "s")
        self.assertRaises(CannotListenError, self.listen, Listener())
        self.assertEqual(set(os.listdir("/proc/self/fd")) - self.before, set())

    def test_path_too_long(self) -> None:
        """A path too long for a UNIX socket is an error."""
        self.path = "x" * 200
        self.assertRaises(CannotListenError, self.listen, Listener())

    def test_rejected(self) -> None:
        """A client is closed if the factory returns no protocol, or fails."""

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
        self.stop(port, *clients)

    def test_interface(self) -> None:
        """It implements the interface of a port, and returns its path."""
        port = self.listen(Listener())
        self.assertTrue(verifyObject(IListeningPort, port))
        self.assertEqual(port.getHost(), UNIXAddress(self.path))
        self.stop(port)

    def test_reactor_stops(self) -> None:
        """When the reactor stops, the port closes and its file is removed."""
        factory = Listener()
        self.listen(factory)
        client = self.connect()
        self.turn()
        self.loop.connectionLost(Failure(ConnectionError()))
        self.assertEqual(factory.made[0].events, ["ConnectionError"])
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(client.recv(9), b"")

    def test_ten_thousand(self) -> None:
        """10,000 clients, one after the other, leave no descriptor open."""
        factory, port = self.listening()
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
    """There are no more descriptors for clients."""

    def exhaust(self) -> None:
        """Leave no free descriptor."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        self.limits = soft, hard

    def test_clients_wait(self) -> None:
        """Clients wait until descriptors are free, without busy waiting; it is logged once."""
        factory, port = self.listening()
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
        self.assertEqual(lines, [f"{self.path}: cannot accept clients: Too many open files"])
        self.assertEqual(events_later, [])
        self.turn()
        self.stop(port, *clients)

    def test_stop_meanwhile(self) -> None:
        """A port that waits for descriptors can be stopped."""
        port = self.listen(Listener())
        self.connect()
        self.exhaust()
        self.loop.doRead()
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
        self.stop(port)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(os.path.exists(self.path))

    def test_stop_without_descriptors(self) -> None:
        """A port that stops accepts connected clients once descriptors are free."""
        factory, port = self.listening()
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
        """If none becomes free, it stops without those clients."""
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
        """A connection without a descriptor fails, after `connectTCP` has returned."""
        receiver = ConnectFactory()
        self.exhaust()
        self.network.connectTCP("127.0.0.1", 9, receiver, 5)
        self.assertEqual(receiver.events, ["started"])
        self.reactor.advance(0)
        self.assertEqual(receiver.events, ["started", "failed: ConnectError"])
