# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
The connection of a program that manages a running lonc.
"""

from __future__ import annotations

import os
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionLost,
)
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.config.certificates import CertificateFiles, check_name
from lonc.control.commands import BoundedAMP
from lonc.control.errors import NoAnswer
from lonc.wire.tls import TLSError

#: Maximum size of an answer in bytes: a page of a list is one value, and the rest is small.
LONGEST_ANSWER: Final = 4 * 65536


@implementer(IHandshakeListener)
class ClientConnection(BoundedAMP):
    """
    The client side of a management connection.

    :param host: with TLS, the host name that the server's certificate must have.
    :ivar closed: fires when the connection has ended.
    :ivar refused: why it ended, if this side ended it or TLS failed; otherwise empty.
    :ivar ready: fires when commands may be sent, which with TLS is after the handshake.
    """

    longest_box = LONGEST_ANSWER

    def __init__(self, host: str = "") -> None:
        super().__init__()
        self._host = host
        self.closed: Deferred[None] = Deferred()
        self.refused = ""
        self.ready: Deferred[None] = Deferred() if host else succeed(None)

    def refuse(self, why: str) -> None:
        """Close the connection, because the server is not a lonc."""
        self.refused = self.refused or why
        super().refuse(why)

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Handle an answer; anything else is refused."""
        try:
            box.pop(amp.COMMAND, None)  # clients execute no commands
            # Without these AMP would drop the pending command before it raises an error.
            box.setdefault(amp.ERROR_CODE, amp.UNKNOWN_ERROR_CODE)
            box.setdefault(amp.ERROR_DESCRIPTION, b"")
            super().ampBoxReceived(box)
        except Exception:  # AMP raises whatever it comes across
            self.refuse("unexpected answer")

    def handshakeCompleted(self) -> None:
        """Check the name in the server's certificate."""
        from lonc.control.tls import peer_certificate

        try:
            check_name(self._host, peer_certificate(self.transport) or {})
        except TLSError as error:
            self.refuse(str(error))
        else:
            self.ready.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail all commands without an answer, with the reason if TLS failed."""
        if not reason.check(ConnectionClosed):
            self.refused = self.refused or f"TLS failed: {_why(reason.value)}"
            reason = Failure(ConnectionLost())
        super().connectionLost(reason)
        self.closed.callback(None)
        if not self.ready.called:
            self.ready.errback(NoAnswer(self.refused or "the connection was closed"))


def _of_system(error: Exception) -> str:
    """Return the system's error message, without what Twisted adds."""
    number = error.osError if isinstance(error, ConnectError) else None
    return str(error) if number is None else os.strerror(number)


def _why(error: BaseException | None) -> str:
    """Return OpenSSL's reason, without its place in the source."""
    arguments = () if error is None else error.args
    reasons = arguments[0] if arguments and isinstance(arguments[0], list) else []
    return ", ".join(str(each[-1]) for each in reasons) or str(error) or type(error).__name__


async def connect(
    reactor: Any, endpoint: str, timeout: float, certificates: CertificateFiles | None
) -> ClientConnection:
    """
    Connect to a lonc; see :meth:`lonc.management.ManagementClient.connect`.

    :raises lonc.control.errors.NoAnswer: it cannot be reached.
    """
    target: IStreamClientEndpoint
    host = ""
    if endpoint.startswith("lonctls:"):
        from lonc.control.tls import NoCertificates, client_endpoint

        try:
            target, host = client_endpoint(reactor, endpoint, certificates, timeout)
        except (ValueError, NoCertificates) as error:
            raise NoAnswer(f"{endpoint}: {error}") from None
    else:
        try:
            target = clientFromString(reactor, endpoint)
        except (ValueError, TypeError) as error:
            told = "not a client endpoint such as unix:PATH or tcp:HOST:PORT"
            raise NoAnswer(f"{endpoint}: {told}") from error
    connection = ClientConnection(host)
    try:
        await connectProtocol(target, connection).addTimeout(timeout, reactor)
        await connection.ready.addTimeout(timeout, reactor)
    except (TimeoutError, ConnectingCancelledError):  # endpoints time out with the latter
        connection.refuse("it took too long")
        raise NoAnswer(f"{endpoint}: not connected within {timeout:g} s") from None
    except (ConnectError, OSError, NoAnswer) as error:
        raise NoAnswer(f"{endpoint}: {_of_system(error)}") from error
    return connection
