"""The handshake, without a network: bytes in, bytes out (rows S6 and F15)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.properties import given, settings, st
from lonc.wire.cipher import session_key
from lonc.wire.handshake import MAX_LINE, Handshake, HandshakeError, State

#: What a lond of the seed's time says, line by line.
UNKNOWN = b"unknown_cmd\n"
LINES = (b"1234567890\n", b"ok\n", UNKNOWN, UNKNOWN, b"0123456789ABCDEF\n")
LAST = len(LINES) - 1


def begun(lines: int = 0) -> Handshake:
    """Return a handshake that has received so many of the lines."""
    handshake = Handshake("l2", "l1")
    handshake.start()
    for line in LINES[:lines]:
        handshake.receive(line)
    return handshake


class GoodTests(SynchronousTestCase):
    """A lond that follows the protocol (S6)."""

    def test_transcript(self) -> None:
        """S6: init; the challenge comes back unchanged; two questions that a lond of the seed's
        time does not know; ekey; the key ends it without a word."""
        handshake = Handshake("l2", "l1")
        self.assertEqual(handshake.state, State.CONNECTED)
        self.assertEqual(handshake.start(), b"init\n")
        self.assertEqual(handshake.state, State.INITIALIZED)
        for line, said, state in (
            (b"00120\n", b"00120\n", State.CHALLENGE_REPLIED),
            (b"ok\n", b"version\n", State.READING_VERSION_STRING),
            (UNKNOWN, b"sethost:l2\n", State.HOST_SET),
            (UNKNOWN, b"ekey\n", State.RECEIVING_KEY),
            (b"0123456789ABCDEF\n", b"", State.IDLE),
        ):
            self.assertIsNone(handshake.key)
            self.assertEqual((handshake.receive(line), handshake.state), (said, state))
        self.assertEqual(handshake.key, session_key("l2", "l1", b"0123456789ABCDEF"))

    def test_names_of_states(self) -> None:
        """S6: the states have the names of protocol, section 2, which are logged."""
        names = {"Connected", "Initialized", "ChallengeReceived", "ChallengeReplied"}
        names |= {"RequestingVersion", "ReadingVersionString", "SetHost", "HostSet"}
        names |= {"RequestingKey", "ReceivingKey", "Idle"}
        others = {"TakingKeyFile", "StartingTLS", "ReceivingKeyInTLS", "RequestingID", "ReadingID"}
        self.assertEqual({state.value for state in State}, names | others)

    def test_byte_by_byte(self) -> None:
        """S6: the data may be split anywhere."""
        handshake = Handshake("l2", "l1")
        said = handshake.start() + handshake.receive(b"")
        for byte in b"".join(LINES):
            said += handshake.receive(bytes([byte]))
        self.assertEqual(said, b"init\n1234567890\nversion\nsethost:l2\nekey\n")
        self.assertEqual(handshake.key, begun(len(LINES)).key)

    def test_lengths(self) -> None:
        """F15: a challenge of 64 digits and a key of 256 digits are accepted."""
        handshake = begun()
        self.assertEqual(handshake.receive(b"9" * 64 + b"\n"), b"9" * 64 + b"\n")
        for line in LINES[1:LAST]:
            handshake.receive(line)
        handshake.receive(b"F" * 256 + b"\n")
        self.assertEqual(handshake.state, State.IDLE)


class BadTests(SynchronousTestCase):
    """A lond that does not; the error says what it did, and contains no key."""

    def fails(self, after: int, *segments: bytes) -> str:
        """Return the error for these segments after so many valid lines."""
        handshake = begun(after)
        for segment in segments[:-1]:
            handshake.receive(segment)
        with self.assertRaises(HandshakeError) as caught:
            handshake.receive(segments[-1])
        message = str(caught.exception)
        self.assertTrue(message.isprintable())
        self.assertTrue(message.isascii())
        self.assertLess(len(message), 200)
        return message

    def test_refused(self) -> None:
        """F15: ``refused`` is recognised with and without its newline, and in pieces."""
        for segments in (
            [b"refused\n"],
            [b"refused"],
            [b"refused\r\n"],
            [b"ref", b"used"],
            [bytes([byte]) for byte in b"refused"],
        ):
            message = self.fails(0, *segments)
            self.assertIn("refused", message)
            self.assertIn("l1", message)

    def test_no_challenge(self) -> None:
        """F15: anything else is not returned: it could be a request to another lond."""
        for line in (
            b"put:msu:alice:x=1",
            b"",
            b"12 34",
            b" 1",
            b"-1",
            b"1.5",
            b"0x1f",
            b"123\r",
            b"9" * 65,
            "\N{ARABIC-INDIC DIGIT FIVE}".encode(),
            b"1\0",
            b"refused by rule",
            b"refuse",
        ):
            self.fails(0, line + b"\n")

    def test_message_shows_what_came(self) -> None:
        """The error has the beginning of an invalid challenge, with escapes."""
        self.assertIn("who goes there", self.fails(0, b"who goes there\n"))
        message = self.fails(0, b"\x1b[31m" + b"x" * 500 + b"\n")
        self.assertIn("\\x1b", message)

    def test_challenge_not_accepted(self) -> None:
        """S6: anything but ok after the challenge is an error."""
        for line in (b"refused", b"no", b"OK", b"ok ", b"ok\r", b"", b"okay"):
            self.fails(1, line + b"\n")

    def test_no_key(self) -> None:
        """S6: an invalid build key is an error, which does not contain it."""
        for line in (
            b"unknown_cmd",
            b"",
            b"abcdef",
            b"0123 4567",
            b"0123456789ABCDEF\r",
            b"0" * 257,
            b"GHI",
        ):
            message = self.fails(LAST, line + b"\n")
            if line:
                self.assertNotIn(line[:4].decode(), message)

    def test_two_lines_in_one_segment(self) -> None:
        """S6: data sent before it was asked for is an error."""
        for after, line in enumerate(LINES):
            self.fails(after, line + b"ok\n")
            self.fails(after, line + b"x")
            self.fails(after, line + b"\n")
        self.fails(0, b"".join(LINES))
        self.fails(0, b"refused\n\n")

    def test_line_without_end(self) -> None:
        """F3: in each state, a line of more than a kilobyte is an error."""
        for after in range(len(LINES)):
            message = self.fails(after, b"9" * MAX_LINE, b"9")
            self.assertIn(str(MAX_LINE), message)
        begun().receive(b"9" * MAX_LINE)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.lists(st.binary(min_size=1, max_size=80), max_size=8))
    def test_noise(self, segments: list[bytes]) -> None:
        """F15: only a valid challenge is ever returned; the only exception is HandshakeError."""
        handshake = begun()
        for segment in segments:
            try:
                said = handshake.receive(segment)
            except HandshakeError:
                return
            questions = (b"", b"version\n", b"sethost:l2\n", b"ekey\n")
            self.assertTrue(said in questions or said[:-1].isdigit())
            if handshake.state is State.IDLE:
                return
