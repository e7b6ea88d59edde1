"""Tests for lonc.transport.epoll_loop, over socket pairs."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from functools import partial

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lonc.test.fixtures.streams import HalfCloser, Recorder, StreamTestCase
from lonc.transport import stream
from lonc.transport.epoll_loop import EVENTS, LOOKS, SocketLoop
from lonc.transport.stream import IN, MORE, READ_SIZE, SocketTransport


class Caller(Recorder):
    """Does something when it receives data."""

    def __init__(self, what: Callable[[], object]) -> None:
        super().__init__()
        self.what = what

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.what()


class EventTests(StreamTestCase):
    """The events that are handled in one turn."""

    def test_interface(self) -> None:
        """It implements the interface of a reader."""
        self.assertTrue(verifyObject(IReadDescriptor, self.loop))
        self.assertEqual(self.loop.logPrefix(), "sockets")

    def test_more_than_a_read(self) -> None:
        """F2: data directly after a full read is delivered together with it."""
        pieces: list[int] = []
        recorder = Caller(lambda: pieces.append(len(recorder.got)))
        theirs = self.pair(recorder)
        sizes = [READ_SIZE + 4, MORE + 4, 3, READ_SIZE + 4, MORE, MORE + 4]
        for size in sizes:
            theirs.send(b"x" * size)
            self.turn()
        self.assertEqual(pieces, [sum(sizes[: count + 1]) for count in range(len(sizes))])

    def test_read_size(self) -> None:
        """Reads are larger while more data has come."""
        recorder = Recorder()
        theirs = self.pair(recorder)
        found = []
        for size in (1, READ_SIZE, READ_SIZE + 1, READ_SIZE - 1):
            theirs.send(b"x" * size)
            self.turn()
            found.append(recorder.transport.much)
        self.assertEqual(found, [False, True, True, False])

    def test_closed_by_another(self) -> None:
        """A connection closed by another event does not get data that had arrived."""
        recorders = [Caller(lambda: None) for _ in range(5)]

        def close() -> None:
            for recorder in recorders:
                if not recorder.transport.disconnecting:
                    recorder.transport.loseConnection()

        for recorder in recorders:
            recorder.what = close
        ends = [self.pair(recorder) for recorder in recorders]
        for end in ends:
            end.send(b"x")
        self.turn()
        self.assertEqual(sum(len(recorder.got) for recorder in recorders), 1)
        self.assertEqual({tuple(r.events) for r in recorders}, {("ConnectionDone",)})

    def test_descriptor_used_again(self) -> None:
        """An event of a closed connection does not reach a new one with the same descriptor."""
        newer: list[tuple[Recorder, socket.socket]] = []

        def replace() -> None:
            # Whatever is closed now, a new socket must not get the number of an event at hand.
            for recorder in old:
                recorder.transport.abortConnection()
            for _ in old:
                fresh = Recorder()
                newer.append((fresh, self.pair(fresh)))

        old = [Caller(replace) for _ in range(3)]
        ends = [self.pair(recorder) for recorder in old]
        numbers = {recorder.transport.descriptor for recorder in old}
        for end in ends:
            end.send(b"for the old one")
            end.close()
        self.loop.doRead()
        self.assertEqual([fresh.got for fresh, _ in newer], [b""] * 3)
        self.assertEqual([fresh.events for fresh, _ in newer], [[]] * 3)
        self.assertEqual(numbers & {fresh.transport.descriptor for fresh, _ in newer}, set())
        self.turn()
        # Once the turn is over the numbers are free.
        for fresh, theirs in newer:
            theirs.send(b"for the new one")
            self.turn()
            self.assertEqual(fresh.got, b"for the new one")
        self.assertEqual([recorder.events for recorder in old], [["ConnectionAborted"]] * 3)

    def first(self, protocol: Recorder, first: bool = True) -> socket.socket:
        """Connect a protocol whose data comes first to one end of a pair; return the other end."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        self.loop.start(SocketTransport(self.loop, ours.detach(), protocol, first=first))
        return theirs

    def test_first(self) -> None:
        """Data of connections to londs is delivered before that of clients."""
        order: list[str] = []
        ends = [
            self.first(Caller(partial(order.append, "lond" if first else "client")), first)
            for first in (False, True) * 3
        ]
        for end in ends:
            end.send(b"x")
        self.turn()
        self.assertEqual(order, ["lond"] * 3 + ["client"] * 3)

    def test_last_data(self) -> None:
        """What a client sends before it closes is delivered after the data of all londs, too."""
        order: list[str] = []
        protocols = [Caller(partial(order.append, name)) for name in ("client", "lond", "closing")]
        ends = [self.first(each, each is not protocols[0]) for each in protocols]
        for end in ends:
            end.send(b"x")
        for end in ends[::2]:
            end.shutdown(socket.SHUT_WR)
        self.turn()
        self.assertEqual(order, ["closing", "lond", "client"])
        self.assertEqual([each.got for each in protocols], [b"x"] * 3)
        self.assertEqual([len(each.events) for each in protocols], [1, 0, 1])

    def test_last_data_of_a_closed_one(self) -> None:
        """It is not delivered if the client has been closed in the meantime."""
        client = Recorder()
        ends = [self.first(Caller(lambda: client.transport.loseConnection())), self.pair(client)]
        for end in ends:
            end.send(b"x")
            end.shutdown(socket.SHUT_WR)
        self.turn()
        self.assertEqual((client.got, client.events), (b"", ["ConnectionDone"]))

    def test_last_data_is_unread(self) -> None:
        """Until it is delivered it is unread, and may be read before the connection is closed."""
        client = Recorder()
        found: list[object] = []

        def look() -> None:
            found.append(client.transport.unread)
            found.append(client.transport.read_last())

        lond = self.first(Caller(look))
        theirs = self.pair(client)
        theirs.send(b"last")
        theirs.shutdown(socket.SHUT_WR)
        lond.send(b"x")
        self.turn()
        self.assertEqual((found, client.got), ([4, b"last"], b""))
        self.assertEqual(client.events, ["ConnectionDone"])

    def test_urgent(self) -> None:
        """Data before and after an urgent byte is delivered."""
        protocol, theirs = self.recorded()
        theirs.send(b"abc")
        theirs.send(b"X", socket.MSG_OOB)
        theirs.send(b"def")
        self.turn()
        self.assertEqual(protocol.got, b"abcdef")

    def test_much_last_data(self) -> None:
        """Data that comes with the end of input is delivered before it, however much it is."""
        for size in (1, READ_SIZE - 1, READ_SIZE, READ_SIZE + 1, MORE, MORE + READ_SIZE):
            for before in (0, READ_SIZE):
                protocol = HalfCloser()
                theirs = self.pair(protocol)
                if before:
                    theirs.send(b"y" * before)
                    self.turn()
                theirs.send(b"x" * size)
                theirs.shutdown(socket.SHUT_WR)
                self.turn()
                self.assertEqual(len(protocol.got), before + size)
                self.assertEqual(protocol.events, ["no more to read"], (size, before))

    def test_more_than_a_turn_reads(self) -> None:
        """What is left after the most that is read at a time is read as well."""
        self.patch(stream, "MORE", 1024)
        recorder = Recorder()
        theirs = self.pair(recorder)
        data = bytes(range(256)) * 400
        self.assertEqual(theirs.send(data), len(data))
        self.turn()
        self.assertEqual(recorder.got, data)

    def test_two_events_at_once(self) -> None:
        """Data that comes when unsent data can be sent is read as well."""
        protocol, theirs = self.recorded()
        protocol.transport.write(b"x" * 2_000_000)
        sent = 0
        while protocol.transport.unsent:
            theirs.recv(65536)
            sent += theirs.send(b"y")
            self.turn()
            self.assertEqual(len(protocol.got), sent)

    def test_behind(self) -> None:
        """It can be asked whether there are events; they are still handled afterwards."""
        protocol, theirs = self.recorded()
        self.assertFalse(self.loop.behind)
        theirs.send(b"x")
        self.assertEqual([self.loop.behind, self.loop.behind], [True, True])
        self.turn()
        self.assertEqual((self.loop.behind, protocol.got), (False, b"x"))

    def test_first_can_pause(self) -> None:
        """A connection whose data comes first can be paused."""
        protocol = Recorder()
        theirs = self.first(protocol)
        protocol.transport.pauseProducing()
        theirs.send(b"x")
        self.turn()
        self.assertEqual((protocol.got, protocol.events), (b"", []))
        protocol.transport.resumeProducing()
        self.turn()
        self.assertEqual(protocol.got, b"x")

    def test_what_follows_from_it(self) -> None:
        """Events caused by events are handled in the same turn."""
        last = Recorder()
        end = self.pair(last)
        first = Caller(lambda: end.send(b"x"))
        self.pair(first).send(b"x")
        self.loop.doRead()
        self.assertEqual(last.got, b"x")

    def test_moment(self) -> None:
        """All events of one poll have the same time; afterwards there is none."""
        times: list[float] = []

        def note() -> None:
            self.reactor.advance(1)
            times.append(self.loop.moment.now)

        before = self.reactor.seconds()
        for end in [self.pair(Caller(note)) for _ in range(2)]:
            end.send(b"x")
        self.turn()
        self.assertEqual(times, [before, before])
        self.assertEqual(self.loop.moment.now, 0.0)

    def test_gives_way(self) -> None:
        """Two connections that keep each other busy do not block the reactor."""
        recorder = Caller(lambda: end.send(b"x"))
        end = self.pair(recorder)
        end.send(b"x")
        self.loop.doRead()
        self.assertEqual(len(recorder.got), LOOKS)

    def test_many(self) -> None:
        """More events than one poll returns are all handled."""
        recorders = [Recorder() for _ in range(EVENTS + 10)]
        for end in [self.pair(recorder) for recorder in recorders]:
            end.send(b"x")
        self.turn()
        self.assertEqual({recorder.got for recorder in recorders}, {b"x"})

    def test_fault(self) -> None:
        """A fault in one event is logged, and the others are handled."""

        class Faulty:
            def ready(self, mask: int) -> None:
                loop.unregister(faulty.fileno())
                raise ZeroDivisionError

            def shut_down(self, reason: Failure) -> None:
                pass

        loop = self.loop
        faulty, theirs = socket.socketpair()
        self.addCleanup(faulty.close)
        self.addCleanup(theirs.close)
        recorders = [Recorder(), Recorder()]
        ends = [self.pair(recorders[0]), theirs, self.pair(recorders[1])]
        loop.register(faulty.fileno(), Faulty(), IN)
        for end in ends:
            end.send(b"x")
        loop.doRead()
        self.assertEqual([recorder.got for recorder in recorders], [b"x", b"x"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_nothing(self) -> None:
        """A turn without a socket does nothing."""
        self.loop.doRead()
        self.assertEqual(self.reactor.readers, set())


class EndTests(StreamTestCase):
    """Ends of connections, and of the loop."""

    def test_outside_a_turn(self) -> None:
        """A connection closed outside a turn ends without one."""
        protocol, _ = self.recorded()
        protocol.transport.loseConnection()
        self.reactor.advance(0)
        self.assertEqual(protocol.events, ["ConnectionDone"])

    def test_end_that_ends_others(self) -> None:
        """A protocol may close other connections when its own ends."""
        second, third = Recorder(), Recorder()

        class Closer(Recorder):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                super().connectionLost(reason)
                second.transport.loseConnection()
                third.transport.abortConnection()

        for protocol in (second, third):
            self.pair(protocol)
        self.pair(Closer()).close()
        self.loop.doRead()
        self.assertEqual((second.events, third.events), (["ConnectionDone"], ["ConnectionAborted"]))
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_leaves_the_reactor(self) -> None:
        """The reactor watches it only while it has sockets."""
        for _ in range(2):
            theirs = self.pair(Recorder())
            self.assertEqual(self.reactor.readers, {self.loop})
            theirs.close()
            self.turn()
            self.assertEqual(self.reactor.readers, set())
            self.assertEqual(self.loop.fileno(), -1)

    def test_reactor_stops(self) -> None:
        """When the reactor stops, all connections end."""
        recorders = [Recorder(), Recorder()]
        ends = [self.pair(recorder) for recorder in recorders]
        recorders[0].transport.pauseProducing()
        self.loop.connectionLost(Failure(ConnectionLost()))
        self.assertEqual([r.events for r in recorders], [["ConnectionLost"], ["ConnectionLost"]])
        self.assertEqual([end.recv(9) for end in ends], [b"", b""])
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_reactor_stops_meanwhile(self) -> None:
        """The reactor may stop while data is handled, or once all is closed."""
        stop = partial(self.loop.connectionLost, Failure(ConnectionLost()))
        by_data = Caller(stop)
        self.pair(by_data).send(b"x")
        self.turn()
        self.assertEqual((by_data.events, self.loop.fileno()), (["ConnectionLost"], -1))
        leaving = Caller(lambda: leaving.transport.loseConnection())
        self.loop.when_closed().addCallback(lambda _: stop())
        self.pair(leaving).send(b"x")
        self.turn()
        self.assertEqual((leaving.events, self.loop.fileno()), (["ConnectionDone"], -1))

    def test_not_watchable(self) -> None:
        """A descriptor that cannot be watched is an error, and closed."""
        descriptor = os.open(os.devnull, os.O_RDONLY)
        protocol = Recorder()
        transport = SocketTransport(self.loop, descriptor, protocol)
        self.assertRaises(OSError, self.loop.start, transport)
        self.assertRaises(OSError, os.fstat, descriptor)

    def test_never_registered(self) -> None:
        """A descriptor that was never watched, as of a failed attempt to connect, is closed."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.loop.close(ours.detach())
        self.turn()
        self.assertEqual(theirs.recv(1), b"")

    def test_descriptor_of_another(self) -> None:
        """A descriptor closed by other code is logged, and affects nothing else."""
        protocol, other = Recorder(), Recorder()
        self.pair(protocol)
        end = self.pair(other)
        transport = protocol.transport
        spare = os.dup(transport.descriptor)
        self.addCleanup(os.close, spare)
        transport.loseConnection()
        os.close(transport.descriptor)
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        end.send(b"x")
        self.turn()
        self.assertEqual(other.got, b"x")


class DescriptorTests(SynchronousTestCase):
    """No descriptor is left open."""

    def test_ten_thousand(self) -> None:
        """10,000 connections, ended in five ways, leave no descriptor open."""
        reactor = MemoryReactorClock()
        loop = SocketLoop(reactor)
        gc.collect()  # what other tests have left
        before = set(os.listdir("/proc/self/fd"))
        ended = 0
        for number in range(10_000):
            ours, theirs = socket.socketpair()
            protocol = Recorder()
            transport = loop.adopt(ours, protocol)
            way = number % 5
            if way == 0:
                transport.loseConnection()
            elif way == 1:
                transport.abortConnection()
            elif way == 2:
                transport.getHandle()
                theirs.shutdown(socket.SHUT_WR)
            elif way == 3:
                theirs.close()
                transport.write(b"x")
            else:
                theirs.close()
            loop.doRead()
            reactor.advance(0)
            theirs.close()
            ended += len(protocol.events)
        self.assertEqual(ended, 10_000)
        self.assertEqual(set(os.listdir("/proc/self/fd")) - before, set())
