"""
Bytes to lines, with a limit (F2, F3).

This module is pure: it imports nothing of lonc, and every way in and out of lonc uses it.
"""

from __future__ import annotations

#: What a stream has that keeps nothing: thousands share it. It is never changed.
_NOTHING = bytearray()


class LineTooLong(Exception):
    """
    A line is over the limit.

    It stays in the buffer, for who can raise the limit; for all others the stream is at its end.
    """


class LineBuffer:
    """
    What came in on a stream and is not yet taken as lines.

    The work is linear in the bytes, however they are cut up: nothing is searched twice, and
    CPython's ``bytearray`` gives up bytes at its front without moving the rest.

    :ivar limit: bytes a line may have, its newline not counted; may be changed at any time.
    :ivar rest: the bytes that are buffered; only to be looked at.
    """

    __slots__ = ("_searched", "limit", "rest")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rest = _NOTHING
        self._searched = 0  # so many bytes of the data are known to hold no newline

    def __len__(self) -> int:
        """Count the bytes that are buffered."""
        return len(self.rest)

    def push(self, data: bytes) -> bytes | None:
        """
        Add data; return the first whole line with its newline, or None when there is none yet.

        :raise LineTooLong: when that line is over the limit, or already longer without an end.
        """
        # What nearly always comes: one line, and nothing before it. It is not even copied.
        if not self.rest and 0 < len(data) == data.find(b"\n") + 1 <= self.limit + 1:
            return data
        self.feed(data)
        return self.take()

    def feed(self, data: bytes) -> None:
        """Add data without looking at it."""
        if self.rest:
            self.rest += data
        else:
            self.rest = bytearray(data)

    def drain(self) -> bytes:
        """Take all that is buffered: what follows is no line."""
        data = bytes(self.rest)
        self.rest = _NOTHING
        self._searched = 0
        return data

    def begins_with(self, prefix: bytes) -> bool:
        """Return whether the buffered bytes begin with a prefix."""
        return self.rest.startswith(prefix)

    def take(self) -> bytes | None:
        """
        Return the next whole line with its newline, or None when there is none.

        :raise LineTooLong: as `push` does.
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
