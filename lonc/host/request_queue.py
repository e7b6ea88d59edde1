"""
Who waits for a connection to a lond: host ids take turns, and for each the programs that ask.

Rows S8 and F3.
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter

from lonc.wire.request import Request

_WAITING = attrgetter("waiting")


class RequestQueue:
    """
    One host's requests that found no idle connection (rows S8 and F3).

    The programs that ask take turns, and each one's requests go out in the order in which they
    came: so one that sends a lot delays itself, and a newcomer by one request for each of them.

    :ivar size: how many may wait.
    :ivar waiting: how many do.
    :ivar held: whether they wait whatever connections there are.
    :ivar in_turn: whether the :class:`FairQueue` that it is in gives it its turn.
    """

    __slots__ = ("_programs", "_turns", "held", "in_turn", "size", "waiting")

    def __init__(self, size: int) -> None:
        self.size = size
        self.waiting = 0
        self.held = self.in_turn = False
        # Each program that has requests, and them; in the list, the first one's turn is next.
        self._programs: dict[int, deque[Request]] = {}
        self._turns: list[tuple[int, deque[Request]]] = []

    def put(self, request: Request) -> Request | None:
        """
        Let a request wait; return the one for which there is no room, if there is one.

        That is the last one of the program with the most, so that one program cannot shut the
        others out.
        """
        program = request.asker.program
        own = self._programs.get(program)
        if own is None:
            own = self._programs[program] = deque()
            self._turns.append((program, own))
        own.append(request)
        self.waiting += 1
        if self.waiting <= self.size:
            return None
        most = max(self._turns, key=lambda each: len(each[1]))
        if len(most[1]) == len(own):
            most = program, own
        self.waiting -= 1
        surplus = most[1].pop()
        if not most[1]:
            self._forget(*most)
        return surplus

    def take(self) -> Request:
        """Return the first request of the program whose turn it is."""
        turns = self._turns
        program, requests = turns[0]
        self.waiting -= 1
        request = requests.popleft()
        if not requests:
            self._forget(program, requests)
        elif len(turns) > 1:
            turns.append(turns.pop(0))
        return request

    def _forget(self, program: int, requests: deque[Request]) -> None:
        """Give a program no turn, for it has no requests."""
        del self._programs[program]
        self._turns.remove((program, requests))

    def drop(self, request: Request) -> bool:
        """Take a request out whose client has gone; return whether it was there."""
        program = request.asker.program
        requests = self._programs.get(program)
        if requests is None or request not in requests:
            return False
        requests.remove(request)
        self.waiting -= 1
        if not requests:
            self._forget(program, requests)
        return True

    def __contains__(self, request: object) -> bool:
        """Return whether a request waits."""
        return any(request in requests for requests in self._programs.values())

    def drain(self) -> list[Request]:
        """Empty the queue and return what was in it."""
        return self.overdue(float("inf"))

    def overdue(self, before: float) -> list[Request]:
        """Take out and return the requests that have waited since before a time."""
        late = []
        for program, requests in list(self._turns):
            while requests and requests[0].since <= before:
                late.append(requests.popleft())
            if not requests:
                self._forget(program, requests)
        self.waiting -= len(late)
        return sorted(late, key=attrgetter("since"))

    @property
    def oldest(self) -> Request | None:
        """The request that has waited longest."""
        firsts = (requests[0] for requests in self._programs.values())
        return min(firsts, key=attrgetter("since"), default=None)


class FairQueue:
    """
    The requests that wait for one lond: its host ids take turns, and for each its programs.

    :ivar waiting: how many may go out; those of a host that is held are not among them.
    """

    __slots__ = ("_hosts", "_turns", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self._hosts: dict[str, RequestQueue] = {}
        # None is empty; the first one's turn is next.
        self._turns: list[RequestQueue] = []

    def of(self, host_id: str) -> RequestQueue:
        """Return what waits for a host."""
        return self._hosts.get(host_id) or RequestQueue(0)

    def join(self, host_id: str, size: int) -> None:
        """Take requests for a host, at most so many at a time."""
        self._hosts[host_id] = RequestQueue(size)

    def leave(self, host_id: str) -> list[Request]:
        """Take none for it any more, and return those that waited."""
        waiting = self.drain(host_id)
        del self._hosts[host_id]
        return waiting

    def hold(self, host_id: str, held: bool) -> None:
        """Let a host's requests wait whatever connections there are, or no more."""
        self._hosts[host_id].held = held
        self._changed(host_id)

    def is_held(self, host_id: str) -> bool:
        """Return whether a host's requests wait whatever connections there are."""
        return self.of(host_id).held

    def put(self, request: Request) -> Request | None:
        """Let a request wait; return the one for which there is no room, if there is one."""
        queue = self._hosts[request.host.host_id]
        surplus = queue.put(request)
        if queue.in_turn and surplus is None:
            self.waiting += 1
        else:
            self._changed(request.host.host_id)
        return surplus

    def take(self) -> Request:
        """Return the first request of whose turn it is; there has to be one."""
        turns = self._turns
        queue = turns[0]
        self.waiting -= 1
        request = queue.take()
        if not queue.waiting:
            queue.in_turn = False
            del turns[0]
        elif len(turns) > 1:
            turns.append(turns.pop(0))
        return request

    def take_of(self, host_id: str) -> Request | None:
        """Return the first request of a host that may go out, if there is one."""
        queue = self._hosts.get(host_id)
        if queue is None or not queue.in_turn:
            return None
        request = queue.take()
        self._changed(host_id)
        return request

    def drop(self, request: Request) -> bool:
        """Take a request out whose client has gone; return whether it was there."""
        queue = self._hosts.get(request.host.host_id)
        if queue is None or not queue.drop(request):
            return False
        self._changed(request.host.host_id)
        return True

    def __contains__(self, request: Request) -> bool:
        """Return whether a request waits."""
        return request in self._hosts.get(request.host.host_id, ())

    def drain(self, host_id: str | None = None) -> list[Request]:
        """Empty a host's queue, or all, and return what was in it."""
        drained = []
        for each in list(self._hosts) if host_id is None else [host_id]:
            drained += self._hosts[each].drain()
            self._changed(each)
        return drained

    def overdue(self, before: float) -> list[Request]:
        """Take out and return the requests that have waited since before a time."""
        late = []
        for host_id, queue in self._hosts.items():
            if queue.waiting:
                late += queue.overdue(before)
                self._changed(host_id)
        return late

    @property
    def empty(self) -> bool:
        """Whether nobody waits, not even for a host that is held."""
        # Thousands of quiet hosts are asked several times a second: no generator is made for each.
        return not any(map(_WAITING, self._hosts.values()))

    def _changed(self, host_id: str) -> None:
        """Give a host its turn, or take it away, as it has requests that may go out or none."""
        queue = self._hosts[host_id]
        before, queue.in_turn = queue.in_turn, queue.waiting > 0 and not queue.held
        if queue.in_turn and not before:
            self._turns.append(queue)
        elif before and not queue.in_turn:
            self._turns.remove(queue)
        self.waiting = sum(each.waiting for each in self._turns)
