"""
Requests: their lines, receivers of their replies, causes of failure, and negative replies.

This module is pure: it imports nothing of lonc and uses no reactor.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Protocol

from twisted.internet.defer import Deferred

#: Sent to a client instead of a reply (protocol, section 5).
CON_LOST = b"con_lost\n"


class Cause(Enum):
    """
    Why a request ended with ``con_lost``; the status counts requests by these names, which
    :doc:`states` explains.

    :ivar why: the cause in words.
    """

    _value_: str
    why: str

    def __new__(cls, name: str, why: str) -> Cause:
        """Make the name the value of the member."""
        cause = object.__new__(cls)
        cause._value_ = name
        cause.why = why
        return cause

    TIMEOUT = "timeout", "no answer within the request timeout"
    BROKEN = "broken", "its connection broke, or the lond broke the protocol"
    UNREACHABLE = "unreachable", "no connection to the lond could be made"
    DEAD = "dead", "the host is DEAD"
    QUEUE_FULL = "queue_full", "too many requests are already waiting for this host"
    QUEUE_TIMEOUT = "queue_timeout", "it waited too long for a connection"
    TOO_LONG = "too_long", "the request or its reply is too long"
    MEMORY = "memory", "the memory for requests is used up"
    TOO_MANY_CLIENTS = "too_many_clients", "there are too many clients"
    CLOSED = "closed", "its connection was closed on request, or the host stops"
    PAUSED = "paused", "the host is paused, and requests fail meanwhile"
    NO_CIPHER = "no_cipher", "it must be encrypted, and OpenSSL has no IDEA"
    CONTROL_BYTE = "control_byte", "its command word contains a control byte"
    WRONG_HOST = "wrong_host", "it names a host that is not served here"
    NOT_SERVED = "not_served", "the lond at the host's address does not serve the host"


class ConLost(Exception):
    """
    A request ended without a reply of lond. The text contains host and cause.

    :ivar cause: why.
    :ivar host_id: the host of the request; empty if unknown.
    """

    def __init__(self, cause: Cause, host_id: str = "") -> None:
        super().__init__(cause, host_id)
        self.cause = cause
        self.host_id = host_id

    def __str__(self) -> str:
        """Return a readable line."""
        host = f"{self.host_id}: " if self.host_id else ""
        return f"{host}con_lost ({self.cause.value}): {self.cause.why}"


#: The program id of lonc's own requests: delayed ones, and those made over AMP.
LONC = 0


class ReplyReceiver(Protocol):
    """Receives replies. Exactly one of the two methods is called, once, for each request."""

    @property
    def program(self) -> int:
        """The id of the client program, for fair scheduling of waiting requests."""

    @property
    def known_program(self) -> int:
        """`program` if already known without a system call; else 0."""

    def answered(self, reply: bytes) -> None:
        """Handle lond's reply, one line with its newline."""

    def lost(self, cause: Cause) -> None:
        """Handle the loss of the request, which may or may not have reached lond."""


class Provable(Protocol):
    """The connection on which a reply was received."""

    def prove(self) -> Deferred[bool]:
        """
        Fire with whether all replies so far belonged to their requests; False if unknown.

        It fires within the request timeout, also while the host is paused.
        """


class Durations(Protocol):
    """Records the durations of requests: see :class:`lonc.report.times.HostTimes`."""

    direct: list[float]
    queue: list[float]
    waited: list[float]

    def count_up(self) -> None:
        """Count them, and empty the lists."""


class RequestHost(Protocol):
    """The service of the host of a request, which handles its outcome."""

    host_id: str
    debug_level: int

    @property
    def awaits_answers(self) -> bool:
        """Whether `note_answered` is to be called for each answer."""

    @property
    def times(self) -> Durations:
        """The durations of its requests."""

    def trace(self, level: int, text: str, request: Request, size: object) -> None:
        """Log the progress of a request, at a debug level."""

    def lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """Report a lost request to its receiver; ``sent``: the time it was sent, or 0.0."""

    def resubmit(self, request: Request) -> None:
        """Send a request that its connection cannot send."""

    def note_answered(self, connection: Provable, request: Request) -> None:
        """Record a delivered reply and its connection, if `awaits_answers`."""

    def passed_on(self) -> None:
        """Note that a reply was delivered, or will never come."""

    def withdraw(self, request: Request) -> bool:
        """Remove a waiting request; return whether it was waiting."""

    def cut_off(self, request: Request) -> None:
        """Close the connection on which a request is outstanding, without reporting it."""

    def sent_at(self, request: Request) -> float:
        """Return when a request was sent to its lond; 0.0 if it waits for a connection."""


class Request:
    """
    One line for a lond.

    :ivar line: as received, with its newline.
    :ivar asker: receives the outcome.
    :ivar host: set by the host's service.
    :ivar since: when it began to wait for a connection, in seconds of the reactor's clock; 0.0 if
        it did not wait. It is set by the host's service.
    """

    __slots__ = ("asker", "host", "line", "since")

    host: RequestHost

    def __init__(self, line: bytes, asker: ReplyReceiver) -> None:
        self.line = line
        self.asker = asker
        self.since = 0.0

    @property
    def command(self) -> str:
        """The command word: the only part of a request that may be logged."""
        return command_word(self.line)


class Waiter:
    """
    Passes a reply on to a Deferred.

    :param host_id: for the text of the error.
    :ivar outcome: fires with the reply, or fails with :exc:`ConLost`.
    """

    program = known_program = LONC

    def __init__(self, host_id: str = "") -> None:
        self.outcome: Deferred[bytes] = Deferred()
        self._host_id = host_id

    def answered(self, reply: bytes) -> None:
        """Fire with the reply."""
        self.outcome.callback(reply)

    def lost(self, cause: Cause) -> None:
        """Fail with the cause."""
        self.outcome.errback(ConLost(cause, self._host_id))


class Nobody:
    """Discards the reply to a request whose client has disconnected."""

    program = known_program = LONC

    def answered(self, reply: bytes) -> None:
        """Discard the reply."""

    def lost(self, cause: Cause) -> None:
        """Do nothing."""


#: A command word, with ``encrypt:`` if present, after the name of a host. A request to be encrypted
#: that has no colon may be secret as a whole.
_COMMAND = re.compile(
    rb"(?:sethost:[\w.-]*:)?(encrypt:\w{1,32}(?=:)|\w{1,32}(?=[:\n]|\r?\n|\Z))", re.ASCII
)


def command_word(line: bytes) -> str:
    """Return the command word, the only part of a request to be logged; ``?`` if none."""
    found = _COMMAND.match(line)
    return found[1].decode() if found else "?"


_SECRET = re.compile(rb"(?:sethost:[^:\n]*:)*encrypt:")


def is_secret(line: bytes) -> bool:
    """Return whether a request may be sent over the network only encrypted."""
    return _SECRET.match(line) is not None


#: Prefixes of a command. They may be repeated, as londs accept that.
_PREFIXES = rb"(?:encrypt:|sethost:[^:\n]*:)*+"

#: A control byte in the command word, other than one carriage return at the end of the line. It is
#: not looked for twice: a line may have a megabyte.
_CONTROL = re.compile(_PREFIXES + rb"[^:\x00-\x1f\x7f]*+(?!\r?\n)[\x00-\x1f\x7f]")

#: A translation table that changes control bytes except the newline. A text without them is
#: returned as it is: the fastest way to look at all of it.
MASK_CONTROL: Final = bytes(x if 0x20 <= x != 0x7F or x == 0x0A else ord("?") for x in range(256))


def has_control_byte(line: bytes) -> bool:
    """
    Return whether there is a control byte in a request's command word, after its prefixes.

    A lond that ignores it would read another command than lonc, perhaps ``ekey`` or ``sethost``.
    """
    return _CONTROL.match(line) is not None


#: Beginnings of requests that may name a host (protocol, section 5). ``encrypt:`` is included
#: because a lond would obey such a request too.
ADDRESSED: Final = (b"sethost", b"encrypt:sethost")

#: The same with those that must be encrypted.
ADDRESSED_OR_SECRET: Final = (b"sethost", b"encrypt:")

#: First bytes of requests that name a host, must be encrypted or ask for a key: testing one byte
#: saves further tests for the usual request.
PECULIAR = b"es"

_SETHOST = re.compile(rb"(encrypt:)?sethost(?![^:\n])")


def addressee(line: bytes) -> str | None:
    """
    Return the host id that a request names with ``sethost:<id>:``, None if it names none.

    It is empty if the request must not be sent: a nested or incomplete ``sethost`` would change the
    host of all later requests on the connection, also those of other clients.

    :param line: the request with its newline.
    """
    if not _SETHOST.match(line):
        return None
    word, _, named = line[:-1].partition(b":")
    host_id, _, request = named.partition(b":")
    if word != b"sethost" or _SETHOST.match(request):
        return ""
    return host_id.decode("ascii", "replace")


def without_addressee(line: bytes) -> tuple[bytes, bytes]:
    """
    Split a request into the prefix that names a host, with its colon, and the rest.

    A request that only names a host has no prefix.
    """
    if line.startswith(b"sethost:") and line.count(b":") > 1:
        end = line.index(b":", 8) + 1
        return line[:end], line[end:]
    return b"", line


#: First words of negative replies; ``error`` may be followed by anything. Programs of the network
#: compare replies with these. All others (``ok``, values, numbers, nothing) are positive.
_NO = frozenset(
    b"refused rejected unknown_cmd unknown_user unknown_host no_host no_such_host no_such_user"
    b" no_such_file file_not_found not_found not_home not_right_home non_authorized unauthorized"
    b" forbidden invalid_client auth_mode_error pwchange_failure key_exists already_exists failed"
    b" con_lost con_delayed con_failed error".split()
)

#: The first word; values are excluded, since they continue with ``=`` or ``&``.
_WORD = re.compile(rb"\s*(error(?![\w=&])|\w+(?=[:\s]|\Z))", re.IGNORECASE)


def refusal(answer: bytes) -> str | None:
    """Return the first word of a negative reply (row F8); None if it is positive."""
    match = _WORD.match(answer)
    word = match[1].lower() if match else b""
    return word.decode() if word in _NO else None
