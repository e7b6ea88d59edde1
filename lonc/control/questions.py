# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""The client's side of the listings, of pauses and of delayed requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar, cast

import attrs
from twisted.protocols import amp

from lonc.control.commands import (
    DropDelayed,
    ListClients,
    ListConnections,
    ListDelayed,
    Listing,
    ListProblems,
    ListSettings,
    ListSlow,
    Pause,
    RequeueDelayed,
    Resume,
    RetryDelayed,
    ShowDelayed,
    Trace,
)
from lonc.control.errors import NoAnswer
from lonc.report.problems import Problem
from lonc.report.records import (
    ClientStatus,
    ConnectionStatus,
    DelayedStatus,
    RequestRecord,
    SettingStatus,
)

R = TypeVar("R", bound=attrs.AttrsInstance)

#: Rows of a listing at most; a lonc that has more is none.
MOST_ROWS: Final = 1_000_000

#: Seconds that a pause may take to begin: what is in flight may go on for the request timeout.
IN_FLIGHT: Final = 240.0


class Questions:
    """
    A part of :class:`lonc.control.ManagementClient`, which says how it is used.

    An empty ``host_id`` means all hosts.

    :ivar where: which lonc is asked: the endpoint, for the text of an error.
    """

    where = "lonc"

    async def _ask(
        self, command: type[amp.Command], more_time: float = 0.0, **arguments: object
    ) -> dict[str, Any]:
        """
        Send a command and return its answer.

        :param more_time: seconds beyond what an answer usually gets.
        """
        raise NotImplementedError

    async def clients(self, host_id: str = "") -> list[ClientStatus]:
        """Report on the open clients, in the order in which they came."""
        return await self._rows(ListClients, ClientStatus, host_id)

    async def connections(self, host_id: str = "") -> list[ConnectionStatus]:
        """Report on the connections to londs, in the order in which they were made."""
        return await self._rows(ListConnections, ConnectionStatus, host_id)

    async def slow(self, host_id: str = "") -> list[RequestRecord]:
        """Report the slowest requests of late, in the order in which they ended."""
        return await self._rows(ListSlow, RequestRecord, host_id)

    async def problems(self, host_id: str = "") -> list[Problem]:
        """Report on what is wrong now, in the order in which it began."""
        return await self._rows(ListProblems, Problem, host_id)

    async def settings(self) -> list[SettingStatus]:
        """Report the settings in force, in the order of their names."""
        return await self._rows(ListSettings, SettingStatus, "")

    async def delayed(self, host_id: str = "") -> list[DelayedStatus]:
        """Report on delayed requests, those kept too, in the order of their files' names."""
        return await self._rows(ListDelayed, DelayedStatus, host_id)

    async def _rows(self, command: type[Listing], record: type[R], host_id: str) -> list[R]:
        key = attrs.fields(record)[0].name
        rows: list[R] = []
        after: Any = None
        more = True
        while more:
            answer = await self._ask(command, host=host_id, after=after)
            page = [record(**row) for row in answer["rows"]]
            more = answer["more"]
            try:
                goes_on = bool(page) and (after is None or getattr(page[0], key) > after)
            except TypeError:  # a key is of another type than the one before
                goes_on = False
            if more and not (goes_on and len(rows) < MOST_ROWS):
                raise NoAnswer(f"{self.where}: the listing does not end")
            rows += page
            after = getattr(rows[-1], key) if rows else None
        return rows

    async def trace(
        self, host_id: str = "", contents: bool = False
    ) -> AsyncIterator[RequestRecord]:
        """
        Report requests as they end, without an end.

        :param contents: with their lines: the owner may.
        """
        while True:
            answer = await self._ask(Trace, host=host_id, after=None, contents=contents)
            for row in answer["rows"]:
                yield RequestRecord(**row)

    async def pause(
        self, host_id: str, by: str, reason: str, seconds: float = 0.0, fail: bool = False
    ) -> None:
        """
        Pause a host; done when nothing of it is in flight any more.

        :param by: who wants it, for people.
        :param seconds: how long; 0.0 until :meth:`resume`.
        :param fail: whether its requests get ``con_lost`` at once, and do not wait.
        """
        await self._ask(
            Pause, IN_FLIGHT, host=host_id, by=by, reason=reason, seconds=seconds, fail=fail
        )

    async def resume(self, host_id: str) -> None:
        """End a host's pause."""
        await self._ask(Resume, host=host_id)

    async def show_delayed(self, file: str) -> tuple[bytes, bool]:
        """Return what is in a delayed request, and whether it goes on behind that."""
        answer = await self._ask(ShowDelayed, file=file)
        return cast(bytes, answer["content"]), bool(answer["more"])

    async def retry_delayed(self, host_id: str = "") -> None:
        """Have a host's delayed requests tried now."""
        await self._ask(RetryDelayed, host=host_id)

    async def drop_delayed(self, file: str) -> None:
        """Delete a delayed request."""
        await self._ask(DropDelayed, file=file)

    async def requeue_delayed(self, file: str) -> None:
        """Put a kept request back among those that are sent."""
        await self._ask(RequeueDelayed, file=file)
