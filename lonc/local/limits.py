"""
The limits shared by the clients of all hosts (rows F3 and F16).

Descriptors and memory belong to the process, not to hosts.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Generic, Protocol, TypeVar

import attrs
from twisted.internet.interfaces import IReactorTime

from lonc.config.settings import Settings
from lonc.report.events import Logger, RateLimited
from lonc.report.problems import Problem, problem
from lonc.transport.unix_socket import Peer
from lonc.wire.request import Cause

#: Bytes of requests per client that are not counted: many times a usual request (of which an idle
#: client keeps its last one), and 32 MiB for the default maximum of 4,096 clients. The same applies
#: to incomplete answers of londs.
UNCOUNTED = 8192

#: Clients over the limit that are still read, so that they get ``con_lost`` instead of a broken
#: pipe; more than that are closed immediately.
TURNED_AWAY = 256

#: Lines of one client that are handled per iteration of the loop: some 50 µs, if each is answered
#: immediately, as for a DEAD host.
LINES_A_TURN = 8

#: Seconds for which ended clients, requests and answers are reported as problems.
NEWS = 300.0

#: Postponed clients that continue per iteration of the loop: about 5 ms.
HELD_A_TURN = 128

log = Logger()


class Holder(Protocol):
    """Something that occupies memory counted by a `Budget`."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""

    def free_memory(self) -> None:
        """Free its memory immediately."""


class Client(Holder, Protocol):
    """The part of `lonc.local.protocol.ClientProtocol` that is relevant for the limits."""

    number: int
    quiet_since: float
    requests: int
    since: float

    @property
    def host_id(self) -> str:
        """The host of its socket."""

    @property
    def program(self) -> int:
        """The program that it belongs to."""

    @property
    def peer(self) -> Peer:
        """The process at the other end."""

    @property
    def waits_for(self) -> tuple[str, float]:
        """What it waits for, and since when."""

    @property
    def leaving(self) -> bool:
        """Whether it has its last answer."""

    @property
    def silent(self) -> bool:
        """Whether all its requests, as far as read, are answered and the answers read."""

    @property
    def unread(self) -> int:
        """The number of received bytes that have not been read from its socket."""

    @property
    def unsent(self) -> int:
        """The number of bytes that could not be sent to it yet."""

    def next_turn(self) -> None:
        """Continue with its buffered requests."""

    def give_up_line(self, why: str, cause: Cause) -> None:
        """Answer ``con_lost`` and close it."""

    def turn_away(self, cause: Cause) -> None:
        """Send a last ``con_lost`` and close it."""

    def disconnect(self, why: str) -> None:
        """Close it immediately, and log the reason."""

    def hang_up(self) -> None:
        """Answer its requests, and close it."""

    def abort(self) -> None:
        """Close it immediately."""


K = TypeVar("K", bound=Holder)


class Budget(Generic[K]):
    """
    A limit on the total memory of many holders.

    If it is exceeded, one of them has to free its memory. A single holder may exceed it.

    :param limit: in bytes.
    :param choose: returns the holder that has to free its memory, given all of them.
    :ivar sizes: holder -> bytes, the most recently changed one last.
    :ivar used: total bytes.
    """

    __slots__ = ("_choose", "limit", "sizes", "used")

    def __init__(self, limit: int, choose: Callable[[Mapping[K, int]], K]) -> None:
        self.limit = limit
        self._choose = choose
        self.sizes: dict[K, int] = {}
        self.used = 0

    def note(self, holder: K, size: int) -> None:
        """Note how many bytes a holder has now; past the limit, have one give up its own."""
        before = self.sizes.pop(holder, 0)
        if size > 0:
            self.sizes[holder] = size
        self.used += size - before
        while size > before and self.used > self.limit and len(self.sizes) > 1:
            chosen = self._choose(self.sizes)
            self.used -= self.sizes.pop(chosen)
            chosen.free_memory()


def largest(sizes: Mapping[K, int]) -> K:
    """Return the largest abandoned holder, or the largest if there is none."""
    return max(sizes, key=lambda each: (each.abandoned, sizes[each]))


class Unread:
    """
    The unread answers of one client.

    :ivar since: when it last read data, in seconds of the reactor's clock.
    :ivar unsent: the unsent bytes at that time.
    """

    abandoned = False

    def __init__(self, client: Client, now: float) -> None:
        self.client = client
        self.since = now
        self.unsent = client.unsent

    def free_memory(self) -> None:
        """Close the client."""
        self.client.disconnect(
            "its answers are not read and the memory for such answers is used up"
        )


def largest_of_program(sizes: Mapping[Unread, int]) -> Unread:
    """Return the client with the most unread bytes, of the program with the most."""
    of_program: Counter[int] = Counter()
    for each, size in sizes.items():
        of_program[each.client.program] += size
    return max(sizes, key=lambda each: (of_program[each.client.program], sizes[each]))


class Places:
    """
    A snapshot of the connected clients, with idle ones in order.

    It takes milliseconds to create with thousands of clients, so it is used until the next sweep:
    otherwise a flood of newcomers would keep the loop busy.
    """

    def __init__(self, clients: Iterable[Client]) -> None:
        staying = [client for client in clients if not client.leaving]
        self._held = Counter(client.program for client in staying)
        self._silent: dict[int, list[Client]] = {}
        # The last one of each list has been idle for longest.
        silent = [client for client in staying if client.silent]
        for client in sorted(silent, key=lambda each: (-each.quiet_since, -each.number)):
            self._silent.setdefault(client.program, []).append(client)

    def make_room(self, newcomer: Client) -> Client | None:
        """
        Return the client to be disconnected for a newcomer, None if there is none.

        It is the one that has been idle for longest, of the program with the most clients that has
        idle ones; but never of a program with fewer clients than the newcomer's own, since
        otherwise one program could displace all others.
        """
        held, silent = self._held, self._silent
        held[newcomer.program] += 1
        while silent:
            program = max(silent, key=lambda each: (held[each], -silent[each][-1].quiet_since))
            if held[program] < held[newcomer.program]:
                break
            client = silent[program].pop()
            if not silent[program]:
                del silent[program]
            # It may have sent something since, or have disconnected.
            if client.silent and not client.unread:
                held[program] -= 1
                return client
        return None


@attrs.define(eq=False)
class Tally:
    """
    Counts events.

    :ivar count: number since the start.
    :ivar last: time of the last one, in Unix time; 0.0 for never.
    """

    count: int = 0
    last: float = 0.0

    def note(self) -> None:
        """Count an event."""
        self.count += 1
        self.last = time.time()

    def is_news(self, now: float) -> bool:
        """Return whether it happened in the last five minutes; `now` is Unix time."""
        return now - self.last < NEWS


class Clients:
    """
    The clients of all hosts, and their common limits (rows F3 and F16).

    :ivar everyone: the connected clients, oldest first.
    :ivar usual_size: maximum bytes of a request that needs no counting or checking of limits.
    :param room: returns the number of clients that the limit of open files allows; called again
        when the settings change.
    :ivar requests: the memory of large requests: incomplete, buffered and outstanding.
    :ivar replies: the memory of large incomplete answers of londs.
    :ivar next_number: returns the number of a new client.
    :ivar refused: new clients refused because of the client limit.
    :ivar cut_off: clients disconnected because they exceeded a limit, or to make room.
    :ivar released: large requests and answers ended because others needed their memory.
    :ivar now: the time of the last sweep, accurate enough to order idle clients.
    :ivar unread: clients that do not read their answers, or are to be closed after reading them.
    :ivar unfinished: clients with an incomplete line -> since when.
    :ivar leaving: clients being disconnected -> since when.
    """

    def __init__(
        self,
        settings: Settings,
        clock: IReactorTime,
        room: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        self._room = room
        self._limited = RateLimited(clock, 10.0)
        self.seconds = clock.seconds
        self.everyone: dict[Client, None] = {}
        self.requests: Budget[Holder] = Budget(settings.max_request_memory, largest)
        self.replies: Budget[Holder] = Budget(settings.max_request_memory, largest)
        self.now = clock.seconds()
        self.next_number = count(1).__next__
        self.refused = Tally()
        self.cut_off = Tally()
        self.released = Tally()
        self._call_later = clock.callLater
        self._held: dict[Client, None] = {}
        self._turn_is_due = False
        self._places: Places | None = None  # since the last sweep
        self.unread: dict[Client, Unread] = {}
        self._unread_memory: Budget[Unread] = Budget(settings.max_unread, largest_of_program)
        self.unfinished: dict[Client, float] = {}
        self.leaving: dict[Client, float] = {}
        self.reconfigure(settings)

    @property
    def open(self) -> int:
        """The number of connected clients."""
        return len(self.everyone)

    @property
    def unread_bytes(self) -> int:
        """Total bytes of answers not read by clients."""
        return self._unread_memory.used

    def reconfigure(self, settings: Settings) -> None:
        """Apply new settings; lower limits apply to new clients and data only."""
        self.settings = settings
        self._limit = min(settings.max_clients, self._room())
        self.usual_size = min(UNCOUNTED, settings.max_line)
        self.requests.limit = self.replies.limit = settings.max_request_memory
        self._unread_memory.limit = settings.max_unread

    def allow_line(self, key: str, host_id: str) -> str | None:
        """Return whether a message caused by clients may be logged; see `RateLimited.allow`."""
        return self._limited.allow(f"{key} {host_id}")

    def warn(self, key: str, host_id: str, what: str) -> None:
        """Log a warning that clients could cause arbitrarily often, rate limited."""
        more = self.allow_line(key, host_id)
        if more is not None:
            log.warn("{what}{more}", what=what, more=more, host_id=host_id)

    def admit(self, client: Client) -> bool:
        """Add a new client; return whether it is within the limits."""
        self.everyone[client] = None
        limit = self._limit
        if len(self.everyone) - len(self.leaving) <= limit:  # the fast path
            return True
        if self._places is None:
            self._places = Places(each for each in self.everyone if each is not client)
        silent = self._places.make_room(client)
        if silent is None:
            self.refused.note()
            self.warn(
                "max-clients", client.host_id, f"there are {limit} clients: another gets con_lost"
            )
            return False
        self.warn(
            "silent", silent.host_id, f"there are {limit} clients: an idle one is disconnected"
        )
        silent.turn_away(Cause.TOO_MANY_CLIENTS)
        return True

    def postpone(self, client: Client) -> None:
        """Let a client continue in the next iteration of the loop."""
        self._held[client] = None
        if not self._turn_is_due:
            self._turn_is_due = True
            self._call_later(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn_is_due = False
        try:
            for client in list(islice(self._held, HELD_A_TURN)):
                del self._held[client]
                client.next_turn()
        finally:
            if self._held and not self._turn_is_due:
                self.postpone(next(iter(self._held)))

    def note_unread(self, client: Client) -> None:
        """Count the unsent data of a client, and start its time limit."""
        self.unread[client] = unread = Unread(client, self.seconds())
        self._unread_memory.note(unread, unread.unsent)

    def note_read(self, client: Client) -> None:
        """Stop counting unsent data: the client has read it, or has disconnected."""
        unread = self.unread.pop(client, None)
        if unread is not None:
            self._unread_memory.note(unread, 0)

    def close_when_read(self, client: Client) -> None:
        """Start the time limit of a client that is closed after reading its last answer."""
        if client not in self.unread:
            self.unread[client] = Unread(client, self.seconds())

    def forget(self, client: Client) -> None:
        """Remove a disconnected client."""
        self.everyone.pop(client, None)
        if self.unread:
            self.note_read(client)
        if self.unfinished or self.leaving:
            self.unfinished.pop(client, None)
            self.leaving.pop(client, None)

    def problems(self, now: float) -> Iterator[Problem]:
        """
        Yield problems with the client limit and memory.

        :param now: Unix time.
        """
        places = self._limit
        taken = len(self.everyone) - len(self.leaving)
        if taken >= places:
            yield problem("clients-full", "", f"{taken} of {places} places for clients are taken")
        if 2 * taken > places:
            ((program, held),) = Counter(each.program for each in self.everyone).most_common(1)
            if 2 * held > places:
                who = f"process {program}" if program > 0 else f"user {-2 - program}"
                what = f"{who} has {held} of {places} places for clients"
                yield problem("clients-one-program", who, what)
        if self.cut_off.is_news(now):
            what = f"clients were closed, {self.cut_off.count} since the start"
            yield problem("clients-cut-off", "", what, since=self.cut_off.last)
        if self.released.is_news(now):
            count = self.released.count
            what = f"requests or answers ended for want of memory, {count} since the start"
            yield problem("memory-used-up", "", what, since=self.released.last)

    def sweep(self, now: float) -> None:
        """Apply time limits to clients; called several times a second."""
        self.now = now
        self._places = None
        limit = self.settings.write_timeout
        for client, unread in list(self.unread.items()):
            if (unsent := client.unsent) < unread.unsent:  # it reads, slowly
                unread.since, unread.unsent = now, unsent
                if unread in self._unread_memory.sizes:
                    self._unread_memory.note(unread, unsent)
            elif unread.since <= now - limit:
                client.disconnect(f"it has not read its answer for {limit:g} s")
        for client in overdue(self.unfinished.items(), now - limit):
            client.give_up_line(f"it has not ended its request for {limit:g} s", Cause.TIMEOUT)
        for client in overdue(self.leaving.items(), now - self.settings.drain_timeout):
            client.abort()


def overdue(since: Iterable[tuple[Client, float]], before: float) -> list[Client]:
    """Return the clients waiting since before a time; the pairs are in order of time."""
    late = []
    for client, began in since:
        if began > before:
            break
        late.append(client)
    return late
