"""
Which connections a host has, and what each of them is doing (row S8).

Every connection is in exactly one collection, and one method moves it: so a connection that owes
an answer cannot be found among the idle ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import DeferredQueue

from lonc.wire.request import Request

if TYPE_CHECKING:
    from lonc.host.connection import LondConnection

#: Connections in the order in which they came to this state.
Collection = dict["LondConnection", None]


class ConnectionPool:
    """
    A host's connections by state.

    :ivar connecting: being looked up or connected.
    :ivar handshaking: connected, not yet ready.
    :ivar idle: ready; the one used last is at the end.
    :ivar busy: owing an answer.
    :ivar size: how many there are in all.
    """

    __slots__ = ("busy", "connecting", "handshaking", "idle", "size")

    def __init__(self) -> None:
        self.connecting: Collection = {}
        self.handshaking: Collection = {}
        self.idle: Collection = {}
        self.busy: Collection = {}
        self.size = 0

    def move(self, connection: LondConnection, to: Collection | None) -> None:
        """Put a connection at the end of a collection; ``None`` takes it out of the pool."""
        place = connection.place
        if place is None:
            self.size += 1
        else:
            del place[connection]
        connection.place = to
        if to is None:
            self.size -= 1
        else:
            to[connection] = None

    def last_used(self) -> LondConnection:
        """Return the idle connection used last, so that the others can grow old and be closed."""
        return next(reversed(self.idle))

    def __len__(self) -> int:
        return self.size

    def all(self) -> list[LondConnection]:
        """Return every connection, as a list that stays as it is while they are moved."""
        return [*self.connecting, *self.handshaking, *self.idle, *self.busy]


class RequestQueue(DeferredQueue[Request]):
    """
    The requests that found no idle connection, first come first served (rows S8 and F3).

    ``put`` raises :exc:`twisted.internet.defer.QueueOverflow` at the limit.
    """

    def take(self) -> Request:
        """Return the first request; unlike ``get``, without a Deferred for each."""
        return self.pending.pop(0)

    def drop(self, request: Request) -> bool:
        """Take a request out whose client has gone; return whether it was there."""
        try:
            self.pending.remove(request)
        except ValueError:
            return False
        return True

    def drain(self) -> list[Request]:
        """Empty the queue and return what was in it."""
        waiting, self.pending = self.pending, []
        return waiting

    def overdue(self, before: float) -> list[Request]:
        """Take out and return the requests that have waited since before a time."""
        late = 0
        for request in self.pending:
            if request.since > before:
                break
            late += 1
        waiting, self.pending = self.pending[:late], self.pending[late:]
        return waiting
