"""
The interface between a lond and its machine.
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
        """The durations of its requests."""

    def revived(self) -> None:
        """Note that the lond answers again, or is to be tried anew."""

    def set_served(self, served: bool) -> None:
        """Note whether any connection serves this id."""


class LondUser(Protocol):
    """The machine of a lond: what the lond reports to it."""

    members: dict[str, Member]
    last_answer: float

    @property
    def waiting(self) -> int:
        """The number of requests waiting for a connection that are not held back."""

    def replied(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """Deliver an answer; see :class:`lonc.host.connection.Owner`."""

    def reconsider(self) -> None:
        """Check again whether the fast path for requests applies, after a change."""

    def pair(self, new: int) -> None:
        """Assign waiting requests to connections, and make at most `new` connections."""

    def use(self, connection: LondConnection) -> None:
        """Send the longest waiting request on a free connection, or leave that idle."""

    def median_answer(self) -> float:
        """Return the median time of its answers, in seconds."""

    def lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """Report a lost request to its receiver."""

    def lose_waiting(self, host_id: str | None, cause: Cause) -> None:
        """Report waiting requests as lost, for one host or all."""

    def ended(self) -> None:
        """Note that its last host has left, and all its sockets are closed."""


@attrs.frozen
class LondStatus:
    """
    The status of a lond (row S16): see :class:`lonc.report.status.HostStatus`.

    :ivar last_answer: when it last answered, in seconds of the clock; -1.0 for never.
    :ivar since: when it entered its state, likewise.
    :ivar last_astray: when answers may last have reached the wrong clients, likewise.
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
    astray: int
    last_astray: float
