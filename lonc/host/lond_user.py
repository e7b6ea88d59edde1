"""
What a lond and the machine that it belongs to are to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from lonc.host.connection import LondConnection
from lonc.report.status import LastFailure
from lonc.report.times import HostTimes, Totals
from lonc.wire.request import Cause, Request, RequestHost


class Member(RequestHost, Protocol):
    """A host of a machine."""

    crashed: bool
    is_watched: bool

    @property
    def times(self) -> HostTimes:
        """How long its requests take."""

    def revived(self) -> None:
        """The lond answers again, or is to be tried afresh."""

    def set_served(self, served: bool) -> None:
        """Whether any connection serves this id."""


class LondUser(Protocol):
    """The machine that a lond belongs to: what the lond tells it."""

    members: dict[str, Member]
    last_answer: float

    @property
    def waiting(self) -> int:
        """How many requests may go out and wait for a connection."""

    def replied(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """Pass an answer on; see :class:`lonc.host.connection.Owner`."""

    def reconsider(self) -> None:
        """See whether a request's way is the usual one: something may have changed."""

    def pair(self, new: int) -> None:
        """Pair the requests that wait with connections, and have so many made at most."""

    def use(self, connection: LondConnection) -> None:
        """Send what waits longest on a connection that owes nothing, or let it rest."""

    def median_answer(self) -> float:
        """Return how long its answers usually take, in seconds."""

    def lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """Tell who asked that there is no answer."""

    def lose_waiting(self, host_id: str | None, cause: Cause) -> None:
        """Tell those who wait, for one host or all, that there will be no answer."""

    def ended(self) -> None:
        """Its last host has left, and all its sockets are closed."""


@attrs.frozen
class LondStatus:
    """
    What there is to report of a lond (row S16): see :class:`lonc.report.status.HostStatus`.

    :ivar last_answer: when it last answered, in seconds of the clock; -1.0 when it never has.
    :ivar since: when it came to its state, likewise.
    """

    state: str
    last_answer: float
    since: float
    retries_left: int
    next_probe: float
    version: str
    mode: str
    last_failure: LastFailure
    handshakes: Mapping[str, int]
    handshaking: Totals
    ping_tells: bool
