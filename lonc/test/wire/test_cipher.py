"""The session key and the encrypted frames, against what other implementations printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.properties import given, settings, st
from lonc.wire.cipher import FrameError, SessionCipher, session_key

KEY = bytes(range(16))

#: Keys and frames that a Perl program printed, and OpenSSL's IDEA agrees with.
VECTORS: list[dict[str, Any]] = json.loads(
    Path(__file__)
    .parent.with_name("fixtures")
    .joinpath("session_cipher.json")
    .read_text(encoding="utf-8")
)


def key_of(vector: dict[str, Any]) -> bytes:
    """Derive the key of a vector."""
    buildkey = vector["buildkey"].encode()
    return session_key(vector["lond_host_id"], vector["lonc_host_id"], buildkey)


class SessionKeyTests(SynchronousTestCase):
    """The session key (protocol, section 3)."""

    def test_keys_of_others(self) -> None:
        """S6: the keys are those of Perl, also for short and unusual names."""
        for vector in VECTORS:
            self.assertEqual(key_of(vector).hex(), vector["key_hex"])

    def test_order_of_names(self) -> None:
        """The lond's host id comes first."""
        self.assertNotEqual(session_key("l1", "l2", b"1"), session_key("l2", "l1", b"1"))

    def test_lower_case_letters_count_as_upper_case(self) -> None:
        """A build key in lower case gives the same key, as Perl reads it."""
        self.assertEqual(session_key("a", "b", b"abcdef"), session_key("a", "b", b"ABCDEF"))

    def test_short_text(self) -> None:
        """A text with too few characters is padded with zeros, as by Perl's pack."""
        self.assertEqual(session_key("1", "2", b"").hex(), "121212" + "0" * 26)

    def test_foreign_letters(self) -> None:
        """Non-ASCII letters are not changed; the low half of each of their bytes counts."""
        # U+00E9 is C3 A9; in upper case it would end in 89.
        self.assertEqual(session_key("\xe9", "1", b"").hex(), "391391391" + "0" * 23)

    def test_raw_bytes(self) -> None:
        """A build key of any bytes gives a key of 16 bytes."""
        self.assertEqual(len(session_key("l1", "l2", bytes(range(128, 256)))), 16)


class FrameTests(SynchronousTestCase):
    """Encrypted frames (protocol, section 4)."""

    def test_frames_of_others(self) -> None:
        """S7: the frames are those of Perl, in both directions."""
        for vector in VECTORS:
            cipher = SessionCipher(key_of(vector))
            for each in vector["frames"]:
                plain, frame = bytes.fromhex(each["plain_hex"]), each["frame"].encode()
                self.assertEqual(cipher.encrypt(plain), frame)
                self.assertEqual(cipher.decrypt(frame), plain)

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.binary(max_size=100), max_size=5), st.binary(min_size=16, max_size=16))
    def test_there_and_back(self, texts: list[bytes], key: bytes) -> None:
        """S7: the other side decrypts any texts, independently of previous ones."""
        here, there = SessionCipher(key), SessionCipher(key)
        for text in texts:
            self.assertEqual(there.decrypt(here.encrypt(text)), text)

    def test_whole_blocks_without_padding(self) -> None:
        """The padding of a text of whole blocks may be missing."""
        cipher = SessionCipher(KEY)
        frame = cipher.encrypt(b"x" * 16)
        self.assertEqual(cipher.decrypt(frame[:-16]), b"x" * 16)
        self.assertEqual(cipher.decrypt(b"enc:0:"), b"")

    def test_upper_case_hex(self) -> None:
        """Upper-case hex digits are accepted."""
        cipher = SessionCipher(KEY)
        prefix, length, digits = cipher.encrypt(b"some text").split(b":")
        self.assertEqual(cipher.decrypt(b":".join([prefix, length, digits.upper()])), b"some text")

    def test_malformed(self) -> None:
        """S7: an invalid frame raises FrameError, and nothing else."""
        cipher = SessionCipher(KEY)
        block = b"0" * 16
        frames = {
            "empty": b"",
            "another word": b"con_lost",
            "prefix only": b"enc:",
            "no text": b"enc:5",
            "other prefix": b"ENC:5:" + block,
            "no length": b"enc::" + block,
            "negative length": b"enc:-1:" + block,
            "length with blank": b"enc: 5:" + block,
            "length in other digits": "enc:\N{ARABIC-INDIC DIGIT FIVE}:".encode() + block,
            "length in hex": b"enc:0x5:" + block,
            "too few blocks": b"enc:9:" + block,
            "too many blocks": b"enc:5:" + 2 * block,
            "two more blocks than whole ones": b"enc:8:" + 3 * block,
            "half a block": b"enc:5:" + block[:8],
            "odd digits": b"enc:5:" + block[:15],
            "not hex": b"enc:5:" + b"g" * 16,
            "blanks among hex": b"enc:5:" + b"00 " * 5 + b"0",
            "newline": b"enc:5:" + block + b"\n",
            "another field": b"enc:5:" + block + b":",
            "huge length": b"enc:" + b"9" * 5000 + b":" + block,
            "large length": b"enc:9999999999:" + block,
        }
        for what, frame in frames.items():
            with self.assertRaises(FrameError, msg=what):
                cipher.decrypt(frame)

    def test_message_keeps_the_text_to_itself(self) -> None:
        """The error contains no part of the text, which may be a password."""
        with self.assertRaises(FrameError) as caught:
            SessionCipher(KEY).decrypt(b"enc:5:secret")
        self.assertEqual(str(caught.exception), "a text of 5 bytes takes 16 hex digits, not 6")

    @settings(derandomize=True, deadline=None)
    @given(st.binary(max_size=60))
    def test_noise(self, noise: bytes) -> None:
        """Any bytes after the prefix are decrypted, or raise FrameError."""
        try:
            text = SessionCipher(KEY).decrypt(b"enc:" + noise)
        except FrameError:
            return
        self.assertIsInstance(text, bytes)
