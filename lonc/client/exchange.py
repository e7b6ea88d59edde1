"""
A program's side of the exchange (protocol, section 5): one request, its reply, and their time.

Nothing here opens a socket or a file: :mod:`lonc.client.blocking` and :mod:`lonc.client.twisted`
connect, send ``line``, and pass on what they receive.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from lonc.wire.escaping import to_text
from lonc.wire.framing import LineBuffer, LineTooLong

#: The request may or may not have been done.
CON_LOST = b"con_lost"
#: The request is stored and will be sent.
CON_DELAYED = b"con_delayed"
#: The request could not be stored.
CON_FAILED = b"con_failed"


class Reply(bytes):
    """
    A reply: bytes, without the newline.

    :ivar why: for a person: what led to ``con_lost``, ``con_delayed`` or ``con_failed``; empty
        when it is a lond's own answer.
    """

    why: str

    def __new__(cls, value: bytes, why: str = "") -> Reply:
        """Add a reason to a reply."""
        reply = super().__new__(cls, value)
        reply.why = why
        return reply

    @property
    def text(self) -> str:
        r"""The reply as text for a person; bytes that are no UTF-8 are written as ``\xff``."""
        return to_text(self)


@attrs.frozen
class Limits:
    """
    How long a program waits, in seconds.

    :ivar connect: for the connection to lonc.
    :ivar exchange: from the call to the reply's last byte, connecting included. lonc gives a
        request up by itself after it has waited 60 s for a connection and 60 s for the answer.
        This is longer, so that it is lonc that says ``con_lost``: it then knows that it is done
        with the request, while whoever hangs up first leaves it under way.
    :ivar store: for a disk, at each of its steps; there are two: the request and its note.
    """

    connect: float = 10.0
    exchange: float = 130.0
    store: float = 10.0


class Exchange:
    """
    One request to one host, on a connection that carries no other meanwhile.

    :param limits: of which ``exchange`` runs from now.
    :param max_line: bytes that a reply may have.
    :param seconds: a clock.
    :param prefix: names the host where several share the socket.
    :ivar path: the host's socket.
    :ivar request: the request, without its newline.
    :ivar line: what is to be sent.
    :ivar is_reusable: the reply is there, and nothing else has come. Otherwise the connection is to
        be closed, before anything else is done: lonc drops a request whose client has gone, if it
        still waits.
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
        """Return the seconds that are left; TimeoutError: none are."""
        left = self._deadline - self._seconds()
        if left <= 0:
            raise TimeoutError
        return left

    def connect_limit(self) -> float:
        """Return the seconds for connecting; TimeoutError: none are left."""
        return min(self._limits.connect, self.left())

    def receive(self, data: bytes) -> Reply | None:
        """Take what came, nothing at the end; return the reply, None when more is to come."""
        if not data:
            return self.con_lost("closed without an answer")
        try:
            line = self._lines.push(data)
        except LineTooLong as error:
            return self.con_lost(str(error))
        if line is None:
            return None
        self.is_reusable = not self._lines.rest  # lonc never says more than it was asked
        reply = line[:-1]
        return Reply(
            reply,
            f"{self.path}: lonc itself says con_lost; `lonc hosts` tells why"
            if reply == CON_LOST
            else "",
        )

    def con_lost(self, why: str) -> Reply:
        """Return the reply to a request of which nobody knows whether it was done."""
        return Reply(CON_LOST, f"{self.path}: {why}")

    def late(self) -> Reply:
        """Return the reply when no time is left."""
        return self.con_lost(f"no answer within {self._limits.exchange:g} s")
