"""
Which connections a host has, what each of them is doing, and who waits for one (row S8).

Every connection is in exactly one collection, and one method moves it: so a connection that owes
an answer cannot be found among the idle ones.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from operator import attrgetter
from typing import TYPE_CHECKING

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


class RequestQueue:
    """
    The requests that found no idle connection (rows S8 and F3).

    The programs that ask take turns, and each one's requests go out in the order in which they
    came: so one that sends a lot delays itself, and a newcomer by one request for each of them.

    :ivar size: how many may wait.
    :ivar waiting: how many do.
    """

    __slots__ = ("_programs", "size", "waiting")

    def __init__(self, size: int) -> None:
        self.size = size
        self.waiting = 0
        # None is empty; the first one's turn is next.
        self._programs: OrderedDict[int, deque[Request]] = OrderedDict()

    def put(self, request: Request) -> Request | None:
        """
        Let a request wait; return the one for which there is no room, if there is one.

        That is the last one of the program with the most, so that one program cannot shut the
        others out.
        """
        program = request.asker.program
        own = self._programs.setdefault(program, deque())
        own.append(request)
        self.waiting += 1
        if self.waiting <= self.size:
            return None
        most = max(self._programs, key=lambda each: len(self._programs[each]))
        if len(self._programs[most]) == len(own):
            most = program
        self.waiting -= 1
        surplus = self._programs[most].pop()
        if not self._programs[most]:
            del self._programs[most]
        return surplus

    def take(self) -> Request:
        """Return the first request of the program whose turn it is."""
        program, requests = next(iter(self._programs.items()))
        self.waiting -= 1
        request = requests.popleft()
        if requests:
            self._programs.move_to_end(program)
        else:
            del self._programs[program]
        return request

    def drop(self, request: Request) -> bool:
        """Take a request out whose client has gone; return whether it was there."""
        program = request.asker.program
        requests = self._programs.get(program)
        if requests is None or request not in requests:
            return False
        requests.remove(request)
        self.waiting -= 1
        if not requests:
            del self._programs[program]
        return True

    def __contains__(self, request: Request) -> bool:
        """Return whether a request waits."""
        return request in self._programs.get(request.asker.program, ())

    def drain(self) -> list[Request]:
        """Empty the queue and return what was in it."""
        return self.overdue(float("inf"))

    def overdue(self, before: float) -> list[Request]:
        """Take out and return the requests that have waited since before a time."""
        late = []
        for program, requests in list(self._programs.items()):
            while requests and requests[0].since <= before:
                late.append(requests.popleft())
            if not requests:
                del self._programs[program]
        self.waiting -= len(late)
        return sorted(late, key=attrgetter("since"))

    @property
    def oldest(self) -> Request | None:
        """The request that has waited longest."""
        firsts = (requests[0] for requests in self._programs.values())
        return min(firsts, key=attrgetter("since"), default=None)
