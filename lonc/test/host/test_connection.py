"""One connection to a lond, from its first byte, and everything a lond may do wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.error import (
    ConnectionLost,
)

from lonc.host.connection import LondConnection
from lonc.host.connection_states import ConnectionState, Trouble
from lonc.test.fixtures.doubles import (
    BUILD_KEY,
    CHALLENGE,
    ScriptedLond,
    Wire,
)
from lonc.test.fixtures.lond_connection import HANDSHAKE, MAX_LINE, ConnectionTestCase
from lonc.test.fixtures.properties import given, settings, st
from lonc.wire.cipher import SessionCipher
from lonc.wire.handshake import AuthModes, Handshake, HandshakeError
from lonc.wire.request import Cause

VECTORS: list[dict[str, Any]] = json.loads(
    Path(__file__)
    .parent.with_name("fixtures")
    .joinpath("session_cipher.json")
    .read_text(encoding="utf-8")
)


class HandshakeTests(ConnectionTestCase):
    """The handshake, byte by byte (row S6)."""

    def test_transcript(self) -> None:
        """S6: it opens with init, takes the handshake, and tells its owner the end of it."""
        self.begin()
        self.assertEqual(self.wire.value(), b"init\n")
        for line in HANDSHAKE:
            self.wire.deliver(line)
        self.assertEqual(self.owner.told, [("ready",)])
        questions = b"version\nsethost:l2\n"
        self.assertEqual(self.wire.value(), b"init\n" + CHALLENGE + b"\n" + questions + b"ekey\n")

    def test_bytes_one_by_one(self) -> None:
        """S6: a lond whose every byte comes alone gets through."""
        self.begin()
        for byte in b"".join(HANDSHAKE):
            self.wire.deliver(bytes([byte]))
        self.assertEqual(self.owner.told, [("ready",)])

    def test_refused(self) -> None:
        """F15: a refusal ends it, newline or not; the message names our own id."""
        for word in (b"refused\n", b"refused"):
            self.setUp()
            self.begin()
            self.wire.deliver(word)
            message = self.assert_failed(Trouble.HANDSHAKE)
            self.assertIn("refused: that lond does not know l1", message)
            self.assertTrue(self.wire.aborted)
            self.assert_dead()

    def test_wrong_line_in_each_state(self) -> None:
        """S6: a wrong line in any state ends it, and is not answered; any line is a version."""
        for state in self.in_each_state():
            if state == "ReadingVersionString":
                continue
            sent = self.wire.value()
            self.wire.deliver(b"what?\n")
            self.assert_failed(Trouble.HANDSHAKE)
            self.assertEqual(self.wire.value(), sent)
            self.assert_dead()

    def test_closed_in_each_state(self) -> None:
        """F5: a lond that hangs up is one failure, and the message names the state."""
        for state in self.in_each_state():
            self.wire.finish()
            message = self.assert_failed(Trouble.HANDSHAKE)
            self.assertEqual(message, f"closed by the lond in state {state}")
            self.assert_dead()

    def test_expired_in_each_state(self) -> None:
        """F1: a handshake over its time is cut; the message names limit and state."""
        for state in self.in_each_state():
            self.connection.expire(60.0)
            message = self.assert_failed(Trouble.TIMEOUT)
            self.assertIn("60 s", message)
            self.assertIn(state, message)
            self.assertTrue(self.wire.aborted)
            self.assert_dead()

    def test_farewell(self) -> None:
        """A handshake that fails may have last words for the lond; then it is cut."""

        class Insulted(Handshake):
            def receive(self, data: bytes) -> bytes:
                raise HandshakeError("how rude", b"bye")

        self.connection = LondConnection(self.owner, Insulted("l2", "l1"), MAX_LINE)
        self.wire = Wire(self.clock, self.connection)
        self.begin()
        self.wire.deliver(b"x")
        self.assertEqual(self.assert_failed(Trouble.HANDSHAKE), "how rude")
        self.assertEqual(self.wire.value(), b"init\nbye")
        self.assertTrue(self.wire.aborted)
        self.assert_dead()

    def test_no_way_in(self) -> None:
        """One that cannot even begin says nothing, and is a failure like any other."""
        closed = Handshake("l2", "l1", AuthModes(insecure=False))
        self.connection = LondConnection(self.owner, closed, MAX_LINE)
        self.wire = Wire(self.clock, self.connection)
        self.connection.makeConnection(self.wire)
        self.assertEqual(self.owner.told.pop(0), ("connected",))
        self.assert_failed(Trouble.HANDSHAKE)
        self.assertEqual(self.wire.value(), b"")
        self.assert_dead()

    def test_more_than_the_key(self) -> None:
        """S6: a lond that says something behind its key never becomes ready."""
        self.begin(len(HANDSHAKE) - 1)
        self.wire.deliver(HANDSHAKE[-1] + b"x")
        self.assert_failed(Trouble.HANDSHAKE)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.lists(st.sampled_from([*HANDSHAKE, b"refused", b"\n", b"x", b"enc:1:"]), max_size=9))
    def test_any_order(self, segments: list[bytes]) -> None:
        """S6: whatever a lond says in whatever order, it is ready once, or failed once."""
        self.setUp()
        self.begin()
        for segment in segments:
            self.wire.deliver(segment)
        names = [each[0] for each in self.owner.told]
        if names[-1:] == ["failed"]:
            self.assert_dead()
        self.assertIn(names, ([], ["ready"], ["failed"], ["ready", "failed"]))


class RequestTests(ConnectionTestCase):
    """One request at a time."""

    def test_request_and_reply(self) -> None:
        """S5: request and reply pass as they are, whatever bytes they hold."""
        self.make_ready()
        for line in (b"ping\n", bytes(set(range(256)) - {10}) + b"\n", b"\n"):
            self.wire.clear()
            self.ask(line)
            self.assertEqual(self.wire.value(), line)
            self.wire.deliver(line[::-1].strip(b"\n") + b"\n")
            told = ("replied", line, line[::-1].strip(b"\n") + b"\n")
            self.assertEqual(self.owner.told, [told])
            self.assertIs(self.connection.state, ConnectionState.BUSY)
            self.owner.told.clear()

    def test_another_key(self) -> None:
        """S7: a client that asks for a key gets the answer; the connection is not used again."""
        for line in (b"ekey\n", b"ekey:x\n", b"sethost:l2:ekey\n", b"encrypt:ekey\n"):
            self.make_ready(line)
            self.wire.deliver(BUILD_KEY + b"\n")
            self.assertEqual(self.owner.told, [("replied", line, BUILD_KEY + b"\n")])
            self.assertIs(self.connection.state, ConnectionState.RETIRING, line)

    def test_pieces(self) -> None:
        """S5: a reply that comes byte by byte is one reply, told at its newline."""
        self.make_ready(b"ping\n")
        for byte in b"l2:answer":
            self.wire.deliver(bytes([byte]))
            self.assertEqual(self.owner.told, [])
        self.wire.deliver(b"\n")
        self.assertEqual(self.owner.told, [("replied", b"ping\n", b"l2:answer\n")])

    def test_longest_reply(self) -> None:
        """F3: a reply may have as many bytes as the limit says, its newline not counted."""
        self.make_ready(b"ping\n")
        self.wire.deliver(b"x" * MAX_LINE + b"\n")
        self.assertEqual(self.owner.told, [("replied", b"ping\n", b"x" * MAX_LINE + b"\n")])

    def test_reply_too_long(self) -> None:
        """F3: one byte more ends the connection, with the newline or without, in pieces or not."""
        for segments in (
            [b"x" * (MAX_LINE + 1) + b"\n"],
            [b"x" * (MAX_LINE + 1)],
            [b"x" * MAX_LINE, b"x"],
            [b"x" * MAX_LINE, b"x\n"],
        ):
            self.make_ready(b"ping\n")
            for segment in segments:
                self.wire.deliver(segment)
            message = self.assert_failed(Trouble.BROKEN, Cause.TOO_LONG)
            self.assertIn(f"{MAX_LINE} bytes", message)
            self.assertIsNotNone(self.connection.request)
            self.assert_dead()

    def test_spoke_while_idle(self) -> None:
        """F2: any byte while nothing is owed ends the connection: the next asker would get it."""
        for data in (b"x", b"\n", b"l2\n"):
            self.make_ready()
            self.wire.deliver(data)
            message = self.assert_failed(Trouble.BROKEN, Cause.BROKEN)
            self.assertEqual(message, "the lond spoke out of turn")
            self.assert_dead()

    def test_spoke_after_its_reply(self) -> None:
        """F2: the same holds after a request was answered."""
        self.make_ready(b"ping\n")
        self.wire.deliver(b"l2\n")
        self.assertEqual(self.owner.told.pop(0), ("replied", b"ping\n", b"l2\n"))
        self.wire.deliver(b"l2\n")
        self.assert_failed(Trouble.BROKEN, Cause.BROKEN)

    def test_more_than_the_reply(self) -> None:
        """F2: bytes behind the reply in one segment leave the reply good, the connection not."""
        for more in (b"x", b"\n", b"second\n"):
            self.make_ready(b"ping\n")
            self.wire.deliver(b"l2\n" + more)
            self.assertEqual(self.owner.told, [("replied", b"ping\n", b"l2\n")])
            self.assertIs(self.connection.state, ConnectionState.RETIRING)
            self.assertTrue(self.connection.surplus)

    def test_late_reply(self) -> None:
        """F1, F2: a reply after the time limit is discarded."""
        self.make_ready(b"ping\n")
        self.wire.deliver(b"l")
        self.connection.expire(60.0)
        message = self.assert_failed(Trouble.TIMEOUT, Cause.TIMEOUT)
        self.assertEqual(message, "no answer after 60 s")
        self.assertTrue(self.wire.aborted)
        self.connection.dataReceived(b"2\n")
        self.assertEqual(len(self.owner.told), 1)
        self.assert_dead()

    def test_reply_without_newline(self) -> None:
        """F5: a reply that ends with the connection is none."""
        self.make_ready(b"ping\n")
        self.wire.deliver(b"l2")
        self.wire.finish()
        message = self.assert_failed(Trouble.BROKEN, Cause.BROKEN)
        self.assertEqual(message, "closed by the lond")
        request = self.connection.request
        self.assertEqual(None if request is None else request.line, b"ping\n")

    def test_breaks(self) -> None:
        """F5: a break is told once, with its reason."""
        self.make_ready(b"ping\n")
        self.wire.end(ConnectionLost("no route"))
        message = self.assert_failed(Trouble.BROKEN, Cause.BROKEN)
        self.assertIn("no route", message)


class EncryptTests(ConnectionTestCase):
    """Requests and answers that are encrypted (row S7)."""

    def setUp(self) -> None:
        super().setUp()
        self.cipher = ScriptedLond(Wire(self.clock, self.connection)).cipher

    def test_frames_of_others(self) -> None:
        """S7: with Perl's build keys, requests go out as Perl's frames and its replies are read."""
        for vector in VECTORS:
            self.setUp()
            names = Handshake(vector["lond_host_id"], vector["lonc_host_id"])
            self.connection = LondConnection(self.owner, names, MAX_LINE)
            self.wire = Wire(self.clock, self.connection)
            self.connection.makeConnection(self.wire)
            for line in (*HANDSHAKE[:-1], vector["buildkey"].encode() + b"\n"):
                self.wire.deliver(line)
            for each in vector["frames"]:
                plain, frame = bytes.fromhex(each["plain_hex"]), each["frame"].encode()
                self.wire.clear()
                self.owner.told.clear()
                self.ask(b"encrypt:" + plain + b"\n")
                self.assertEqual(self.wire.value(), frame + b"\n")
                self.wire.deliver(frame + b"\n")
                told = ("replied", b"encrypt:" + plain + b"\n", plain + b"\n")
                self.assertEqual(self.owner.told, [told])

    def test_plain_reply(self) -> None:
        """S7: an encrypted request may be answered in clear, and a clear one encrypted."""
        self.make_ready(b"encrypt:put:x\n")
        self.wire.deliver(b"ok\n")
        self.ask(b"eget:x\n")
        self.wire.deliver(self.cipher.encrypt(b"secret") + b"\n")
        replies = [each[2] for each in self.owner.told]
        self.assertEqual(replies, [b"ok\n", b"secret\n"])

    def test_lines_inside(self) -> None:
        """F2: an encrypted reply of two lines would answer the next request too: it is refused."""
        for plain in (b"one\ntwo", b"one\n\n", b"\n\n", b"\nx"):
            self.make_ready(b"eget:x\n")
            self.wire.deliver(self.cipher.encrypt(plain) + b"\n")
            self.assert_failed(Trouble.BROKEN, Cause.BROKEN)
            self.assert_dead()

    def test_lies(self) -> None:
        """S7: a frame that is none ends the connection, and the message does not repeat it."""
        good = self.cipher.encrypt(b"secret")
        for frame in (
            b"enc:",
            b"enc:6",
            b"enc:6:",
            b"enc:-1:" + b"0" * 16,
            b"enc:6:" + b"g" * 16,
            b"enc:7000:" + b"0" * 16,
            b"enc:99999999999999999999:" + b"0" * 16,
            good[:-1],
            good + b"0",
            good + b"\r",
        ):
            self.make_ready(b"eget:x\n")
            self.wire.deliver(frame + b"\n")
            message = self.assert_failed(Trouble.BROKEN, Cause.BROKEN)
            for piece in (b"0000", b"gggg", good[6:10]):
                self.assertNotIn(piece.decode(), message, frame)
            self.assert_dead()

    def test_wrong_key(self) -> None:
        """S7: a frame of another key gives noise, not a fault: the exchange cannot tell."""
        self.make_ready(b"eget:x\n")
        self.wire.deliver(SessionCipher(bytes(16)).encrypt(b"secret") + b"\n")
        self.assertEqual(len(self.owner.told), 1)

    def test_longest_reply(self) -> None:
        """F3: an encrypted reply may be as long as a plain one: its limit is that of its text."""
        plain = b"x" * MAX_LINE
        for size in (10**9, 700, 1):
            self.make_ready(b"eget:x\n")
            frame = self.cipher.encrypt(plain) + b"\n"
            for start in range(0, len(frame), size):
                self.wire.deliver(frame[start : start + size])
            self.assertEqual(self.owner.told, [("replied", b"eget:x\n", plain + b"\n")])

    def test_reply_too_long(self) -> None:
        """F3: an encrypted reply whose text is over the limit is refused, whole or endless."""
        for data in (
            self.cipher.encrypt(b"x" * (MAX_LINE + 1)) + b"\n",
            self.cipher.encrypt(b"x" * (MAX_LINE + 100)) + b"\n",
            b"enc:1:" + b"0" * 3 * MAX_LINE,
        ):
            self.make_ready(b"eget:x\n")
            self.wire.deliver(data)
            self.assert_failed(Trouble.BROKEN, Cause.TOO_LONG)
            self.assert_dead()

    def test_limit_is_back(self) -> None:
        """F3: after a long encrypted reply the limit for plain ones holds again."""
        self.make_ready(b"eget:x\n")
        self.wire.deliver(self.cipher.encrypt(b"x" * MAX_LINE) + b"\n")
        self.owner.told.clear()
        self.ask(b"get:x\n")
        self.wire.deliver(b"x" * (MAX_LINE + 1) + b"\n")
        self.assert_failed(Trouble.BROKEN, Cause.TOO_LONG)

    def test_surplus_behind_a_frame(self) -> None:
        """F2: bytes behind an encrypted reply are surplus too."""
        self.make_ready(b"eget:x\n")
        self.wire.deliver(self.cipher.encrypt(b"y" * MAX_LINE) + b"\nx")
        self.assertEqual(self.owner.told[0][0], "replied")
        self.assertTrue(self.connection.surplus)
        self.assertIs(self.connection.state, ConnectionState.RETIRING)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=60))
    def test_noise(self, noise: bytes) -> None:
        """F2: whatever an encrypted reply holds, the owner gets one line, or a failure."""
        self.make_ready(b"eget:x\n")
        self.wire.deliver(self.cipher.encrypt(noise) + b"\n")
        (told,) = self.owner.told
        if told[0] == "replied":
            reply = told[2]
            assert isinstance(reply, bytes)
            self.assertEqual(reply.count(b"\n"), 1)
            self.assertEqual(reply[:-1], noise.removesuffix(b"\n"))
        else:
            self.assertIn(b"\n", noise.removesuffix(b"\n"))


class CloseTests(ConnectionTestCase):
    """How our side ends it: without a word to the owner."""

    def assert_closes(self, aborted: bool) -> None:
        """Close it: it is aborted or not, and its owner is not informed."""
        self.connection.close()
        self.assertTrue(self.wire.disconnecting)
        self.assertEqual(self.wire.aborted, aborted)
        self.assert_dead()
        self.assertEqual(self.owner.told, [])

    def test_idle(self) -> None:
        """S9: an idle connection is closed in good order."""
        self.make_ready()
        self.assert_closes(aborted=False)

    def test_busy(self) -> None:
        """S14: one that owes an answer is aborted: unsent data keeps no descriptor open."""
        self.make_ready()
        self.wire.room = 10
        self.ask(b"x" * 100 + b"\n")
        self.assertTrue(self.wire.unsent)
        self.assert_closes(aborted=True)

    def test_in_handshake(self) -> None:
        """S14: one in its handshake is aborted."""
        self.begin(1)
        self.assert_closes(aborted=True)

    def test_made_too_late(self) -> None:
        """A connection that is made after it was given up is aborted; its owner is not informed."""
        self.connection.close()
        self.connection.makeConnection(self.wire)
        self.assertEqual(self.wire.value(), b"")
        self.assert_closes(aborted=True)
