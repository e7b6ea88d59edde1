"""
The queue of requests for a connection to a lond: round robin of host ids, and of their programs.

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
    The waiting requests of one host (rows S8 and F3).

    Client programs are served in turn (round robin), and each one's requests in order of arrival.
    So a program that sends many requests delays itself, but others by one request per round only.

    :ivar host_id: the host's id.
    :ivar size: maximum number of requests.
    :ivar held: whether they are held back.
    :ivar in_turn: whether it takes part in the round robin of its :class:`FairQueue`.
    :ivar turns: the programs with their requests; the first one is next.
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
        """The number of waiting requests."""
        return sum(map(len, self._programs.values()))

    def add(self, request: Request) -> tuple[int, deque[Request]]:
        """Add a request without a limit; return its program, and that one's requests."""
        program = request.asker.known_program or request.asker.program
        own = self._programs.get(program)
        if own is None:
            own = self._programs[program] = deque()
            self.turns.append((program, own))
        own.append(request)
        return program, own

    def put(self, request: Request) -> Request | None:
        """
        Add a request; if the queue is full, remove and return one.

        That is the last one of the program with the most, so that one program cannot exclude the
        others.
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
        """Remove and return the first request of the program that is next."""
        program, requests = self.turns.pop(0)
        request = requests.popleft()
        self.turns.append((program, requests))
        self._forget_empty(program, requests)
        return request

    def _forget_empty(self, program: int, requests: deque[Request]) -> None:
        """Remove a program without requests."""
        if not requests:
            del self._programs[program]
            self.turns.remove((program, requests))

    def drop(self, request: Request) -> bool:
        """Remove the request of a disconnected client; return whether it was waiting."""
        program = request.asker.program
        requests = self._programs.get(program, deque())
        if request not in requests:
            return False
        requests.remove(request)
        self._forget_empty(program, requests)
        return True

    def drain(self) -> list[Request]:
        """Remove and return all requests."""
        return self.overdue(inf)

    def overdue(self, before: float) -> list[Request]:
        """Remove and return the requests waiting since before a time."""
        late = []
        for program, requests in list(self.turns):
            while requests and requests[0].since <= before:
                late.append(requests.popleft())
            self._forget_empty(program, requests)
        return sorted(late, key=attrgetter("since"))

    @property
    def oldest(self) -> Request | None:
        """The request waiting for longest."""
        firsts = (requests[0] for requests in self._programs.values())
        return min(firsts, key=attrgetter("since"), default=None)

    def since(self) -> list[float]:
        """Return the times since when the requests have been waiting."""
        return [each.since for requests in self._programs.values() for each in requests]


#: Seconds that a request may have waited at a sweep before round robin begins. Until then the order
#: does not matter, and two system calls per new client for its program are saved.
ROUND_ROBIN_AFTER: Final = 0.05


class FairQueue:
    """
    The waiting requests for one lond: round robin of its host ids, and of their programs.

    As long as none has waited for longer than `ROUND_ROBIN_AFTER` at a sweep, they are served in
    order of arrival instead.

    :ivar arrivals: the requests in order of arrival; empty during round robin.
    :ivar room: as long as there are fewer, a request may simply be appended to them; 0 unless
        `open_room` was called, and during round robin.
    :ivar turns: the hosts with requests that are not held back; the first one is next.
    """

    __slots__ = ("_hosts", "_size", "arrivals", "room", "turns")

    def __init__(self) -> None:
        self.arrivals: list[Request] = []  # a deque needs 760 bytes, and there are thousands
        self.turns: list[RequestQueue] = []
        #: The hosts with requests during round robin, and those that are held back.
        self._hosts: dict[str, RequestQueue] = {}
        self._size = self.room = 0

    def _settle(self, queue: RequestQueue) -> None:
        """Add a host to the round robin, or remove it, after its queue has changed."""
        before, queue.in_turn = queue.in_turn, bool(queue.turns) and not queue.held
        if queue.in_turn and not before:
            self.turns.append(queue)
        elif before and not queue.in_turn:
            self.turns.remove(queue)
        if queue.turns or queue.held:
            self._hosts[queue.host_id] = queue
        else:
            self._hosts.pop(queue.host_id, None)
        if self._hosts:
            self.room = 0

    def open_room(self) -> None:
        """Let requests be appended to `arrivals`, until anything unusual happens."""
        self.room = 0 if self._hosts else self._size

    def close_room(self) -> None:
        """Have every request put."""
        self.room = 0

    def take_turns(self) -> None:
        """Begin round robin with the arrivals, for which there was room."""
        arrivals = self.arrivals[:]
        self.arrivals.clear()
        for request in arrivals:
            queue = self.of(request.host.host_id)
            queue.add(request)
            self._settle(queue)

    def review(self, now: float) -> None:
        """Begin or end round robin if necessary; called several times a second."""
        if self.arrivals and self.arrivals[0].since < now - ROUND_ROBIN_AFTER:
            self.take_turns()
            return
        firsts = [each.oldest.since for each in self.turns if each.oldest]
        recent = bool(firsts) and min(firsts) >= now - ROUND_ROBIN_AFTER
        none_held = len(self.turns) == len(self._hosts)
        if recent and none_held and self.waiting < self._size:
            self.arrivals.extend(sorted(self.drain(), key=attrgetter("since")))

    @property
    def waiting(self) -> int:
        """The number of waiting requests that are not held back."""
        return len(self.arrivals) + sum(each.waiting for each in self.turns)

    def of(self, host_id: str) -> RequestQueue:
        """Return the queue of a host, for round robin; `_settle` keeps it if necessary."""
        return self._hosts.get(host_id) or RequestQueue(self._size, host_id)

    def since(self, host_id: str) -> list[float]:
        """Return the times since when a host's requests have been waiting."""
        arrivals = [each.since for each in self.arrivals if each.host.host_id == host_id]
        return arrivals or self.of(host_id).since()

    def resize(self, size: int) -> None:
        """Change the maximum number of each host's requests."""
        self._size = size
        for queue in self._hosts.values():
            queue.size = size
        self.room = 0

    def remove_host(self, host_id: str) -> list[Request]:
        """Remove a host and return its waiting requests."""
        waiting = self.drain(host_id)
        self.hold(host_id, False)
        return waiting

    def hold(self, host_id: str, held: bool) -> None:
        """Hold a host's requests back, or no longer."""
        self.take_turns()
        queue = self.of(host_id)
        queue.held = held
        self._settle(queue)

    def is_held(self, host_id: str) -> bool:
        """Return whether a host's requests are held back."""
        return self.of(host_id).held

    def put(self, request: Request) -> Request | None:
        """Add a request; if the queue is full, remove and return one."""
        if not self._hosts and len(self.arrivals) < self._size:
            self.arrivals.append(request)
            return None
        self.take_turns()
        queue = self.of(request.host.host_id)
        surplus = queue.put(request)
        self._settle(queue)
        return surplus

    def take(self) -> Request:
        """Remove and return the next request; there must be one that is not held back."""
        if self.arrivals:
            return self.arrivals.pop(0)
        queue = self.turns[0]
        request = queue.take()
        if len(self.turns) > 1:
            self.turns.append(self.turns.pop(0))
        self._settle(queue)
        return request

    def take_of(self, host_id: str) -> Request | None:
        """Remove and return the next request of a host, if any is not held back."""
        self.take_turns()
        queue = self.of(host_id)
        if not queue.in_turn:
            return None
        request = queue.take()
        self._settle(queue)
        return request

    def drop(self, request: Request) -> bool:
        """Remove the request of a disconnected client; return whether it was waiting."""
        if request in self.arrivals:
            self.arrivals.remove(request)
            return True
        queue = self.of(request.host.host_id)
        found = queue.drop(request)
        if found:
            self._settle(queue)
        return found

    def drain(self, host_id: str | None = None) -> list[Request]:
        """Remove and return all requests of a host, or of all hosts."""
        self.take_turns()
        drained = []
        for queue in list(self._hosts.values()) if host_id is None else [self.of(host_id)]:
            drained += queue.drain()
            self._settle(queue)
        return drained

    def overdue(self, before: float) -> list[Request]:
        """Remove and return the requests waiting since before a time."""
        if self.arrivals and self.arrivals[0].since <= before:
            self.take_turns()
        late = []
        for queue in list(self._hosts.values()):
            if queued := queue.overdue(before):
                late += queued
                self._settle(queue)
        return late

    @property
    def empty(self) -> bool:
        """Whether no requests are waiting, including those held back."""
        return not self.arrivals and not any(each.turns for each in self._hosts.values())
