"""
A program's side of the exchange (protocol, sections 5 and 6): what is done, and in which order.

What a program asks for is a plan: a generator that yields one step after the other, is told how
each went, and returns the reply. Nothing here opens a socket or a file; :mod:`lonc.client.clients`
has the two that take the steps, one that blocks and one for Twisted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

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


# The steps. Who takes them sends what came to a Receive, and nothing of interest for the others.


@attrs.frozen
class Connect:
    """Connect to the UNIX socket at ``path``; what was open before is closed."""

    path: str
    limit: float


@attrs.frozen
class Send:
    """Send all of ``data``, or leave it to a buffer."""

    data: bytes
    limit: float


@attrs.frozen
class Receive:
    """Wait for bytes; there are none when the other side has closed. A limit of 0 only looks."""

    limit: float


@attrs.frozen
class HangUp:
    """Close the connection, if there is one."""


@attrs.frozen
class Work:
    """Do something that blocks, where ``limit`` can be kept."""

    call: Callable[[], object]
    limit: float


Step = Connect | Send | Receive | HangUp | Work
Plan = Generator[Step, bytes, Reply]


class Broken(Exception):
    """A step failed; the message is for a person."""


class Late(Exception):
    """A step was not done within its limit."""


def advance(plan: Plan, outcome: bytes | Broken | Late | None = None) -> Step | Reply:
    """
    Return a plan's next step, or its reply.

    :param outcome: how the step before went; None when there was none.
    """
    try:
        if isinstance(outcome, Exception):
            return plan.throw(outcome)
        return next(plan) if outcome is None else plan.send(outcome)
    except StopIteration as end:
        reply: Reply = end.value
        return reply


class Conversation:
    """
    A connection to one host's socket, made when it is needed.

    :param max_line: bytes that a reply may have.
    :param seconds: a clock.
    """

    def __init__(
        self, path: str, max_line: int, limits: Limits, seconds: Callable[[], float]
    ) -> None:
        self._path = path
        self._limits = limits
        self._seconds = seconds
        self._max_line = max_line
        self._lines = LineBuffer(max_line)
        # Connected, and neither side owes anything: never true while a plan is under way, so one
        # that is given up in the middle leaves nothing that the next could trip over.
        self._at_rest = False

    def ask(self, request: bytes, limit: float) -> Plan:
        """
        Plan one exchange.

        :param request: without its newline.
        :param limit: seconds for all of it.
        """
        deadline = self._seconds() + limit
        try:
            yield from self._connect(deadline)
            yield Send(request + b"\n", self._left(deadline))
            line = None
            while line is None:
                line = self._lines.push((yield from self._receive(deadline)))
        except Late:
            why = f"no answer within {limit:g} s"
        except (Broken, LineTooLong) as error:
            why = str(error)
        else:
            if self._lines.rest:  # lonc never says more than it was asked
                yield HangUp()
            else:
                self._at_rest = True
            reply = line[:-1]
            return Reply(reply, f"{self._path}: lonc says so" if reply == CON_LOST else "")
        # Before anything else: lonc drops a request whose client has gone, if it still waits.
        yield HangUp()
        return Reply(CON_LOST, f"{self._path}: {why}")

    def _connect(self, deadline: float) -> Generator[Step, bytes, None]:
        if self._at_rest:
            self._at_rest = False
            try:
                yield Receive(0.0)
            except Late:
                return  # it is there, and silent as it should be
            except Broken:
                pass
            # Otherwise lonc has closed it, perhaps because it was started anew.
        self._lines = LineBuffer(self._max_line)
        limit = min(self._limits.connect, self._left(deadline))
        try:
            yield Connect(self._path, limit)
        except Late:
            raise Broken(f"no connection within {limit:g} s") from None

    def _receive(self, deadline: float) -> Generator[Step, bytes, bytes]:
        data = yield Receive(self._left(deadline))
        if not data:
            raise Broken("closed without an answer")
        return data

    def _left(self, deadline: float) -> float:
        left = deadline - self._seconds()
        if left <= 0:
            raise Late
        return left


def critical(
    asked: Plan, store: Callable[[], object], note: Callable[[str], None], limit: float
) -> Plan:
    """
    Plan a request that must not be lost (protocol, section 6).

    Whatever made it :data:`CON_LOST`, it is stored: also when only our own time was over, and lonc
    may still come to send it. Done twice is the lesser evil, and lonc promises no more itself.

    :param asked: the exchange.
    :param store: stores the request, or raises; once it has returned, no power failure undoes it.
    :param note: writes into ``lonnet.perm.log`` that it was delayed, ``D``, or has failed, ``F``.
    :param limit: seconds for each of the two.
    """
    reply = yield from asked
    if reply != CON_LOST:
        return reply
    fault = yield from _worked(store, limit, ", and it may be stored all the same")
    small_fault = yield from _worked(lambda: note("F" if fault else "D"), limit)
    why = "; ".join(part for part in (reply.why, fault, small_fault) if part)
    return Reply(CON_FAILED if fault else CON_DELAYED, why)


def _worked(
    call: Callable[[], object], limit: float, when_late: str = ""
) -> Generator[Step, bytes, str]:
    """Have something done that blocks; return what went wrong, empty when nothing did."""
    try:
        yield Work(call, limit)
    except Late:
        return f"no answer from the disk within {limit:g} s{when_late}"
    except Broken as error:
        return str(error) or "no reason is known"
    return ""
