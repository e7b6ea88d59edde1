"""Values in requests and replies."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.properties import given, settings, st
from lonc.wire.escaping import (
    escape,
    pack,
    pack_list,
    to_text,
    unescape,
    unpack,
    unpack_list,
)


class EscapeTests(SynchronousTestCase):
    """Single values."""

    def test_every_byte(self) -> None:
        """Letters, digits and ``_`` stay; other bytes become ``%`` and two lower-case digits."""
        stay = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
        for code in range(256):
            byte = bytes([code])
            expected = byte if byte in stay else b"%" + f"{code:02x}".encode()
            self.assertEqual(escape(byte), expected)
            self.assertEqual(unescape(expected), byte)

    def test_as_perl_writes_it(self) -> None:
        """The result is what ``s/(\\W)/"%".unpack('H2',$1)/eg`` makes of the same bytes."""
        self.assertEqual(escape(b"essay=A&B: 100%\n"), b"essay%3dA%26B%3a%20100%25%0a")

    def test_text(self) -> None:
        """Text is encoded as UTF-8."""
        self.assertEqual(escape("né²"), b"n%c3%a9%c2%b2")
        self.assertEqual(unescape("n%c3%a9"), "né".encode())

    def test_no_utf8_form(self) -> None:
        """Text that cannot be encoded is a ValueError."""
        self.assertRaises(ValueError, escape, "\ud800")

    def test_either_case(self) -> None:
        """Upper-case digits are accepted."""
        self.assertEqual(unescape(b"%3A%3a%C3%a9"), "::é".encode())

    def test_no_escape(self) -> None:
        """A ``%`` without two hex digits is left unchanged, and so is ``+``."""
        self.assertEqual(unescape(b"100%, %4, %zz, a+b%"), b"100%, %4, %zz, a+b%")

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary())
    def test_there_and_back(self, value: bytes) -> None:
        """Any value is restored, and the escaped form contains no separator."""
        escaped = escape(value)
        self.assertTrue(re.fullmatch(rb"[\w%]*", escaped))
        self.assertEqual(unescape(escaped), value)


class PackTests(SynchronousTestCase):
    """Mappings and lists."""

    def test_pack(self) -> None:
        """Keys and values are escaped, in the given order."""
        self.assertEqual(pack({"b:1": "x=y", "a": b"\xff"}), b"b%3a1=x%3dy&a=%ff")
        self.assertEqual(pack({}), b"")

    def test_unpack(self) -> None:
        """Empty values, values with ``=``, and a trailing ``&`` are accepted."""
        self.assertEqual(unpack(b"b%3A1=x=y&a=&"), {b"b:1": b"x=y", b"a": b""})
        self.assertEqual(unpack(b""), {})

    def test_last_counts(self) -> None:
        """If a key occurs twice, in any escaped form, the last value counts."""
        self.assertEqual(unpack(b"%3a=1&%3A=2"), {b":": b"2"})

    def test_no_mapping(self) -> None:
        """Errors of a lond are not taken for data."""
        for reply in (b"con_lost", b"error:2 tie(GDBM) Failed", b"a=1&b"):
            self.assertRaises(ValueError, unpack, reply)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.dictionaries(st.binary(), st.binary()))
    def test_there_and_back(self, values: dict[bytes, bytes]) -> None:
        """Any mapping is restored, in its order."""
        self.assertEqual(list(unpack(pack(values)).items()), list(values.items()))

    def test_lists(self) -> None:
        """Lists are restored, with empty values among others."""
        self.assertEqual(pack_list(["a b", b"", "c"]), b"a%20b&&c")
        self.assertEqual(unpack_list(b"a%20b&&c"), [b"a b", b"", b"c"])
        self.assertEqual(unpack_list(pack_list([])), [])


class TextTests(SynchronousTestCase):
    """Readable text."""

    def test_text(self) -> None:
        r"""UTF-8 is read, and what is none is written as ``\xff``."""
        self.assertEqual(to_text("né".encode() + b"\xff"), "né\\xff")
