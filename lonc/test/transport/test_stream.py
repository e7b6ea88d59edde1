"""Tests for lonc.transport.stream, over socket pairs: what `test_alike` does not show."""

from __future__ import annotations

import gc
import os
import socket
import struct
import weakref

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from lonc.test.fixtures.streams import HalfCloser, Producer, Recorder, StreamTestCase

#: More than a socket's buffers take.
MUCH = b"0123456789abcdef" * 65536


class WritingTests(StreamTestCase):
    """Writing."""

    def test_remainder(self) -> None:
        """What does not fit is sent, in order, as the other side reads; later writes are direct."""
        protocol, theirs = self.recorded()
        protocol.transport.write(MUCH)
        self.assertGreater(protocol.transport.unsent, 0)
        protocol.transport.write(b"and more")
        self.assertEqual(self.drain(theirs), MUCH + b"and more")
        self.assertEqual(protocol.transport.unsent, 0)
        protocol.transport.write(b"afterwards")
        self.assertEqual(theirs.recv(99), b"afterwards")

    def test_reads_while_it_has_a_remainder(self) -> None:
        """Data is received while data is unsent."""
        protocol, theirs = self.recorded()
        protocol.transport.write(MUCH)
        theirs.send(b"still here")
        self.turn(2)
        self.assertEqual(protocol.got, b"still here")

    def test_broken(self) -> None:
        """A write to a closed connection ends it, once, after `write` has returned."""
        protocol, theirs = self.recorded()
        theirs.close()
        protocol.transport.write(b"anybody?")
        self.assertEqual(protocol.events, [])
        protocol.transport.write(b"nobody?")
        self.turn(2)
        self.assertEqual(protocol.events, ["ConnectionLost"])

    def test_broken_with_remainder(self) -> None:
        """Unsent data that cannot be sent ends the connection."""
        protocol, theirs = self.recorded()
        protocol.transport.write(MUCH)
        protocol.transport.pauseProducing()
        theirs.close()
        self.turn()
        self.assertEqual(protocol.events, ["ConnectionLost"])

    def test_after_the_end(self) -> None:
        """After the end calls have no effect, and no data is kept."""
        protocol, theirs = self.recorded()
        transport = protocol.transport
        transport.write(MUCH)
        theirs.close()
        self.turn()
        self.assertEqual(transport.unsent, 0)
        transport.resumeProducing()
        transport.pauseProducing()
        transport.write(b"x")
        transport.loseWriteConnection()
        transport.loseConnection()
        transport.abortConnection()
        self.turn()
        self.assertEqual(protocol.events, ["ConnectionLost"])


class ProducerTests(StreamTestCase):
    """Producers and a peer that does not read."""

    def test_never_reads(self) -> None:
        """A producer that obeys its pauses keeps the buffer bounded."""
        protocol, producer = Recorder(), Producer()
        self.pair(protocol)
        protocol.transport.registerProducer(producer, True)
        for _ in range(10_000):
            if "pause" in producer.calls:
                break
            protocol.transport.write(b"x" * 1000)
            self.turn()
        self.assertEqual(producer.calls, ["pause"])
        self.assertLessEqual(protocol.transport.unsent, 1000)

    def test_writes_and_closes_when_resumed(self) -> None:
        """The last data of a producer is sent before the connection closes."""
        protocol = Recorder()

        class Last(Producer):
            def resumeProducing(self) -> None:
                protocol.transport.write(MUCH)
                protocol.transport.unregisterProducer()
                protocol.transport.loseConnection()

        theirs = self.pair(protocol)
        protocol.transport.registerProducer(Last(), True)
        protocol.transport.write(MUCH)
        self.assertEqual(self.drain(theirs), MUCH + MUCH)
        self.assertEqual(protocol.events, ["ConnectionDone"])

    def test_fault_when_resumed(self) -> None:
        """A producer that raises ends its connection."""
        protocol = Recorder()

        class Faulty(Producer):
            def resumeProducing(self) -> None:
                raise ZeroDivisionError

        theirs = self.pair(protocol)
        protocol.transport.registerProducer(Faulty(), True)
        protocol.transport.write(MUCH)
        self.drain(theirs)
        self.assertEqual(protocol.events, ["ZeroDivisionError"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class EndTests(StreamTestCase):
    """Ends, most of which are caused by the other side."""

    def test_half_close_with_nothing_unsent(self) -> None:
        """The other side reads the end."""
        protocol, theirs = self.recorded()
        protocol.transport.loseWriteConnection()
        self.turn()
        self.assertEqual((theirs.recv(9), protocol.events), (b"", []))

    def test_half_close(self) -> None:
        """S5: a half-closed peer can be answered, and its disconnection is noticed."""
        protocol = HalfCloser()
        theirs = self.pair(protocol)
        theirs.send(b"question")
        theirs.shutdown(socket.SHUT_WR)
        self.turn(3)
        self.assertEqual(protocol.events, ["no more to read"])
        protocol.transport.resumeProducing()
        protocol.transport.write(b"answer")
        self.turn()
        self.assertEqual(theirs.recv(9), b"answer")
        theirs.close()
        self.turn()
        self.assertEqual(protocol.events, ["no more to read", "ConnectionDone"])

    def test_half_close_and_remainder(self) -> None:
        """A half-closed peer gets an answer that does not fit at once."""
        protocol = HalfCloser()
        theirs = self.pair(protocol)
        theirs.shutdown(socket.SHUT_WR)
        self.turn()
        protocol.transport.write(MUCH)
        protocol.transport.loseConnection()
        self.assertEqual(self.drain(theirs), MUCH)
        self.assertEqual(protocol.events, ["no more to read", "ConnectionDone"])

    def test_whole_close_of_half_closeable(self) -> None:
        """A protocol that supports half-close is informed of a complete close."""
        protocol = HalfCloser()
        self.pair(protocol).close()
        self.turn()
        self.assertEqual(protocol.events, ["ConnectionDone"])

    def test_reset(self) -> None:
        """A peer that closes with unread data has broken the connection."""
        protocol, theirs = self.recorded()
        protocol.transport.write(b"unread")
        theirs.close()
        self.turn()
        self.assertEqual(protocol.events, ["ConnectionLost"])

    def test_tcp_reset(self) -> None:
        """A TCP reset has broken the connection."""
        protocol = Recorder()
        with socket.create_server(("127.0.0.1", 0)) as server:
            theirs = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        self.loop.adopt(ours, protocol)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        self.turn()
        self.assertEqual(protocol.events, ["ConnectionLost"])


class ReadingTests(StreamTestCase):
    """Reading."""

    def test_paused_by_another(self) -> None:
        """A transport paused by another event does not get data that had arrived."""
        first, second = Recorder(), Recorder()

        class Pauser(Recorder):
            def dataReceived(self, data: bytes) -> None:
                for other in (first, second):
                    other.transport.pauseProducing()

        pauser = Pauser()
        ends = [self.pair(protocol) for protocol in (first, pauser, second)]
        for end in reversed(ends):
            end.send(b"x")
        ends[1].send(b"x")
        self.turn(2)
        # Of the three events of one look the pauser's is in the middle.
        self.assertEqual(sorted([first.got, second.got]), [b"", b"x"])
        self.assertEqual(first.events + second.events, [])
        first.transport.resumeProducing()
        second.transport.resumeProducing()
        pauser.transport.loseConnection()
        self.turn(2)
        self.assertEqual((first.got, second.got), (b"x", b"x"))

    def test_fault(self) -> None:
        """An exception in `dataReceived` is logged and ends that connection only."""

        class Faulty(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        faulty, other = Faulty(), Recorder()
        ends = [self.pair(faulty), self.pair(other)]
        for end in ends:
            end.send(b"x")
        self.turn()
        self.assertEqual(faulty.events, ["ZeroDivisionError"])
        self.assertEqual((other.events, other.got), ([], b"x"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_of_the_worst_kind(self) -> None:
        """An exception that is not an `Exception` does not reach the reactor either."""

        class Quitter(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise SystemExit

        protocol = Quitter()
        self.pair(protocol).send(b"x")
        self.turn()
        self.assertEqual(protocol.events, ["SystemExit"])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_fault_when_connected(self) -> None:
        """An exception in `connectionMade` ends the connection."""

        class Faulty(Recorder):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        protocol = Faulty()
        theirs = self.pair(protocol)
        self.turn()
        self.assertEqual(protocol.events, ["ZeroDivisionError"])
        self.assertEqual(theirs.recv(9), b"")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_at_the_end(self) -> None:
        """Exceptions of callbacks at the end do not prevent the other callbacks."""

        class Faulty(HalfCloser):
            def readConnectionLost(self) -> None:
                raise ZeroDivisionError

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                super().connectionLost(reason)
                raise ZeroDivisionError

        class Stuck(Producer):
            def stopProducing(self) -> None:
                raise ZeroDivisionError

        protocol = Faulty()
        theirs = self.pair(protocol)
        protocol.transport.registerProducer(Stuck(), True)
        theirs.shutdown(socket.SHUT_WR)
        self.turn()
        self.assertEqual(protocol.events, ["ZeroDivisionError"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)


class MemoryTests(StreamTestCase):
    """Memory of closed connections."""

    def test_no_garbage(self) -> None:
        """A closed connection is freed at once, without the garbage collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        protocol, theirs = self.recorded()
        freed = weakref.ref(protocol)
        del protocol
        self.assertIsNotNone(freed())
        theirs.close()
        self.turn()
        self.assertIsNone(freed())


class SocketTests(StreamTestCase):
    """The socket of a transport."""

    def test_unread(self) -> None:
        """The number of unread bytes comes from the kernel."""
        protocol, theirs = self.recorded()
        self.assertEqual(protocol.transport.unread, 0)
        theirs.send(b"four")
        theirs.send(b"five!")
        self.assertEqual(protocol.transport.unread, 9)
        self.turn()
        self.assertEqual(protocol.transport.unread, 0)

    def test_peer(self) -> None:
        """The process at the other end of a UNIX socket comes from the kernel."""
        protocol, _ = self.recorded()
        self.assertEqual(protocol.transport.peer.pid, os.getpid())
        protocol.transport.abortConnection()
        self.turn(2)
        self.assertEqual(protocol.transport.peer.pid, 0)

    def test_interfaces(self) -> None:
        """It implements the interfaces of a transport."""
        protocol, _ = self.recorded()
        for interface in (ITCPTransport, IConsumer, IPushProducer, ISystemHandle):
            self.assertTrue(verifyObject(interface, protocol.transport))

    def test_tcp(self) -> None:
        """A TCP connection has addresses and options."""
        for host, kind in (("127.0.0.1", IPv4Address), ("::1", IPv6Address)):
            protocol = Recorder()
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.create_server((host, 0), family=family) as server:
                port = server.getsockname()[1]
                theirs = socket.create_connection((host, port))
                ours, _ = server.accept()
            self.addCleanup(theirs.close)
            transport = self.loop.adopt(ours, protocol)
            self.assertEqual(transport.getHost(), kind("TCP", host, port))
            self.assertEqual(transport.getPeer(), kind("TCP", host, theirs.getsockname()[1]))
            for enabled in (True, False):
                transport.setTcpNoDelay(enabled)
                transport.setTcpKeepAlive(enabled)
                self.assertIs(transport.getTcpNoDelay(), enabled)
                self.assertIs(transport.getTcpKeepAlive(), enabled)
            transport.abortConnection()
            self.turn()

    def test_unix_options(self) -> None:
        """A UNIX socket never delays data, which cannot be changed."""
        protocol, _ = self.recorded()
        protocol.transport.setTcpNoDelay(False)
        self.assertTrue(protocol.transport.getTcpNoDelay())

    def test_handle(self) -> None:
        """The handle is always the same socket, and is closed with the connection."""
        protocol, _ = self.recorded()
        transport = protocol.transport
        handle = transport.getHandle()
        self.assertIs(transport.getHandle(), handle)
        self.assertEqual(handle.fileno(), transport.descriptor)
        transport.stopProducing()
        self.turn()
        self.assertEqual(handle.fileno(), -1)
        self.assertRaises(OSError, transport.getHandle)

    def test_abandoned(self) -> None:
        """Another process's copy stays connected; nothing more arrives here."""
        protocol, theirs = self.recorded()
        with socket.socket(fileno=os.dup(protocol.transport.descriptor)) as copy:
            protocol.transport.abandon()
            theirs.send(b"question")
            self.turn()
            self.assertEqual((protocol.got, protocol.events), (b"", ["ConnectionDone"]))
            copy.send(b"answer")
            self.assertEqual((copy.recv(99), theirs.recv(99)), (b"question", b"answer"))

    def test_forgotten_handle(self) -> None:
        """A forgotten handle is created again on demand; the connection stays open."""
        protocol, _ = self.recorded()
        transport = protocol.transport
        handle = transport.getHandle()
        transport.forget_handle()
        self.assertEqual(handle.fileno(), -1)
        transport.write(b"to the end\n")
        self.assertEqual(transport.getHandle().fileno(), transport.descriptor)
