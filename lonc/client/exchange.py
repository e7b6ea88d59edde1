"""
The client side of an exchange (protocol, section 5): a request, its reply, and its time limits.

This module uses no socket or file: :mod:`lonc.client.blocking` and :mod:`lonc.client.twisted`
connect, send ``line``, and pass on the received data.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from lonc.wire.escaping import to_text
from lonc.wire.framing import LineBuffer, LineTooLong

#: The request may or may not have been executed.
CON_LOST = b"con_lost"
#: The request is stored and will be sent.
CON_DELAYED = b"con_delayed"
#: The request could not be stored.
CON_FAILED = b"con_failed"


class Reply(bytes):
    """
    A reply without its newline.

    :ivar why: the readable reason of ``con_lost``, ``con_delayed`` or ``con_failed``; empty for a
        reply of lond.
    """

    why: str

    def __new__(cls, value: bytes, why: str = "") -> Reply:
        """Create a reply with a reason."""
        reply = super().__new__(cls, value)
        reply.why = why
        return reply

    @property
    def text(self) -> str:
        r"""The reply as readable text; bytes that are not UTF-8 are written as ``\xff``."""
        return to_text(self)


@attrs.frozen
class Limits:
    """
    Time limits of a program, in seconds.

    :ivar connect: for the connection to lonc.
    :ivar exchange: from the call to the last byte of the reply, including connecting. By default
        lonc itself gives up a request after waiting 60 s for a connection and 60 s for the reply.
        This limit is longer, so that lonc sends ``con_lost`` first: then the request has ended in
        lonc, too.
    :ivar store: for each of two disk operations: storing the request and its note.
    """

    connect: float = 10.0
    exchange: float = 130.0
    store: float = 10.0


class Exchange:
    """
    One request to one host, the only one at a time on its connection.

    :param limits: ``exchange`` is counted from now.
    :param max_line: maximum bytes of a reply.
    :param seconds: returns the time.
    :param prefix: names the host if several share the socket.
    :ivar path: the host's socket.
    :ivar request: the request, without its newline.
    :ivar line: the bytes to send.
    :ivar is_reusable: whether the reply, and nothing else, has arrived. Otherwise the connection
        must be closed immediately, so that lonc drops the request if it is still waiting.
    """

    def __init__(
        self,
        path: str,
        request: bytes,
        limits: Limits,
        max_line: int,
        seconds: Callable[[], float],
        prefix: bytes = b"",
    ) -> None:
        self.path = path
        self.request = request
        self.line = prefix + request + b"\n"
        self.is_reusable = False
        self._limits = limits
        self._seconds = seconds
        self._deadline = seconds() + limits.exchange
        self._lines = LineBuffer(max_line)

    def left(self) -> float:
        """Return the remaining seconds; raise TimeoutError if there are none."""
        left = self._deadline - self._seconds()
        if left <= 0:
            raise TimeoutError
        return left

    def connect_limit(self) -> float:
        """Return the seconds for connecting; raise TimeoutError if none remain."""
        return min(self._limits.connect, self.left())

    def receive(self, data: bytes) -> Reply | None:
        """Handle received data (empty: closed); return the reply, None if incomplete."""
        if not data:
            return self.con_lost("closed without an answer")
        try:
            line = self._lines.push(data)
        except LineTooLong as error:
            return self.con_lost(str(error))
        if line is None:
            return None
        self.is_reusable = not self._lines.rest  # lonc sends nothing unasked
        reply = line[:-1]
        return Reply(
            reply,
            f"{self.path}: lonc itself says con_lost; `lonc hosts` tells why"
            if reply == CON_LOST
            else "",
        )

    def con_lost(self, why: str) -> Reply:
        """Return ``con_lost`` with a reason."""
        return Reply(CON_LOST, f"{self.path}: {why}")

    def late(self) -> Reply:
        """Return ``con_lost`` after the time limit."""
        return self.con_lost(f"no answer within {self._limits.exchange:g} s")
