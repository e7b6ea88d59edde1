"""
The same cases over the transport and over its double, `lonc.test.fixtures.doubles.Wire`.

So what the other tests show over the double holds over the transport.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.doubles import Wire
from lonc.test.fixtures.streams import HalfCloser, Producer, Recorder, StreamTestCase


class DoubleTests(SynchronousTestCase):
    """One connection over the double: this side is a protocol, the other is the test."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, protocol: Recorder) -> None:
        """Connect the protocol of this side."""
        self.heard = 0
        self.wire = Wire(self.clock, protocol)
        protocol.makeConnection(self.wire)

    def turn(self, times: int = 3) -> None:
        """Handle everything that is pending."""
        for _ in range(times):
            self.clock.advance(0)

    def fill(self) -> None:
        """Fill the buffers between the two, until `hear`."""
        self.wire.room = 0

    def say(self, data: bytes) -> None:
        """Write from the other side."""
        self.wire.deliver(data)

    def hear(self) -> bytes:
        """Read on the other side until nothing more comes; return it."""
        self.wire.take()
        self.turn()
        heard: bytes = self.wire.value()[self.heard :]
        self.heard += len(heard)
        return heard

    def shut(self) -> None:
        """Close the writing side of the other side."""
        self.wire.finish()

    def hang_up(self) -> None:
        """Close the other side."""
        self.wire.end(ConnectionDone())

    def connected(self, protocol: Recorder | None = None) -> tuple[Recorder, Any]:
        """Return a connected protocol and its transport."""
        made = protocol or Recorder()
        self.connect(made)
        return made, made.transport

    # Writing

    def test_write(self) -> None:
        """What fits is sent at once, in order, and the rest when there is room."""
        _, transport = self.connected()
        transport.write(b"one")
        transport.writeSequence([b" and", b" two"])
        self.assertEqual((transport.unsent, self.hear()), (0, b"one and two"))
        self.fill()
        transport.write(b"three")
        transport.write(b"four")
        self.assertEqual(transport.unsent, 9)
        self.assertEqual((self.hear(), transport.unsent), (b"threefour", 0))

    def test_write_after_lose(self) -> None:
        """`loseConnection` sends buffered data first; later writes are dropped."""
        protocol, transport = self.connected()
        self.fill()
        transport.write(b"before")
        transport.loseConnection()
        transport.write(b"after")
        self.say(b"not read")
        self.turn()
        self.assertTrue(transport.disconnecting)
        self.assertEqual((protocol.events, transport.unsent), ([], 6))
        self.assertEqual(self.hear(), b"before")
        self.turn()
        self.assertEqual((protocol.events, protocol.got), (["ConnectionDone"], b""))
        transport.write(b"after")
        transport.loseConnection()
        transport.abortConnection()
        self.turn()
        self.assertEqual(protocol.events, ["ConnectionDone"])
        self.assertTrue(transport.disconnected)

    def test_told_after_the_call(self) -> None:
        """The end is reported once, and not within the call that caused it."""
        for end in ("loseConnection", "abortConnection"):
            protocol, transport = self.connected()
            for _ in range(2):
                getattr(transport, end)()
                self.assertEqual(protocol.events, [])
            self.turn()
            self.assertEqual(len(protocol.events), 1, end)

    def test_abort(self) -> None:
        """`abortConnection` does not wait, and drops buffered data."""
        protocol, transport = self.connected()
        self.fill()
        transport.write(b"never")
        transport.loseConnection()
        transport.abortConnection()
        self.say(b"never")
        self.turn()
        self.assertEqual((protocol.events, protocol.got), (["ConnectionAborted"], b""))
        self.assertEqual(transport.unsent, 0)

    # Reading

    def test_read(self) -> None:
        """Data from the other side arrives, followed by its end."""
        protocol, _ = self.connected()
        self.say(b"one")
        self.say(b"two")
        self.hang_up()
        self.turn()
        self.assertEqual((protocol.got, protocol.events), (b"onetwo", ["ConnectionDone"]))

    def test_pause(self) -> None:
        """Data that arrives meanwhile is delivered in a later turn, not within the call."""
        protocol, transport = self.connected()
        transport.pauseProducing()
        transport.pauseProducing()
        self.say(b"patience")
        self.turn()
        self.assertEqual((protocol.got, transport.unread), (b"", 8))
        transport.resumeProducing()
        self.assertEqual(protocol.got, b"")
        self.turn()
        self.assertEqual((protocol.got, transport.unread), (b"patience", 0))

    def test_read_last(self) -> None:
        """Unread data can be read at once, and answered before the abort."""
        _, transport = self.connected()
        transport.pauseProducing()
        self.say(b"unread")
        self.assertEqual((transport.read_last(), transport.read_last()), (b"unread", b""))
        transport.write(b"no")
        transport.abortConnection()
        self.turn()
        self.assertEqual(self.hear(), b"no")

    def test_pause_before_the_end(self) -> None:
        """An end after unread data is reported after that data."""
        protocol, transport = self.connected(HalfCloser())
        transport.pauseProducing()
        self.say(b"last")
        self.shut()
        self.turn()
        self.assertEqual((protocol.got, protocol.events), (b"", []))
        transport.resumeProducing()
        self.turn()
        self.assertEqual((protocol.got, protocol.events), (b"last", ["no more to read"]))

    def test_gone_while_paused(self) -> None:
        """A closed connection is noticed while paused; its data is not delivered."""
        protocol, transport = self.connected()
        transport.pauseProducing()
        self.say(b"unread")
        self.hang_up()
        self.turn()
        self.assertEqual((protocol.got, protocol.events), (b"", ["ConnectionDone"]))

    def test_calls_after_lose(self) -> None:
        """Afterwards, calls have no effect and raise nothing."""
        for end in ("loseConnection", "stopProducing", "abortConnection"):
            protocol, transport = self.connected(HalfCloser())
            getattr(transport, end)()
            self.say(b"not read")
            transport.pauseProducing()
            transport.resumeProducing()
            transport.loseWriteConnection()
            self.turn()
            self.assertEqual((protocol.got, len(protocol.events)), (b"", 1), end)

    def test_lose_while_reading(self) -> None:
        """A protocol that closes in `dataReceived` is informed after it has returned."""

        class Closer(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"bye")
                self.transport.loseConnection()
                self.events.append("returned")

        protocol, _ = self.connected(Closer())
        self.say(b"hello")
        self.turn()
        self.assertEqual(protocol.events, ["returned", "ConnectionDone"])
        self.assertEqual(self.hear(), b"bye")

    # Half a close

    def test_half_close(self) -> None:
        """Buffered data is sent first, then the end is reported; later writes are dropped."""
        protocol, transport = self.connected(HalfCloser())
        self.fill()
        transport.write(b"before")
        transport.loseWriteConnection()
        transport.loseWriteConnection()
        transport.write(b"after")
        self.turn()
        self.assertEqual(protocol.events, [])
        self.assertEqual(self.hear(), b"before")
        self.turn()
        self.assertEqual(protocol.events, ["no more to write"])
        self.say(b"still heard")
        self.turn()
        self.assertEqual(protocol.got, b"still heard")
        transport.loseConnection()
        self.turn()
        self.assertEqual(protocol.events, ["no more to write", "ConnectionDone"])

    def test_half_close_of_the_other(self) -> None:
        """A protocol that supports it may still write; for others it is the end."""
        protocol, transport = self.connected(HalfCloser())
        self.shut()
        self.turn()
        self.assertEqual(protocol.events, ["no more to read"])
        transport.write(b"answer")
        self.assertEqual(self.hear(), b"answer")
        transport.loseConnection()
        self.turn()
        self.assertEqual(protocol.events, ["no more to read", "ConnectionDone"])
        other, _ = self.connected()
        self.shut()
        self.turn()
        self.assertEqual(other.events, ["ConnectionDone"])

    # Producers

    def test_producer(self) -> None:
        """It is paused within the write that does not fit, and resumed when all is sent."""
        _, transport = self.connected()
        producer = Producer()
        transport.registerProducer(producer, True)
        transport.write(b"fits")
        self.assertEqual((producer.calls, self.hear()), ([], b"fits"))
        self.fill()
        transport.write(b"x")
        transport.write(b"y")
        self.assertEqual(producer.calls, ["pause"])
        self.hear()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.fill()
        transport.write(b"x")
        self.assertEqual(producer.calls, ["pause", "resume", "pause"])

    def test_close_waits_for_producer(self) -> None:
        """`loseConnection` closes when it is unregistered, which may be repeated."""
        protocol, transport = self.connected()
        transport.registerProducer(Producer(), True)
        transport.loseConnection()
        self.turn()
        self.assertEqual(protocol.events, [])
        transport.unregisterProducer()
        transport.unregisterProducer()
        self.assertEqual(protocol.events, [])
        self.turn()
        self.assertEqual(protocol.events, ["ConnectionDone"])

    def test_producer_at_the_end(self) -> None:
        """It is stopped before the end is reported; later ones are stopped at once."""
        protocol, transport = self.connected()

        class Noting(Producer):
            def stopProducing(self) -> None:
                protocol.events.append("stop")

        late = Producer()
        transport.registerProducer(Noting(), True)
        self.hang_up()
        self.turn()
        transport.registerProducer(late, True)
        self.assertEqual((protocol.events, late.calls), (["stop", "ConnectionDone"], ["stop"]))

    def test_producer_refused(self) -> None:
        """There is at most one, a push producer."""
        _, transport = self.connected()
        self.assertRaises(ValueError, transport.registerProducer, Producer(), False)
        transport.registerProducer(Producer(), True)
        self.assertRaises(RuntimeError, transport.registerProducer, Producer(), True)

    def test_last_words_of_a_producer(self) -> None:
        """What it writes when resumed is sent before the connection closes."""
        protocol, transport = self.connected()

        class Last(Producer):
            def resumeProducing(self) -> None:
                transport.write(b" and last")
                transport.unregisterProducer()
                transport.loseConnection()

        transport.registerProducer(Last(), True)
        self.fill()
        transport.write(b"first")
        self.assertEqual(self.hear(), b"first and last")
        self.turn()
        self.assertEqual(protocol.events, ["ConnectionDone"])


class TransportTests(DoubleTests, StreamTestCase):
    """The same over the transport, with a socket pair."""

    def setUp(self) -> None:
        StreamTestCase.setUp(self)

    def connect(self, protocol: Recorder) -> None:
        self.theirs = self.pair(protocol)
        self.filler = 0
        self.ours = protocol.transport

    def turn(self, times: int = 3) -> None:
        StreamTestCase.turn(self, times)

    def fill(self) -> None:
        handle = self.ours.getHandle()
        for size in (65536, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.filler += handle.send(b"x" * size)

    def say(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.theirs.send(data)

    def hear(self) -> bytes:
        heard = self.drain(self.theirs)
        filler, self.filler = self.filler, 0
        return heard[filler:]

    def shut(self) -> None:
        self.theirs.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        self.theirs.close()
