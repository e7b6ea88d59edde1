# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
Managing a running lonc over AMP (row S18): the side of the program that asks.
"""

from __future__ import annotations

import os
from typing import Any, Final, Self

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionLost,
)
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.config.certificates import CertificateFiles, check_name
from lonc.control.boxes import BoundedAMP
from lonc.control.commands import (
    About,
    CloseConnections,
    ListHosts,
    Reload,
    Report,
    RereadTable,
    ResetRetries,
    SetDebugLevel,
    Stop,
)
from lonc.control.errors import ManagementError, NoAnswer
from lonc.control.questions import MOST_ROWS, Questions
from lonc.report.status import DaemonStatus, HostStatus
from lonc.wire.tls import TLSError

#: Seconds more than other answers for a reload: it reads files from disks that may be slow.
RELOADS: Final = 60.0

#: Bytes of an answer at most: a page of a list is one value, and the rest is small.
LONGEST_ANSWER: Final = 4 * 65536


class _ClientProtocol(BoundedAMP):
    longest_box = LONGEST_ANSWER

    def __init__(self) -> None:
        super().__init__()
        self.closed: Deferred[None] = Deferred()
        self.refused = ""

    def refuse(self, why: str) -> None:
        """End the connection: whatever listens there is no lonc."""
        self.refused = self.refused or why
        self.paused = True
        if self.transport is not None:
            self.transport.abortConnection()

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Take an answer, and nothing else."""
        try:
            box.pop(amp.COMMAND, None)  # nobody asks a client
            # AMP would forget the question before it finds that these are missing.
            box.setdefault(amp.ERROR_CODE, amp.UNKNOWN_ERROR_CODE)
            box.setdefault(amp.ERROR_DESCRIPTION, b"")
            super().ampBoxReceived(box)
        except Exception:  # AMP raises whatever it comes across
            self.refuse("what came answers no question")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.closed.callback(None)


@implementer(IHandshakeListener)
class _TLSProtocol(_ClientProtocol):
    """
    The same over TLS.

    :ivar ready: fires when the other side has shown a certificate for its host, or fails.
    """

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host
        self.ready: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:
        """Look whom the certificate is for."""
        from lonc.control.tls import peer_certificate

        try:
            check_name(self._host, peer_certificate(self.transport) or {})
        except TLSError as error:
            self.refuse(str(error))
        else:
            self.ready.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not reason.check(ConnectionClosed):
            self.refused = self.refused or f"TLS failed: {_why(reason.value)}"
            reason = Failure(ConnectionLost())
        super().connectionLost(reason)
        if not self.ready.called:
            self.ready.errback(NoAnswer(self.refused or "the connection was closed"))


def _of_system(error: Exception) -> str:
    """Return what the system says, without what Twisted puts around it."""
    number = error.osError if isinstance(error, ConnectError) else None
    return str(error) if number is None else os.strerror(number)


def _why(error: BaseException | None) -> str:
    """Return what OpenSSL says, without where in its source."""
    arguments = () if error is None else error.args
    reasons = arguments[0] if arguments and isinstance(arguments[0], list) else []
    return ", ".join(str(each[-1]) for each in reasons) or str(error) or type(error).__name__


async def _connect_tls(
    reactor: Any, endpoint: str, timeout: float, certificates: CertificateFiles | None
) -> _TLSProtocol:
    from lonc.control.tls import NoCertificates, client_endpoint

    try:
        target, host = client_endpoint(reactor, endpoint, certificates, timeout)
    except (ValueError, NoCertificates) as error:
        raise NoAnswer(f"{endpoint}: {error}") from None
    protocol = _TLSProtocol(host)
    try:
        await connectProtocol(target, protocol).addTimeout(timeout, reactor)
        await protocol.ready.addTimeout(timeout, reactor)
    except (TimeoutError, ConnectingCancelledError):
        protocol.refuse("it took too long")
        raise NoAnswer(f"{endpoint}: not connected within {timeout:g} s") from None
    except (ConnectError, OSError, NoAnswer) as error:
        raise NoAnswer(f"{endpoint}: {_of_system(error)}") from error
    return protocol


class ManagementClient(Questions):
    """
    The other side: manages a lonc from another process.

    Every method is a coroutine (``Deferred.fromCoroutine`` makes a Deferred of it), and raises
    :class:`ManagementError`, whose text is for a person. ``host_id`` may be empty: all hosts.
    """

    def __init__(
        self, protocol: _ClientProtocol, clock: IReactorTime, timeout: float, where: str = "lonc"
    ) -> None:
        self.where = where
        self._protocol = protocol
        self._clock = clock
        self._timeout = timeout

    @classmethod
    async def connect(
        cls,
        reactor: Any,
        endpoint: str,
        timeout: float = 30.0,
        certificates: CertificateFiles | None = None,
    ) -> Self:
        """
        Connect to a lonc.

        :param endpoint: a client endpoint description, such as ``unix:/sockets/lonc.amp``.
        :param timeout: seconds, for connecting and for each answer.
        :param certificates: the own ones, for an endpoint like ``lonctls:l1.example.org:8664``.
        """
        if endpoint.startswith("lonctls:"):
            protocol = await _connect_tls(reactor, endpoint, timeout, certificates)
            return cls(protocol, reactor, timeout, endpoint)
        try:
            target = clientFromString(reactor, endpoint)
        except (ValueError, TypeError) as error:
            raise NoAnswer(
                f"{endpoint}: no client endpoint like unix:PATH or tcp:HOST:PORT: {error}"
            ) from error
        try:
            connecting = connectProtocol(target, _ClientProtocol())
            protocol = await connecting.addTimeout(timeout, reactor)
        except (TimeoutError, ConnectingCancelledError):  # the latter is how endpoints time out
            raise NoAnswer(f"{endpoint}: not connected within {timeout:g} s") from None
        except (ConnectError, OSError) as error:
            raise NoAnswer(f"{endpoint}: {_of_system(error)}") from error
        return cls(protocol, reactor, timeout, endpoint)

    async def about(self) -> DaemonStatus:
        """Report on the daemon."""
        return DaemonStatus(**await self._ask(About))

    async def hosts(self) -> list[HostStatus]:
        """Report on all hosts, in the order of their ids."""
        hosts: list[HostStatus] = []
        more = True
        while more:
            after = hosts[-1].host_id if hosts else ""
            answer = await self._ask(ListHosts, after=after)
            page = [HostStatus(**host) for host in answer["hosts"]]
            more = answer["more"]
            if more and not (page and page[0].host_id > after and len(hosts) < MOST_ROWS):
                raise NoAnswer(f"{self.where}: the list of hosts does not end")
            hosts += page
        return hosts

    async def report(self, host_id: str = "") -> None:
        """Have the status file written."""
        await self._ask(Report, host=host_id)

    async def reset_retries(self, host_id: str = "") -> None:
        """Give a host its retries back."""
        await self._ask(ResetRetries, host=host_id)

    async def close_connections(self, host_id: str = "") -> None:
        """Have a host's connections closed and started afresh."""
        await self._ask(CloseConnections, host=host_id)

    async def set_debug_level(self, host_id: str, level: int) -> None:
        """Set a host's debug level, 0 to 9."""
        await self._ask(SetDebugLevel, host=host_id, level=level)

    async def reread_table(self) -> str:
        """Have the host table read again; tells what has changed."""
        return str((await self._ask(RereadTable))["message"])

    async def reload(self) -> str:
        """Have the configuration and the host table read again; tells what has changed."""
        return str((await self._ask(Reload, RELOADS))["message"])

    async def stop(self) -> None:
        """Stop lonc."""
        await self._ask(Stop)

    async def close(self) -> None:
        """Close the connection, at once; lonc goes on."""
        if self._protocol.transport is not None:
            self._protocol.transport.abortConnection()
            await self._protocol.closed

    async def _ask(
        self, command: type[amp.Command], more_time: float = 0.0, **arguments: object
    ) -> dict[str, Any]:
        limit = self._timeout + more_time
        try:
            asking: Deferred[dict[str, Any]] = self._protocol.callRemote(command, **arguments)
            return await asking.addTimeout(limit, self._clock)
        except TimeoutError:
            raise NoAnswer(f"{self.where}: no answer within {limit:g} s") from None
        except (amp.AmpError, ConnectionClosed) as error:
            told = self._protocol.refused or error
            raise NoAnswer(f"{self.where}: no answer: {told}") from error
        except ManagementError:
            raise
        except Exception as error:  # AMP's types raise whatever they come across
            what = f"the question or its answer is none that AMP can carry: {type(error).__name__}"
            raise NoAnswer(f"{self.where}: {what}") from error
