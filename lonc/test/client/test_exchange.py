"""An exchange with lonc, without a socket."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.client.exchange import (
    CON_DELAYED,
    CON_FAILED,
    CON_LOST,
    Exchange,
    Installation,
    Limits,
    Reply,
)
from lonc.delayed.outbox import NotStored
from lonc.disk.threads import NoPlace, Stuck

PATH = "/sockets/l2"
LIMITS = Limits(connect=10.0, exchange=130.0, store=7.0)


class ExchangeTests(SynchronousTestCase):
    """One request (protocol, section 5)."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = self.make()

    def make(self, limits: Limits = LIMITS) -> Exchange:
        """Begin an exchange."""
        return Exchange(PATH, b"ping", limits, 100, self.clock.seconds)

    def hear(self, *pieces: bytes) -> Reply:
        """Receive pieces of which only the last completes the reply; return that."""
        for piece in pieces[:-1]:
            self.assertIsNone(self.exchange.receive(piece))
        reply = self.exchange.receive(pieces[-1])
        assert reply is not None
        return reply

    def test_answered(self) -> None:
        """The request is a line, and the reply is complete with its newline."""
        self.assertEqual(self.exchange.line, b"ping\n")
        reply = self.hear(b"l", b"2\n")
        self.assertEqual((reply, reply.why), (b"l2", ""))
        self.assertTrue(self.exchange.is_reusable)

    def test_limits(self) -> None:
        """The remaining time decreases, even if bytes keep arriving."""
        self.exchange = self.make(Limits(connect=10.0, exchange=30.0))
        for left in range(30, 0, -1):
            self.assertEqual(self.exchange.left(), left)
            self.assertEqual(self.exchange.connect_limit(), min(left, 10.0))
            self.assertIsNone(self.exchange.receive(b"."))
            self.clock.advance(1)
        self.assertRaises(TimeoutError, self.exchange.left)
        self.assertRaises(TimeoutError, self.exchange.connect_limit)
        reply = self.exchange.late()
        self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: no answer within 30 s"))
        self.assertFalse(self.exchange.is_reusable)

    def test_lost(self) -> None:
        """An incomplete answer, or any other error, is con_lost with the reason."""
        for pieces in ([b""], [b"o", b""]):
            self.exchange = self.make()
            reply = self.hear(*pieces)
            self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: closed without an answer"))
            self.assertFalse(self.exchange.is_reusable)
        self.assertEqual(self.exchange.con_lost("Broken pipe").why, f"{PATH}: Broken pipe")

    def test_too_long(self) -> None:
        """An answer longer than the limit is con_lost."""
        reply = self.hear(b"." * 101)
        self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: a line is longer than 100 bytes"))
        self.assertFalse(self.exchange.is_reusable)
        self.exchange = self.make()
        self.assertEqual(self.hear(b"." * 100 + b"\n"), b"." * 100)

    def test_lonc_says_con_lost(self) -> None:
        """A con_lost sent by lonc has a reason of its own, and the connection stays usable."""
        reply = self.hear(b"con_lost\n")
        self.assertEqual(
            (reply, reply.why),
            (CON_LOST, f"{PATH}: lonc itself says con_lost; `lonc hosts` tells why"),
        )
        self.assertTrue(self.exchange.is_reusable)

    def test_more_than_an_answer(self) -> None:
        """Data after an answer makes the connection unusable for the next request."""
        self.assertEqual(self.hear(b"l2\nanother's\n"), b"l2")
        self.assertFalse(self.exchange.is_reusable)


class CriticalTests(SynchronousTestCase):
    """The reply to a request that must not be lost (protocol, section 6)."""

    def setUp(self) -> None:
        self.lonc = Installation("/sockets", LIMITS, None)
        self.lost = Reply(CON_LOST, "no lonc")

    def test_failed(self) -> None:
        """If it cannot be stored, or not in time, the reply is con_failed with the reason."""
        cases: list[tuple[Exception, str]] = [
            (NotStored("disk full"), "disk full"),
            (NotStored(""), "no reason is known"),
            (OSError(28, "No space left on device", "/d/f"), "/d/f: No space left on device"),
            (LookupError("a bug"), "LookupError: a bug"),
            (NoPlace(), "other disk calls hang"),
            (Stuck(), "no answer from the disk within 7 s, and it may be stored all the same"),
        ]
        for fault, why in cases:
            reply = self.lonc.critical_reply(self.lost, fault, None)
            self.assertEqual((reply, reply.why), (CON_FAILED, f"no lonc; {why}"))

    def test_delayed(self) -> None:
        """If it is stored, the reply is con_delayed; a failed note only adds a reason."""
        for fault, why in (
            (None, ""),
            (NotStored("no log"), "; no log"),
            (Stuck(), "; no answer from the disk within 7 s"),
        ):
            reply = self.lonc.critical_reply(self.lost, None, fault)
            self.assertEqual((reply, reply.why), (CON_DELAYED, f"no lonc{why}"))


class ReplyTests(SynchronousTestCase):
    """Replies."""

    def test_bytes(self) -> None:
        """A reply is equal to bytes, also as a key."""
        self.assertEqual({b"ok": 1}[Reply(b"ok", "a reason")], 1)

    def test_text(self) -> None:
        r"""Its text is readable; bytes that are not UTF-8 are written as ``\xff``."""
        self.assertEqual(Reply("né".encode() + b"\xff").text, "né\\xff")
