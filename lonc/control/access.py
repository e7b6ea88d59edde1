"""
Access levels of the management port, and logging of management requests.

There are two levels, see and steer, and above them that of the owner.

On a UNIX socket the kernel identifies the client: the socket's owner and root have all rights; all
others that its mode admits may see. Over TLS the certificate identifies the client, and the
settings give the level of its name. Over plain TCP clients are unknown, and may see.
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
from lonc.transport.unix_socket import UNKNOWN, Peer, peer_of
from lonc.wire.printable import quoted
from lonc.wire.tls import Certificate, TLSError

log = Logger()


class Level(IntEnum):
    """Access levels; each includes the previous ones."""

    NOTHING = 0
    SEE = 1
    STEER = 2
    OWN = 3


@attrs.frozen
class Visitor:
    """
    The identity of a management client.

    :ivar who: a readable user and process, certificate name or address.
    """

    who: str
    level: Level


#: A visitor with all rights, for tests and programs that embed lonc.
OWNER: Final = Visitor("lonc itself", Level.OWN)


#: Host names, and whether a client with a certificate for that name may steer.
Names = Sequence[tuple[str, bool]]


def visitor_of(transport: ITransport, names: Names = ()) -> Visitor:
    """
    Identify the client of a connection.

    :param names: certificate names that may see, or steer.
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
    """Whether a certificate will identify the client, once the TLS handshake is complete."""
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
    """Return a user's name, the numeric id if it has none, or an empty text if that is unknown."""
    if uid < 0:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _peer(transport: Any) -> Peer | None:
    """Return the peer credentials of a UNIX socket; None for other transports."""
    try:
        found = peer_of(transport.getHandle())
    except (AttributeError, OSError):  # not a socket, or closed
        return None
    return None if found == UNKNOWN else found


def _address(transport: ITransport) -> str:
    return str(getattr(transport.getPeer(), "host", "an unknown place"))


#: Explanations of a refusal, by the required level.
_REFUSALS: Final = {
    Level.SEE: "may see nothing: it is not in loncManagementNames",
    Level.STEER: "may see, and not steer",
    Level.OWN: "may not see that: it is for lonc's own user and root",
}


class ManagementLog:
    """Logs management requests and errors, rate-limited because clients can cause them."""

    def __init__(self, clock: IReactorTime) -> None:
        self._limited = RateLimited(clock, 60.0)
        self._limited_asking = RateLimited(clock, 10.0)

    def tell_refused(self, key: str, message: str, **fields: str) -> None:
        """
        Log that something is refused.

        :param key: the kind of reason, for the rate limit; clients must not be able to vary it.
        :param message: a text with ``{more}`` at its end.
        """
        more = self._limited.allow(key)
        if more is not None:
            log.warn(message, more=more, **fields)

    def tell_closed(self, why: str, kind: str) -> None:
        """Log that a connection is closed."""
        self.tell_refused(kind, "Management connection closed: {why}{more}", why=why)

    def tell_fault(self, failure: Failure, command: bytes) -> None:
        """Log an internal error of lonc."""
        if self._limited.allow("fault") is not None:
            log.failure("Management command {command} failed", failure, command=command)

    def tell_asked(self, asked: str, host_id: str, who: str) -> None:
        """Log a request."""
        more = self._limited_asking.allow(f"{asked} {host_id} {who}")
        if more is not None:
            message = "Asked over the management port by {who}: {asked}{more}"
            log.info(message, who=who, asked=asked, more=more, host_id=host_id)


class Caller:
    """
    The client of one connection.

    :param visitor: identifies the client; called each time, because settings may change.
    """

    def __init__(self, visitor: Callable[[], Visitor], log: ManagementLog) -> None:
        self._visitor = visitor
        self._log = log

    @property
    def level(self) -> Level:
        """The caller's access level."""
        return self._visitor().level

    def require(self, level: Level, what: str) -> None:
        """
        Check that the caller has a level.

        :param what: what was requested, for the error and the log.
        :raises lonc.control.errors.NotAllowed: it does not.
        """
        visitor = self._visitor()
        if visitor.level < level:
            message = "Not allowed over the management port: {what} for {who}{more}"
            self._log.tell_refused("not allowed", message, what=what, who=visitor.who)
            raise NotAllowed(f"{visitor.who} {_REFUSALS[level]} ({what})")

    def log_asked(self, asked: str, host_id: str) -> None:
        """Log a request of the caller."""
        self._log.tell_asked(asked, host_id, self._visitor().who)
