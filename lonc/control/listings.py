# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""The management port's listings: rows of one kind, in pages that fit into an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Protocol

import attrs
from twisted.protocols import amp

from lonc.control.commands import (
    ListClients,
    ListConnections,
    ListDelayed,
    Listing,
    ListProblems,
    ListSettings,
    ListSlow,
)
from lonc.control.errors import BadArguments
from lonc.report.problems import Problem
from lonc.report.records import (
    ClientStatus,
    ConnectionStatus,
    DelayedStatus,
    RequestRecord,
    SettingStatus,
)


class Listed(Protocol):
    """What the listings need of the daemon; ``host_id`` is ``None`` for all hosts."""

    def clients(self, host_id: str | None) -> Iterable[ClientStatus]:
        """Report on each open client."""

    def connections(self, host_id: str | None) -> Iterable[ConnectionStatus]:
        """Report on each connection to a lond."""

    def slow(self, host_id: str | None) -> Iterable[RequestRecord]:
        """Report the slowest requests of late."""

    def problems(self, host_id: str | None) -> Awaitable[Sequence[Problem]]:
        """Report on what is wrong now."""

    def settings_in_force(self) -> Awaitable[Sequence[SettingStatus]]:
        """Report on each setting."""

    def delayed_requests(
        self, host_id: str | None, after: str = ""
    ) -> Awaitable[Sequence[DelayedStatus]]:
        """
        Report on each delayed request, and on each that is kept, in the order of their files.

        :param after: leave out those up to this one; more than fit into an answer need not come.
        """


class Listings(amp.CommandLocator):
    """Answers them; a part of the daemon's side of a connection."""

    def listed(self) -> Listed:
        """Return what has the rows."""
        raise NotImplementedError

    def chosen(self, host: str) -> str | None:
        """
        Return which host is meant, ``None`` for all.

        :raises lonc.control.errors.UnknownHost: there is no such host.
        """
        raise NotImplementedError

    @ListClients.responder
    def _clients(self, host: str, after: Any) -> dict[str, Any]:
        return page(ListClients, self.listed().clients(self.chosen(host)), after)

    @ListConnections.responder
    def _connections(self, host: str, after: Any) -> dict[str, Any]:
        return page(ListConnections, self.listed().connections(self.chosen(host)), after)

    @ListSlow.responder
    def _slow(self, host: str, after: Any) -> dict[str, Any]:
        return page(ListSlow, self.listed().slow(self.chosen(host)), after)

    @ListProblems.responder
    async def _problems(self, host: str, after: Any) -> dict[str, Any]:
        return page(ListProblems, await self.listed().problems(self.chosen(host)), after)

    @ListSettings.responder
    async def _settings(self, host: str, after: Any) -> dict[str, Any]:
        return page(ListSettings, await self.listed().settings_in_force(), after)

    @ListDelayed.responder
    async def _delayed(self, host: str, after: Any) -> dict[str, Any]:
        if not isinstance(after, str | None):
            raise BadArguments("after is no file")
        rows = await self.listed().delayed_requests(self.chosen(host), after or "")
        return page(ListDelayed, rows, after)


def page(command: type[Listing], rows: Iterable[Any], after: Any) -> dict[str, Any]:
    """Return the rows behind one, as many as fit into an answer."""
    key = attrs.fields(command.record)[0].name
    try:
        coming = sorted(
            (row for row in rows if after is None or getattr(row, key) > after),
            key=lambda row: getattr(row, key),
        )
    except TypeError:
        raise BadArguments(f"after is no {key}") from None
    argument = dict(command.response)[b"rows"]
    page: list[dict[str, Any]] = []
    size = 0
    for row in coming:
        fields = attrs.asdict(row)
        size += len(argument.toStringProto([fields], None))
        if size > amp.MAX_VALUE_LENGTH and page:
            break
        page.append(fields)
    return {"rows": page, "more": len(page) < len(coming)}
