"""
A request on its way: what a client wrote, who wants the answer, why it may end without one, and
which answers say no.

This module is pure: it imports nothing of lonc and knows no reactor.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Protocol

from twisted.internet.defer import Deferred

#: What a client reads when there is no answer for it (protocol, section 5).
CON_LOST = b"con_lost\n"


class Cause(Enum):
    """Why a request ended with ``con_lost``; the status counts them by these names."""

    TIMEOUT = "timeout"  #: no answer within the request timeout
    BROKEN = "broken"  #: its connection broke, or the lond broke the protocol
    UNREACHABLE = "unreachable"  #: no connection could be made while it waited
    DEAD = "dead"  #: the host is DEAD
    QUEUE_FULL = "queue_full"  #: too many requests wait for this host already
    QUEUE_TIMEOUT = "queue_timeout"  #: it waited too long for a connection
    TOO_LONG = "too_long"  #: the request or its reply is over the line limit
    MEMORY = "memory"  #: the memory for requests is used up
    TOO_MANY_CLIENTS = "too_many_clients"  #: the client came past the client limit, or made room
    CLOSED = "closed"  #: connections were closed on request, or lonc stops
    PAUSED = "paused"  #: somebody has paused the host, and wants requests to fail
    NO_CIPHER = "no_cipher"  #: it is to be enciphered, and OpenSSL has no IDEA
    CONTROL_BYTE = "control_byte"  #: its command word holds a control byte
    WRONG_HOST = "wrong_host"  #: it names a host that its socket does not serve
    NOT_SERVED = "not_served"  #: the host's lond does not serve the host, or not yet


#: Each cause in words for a person.
WHY = {
    Cause.TIMEOUT: "no answer within the request timeout",
    Cause.BROKEN: "its connection broke, or the lond broke the protocol",
    Cause.UNREACHABLE: "no connection to the lond could be made",
    Cause.DEAD: "the host is DEAD",
    Cause.QUEUE_FULL: "too many requests wait for this host already",
    Cause.QUEUE_TIMEOUT: "it waited too long for a connection",
    Cause.TOO_LONG: "the request or its reply is too long",
    Cause.MEMORY: "the memory for requests is used up",
    Cause.TOO_MANY_CLIENTS: "there are too many clients",
    Cause.CLOSED: "its connection was closed on request, or the host stops",
    Cause.NO_CIPHER: "it is to be enciphered, and OpenSSL has no IDEA",
    Cause.CONTROL_BYTE: "its command word holds a control byte",
    Cause.WRONG_HOST: "it names a host that is not served here",
    Cause.NOT_SERVED: "the lond at the host's address does not serve the host",
    Cause.PAUSED: "somebody has paused the host, and requests fail meanwhile",
}


class ConLost(Exception):
    """
    A request ended without lond's answer. Its text says so in words, and for which host.

    :ivar cause: why.
    :ivar host_id: the host that was asked; empty where that is not known.
    """

    def __init__(self, cause: Cause, host_id: str = "") -> None:
        super().__init__(cause, host_id)
        self.cause = cause
        self.host_id = host_id

    def __str__(self) -> str:
        """Return a line for a person."""
        host = f"{self.host_id}: " if self.host_id else ""
        return f"{host}con_lost ({self.cause.value}): {WHY[self.cause]}"


#: The program on whose behalf lonc itself asks: delayed requests, and what is asked over AMP.
LONC = 0


class ReplyReceiver(Protocol):
    """Who wants an answer. Exactly one of the two methods is called, once, for each request."""

    @property
    def program(self) -> int:
        """On whose behalf: programs whose requests wait for a connection take turns."""

    @property
    def known_program(self) -> int:
        """`program`, where that is known without another call; else 0."""

    def answered(self, reply: bytes) -> None:
        """Take lond's reply, one line with its newline."""

    def lost(self, cause: Cause) -> None:
        """There is no answer: the request may or may not have reached lond."""


class Provable(Protocol):
    """The connection that an answer came by."""

    def prove(self) -> Deferred[bool]:
        """
        Fire with whether each answer so far belonged to its request; False: nobody can tell.

        It fires within the time limit of a request, also while the host is paused.
        """


class Durations(Protocol):
    """Where the times that requests took are noted: see :class:`lonc.report.times.HostTimes`."""

    direct: list[float]
    queue: list[float]
    waited: list[float]


class RequestHost(Protocol):
    """The host that a request is for, and what becomes of the request: its service."""

    host_id: str
    debug_level: int
    awaits_answers: bool

    @property
    def times(self) -> Durations:
        """How long its requests take."""

    def trace(self, level: int, text: str, request: Request, size: object) -> None:
        """Log what becomes of a request, at a debug level."""

    def lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """Tell who asked that there is no answer; ``sent`` is when it was sent, if it was."""

    def resubmit(self, request: Request) -> None:
        """Send a request that a connection has not sent yet, and will not."""

    def note_answered(self, connection: Provable, request: Request) -> None:
        """Note an answer that was passed on, and who has brought it, if `awaits_answers`."""

    def passed_on(self) -> None:
        """An answer was passed on, or an answer will never come."""


class Request:
    """
    One line for a lond.

    :ivar line: the request as it was written, with its newline.
    :ivar asker: who is told the outcome.
    :ivar host: for which host; set by the host's service, which is told what becomes of it.
    :ivar since: when it began to wait for a connection, in seconds of the reactor's clock; 0.0 when
        it did not have to.
    """

    __slots__ = ("asker", "host", "line", "since")

    host: RequestHost

    def __init__(self, line: bytes, asker: ReplyReceiver) -> None:
        self.line = line
        self.asker = asker
        self.since = 0.0

    @property
    def command(self) -> str:
        """The command word: all of a request that may stand in a log."""
        return command_word(self.line)


class Waiter:
    """
    An asker for those who want a Deferred.

    :param host_id: who is asked, for the text of the error.
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
    """The asker of a request whose client has gone: its answer is thrown away."""

    program = known_program = LONC

    def answered(self, reply: bytes) -> None:
        """Throw the reply away."""

    def lost(self, cause: Cause) -> None:
        """Do nothing."""


#: A command, with what stands before it when it asks to be enciphered, behind the name of a host.
#: What is to be enciphered and has no colon may be a secret from its first letter on.
_COMMAND = re.compile(
    rb"(?:sethost:[\w.-]*:)?(encrypt:\w{1,32}(?=:)|\w{1,32}(?=[:\n]|\r?\n|\Z))", re.ASCII
)


def command_word(line: bytes) -> str:
    """Return the command word: all of a request that may stand in a log, ``?`` if it has none."""
    found = _COMMAND.match(line)
    return found[1].decode() if found else "?"


_SECRET = re.compile(rb"(?:sethost:[^:\n]*:)*encrypt:")


def is_secret(line: bytes) -> bool:
    """Return whether the content of a request passes over the network only enciphered."""
    return _SECRET.match(line) is not None


#: What stands before a command. Each may come again: a lond would go on to the next one.
_PREFIXES = rb"(?:encrypt:|sethost:[^:\n]*:)*"

#: A control byte in the command word; one carriage return that ends the line is none.
_CONTROL = re.compile(_PREFIXES + rb"[^:\x00-\x1f\x7f]*(?!\r?\n)[\x00-\x1f\x7f]")

#: The control bytes of a request, but for its newline.
CONTROL: Final = bytes(x for x in (*range(0x20), 0x7F) if x != 0x0A)

#: Matches a request whose command stands at its beginning and has no control byte, as nearly every
#: one.
is_plain = re.compile(rb"(?!sethost|encrypt:)[^:\x00-\x1f\x7f]*[:\n]").match

#: The same, for one that may be enciphered.
is_plain_inside = re.compile(rb"(?:encrypt:)?(?!sethost|encrypt:)[^:\x00-\x1f\x7f]*[:\n]").match


def has_control_byte(line: bytes) -> bool:
    """
    Return whether there is a control byte in a request's command word, behind its prefixes.

    A lond that drops it would read another command than lonc, perhaps ``ekey`` or ``sethost``.
    """
    return _CONTROL.match(line) is not None


#: How a request begins that may name a host (protocol, section 5); there is no need to look closer
#: at any other. What is to be enciphered counts too, for a lond would obey it all the same.
ADDRESSED = (b"sethost", b"encrypt:sethost")

#: How those begin that name a host, are to be enciphered or ask for a key: a look at one byte
#: spares the usual request the others.
PECULIAR = b"es"

_SETHOST = re.compile(rb"(encrypt:)?sethost(?![^:\n])")


def addressee(line: bytes) -> str | None:
    """
    Return the host id that a request names with ``sethost:<id>:``, None if it names none.

    It is empty where the request must not be sent: a lond would take a host that is named further
    inside, or not at all, for every later request on the connection, whoever asks it.

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
    Part a request into the prefix that names a host, colon included, and the rest.

    One that does nothing but name a host is all rest.
    """
    if line.startswith(b"sethost:") and line.count(b":") > 1:
        end = line.index(b":", 8) + 1
        return line[:end], line[end:]
    return b"", line


#: Answers that say no, by their first word; ``error`` and whatever follows it is one too. Programs
#: of the network compare answers with these. All else (``ok``, values, numbers, nothing) is a yes.
_NO = frozenset(
    b"refused rejected unknown_cmd unknown_user unknown_host no_host no_such_host no_such_user"
    b" no_such_file file_not_found not_found not_home not_right_home non_authorized unauthorized"
    b" forbidden invalid_client auth_mode_error pwchange_failure key_exists already_exists failed"
    b" con_lost con_delayed con_failed error".split()
)

#: The first word, where it is one: values go on with ``=`` or ``&``.
_WORD = re.compile(rb"\s*(error(?![\w=&])|\w+(?=[:\s]|\Z))", re.IGNORECASE)


def refusal(answer: bytes) -> str | None:
    """Return the word by which an answer says no (row F8); None when it says yes."""
    match = _WORD.match(answer)
    word = match[1].lower() if match else b""
    return word.decode() if word in _NO else None
