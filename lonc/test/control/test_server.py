"""What the daemon's side of the management port bears with."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.protocols import amp

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
    """A transport whose other side may have a certificate."""

    has_begun = False

    def getPeerCertificate(self) -> None:
        """It has shown none."""


class LimitsTests(ConnectedTests):
    """What the daemon's side bears with."""

    def silent(self) -> tuple[ManagementProtocol, StringTransport]:
        """Connect somebody who sends nothing."""
        server = self.factory.buildProtocol(None)
        assert server is not None
        transport = StringTransport()
        server.makeConnection(transport)
        return server, transport

    def owners_factory(self) -> ManagementFactory:
        """Return what serves lonc's own user alone, with the usual limits."""
        return ManagementFactory(self.daemon.responders, self.clock, visitor_of=lambda _: OWNER)

    def test_too_many(self) -> None:
        """For one connection over the limit the one that was silent for longest makes room."""
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
        """A connection whose command is under way makes no room for a silent one."""
        self.daemon.reading = Deferred()
        reloading = self.ask(self.client.reload())
        for _ in range(5):
            self.clock.advance(1)
            self.silent()
        self.daemon.reading.callback("done")
        self.pump.flush()
        self.assertEqual(self.successResultOf(reloading), "done")

    def test_all_busy(self) -> None:
        """Where every connection waits for an answer, a further one is served all the same."""
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

    def test_others_busy(self) -> None:
        """Sixty who may only see, each with a command under way, keep the owner's out nowhere."""
        owner, owner_pump = self.client, self.pump
        self.visitor = Visitor("ann (process 7)", Level.SEE)
        for _ in range(30):
            other, self.pump = self.connected()
            self.ask(other.trace().__anext__())  # type: ignore[arg-type]
        self.visitor = OWNER
        late, late_pump = self.connected()
        self.visitor = Visitor("ann (process 7)", Level.SEE)
        for _ in range(30):
            other, self.pump = self.connected()
            self.ask(other.trace().__anext__())  # type: ignore[arg-type]
        for client, self.pump in ((owner, owner_pump), (late, late_pump)):
            self.assertEqual(self.answer(client.about()), self.daemon.about())

    def test_commands_of_a_level(self) -> None:
        """Commands under way of those who may only see have a limit, which is no other level's."""
        self.factory.max_connections = 100
        owner, owner_pump = self.client, self.pump
        self.visitor = Visitor("ann (process 7)", Level.SEE)
        asked: list[Deferred[Any]] = []
        for _ in range(MOST_OF_A_LEVEL + 1):
            other, self.pump = self.connected()
            asked.append(self.ask(other.trace().__anext__()))  # type: ignore[arg-type]
        self.failureResultOf(asked.pop(), NotDone)
        for each in asked:
            self.assertNoResult(each)
        self.visitor, self.pump = OWNER, owner_pump
        self.answer(owner.about())

    def handshaking(self, host: str) -> tuple[ManagementProtocol, TLSTransport]:
        """Connect somebody over TLS whose handshake is not complete."""
        server = self.factory.buildProtocol(None)
        transport = TLSTransport(peerAddress=IPv4Address("TCP", host, 4000))
        server.makeConnection(transport)
        return server, transport

    def test_strangers(self) -> None:
        """However many begin TLS and stop there, who completes the handshake is served."""
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
        """From one address: who has begun the handshake is kept before who says nothing."""
        _, transport = self.handshaking("192.0.2.2")
        transport.has_begun = True
        for _ in range(200):
            self.handshaking("192.0.2.2")
        self.assertFalse(transport.disconnected)

    def test_idle(self) -> None:
        """A silent client is dropped after the idle limit."""
        _, transport = self.silent()
        self.clock.advance(59.9)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(transport.disconnected)

    def test_not_idle(self) -> None:
        """A client that asks now and then stays."""
        for _ in range(3):
            self.clock.advance(59)
            self.answer(self.client.about())

    def test_no_timer_left(self) -> None:
        """A connection that has gone leaves no timer behind."""
        self.answer(self.client.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_malformed(self) -> None:
        """What is no command ends its connection with one line, and no traceback."""
        box = amp.AmpBox
        ask = {b"_ask": b"1"}
        for sent, why in (
            (b"\0\0", "a box that is not a command"),
            (box(_answer=b"1").serialize(), "a box that is not a command"),
            (box(_answer=b"1", _command=b"About").serialize(), "a box that is not a command"),
            (box(_error=b"7").serialize(), "a box that is not a command"),
            (box(ask).serialize(), "a box that is not a command"),
            (b"\xff\xff", "this is not AMP: a key of 65535 bytes"),
            (b"\0\1a\xff\xff" + b"x" * 65535 + b"\0\1b\0\0", "a box is longer than 65536 bytes"),
            (
                b"".join(b"\0\1a\0\xff" + b"x" * 255 for _ in range(300)),
                "a box is longer than 65536 bytes",
            ),
            (box(_command=b"nosuch").serialize(), "a command without an answer has failed"),
        ):
            factory = ManagementFactory(
                self.daemon.responders, self.clock, visitor_of=lambda _: OWNER
            )
            with capturedLogs() as events:
                for _ in range(3):
                    server = factory.buildProtocol(None)
                    transport = StringTransport()
                    server.makeConnection(transport)
                    server.dataReceived(sent + box(ask, _command=b"About").serialize())
                    self.assertTrue(transport.disconnecting, sent[:40])
                    self.assertEqual(transport.value(), b"")
            told = f"Management connection closed: {why}"
            self.assertEqual([line for line in warnings(events) if why in line], [told])
            self.assertEqual([event for event in events if "log_failure" in event], [])
            self.clock.advance(1)
            self.assertTrue(transport.disconnected)

    def test_malformed_in_many_ways(self) -> None:
        """However many ways there are to be malformed, they are one line a minute."""
        factory = self.owners_factory()
        with capturedLogs() as events:
            for sent in (
                b"\xff\xff",
                b"\1\0",
                b"\x12\x34",
                b"\0\0",
                b"\0\1a\xff\xff" + b"x" * 65536,
            ):
                server = factory.buildProtocol(None)
                server.makeConnection(StringTransport())
                server.dataReceived(sent)
        self.assertEqual(len(warnings(events)), 1)

    def test_name_that_is_not_ascii(self) -> None:
        """A command of such a name is unknown, and no fault."""
        server, transport = self.silent()
        with capturedLogs() as events:
            server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"Ab\xdcut").serialize())
        self.assertIn(b"Unhandled Command", transport.value())
        self.assertEqual([event for event in events if "log_failure" in event], [])

    def test_byte_by_byte(self) -> None:
        """A box that does not end counts as silence."""
        server, transport = self.silent()
        for _ in range(59):
            self.clock.advance(1)
            server.dataReceived(b"\0\1a\0\1b")
        self.assertFalse(transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnected)

    def test_no_tls(self) -> None:
        """AMP's own command for TLS is unknown here."""
        server, transport = self.silent()
        server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"StartTLS").serialize())
        self.assertIn(b"Unhandled Command", transport.value())
        self.assertFalse(transport.disconnecting)

    def test_answers_not_read(self) -> None:
        """Who does not read its answers is asked for nothing more until it has."""
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
        """Commands that are not answered yet have a limit."""
        self.daemon.reading = Deferred()
        server, transport = self.silent()
        server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"Reload").serialize() * 17)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.daemon.asked), 16)

    def test_asked_all_the_time(self) -> None:
        """A program that asks for the same again and again fills no log."""
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

    def test_stranger(self) -> None:
        """Who speaks another protocol is closed without an answer or a traceback."""
        server, transport = self.silent()
        server.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(transport.value(), b"")

    def test_disconnect(self) -> None:
        """All connections are closed on request, and the request ends when they are."""
        closed = self.factory.disconnect()
        self.assertNoResult(closed)
        self.pump.flush()
        self.assertIsNone(self.successResultOf(closed))
        self.assertIsNone(self.successResultOf(self.factory.disconnect()))

    def test_disconnect_who_does_not_read(self) -> None:
        """A client that does not take its answer is dropped all the same."""
        _, transport = self.silent()
        self.factory.disconnect(limit=2.0)
        self.assertTrue(transport.disconnecting)
        self.clock.advance(2.0)
        self.assertTrue(transport.disconnected)
