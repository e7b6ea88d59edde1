# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
The client for managing a running lonc over AMP (row S18), and its connection.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any, Final, Self, TypeVar, cast

import attrs
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionLost,
)
from twisted.internet.interfaces import IHandshakeListener, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.config.certificates import CertificateFiles, check_name
from lonc.control import commands
from lonc.control.access import user_name
from lonc.control.commands import BoundedAMP, ManagementCommand
from lonc.control.errors import BadArguments, ManagementError, NoAnswer
from lonc.report.problems import Problem
from lonc.report.records import (
    ClientStatus,
    ConnectionStatus,
    DelayedStatus,
    RequestRecord,
    SettingStatus,
)
from lonc.report.status import DaemonStatus, HostStatus
from lonc.wire.tls import TLSError

R = TypeVar("R", bound=attrs.AttrsInstance)

#: Additional seconds for the answer to a reload, which reads files from possibly slow disks.
RELOADS: Final = 60.0

#: Maximum number of rows in a listing; a real lonc never has more.
MOST_ROWS: Final = 1_000_000

#: Additional seconds for the answer to a pause, which waits for requests in flight.
IN_FLIGHT: Final = 240.0

#: Maximum size of an answer in bytes: a page of a list is one value, and the rest is small.
LONGEST_ANSWER: Final = 4 * 65536


class ManagementClient:
    """
    Manages a lonc from another process.

    Every method is a coroutine (``Deferred.fromCoroutine`` turns it into a Deferred), and raises
    :class:`ManagementError` with a readable text. An empty ``host_id`` means all hosts.
    """

    def __init__(
        self, protocol: ClientConnection, clock: IReactorTime, timeout: float, where: str = "lonc"
    ) -> None:
        self._where = where
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
        :param certificates: own certificates, for an endpoint like ``lonctls:l1.example.org:8664``.
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
        return cls(connection, reactor, timeout, endpoint)

    async def close(self) -> None:
        """Close the connection at once; lonc keeps running."""
        if self._protocol.transport is not None:
            self._protocol.transport.abortConnection()
            await self._protocol.closed

    # ------------------------------------------------------------------ queries

    async def about(self) -> DaemonStatus:
        """Return the status of the daemon."""
        return DaemonStatus(**await self._ask(commands.About))

    async def hosts(self) -> list[HostStatus]:
        """Return the status of all hosts, in the order of their ids."""
        return await self._rows(commands.ListHosts, HostStatus, after="")

    async def clients(self, host_id: str = "") -> list[ClientStatus]:
        """Return the open clients, in the order in which they connected."""
        return await self._rows(commands.ListClients, ClientStatus, host=host_id)

    async def connections(self, host_id: str = "") -> list[ConnectionStatus]:
        """Return the connections to londs, in the order in which they were opened."""
        return await self._rows(commands.ListConnections, ConnectionStatus, host=host_id)

    async def slow(self, host_id: str = "") -> list[RequestRecord]:
        """Return the slowest recent requests, in the order in which they ended."""
        return await self._rows(commands.ListSlow, RequestRecord, host=host_id)

    async def problems(self, host_id: str = "") -> list[Problem]:
        """Return the current problems, in the order in which they began."""
        return await self._rows(commands.ListProblems, Problem, host=host_id)

    async def settings(self) -> list[SettingStatus]:
        """Return the settings in force, in the order of their names."""
        return await self._rows(commands.ListSettings, SettingStatus, host="")

    async def delayed(self, host_id: str = "") -> list[DelayedStatus]:
        """Return delayed requests in the order in which they are sent, then those kept."""
        return await self._rows(commands.ListDelayed, DelayedStatus, host=host_id)

    async def trace(
        self, host_id: str = "", contents: bool = False
    ) -> AsyncIterator[RequestRecord]:
        """
        Yield requests as they end, endlessly.

        :param contents: include the requests themselves; only for the owner.
        """
        while True:
            answer = await self._ask(commands.Trace, host=host_id, after=None, contents=contents)
            for row in answer["rows"]:
                yield RequestRecord(**row)

    # ------------------------------------------------------------------ actions

    async def report(self, host_id: str = "") -> None:
        """Write the status file."""
        await self._ask(commands.Report, host=host_id)

    async def reset_retries(self, host_id: str = "") -> None:
        """Restore a host's retries."""
        await self._ask(commands.ResetRetries, host=host_id)

    async def close_connections(self, host_id: str = "") -> None:
        """Close a host's connections; new ones are opened when needed."""
        await self._ask(commands.CloseConnections, host=host_id)

    async def set_debug_level(self, host_id: str, level: int) -> None:
        """Set a host's debug level, 0 to 9."""
        await self._ask(commands.SetDebugLevel, host=host_id, level=level)

    async def reread_table(self) -> str:
        """Read the host table again; returns readable changes."""
        return str((await self._ask(commands.RereadTable))["message"])

    async def reload(self) -> str:
        """Read the configuration and the host table again; returns readable changes."""
        return str((await self._ask(commands.Reload, RELOADS))["message"])

    async def stop(self) -> None:
        """Stop lonc."""
        await self._ask(commands.Stop)

    async def pause(
        self,
        host_id: str,
        by: str | None = None,
        reason: str = "",
        seconds: float = 0.0,
        fail: bool = False,
    ) -> None:
        """
        Pause a host; returns when none of its requests is in flight.

        :param by: who pauses it; None for the user of this process.
        :param seconds: duration; 0.0 for until :meth:`resume`.
        :param fail: whether its requests get ``con_lost`` at once instead of waiting.
        """
        by = user_name(os.geteuid()) if by is None else by
        how = {"by": by, "reason": reason, "seconds": seconds, "fail": fail}
        await self._ask(commands.Pause, IN_FLIGHT, host=host_id, **how)

    async def resume(self, host_id: str) -> None:
        """End a host's pause."""
        await self._ask(commands.Resume, host=host_id)

    async def show_delayed(self, file: str) -> tuple[bytes, bool]:
        """Return the content of a delayed request, and whether it was cut."""
        answer = await self._ask(commands.ShowDelayed, file=file)
        return cast(bytes, answer["content"]), bool(answer["more"])

    async def retry_delayed(self, host_id: str = "") -> None:
        """Try to send a host's delayed requests now."""
        await self._ask(commands.RetryDelayed, host=host_id)

    async def drop_delayed(self, file: str) -> None:
        """Delete a delayed request."""
        await self._ask(commands.DropDelayed, file=file)

    async def requeue_delayed(self, file: str) -> None:
        """Move a kept request back to those that are sent."""
        await self._ask(commands.RequeueDelayed, file=file)

    # ------------------------------------------------------------------ commands

    async def _rows(
        self,
        command: type[ManagementCommand],
        record: type[R],
        after: str | None = None,
        **arguments: str,
    ) -> list[R]:
        """Return the rows of all pages; the first field of a row is its key."""
        name, key = command.response[0][0].decode(), attrs.fields(record)[0].name
        rows: dict[object, R] = {}
        more = True
        while more:
            answer = await self._ask(command, 0.0, after=after, **arguments)
            page = {row[key]: record(**row) for row in answer[name]}
            more = answer["more"]
            if more and (not page or page.keys() & rows.keys() or len(rows) > MOST_ROWS):
                raise NoAnswer(f"{self._where}: the listing does not end")
            rows |= page
            after = next(reversed(page), after)
        return list(rows.values())

    async def _ask(
        self, command: type[amp.Command], more_time: float = 0.0, **arguments: object
    ) -> dict[str, Any]:
        """
        Send a command and return its answer.

        :param more_time: seconds in addition to the usual time limit.
        """
        try:
            command.makeArguments(arguments, self._protocol)
        except Exception as error:  # AMP's types raise any exception
            raise BadArguments(f"wrong arguments for {command.__name__}: {error}") from error
        limit = self._timeout + more_time
        try:
            asking: Deferred[dict[str, Any]] = self._protocol.callRemote(command, **arguments)
            return await asking.addTimeout(limit, self._clock)
        except amp.TooLong as error:
            name = str(error.keyName, "ascii")
            raise BadArguments(f"{command.__name__}: {name} is too long") from error
        except TimeoutError:
            raise NoAnswer(f"{self._where}: no answer within {limit:g} s") from None
        except (amp.AmpError, ConnectionClosed) as error:
            told = self._protocol.refused or error
            raise NoAnswer(f"{self._where}: no answer: {told}") from error
        except ManagementError:
            raise
        except KeyError as error:  # a field of the answer is missing
            what = "the lonc that runs there is older than this command: restart it"
            raise NoAnswer(f"{self._where}: {what}") from error
        except Exception as error:
            what = f"the answer cannot be sent over AMP: {type(error).__name__}"
            raise NoAnswer(f"{self._where}: {what}") from error


@implementer(IHandshakeListener)
class ClientConnection(BoundedAMP):
    """
    The client side of a management connection.

    :param host: with ``lonctls:``, the host name that the server's certificate must have.
    :ivar closed: fires when the connection has ended.
    :ivar refused: why it ended, if this side ended it or TLS failed; otherwise empty.
    :ivar ready: fires when commands may be sent, which with a host is after the handshake.
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
        """Check the name in the server's certificate, if it must have one."""
        if not self._host:
            return  # Twisted's ``ssl:`` and ``tls:`` make the checks that they describe
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
