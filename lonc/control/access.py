"""
Who may do what over the management port, and what the log has of it.

There are two levels, see and steer, and the owner above them.

On a UNIX socket the kernel tells who is there. Its owner and root steer, whoever else its mode lets
in sees. Over TLS a certificate tells, and the settings say what its name may. Over plain TCP nobody
is known, so that all see.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.python.failure import Failure

from lonc.config.certificates import check_name, names_in
from lonc.control.errors import NotAllowed
from lonc.report.events import Logger, RateLimited
from lonc.transport.peer import UNKNOWN, Peer, peer_of
from lonc.wire.printable import quoted
from lonc.wire.tls import Certificate, TLSError

log = Logger()


class Level(IntEnum):
    """What one may do; each includes those before it."""

    NOTHING = 0
    SEE = 1
    STEER = 2
    OWN = 3


@attrs.frozen
class Visitor:
    """
    Who is at the other end.

    :ivar who: a user and process, a certificate or an address, for people.
    """

    who: str
    level: Level


#: What a test or a program that embeds lonc may say of who is there.
OWNER: Final = Visitor("lonc itself", Level.OWN)


#: Host names, and whether who has a certificate for that name may steer.
Names = Sequence[tuple[str, bool]]


def visitor_of(transport: ITransport, names: Names = ()) -> Visitor:
    """
    Find out who is at the other end of a connection.

    :param names: whose certificates may see, or steer.
    """
    if is_encrypted(transport):
        from lonc.control.tls import peer_certificate

        certificate = peer_certificate(transport)
        if certificate is not None:
            return _by_certificate(certificate, names)
    known = _peer(transport)
    if known is None:
        return Visitor(f"somebody at {_address(transport)}", Level.SEE)
    pid, uid = known
    owns = uid in (0, os.geteuid())
    return Visitor(
        f"{user_name(uid)} (process {pid})" if pid else user_name(uid),
        Level.OWN if owns else Level.SEE,
    )


def is_encrypted(transport: object) -> bool:
    """Whether a certificate can tell who is at the other end, once the handshake is complete."""
    return hasattr(transport, "getPeerCertificate")


def _by_certificate(certificate: Certificate, names: Names) -> Visitor:
    known = ""
    level = Level.NOTHING
    for name, steers in names:
        with contextlib.suppress(TLSError):
            check_name(name, certificate)
            known = known or name
            level = max(level, Level.STEER if steers else Level.SEE)
    shown = known or quoted(", ".join(names_in(certificate)), 200)[1:-1] or "nobody"
    return Visitor(f"certificate {shown}", level)


def user_name(uid: int) -> str:
    """Return a user's name; its number where it has none, nothing where that is not known."""
    if uid < 0:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _peer(transport: Any) -> Peer | None:
    """Return who is at the other end; None where that is no UNIX socket."""
    try:
        found = peer_of(transport.getHandle())
    except (AttributeError, OSError):  # no socket, or one that is closed
        return None
    return None if found == UNKNOWN else found


def _address(transport: ITransport) -> str:
    return str(getattr(transport.getPeer(), "host", "an unknown place"))


#: What is told who may not have something, by the level that it takes.
_REFUSALS: Final = {
    Level.SEE: "may see nothing: it is not in loncManagementNames",
    Level.STEER: "may see, and not steer",
    Level.OWN: "may not see that: it is for lonc's own user and root",
}


class ManagementLog:
    """What the port leaves in the log. Whoever connects could fill it, so it is limited."""

    def __init__(self, clock: IReactorTime) -> None:
        self._limited = RateLimited(clock, 60.0)
        self._limited_asking = RateLimited(clock, 10.0)

    def closed(self, why: str, kind: str) -> None:
        """
        Log that a connection is closed; clients may do so as often as they like.

        :param kind: so much of the reason that they cannot make as many as they like of it.
        """
        self._warn(kind, "Management connection closed: {why}{more}", why=why)

    def not_understood(self, why: str) -> None:
        """Log that a command was not understood."""
        self._warn("not understood", "Management command not understood: {why}{more}", why=why)

    def fault(self, failure: Failure, command: bytes) -> None:
        """Log a fault of lonc's own."""
        if self._limited.allow("fault") is not None:
            log.failure("Management command {command} failed", failure, command=command)

    def not_allowed(self, who: str, what: str) -> None:
        """Log that somebody asked for what he may not have."""
        message = "Not allowed over the management port: {what} for {who}{more}"
        self._warn("not allowed", message, what=what, who=who)

    def _warn(self, key: str, message: str, **fields: str) -> None:
        more = self._limited.allow(key)
        if more is not None:
            log.warn(message, more=more, **fields)

    def asked(self, asked: str, host_id: str, who: str) -> None:
        """Log what somebody has asked for, though a program may ask all the time."""
        more = self._limited_asking.allow(f"{asked} {host_id} {who}")
        if more is not None:
            message = "Asked over the management port by {who}: {asked}{more}"
            log.info(message, who=who, asked=asked, more=more, host_id=host_id)


class Caller:
    """
    Whoever gives the commands of one connection.

    :param visitor: tells who it is: asked each time, for names in the settings may change.
    """

    def __init__(self, visitor: Callable[[], Visitor], log: ManagementLog) -> None:
        self._visitor = visitor
        self._log = log

    @property
    def level(self) -> Level:
        """What the caller may do."""
        return self._visitor().level

    def require(self, level: Level, what: str) -> None:
        """
        Check that the caller may have what is asked for.

        :raises lonc.control.errors.NotAllowed: that is not so.
        """
        visitor = self._visitor()
        if visitor.level < level:
            self._log.not_allowed(visitor.who, what)
            raise NotAllowed(f"{visitor.who} {_REFUSALS[level]} ({what})")

    def log_asked(self, asked: str, host_id: str) -> None:
        """Log what the caller asks for."""
        self._log.asked(asked, host_id, self._visitor().who)
