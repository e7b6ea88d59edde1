"""
Who waits for a connection to a lond: host ids take turns, and for each the programs that ask.

Rows S8 and F3.
"""

from __future__ import annotations

from collections import deque
from math import inf
from operator import attrgetter
from typing import Final

from lonc.wire.request import Request


class RequestQueue:
    """
    One host's requests that found no idle connection (rows S8 and F3).

    The programs that ask take turns, and each one's requests go out in the order in which they
    came: so one that sends a lot delays itself, and a newcomer by one request for each of them.

    :ivar host_id: the host's id.
    :ivar size: how many may wait.
    :ivar held: whether they wait whatever connections there are.
    :ivar in_turn: whether the :class:`FairQueue` that it is in gives it its turn.
    :ivar turns: each program that has requests, and them; the first one's turn is next.
    """

    __slots__ = ("_programs", "held", "host_id", "in_turn", "size", "turns")

    def __init__(self, size: int, host_id: str = "") -> None:
        self.host_id = host_id
        self.size = size
        self.held = self.in_turn = False
        self.turns: list[tuple[int, deque[Request]]] = []
        self._programs: dict[int, deque[Request]] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._programs.values()))

    def add(self, request: Request) -> tuple[int, deque[Request]]:
        """Let a request wait, room or not; return its program, and what waits of that."""
        program = request.asker.known_program or request.asker.program
        own = self._programs.get(program)
        if own is None:
            own = self._programs[program] = deque()
            self.turns.append((program, own))
        own.append(request)
        return program, own

    def put(self, request: Request) -> Request | None:
        """
        Let a request wait; return the one for which there is no room, if there is one.

        That is the last one of the program with the most, so that one program cannot shut the
        others out.
        """
        program, own = self.add(request)
        if len(own) <= self.size and (len(self.turns) == 1 or self.waiting <= self.size):
            return None
        most = max(self.turns, key=lambda each: len(each[1]))
        if len(most[1]) == len(own):
            most = program, own
        surplus = most[1].pop()
        self._forget_empty(*most)
        return surplus

    def take(self) -> Request:
        """Return the first request of the program whose turn it is."""
        program, requests = self.turns.pop(0)
        request = requests.popleft()
        self.turns.append((program, requests))
        self._forget_empty(program, requests)
        return request

    def _forget_empty(self, program: int, requests: deque[Request]) -> None:
        """Give a program no turn if it has no requests."""
        if not requests:
            del self._programs[program]
            self.turns.remove((program, requests))

    def drop(self, request: Request) -> bool:
        """Take a request out whose client has gone; return whether it was there."""
        program = request.asker.program
        requests = self._programs.get(program, deque())
        if request not in requests:
            return False
        requests.remove(request)
        self._forget_empty(program, requests)
        return True

    def __contains__(self, request: object) -> bool:
        """Return whether a request waits."""
        return any(request in requests for requests in self._programs.values())

    def drain(self) -> list[Request]:
        """Empty the queue and return what was in it."""
        return self.overdue(inf)

    def overdue(self, before: float) -> list[Request]:
        """Take out and return the requests that have waited since before a time."""
        late = []
        for program, requests in list(self.turns):
            while requests and requests[0].since <= before:
                late.append(requests.popleft())
            self._forget_empty(program, requests)
        return sorted(late, key=attrgetter("since"))

    @property
    def oldest(self) -> Request | None:
        """The request that has waited longest."""
        firsts = (requests[0] for requests in self._programs.values())
        return min(firsts, key=attrgetter("since"), default=None)

    def since(self) -> list[float]:
        """Return since when each request has waited."""
        return [each.since for requests in self._programs.values() for each in requests]


#: Seconds that a request may have waited at a sweep before turns are taken. Until then nobody
#: notices whose came first, and no client is asked for its program: two system calls for each that
#: is new.
PATIENCE: Final = 0.01


class FairQueue:
    """
    The requests that wait for one lond: its host ids take turns, and for each its programs.

    As long as none has waited for longer than `PATIENCE` at a sweep, the first to come is the first
    to be served, and there are no turns to take.

    :ivar arrivals: the requests in the order in which they came; empty where turns are taken.
    :ivar room: how many of these there may be; 0 where turns are taken.
    :ivar turns: the hosts that have requests which may go out, of which none is held; the first
        one's turn is next.
    """

    __slots__ = ("_held", "_hosts", "_size", "arrivals", "room", "turns")

    def __init__(self) -> None:
        self.arrivals: list[Request] = []  # a deque takes 760 bytes, and there are thousands
        self.turns: list[RequestQueue] = []
        self._hosts: dict[str, RequestQueue] = {}
        self._held: set[str] = set()
        self._size = self.room = 0

    def _settle(self, queue: RequestQueue) -> None:
        """See whose turn it is after a host's queue has changed."""
        before, queue.in_turn = queue.in_turn, bool(queue.turns) and not queue.held
        if queue.in_turn and not before:
            self.turns.append(queue)
        elif before and not queue.in_turn:
            self.turns.remove(queue)
        self.room = 0 if self.turns or self._held else self._size

    def take_turns(self) -> None:
        """Begin with turns: each arrival waits behind those of its program; all had room."""
        arrivals = self.arrivals[:]
        self.arrivals.clear()
        for request in arrivals:
            queue = self._hosts[request.host.host_id]
            queue.add(request)
            self._settle(queue)

    def review(self, now: float) -> None:
        """See whether turns have to be taken; to be called several times a second."""
        if self.arrivals and self.arrivals[0].since < now - PATIENCE:
            self.take_turns()
            return
        firsts = [each.oldest.since for each in self.turns if each.oldest]
        recent = bool(firsts) and min(firsts) >= now - PATIENCE
        if recent and not self._held and self.waiting < self._size:
            self.arrivals.extend(sorted(self.drain(), key=attrgetter("since")))

    @property
    def waiting(self) -> int:
        """How many may go out; those of a host that is held are not among them."""
        return len(self.arrivals) + sum(each.waiting for each in self.turns)

    def of(self, host_id: str) -> RequestQueue:
        """Return what waits for a host, where turns are taken."""
        return self._hosts.get(host_id) or RequestQueue(0)

    def since(self, host_id: str) -> list[float]:
        """Return since when each of a host's requests has waited."""
        arrivals = [each.since for each in self.arrivals if each.host.host_id == host_id]
        return arrivals or self.of(host_id).since()

    def add_host(self, host_id: str, size: int) -> None:
        """Take requests for a host, at most so many at a time."""
        self._hosts[host_id] = RequestQueue(size, host_id)

    def resize(self, host_id: str, size: int) -> None:
        """Let so many requests wait for a host."""
        queue = self._hosts[host_id]
        queue.size = self._size = size
        self._settle(queue)

    def remove_host(self, host_id: str) -> list[Request]:
        """Take none for it any more, and return those that waited."""
        waiting = self.drain(host_id)
        del self._hosts[host_id]
        self._held.discard(host_id)
        return waiting

    def hold(self, host_id: str, held: bool) -> None:
        """Let a host's requests wait whatever connections there are, or no more."""
        self.take_turns()
        queue = self._hosts[host_id]
        queue.held = held
        (self._held.add if held else self._held.discard)(host_id)
        self._settle(queue)

    def is_held(self, host_id: str) -> bool:
        """Return whether a host's requests wait whatever connections there are."""
        return host_id in self._held

    def put(self, request: Request) -> Request | None:
        """Let a request wait; return the one for which there is no room, if there is one."""
        if len(self.arrivals) < self.room:
            self.arrivals.append(request)
            return None
        self.take_turns()
        queue = self._hosts[request.host.host_id]
        surplus = queue.put(request)
        self._settle(queue)
        return surplus

    def take(self) -> Request:
        """Return the request to be sent next; one has to wait that may go out."""
        if self.arrivals:
            return self.arrivals.pop(0)
        queue = self.turns[0]
        request = queue.take()
        if len(self.turns) > 1:
            self.turns.append(self.turns.pop(0))
        self._settle(queue)
        return request

    def take_of(self, host_id: str) -> Request | None:
        """Return the first request of a host that may go out, if there is one."""
        self.take_turns()
        queue = self.of(host_id)
        if not queue.in_turn:
            return None
        request = queue.take()
        self._settle(queue)
        return request

    def drop(self, request: Request) -> bool:
        """Take a request out whose client has gone; return whether it was there."""
        if request in self.arrivals:
            self.arrivals.remove(request)
            return True
        queue = self.of(request.host.host_id)
        found = queue.drop(request)
        if found:
            self._settle(queue)
        return found

    def __contains__(self, request: Request) -> bool:
        """Return whether a request waits."""
        return request in self.arrivals or request in self.of(request.host.host_id)

    def drain(self, host_id: str | None = None) -> list[Request]:
        """Empty a host's queue, or all, and return what was in it."""
        self.take_turns()
        drained = []
        for queue in list(self._hosts.values()) if host_id is None else [self._hosts[host_id]]:
            drained += queue.drain()
            self._settle(queue)
        return drained

    def overdue(self, before: float) -> list[Request]:
        """Take out and return the requests that have waited since before a time."""
        if self.arrivals and self.arrivals[0].since <= before:
            self.take_turns()
        late = []
        for queue in [*self.turns, *map(self.of, self._held)]:
            if queued := queue.overdue(before):
                late += queued
                self._settle(queue)
        return late

    @property
    def empty(self) -> bool:
        """Whether nobody waits, not even for a host that is held."""
        held = self._held and any(self.of(each).turns for each in self._held)
        return not (self.arrivals or self.turns or held)
