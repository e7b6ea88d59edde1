"""
The interface between a lond and its machine.
"""

from __future__ import annotations

from typing import Protocol

from lonc.host.connection import LondConnection
from lonc.host.request_queue import FairQueue
from lonc.report.times import HostTimes
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
    queue: FairQueue

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
        """Send the next waiting request on a free connection, or leave that idle."""

    def median_answer(self) -> float:
        """Return the median time of its answers, in seconds."""

    def lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """Report a lost request to its receiver."""

    def lose_waiting(self, host_id: str | None, cause: Cause) -> None:
        """Report waiting requests as lost, for one host or all."""

    def ended(self) -> None:
        """Note that its last host has left, and all its sockets are closed."""
