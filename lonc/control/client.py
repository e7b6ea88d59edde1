# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
Managing a running lonc over AMP (row S18): the side of the program that asks.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any, Final, Self, TypeVar, cast

import attrs
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp

from lonc.config.certificates import CertificateFiles
from lonc.control import commands
from lonc.control.access import user_name
from lonc.control.client_connection import ClientConnection, connect
from lonc.control.commands import ManagementCommand
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

R = TypeVar("R", bound=attrs.AttrsInstance)

#: Seconds more than other answers for a reload: it reads files from disks that may be slow.
RELOADS: Final = 60.0

#: Rows of a listing at most; a lonc that has more is none.
MOST_ROWS: Final = 1_000_000

#: Seconds that a pause may take to begin: what is in flight may go on for the request timeout.
IN_FLIGHT: Final = 240.0


class ManagementClient:
    """
    Manages a lonc from another process.

    Every method is a coroutine (``Deferred.fromCoroutine`` makes a Deferred of it), and raises
    :class:`ManagementError`, whose text is for a person. An empty ``host_id`` means all hosts.
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
        :param certificates: the own ones, for an endpoint like ``lonctls:l1.example.org:8664``.
        """
        protocol = await connect(reactor, endpoint, timeout, certificates)
        return cls(protocol, reactor, timeout, endpoint)

    async def close(self) -> None:
        """Close the connection, at once; lonc goes on."""
        if self._protocol.transport is not None:
            self._protocol.transport.abortConnection()
            await self._protocol.closed

    # ------------------------------------------------------------------ what is seen

    async def about(self) -> DaemonStatus:
        """Report on the daemon."""
        return DaemonStatus(**await self._ask(commands.About))

    async def hosts(self) -> list[HostStatus]:
        """Report on all hosts, in the order of their ids."""
        return await self._rows(commands.ListHosts, HostStatus, after="")

    async def clients(self, host_id: str = "") -> list[ClientStatus]:
        """Report on the open clients, in the order in which they came."""
        return await self._rows(commands.ListClients, ClientStatus, host=host_id)

    async def connections(self, host_id: str = "") -> list[ConnectionStatus]:
        """Report on the connections to londs, in the order in which they were made."""
        return await self._rows(commands.ListConnections, ConnectionStatus, host=host_id)

    async def slow(self, host_id: str = "") -> list[RequestRecord]:
        """Report the slowest requests of late, in the order in which they ended."""
        return await self._rows(commands.ListSlow, RequestRecord, host=host_id)

    async def problems(self, host_id: str = "") -> list[Problem]:
        """Report on what is wrong now, in the order in which it began."""
        return await self._rows(commands.ListProblems, Problem, host=host_id)

    async def settings(self) -> list[SettingStatus]:
        """Report the settings in force, in the order of their names."""
        return await self._rows(commands.ListSettings, SettingStatus, host="")

    async def delayed(self, host_id: str = "") -> list[DelayedStatus]:
        """Report on delayed requests in the order in which they are sent, then on those kept."""
        return await self._rows(commands.ListDelayed, DelayedStatus, host=host_id)

    async def trace(
        self, host_id: str = "", contents: bool = False
    ) -> AsyncIterator[RequestRecord]:
        """
        Report requests as they end, without an end.

        :param contents: with their lines: the owner may.
        """
        while True:
            answer = await self._ask(commands.Trace, host=host_id, after=None, contents=contents)
            for row in answer["rows"]:
                yield RequestRecord(**row)

    # ------------------------------------------------------------------ what is steered

    async def report(self, host_id: str = "") -> None:
        """Have the status file written."""
        await self._ask(commands.Report, host=host_id)

    async def reset_retries(self, host_id: str = "") -> None:
        """Give a host its retries back."""
        await self._ask(commands.ResetRetries, host=host_id)

    async def close_connections(self, host_id: str = "") -> None:
        """Have a host's connections closed and started afresh."""
        await self._ask(commands.CloseConnections, host=host_id)

    async def set_debug_level(self, host_id: str, level: int) -> None:
        """Set a host's debug level, 0 to 9."""
        await self._ask(commands.SetDebugLevel, host=host_id, level=level)

    async def reread_table(self) -> str:
        """Have the host table read again; tells what has changed."""
        return str((await self._ask(commands.RereadTable))["message"])

    async def reload(self) -> str:
        """Have the configuration and the host table read again; tells what has changed."""
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
        Pause a host; done when nothing of it is in flight any more.

        :param by: who wants it, for people; None for the user that this process runs as.
        :param seconds: how long; 0.0 until :meth:`resume`.
        :param fail: whether its requests get ``con_lost`` at once, and do not wait.
        """
        by = user_name(os.geteuid()) if by is None else by
        await self._ask(
            commands.Pause,
            IN_FLIGHT,
            host=host_id,
            by=by,
            reason=reason,
            seconds=seconds,
            fail=fail,
        )

    async def resume(self, host_id: str) -> None:
        """End a host's pause."""
        await self._ask(commands.Resume, host=host_id)

    async def show_delayed(self, file: str) -> tuple[bytes, bool]:
        """Return what is in a delayed request, and whether it goes on behind that."""
        answer = await self._ask(commands.ShowDelayed, file=file)
        return cast(bytes, answer["content"]), bool(answer["more"])

    async def retry_delayed(self, host_id: str = "") -> None:
        """Have a host's delayed requests tried now."""
        await self._ask(commands.RetryDelayed, host=host_id)

    async def drop_delayed(self, file: str) -> None:
        """Delete a delayed request."""
        await self._ask(commands.DropDelayed, file=file)

    async def requeue_delayed(self, file: str) -> None:
        """Put a kept request back among those that are sent."""
        await self._ask(commands.RequeueDelayed, file=file)

    # ------------------------------------------------------------------ questions and answers

    async def _rows(
        self,
        command: type[ManagementCommand],
        record: type[R],
        after: str | None = None,
        **arguments: str,
    ) -> list[R]:
        """Return the rows of all pages; the key of each row is its first field."""
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

        :param more_time: seconds beyond what an answer usually gets.
        """
        try:
            command.makeArguments(arguments, self._protocol)
        except Exception as error:  # AMP's types raise whatever they come across
            raise BadArguments(f"{command.__name__} is not asked like this: {error}") from error
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
            what = f"the answer is none that AMP can carry: {type(error).__name__}"
            raise NoAnswer(f"{self._where}: {what}") from error
