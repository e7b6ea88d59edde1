"""The limits of the management port."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.protocols import amp
from twisted.python.failure import Failure

from lonc.control.access import OWNER, Level, Visitor
from lonc.control.errors import (
    NotDone,
)
from lonc.control.server import (
    HANDSHAKE_LIMIT,
    MOST_HANDSHAKES,
    MOST_OF_A_LEVEL,
    ManagementFactory,
    ManagementProtocol,
)
from lonc.test.fixtures.management import ConnectedTests, warnings


class TLSTransport(StringTransport):
    """A transport whose peer may have a certificate."""

    has_begun = False

    def getPeerCertificate(self) -> None:
        """Return none."""


class LimitsTests(ConnectedTests):
    """Limits on connections and commands, and on what is accepted as AMP."""

    def silent(self, factory: ManagementFactory | None = None) -> tuple[ManagementProtocol, Any]:
        """Connect a client that sends nothing."""
        server = (factory or self.factory).buildProtocol(None)
        transport = StringTransport()
        server.makeConnection(transport)
        return server, transport

    def owners_factory(self) -> ManagementFactory:
        """Return a factory with the usual limits, whose clients are owners."""
        return ManagementFactory(self.daemon.responders, self.clock, visitor_of=lambda _: OWNER)

    def trace(self, count: int) -> list[Deferred[Any]]:
        """Connect clients with the level see that wait for a request; return their answers."""
        self.visitor, before = Visitor("ann (process 7)", Level.SEE), self.visitor
        asked: list[Deferred[Any]] = []
        for _ in range(count):
            other, self.pump = self.connected()
            asked.append(self.ask(other.trace().__anext__()))  # type: ignore[arg-type]
        self.visitor = before
        return asked

    def test_too_many(self) -> None:
        """If there are too many connections, the one that was silent for longest is closed."""
        self.clock.advance(1)
        _, first = self.silent()
        self.clock.advance(1)
        self.answer(self.client.about())
        _, second = self.silent()
        self.assertEqual((first.disconnected, second.disconnected), (True, False))
        self.clock.advance(1)
        self.answer(self.client.about())
        with capturedLogs() as events:
            for _ in range(10):
                self.silent()
                self.clock.advance(1)
                self.answer(self.client.about())
        self.assertTrue(second.disconnected)
        self.assertEqual(warnings(events), [])  # the first said it

    def test_busy_stays(self) -> None:
        """A connection with a command in progress is not closed for a silent one."""
        self.daemon.reading = Deferred()
        reloading = self.ask(self.client.reload())
        for _ in range(5):
            self.clock.advance(1)
            self.silent()
        self.daemon.reading.callback("done")
        self.pump.flush()
        self.assertEqual(self.successResultOf(reloading), "done")

    def test_all_busy(self) -> None:
        """If every connection waits for an answer, another one is served nevertheless."""
        self.daemon.reading = Deferred()
        self.ask(self.client.reload())
        first = self.pump
        self.clock.advance(1)
        other, pump = self.connected()
        self.pump = pump
        self.ask(other.reload())
        last, self.pump = self.connected()
        self.answer(last.about())
        first.flush()
        self.assertEqual(len(self.factory.connections), 2)

    def test_other_level(self) -> None:
        """However many connections and commands there are of one level, others are served."""
        clients = [(self.client, self.pump)]
        self.trace(30)
        clients.append(self.connected())
        self.trace(30)
        for client, self.pump in clients:
            self.assertEqual(self.answer(client.about()), self.daemon.about())

    def test_commands_of_a_level(self) -> None:
        """The unanswered commands of a level have a limit, which does not affect other levels."""
        self.factory.max_connections = 100
        pump = self.pump
        *asked, last = self.trace(MOST_OF_A_LEVEL + 1)
        self.failureResultOf(last, NotDone)
        for each in asked:
            self.assertNoResult(each)
        self.pump = pump
        self.answer(self.client.about())

    def handshaking(self, host: str) -> tuple[ManagementProtocol, TLSTransport]:
        """Begin a connection over TLS whose handshake is not complete."""
        server = self.factory.buildProtocol(None)
        transport = TLSTransport(peerAddress=IPv4Address("TCP", host, 4000))
        server.makeConnection(transport)
        return server, transport

    def test_strangers(self) -> None:
        """However many handshakes are begun, a client that completes its own is served."""
        self.factory.max_connections = 1
        server, transport = self.handshaking("192.0.2.1")
        strangers = [self.handshaking("192.0.2.2")[1] for _ in range(200)]
        self.assertEqual(sum(not each.disconnected for each in strangers), MOST_HANDSHAKES - 1)
        server.handshakeCompleted()
        strangers += [self.handshaking("192.0.2.2")[1] for _ in range(200)]
        server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"About").serialize())
        self.assertIn(b"version", transport.value())
        self.assertFalse(transport.disconnected)
        self.clock.advance(HANDSHAKE_LIMIT)
        self.assertTrue(all(each.disconnected for each in strangers))
        self.assertFalse(transport.disconnected)

    def test_silent_strangers(self) -> None:
        """Of one address, clients that have sent nothing are closed first."""
        _, transport = self.handshaking("192.0.2.2")
        transport.has_begun = True
        for _ in range(200):
            self.handshaking("192.0.2.2")
        self.assertFalse(transport.disconnected)

    def test_idle(self) -> None:
        """A silent client is closed at the limit; a box that does not end counts as silence."""
        self.factory.max_connections = 100
        server, incomplete = self.silent()
        _, transport = self.silent()
        for _ in range(59):
            self.clock.advance(1)
            server.dataReceived(b"\0\1a\0\1b")
        self.assertFalse(transport.disconnected or incomplete.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnected and incomplete.disconnected)

    def test_not_idle(self) -> None:
        """A client that asks now and then stays, and leaves no timer behind."""
        for _ in range(3):
            self.clock.advance(59)
            self.answer(self.client.about())
        self.answer(self.client.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_malformed(self) -> None:
        """Anything but a command closes its connection, with one line in the log."""
        box = amp.AmpBox
        ask = {b"_ask": b"1"}
        for sent, why in (
            (b"\0\0", "a box that is not a command"),
            (box(_answer=b"1").serialize(), "a box that is not a command"),
            (box(_answer=b"1", _command=b"About").serialize(), "a box that is not a command"),
            (box(_error=b"7").serialize(), "a box that is not a command"),
            (box(ask).serialize(), "a box that is not a command"),
            (b"\xff\xff", "this is not AMP: a key of 65535 bytes"),
            (b"GET / HTTP/1.1\r\n\r\n", "this is not AMP: a key of 18245 bytes"),
            (b"\0\1a\xff\xff" + b"x" * 65535 + b"\0\1b\0\0", "a box is longer than 65536 bytes"),
            (
                b"".join(b"\0\1a\0\xff" + b"x" * 255 for _ in range(300)),
                "a box is longer than 65536 bytes",
            ),
            (box(_command=b"nosuch").serialize(), "a command without an answer has failed"),
        ):
            factory = self.owners_factory()
            with capturedLogs() as events:
                for _ in range(3):
                    server, transport = self.silent(factory)
                    server.dataReceived(sent + box(ask, _command=b"About").serialize())
                    self.assertTrue(transport.disconnecting, sent[:40])
                    self.assertEqual(transport.value(), b"")
            told = f"Management connection closed: {why}"
            self.assertEqual([line for line in warnings(events) if why in line], [told])
            self.assertEqual([event for event in events if "log_failure" in event], [])
            self.clock.advance(1)
            self.assertTrue(transport.disconnected)

    def test_malformed_in_many_ways(self) -> None:
        """However many kinds of malformed boxes are sent, the log has one line a minute."""
        factory = self.owners_factory()
        with capturedLogs() as events:
            for sent in (
                b"\xff\xff",
                b"\1\0",
                b"\x12\x34",
                b"\0\0",
                b"\0\1a\xff\xff" + b"x" * 65536,
            ):
                self.silent(factory)[0].dataReceived(sent)
        self.assertEqual(len(warnings(events)), 1)

    def test_unknown_command(self) -> None:
        """A name that is not ASCII and AMP's own command for TLS are unknown, and no fault."""
        for name in (b"Ab\xdcut", b"StartTLS"):
            server, transport = self.silent()
            with capturedLogs() as events:
                server.dataReceived(amp.AmpBox(_ask=b"1", _command=name).serialize())
            self.assertIn(b"Unhandled Command", transport.value())
            self.assertEqual([event for event in events if "log_failure" in event], [])
            self.assertFalse(transport.disconnecting)

    def test_answers_not_read(self) -> None:
        """Nothing is read from a client that does not read its answers."""
        server, transport = self.silent()
        asking = amp.AmpBox(_ask=b"1", _command=b"About").serialize()
        server.dataReceived(asking)
        one = len(transport.value())
        server.pauseProducing()  # as the transport does when it has too much
        server.dataReceived(asking * 100)
        self.assertEqual(len(transport.value()), one)
        self.assertEqual(transport.producerState, "paused")
        server.resumeProducing()
        self.assertEqual(len(transport.value()), 101 * one)

    def test_too_many_commands(self) -> None:
        """The unanswered commands of a connection have a limit."""
        self.daemon.reading = Deferred()
        server, transport = self.silent()
        server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"Reload").serialize() * 17)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.daemon.asked), 16)

    def test_asked_all_the_time(self) -> None:
        """Repeated requests are logged once in ten seconds."""
        with capturedLogs() as events:
            for _ in range(21):
                self.answer(self.client.report("msul1"))
                self.answer(self.client.report())
                self.clock.advance(1)
        lines = [formatEvent(e) for e in events if e["log_level"] is LogLevel.info]
        asked = "Asked over the management port by lonc itself: report"
        of_all = [line for line in lines if not line.startswith("msul1: ")]
        self.assertEqual(of_all, [asked] + [f"{asked} (9 like this left out)"] * 2)
        self.assertEqual(
            [line for line in lines if line not in of_all], [f"msul1: {each}" for each in of_all]
        )

    def test_disconnect(self) -> None:
        """All connections are closed on request, also those of clients that do not read."""
        _, transport = self.silent()
        closed = self.factory.disconnect(limit=2.0)
        self.pump.flush()
        self.assertNoResult(closed)
        self.assertTrue(transport.disconnecting)
        self.clock.advance(2.0)
        self.assertTrue(transport.disconnected)
        server = next(iter(self.factory.connections))
        server.connectionLost(Failure(ConnectionDone()))
        self.assertIsNone(self.successResultOf(closed))
        self.assertIsNone(self.successResultOf(self.factory.disconnect()))
