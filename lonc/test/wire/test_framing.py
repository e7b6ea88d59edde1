"""Bytes become lines, however they come, and no line is too long."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.properties import given, settings, st
from lonc.wire.framing import LineBuffer, LineTooLong

MIB = 1024 * 1024


def all_lines(buffer: LineBuffer, pieces: Iterable[bytes]) -> list[bytes]:
    """Push pieces, and take every line that is whole after each."""
    lines = []
    for piece in pieces:
        line = buffer.push(piece)
        while line is not None:
            lines.append(line)
            line = buffer.take()
    return lines


class LineBufferTests(SynchronousTestCase):
    """Splitting data into lines."""

    def test_one_line_is_not_copied(self) -> None:
        """Data that is one line is returned unchanged, and nothing is buffered."""
        buffer = LineBuffer(100)
        data = b"".join([b"ping", b"\n"])
        self.assertIs(buffer.push(data), data)
        self.assertEqual(len(buffer), 0)

    def test_lines(self) -> None:
        """F2: lines are returned one by one, each when its newline has come."""
        for pieces, lines, rest in (
            ([b"pi", b"ng\n"], [b"ping\n"], 0),
            ([b"a\nb\nc", b"\nd"], [b"a\n", b"b\n", b"c\n"], 1),
            ([b"", b"\n"], [b"\n"], 0),
        ):
            buffer = LineBuffer(100)
            self.assertEqual((all_lines(buffer, pieces), len(buffer)), (lines, rest))

    def test_feed(self) -> None:
        """Fed data stays until it is taken; a line pushed after it waits."""
        buffer = LineBuffer(100)
        buffer.feed(b"a\n")
        buffer.feed(b"b\n")
        self.assertEqual(len(buffer), 4)
        self.assertEqual(buffer.push(b"c\n"), b"a\n")
        self.assertEqual([buffer.take(), buffer.take(), buffer.take()], [b"b\n", b"c\n", None])

    def test_drain(self) -> None:
        """All buffered data can be taken at once; then lines are read as before."""
        lines = LineBuffer(100)
        self.assertEqual(lines.drain(), b"")
        lines.feed(b"one\ntw")
        self.assertEqual(lines.take(), b"one\n")
        self.assertIsNone(lines.take())
        self.assertEqual((lines.drain(), len(lines)), (b"tw", 0))
        self.assertEqual(lines.push(b"three\n"), b"three\n")

    def test_begins_with(self) -> None:
        """The beginning of an incomplete line can be examined."""
        buffer = LineBuffer(100)
        buffer.feed(b"enc")
        self.assertFalse(buffer.begins_with(b"enc:"))
        buffer.feed(b":5")
        self.assertTrue(buffer.begins_with(b"enc:"))

    @settings(derandomize=True, deadline=None)
    @given(
        st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=20),
        st.lists(st.integers(0, 400), max_size=20),
    )
    def test_any_cuts(self, lines: list[bytes], cuts: list[int]) -> None:
        """F2: the lines are the same, however the data is split."""
        whole = [line + b"\n" for line in lines]
        stream = b"".join(whole) + b"rest"
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        buffer = LineBuffer(20)
        pieces = [stream[start:end] for start, end in pairwise(edges)]
        self.assertEqual(all_lines(buffer, pieces), whole)
        self.assertEqual(len(buffer), len(b"rest"))


class LimitTests(SynchronousTestCase):
    """The maximum length of a line (F3)."""

    def test_at_the_limit(self) -> None:
        """F3: the limit does not include the newline, nor other lines."""
        for pieces in ([b"1234\n"], [b"1234", b"\n"], [b"1\n" * 100]):
            self.assertEqual(b"".join(all_lines(LineBuffer(4), pieces)), b"".join(pieces))

    def test_over_the_limit(self) -> None:
        """F3: one byte more is an error as soon as it has come, but after the previous lines."""
        for pieces in ([b"12345\n"], [b"1234", b"5"], [b"1234", b"5\n"]):
            self.assertRaises(LineTooLong, all_lines, LineBuffer(4), pieces)
        buffer = LineBuffer(4)
        self.assertEqual(buffer.push(b"1\n2\n12345"), b"1\n")
        self.assertEqual(buffer.take(), b"2\n")
        self.assertRaises(LineTooLong, buffer.take)

    def test_largest_line(self) -> None:
        """F3: a line of 16 MiB in pieces of 64 KiB is returned."""
        buffer = LineBuffer(16 * MIB)
        pieces = [b"x" * 65536] * 256
        self.assertEqual(all_lines(buffer, [*pieces, b"\n"]), [b"x" * 16 * MIB + b"\n"])
        self.assertEqual(len(buffer), 0)

    def test_limit_changes(self) -> None:
        """A line that was too long is still buffered; a new limit applies to buffered data."""
        buffer = LineBuffer(4)
        self.assertRaises(LineTooLong, buffer.push, b"12345")
        buffer.limit = 6
        self.assertIsNone(buffer.take())
        self.assertEqual(buffer.push(b"6\n"), b"123456\n")
        buffer.feed(b"123456\n")
        buffer.limit = 5
        self.assertRaises(LineTooLong, buffer.take)


class Counting(bytearray):
    """Counts the bytes that are searched, and those that are moved by a deletion."""

    searched = moved = 0

    def find(self, sub: Any, start: Any = 0, *end: Any) -> int:
        """Search, and count the bytes that are examined."""
        found = super().find(sub, start, *end)
        self.searched += (len(self) if found < 0 else found + 1) - start
        return found

    def __delitem__(self, key: Any) -> None:
        """Delete bytes; at the front, bytearray does so without moving others."""
        assert isinstance(key, slice)
        self.moved += 0 if not key.start else len(self) - key.start
        super().__delitem__(key)


class WorkTests(SynchronousTestCase):
    """The work is linear in the number of bytes."""

    def setUp(self) -> None:
        self.buffer = LineBuffer(MIB)
        self.buffer.feed(b"x")
        self.buffer.rest = self.counting = Counting(self.buffer.rest)

    def test_byte_by_byte(self) -> None:
        """F3: each byte of a line that comes byte by byte is searched once."""
        for _ in range(1000):
            self.buffer.push(b"x")
        self.assertEqual(len(self.buffer.push(b"\n") or b""), 1002)
        self.assertEqual((self.counting.searched, self.counting.moved), (1002, 0))

    def test_many_lines_at_once(self) -> None:
        """F2: each byte of many lines is searched once, and none is moved."""
        self.buffer.feed(b"234567\n" * 1000)
        for _ in range(1000):
            self.assertIsNotNone(self.buffer.take())
        self.assertEqual((self.counting.searched, self.counting.moved), (7001, 0))
