"""
Splitting a stream of bytes into lines of limited length (F2, F3).

This module is pure: it imports nothing of lonc.
"""

from __future__ import annotations

from typing import Final

#: As a number it is found in bytes much faster than as bytes.
NEWLINE: Final = ord("\n")

#: The empty buffer that idle streams share. It is never changed.
_NOTHING = bytearray()


class LineTooLong(Exception):
    """
    A line is longer than the limit.

    It stays in the buffer, so that the caller may raise the limit and try again; otherwise the
    stream cannot be continued.
    """


class LineBuffer:
    """
    Data received on a stream and not yet taken as lines.

    The work is linear in the number of bytes, however they are split: nothing is searched twice,
    and CPython's ``bytearray`` deletes bytes at its front without moving the rest.

    :ivar limit: maximum bytes of a line without its newline; may be changed at any time.
    :ivar rest: the buffered bytes; read-only.
    """

    __slots__ = ("_searched", "limit", "rest")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rest = _NOTHING
        self._searched = 0  # bytes at the front known to contain no newline

    def __len__(self) -> int:
        """Return the number of buffered bytes."""
        return len(self.rest)

    def push(self, data: bytes) -> bytes | None:
        """
        Add data; return the first complete line with its newline, or None if there is none yet.

        :raises LineTooLong: that line, complete or not, is longer than the limit.
        """
        # The usual case, one complete line and an empty buffer, without copying.
        if not self.rest and 0 < len(data) == data.find(b"\n") + 1 <= self.limit + 1:
            return data
        self.feed(data)
        return self.take()

    def feed(self, data: bytes) -> None:
        """Add data without looking for lines."""
        if self.rest:
            self.rest += data
        else:
            self.rest = bytearray(data)

    def drain(self) -> bytes:
        """Remove and return all buffered data, when no line follows."""
        data = bytes(self.rest)
        self.rest = _NOTHING
        self._searched = 0
        return data

    def begins_with(self, prefix: bytes) -> bool:
        """Return whether the buffered bytes begin with a prefix."""
        return self.rest.startswith(prefix)

    def take(self) -> bytes | None:
        """
        Return the next complete line with its newline, or None if there is none.

        :raises LineTooLong: see `push`.
        """
        end = self.rest.find(b"\n", self._searched) + 1
        if (end or len(self.rest) + 1) > self.limit + 1:
            raise LineTooLong(f"a line is longer than {self.limit} bytes")
        if not end:
            self._searched = len(self.rest)
            return None
        self._searched = 0
        line = bytes(self.rest[:end])
        if end == len(self.rest):
            self.rest = _NOTHING
        else:
            del self.rest[:end]
        return line
