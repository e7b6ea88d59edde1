"""
The limits that all clients of all hosts share (rows F3 and F16).

Descriptors and memory are the process's and not a host's.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Generic, Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime

from lonc.config.settings import Settings
from lonc.report.events import Logger, RateLimited
from lonc.report.problems import Problem, problem
from lonc.transport.peer import Peer
from lonc.wire.request import Cause

#: Bytes of requests that each client may have without being counted: many times a usual request,
#: and 32 MiB for the 4,096 clients that there may be unless set otherwise. A lond's unfinished
#: answer is counted from there on too.
UNCOUNTED = 8192

#: Clients past the limit that are still read, so that they find their ``con_lost`` and no broken
#: pipe; more than that are closed at once.
TURNED_AWAY = 256

#: Lines of one client that are answered in one turn of the loop: some 50 µs, where each is answered
#: at once, as for a DEAD host.
LINES_A_TURN = 8

#: Seconds for which what befell clients is news.
NEWS = 300.0

#: Clients that go on in one turn of the loop with what they sent ahead: 5 ms or so.
HELD_A_TURN = 128

log = Logger()


class Holder(Protocol):
    """Something that holds bytes in memory which a `Budget` counts."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""

    def free_memory(self) -> None:
        """Free those bytes at once."""


class Client(Holder, Protocol):
    """A client, as far as the limits concern it: see `lonc.local.protocol.ClientProtocol`."""

    number: int
    quiet_since: float
    requests: int
    since: float

    @property
    def host_id(self) -> str:
        """Whose socket it is on."""

    @property
    def program(self) -> int:
        """Which program it belongs to."""

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""

    @property
    def waits_for(self) -> tuple[str, float]:
        """What it waits for, and since when."""

    @property
    def leaving(self) -> bool:
        """Whether it has its last answer."""

    @property
    def silent(self) -> bool:
        """Whether all it has asked is answered and read, as far as it has been read."""

    @property
    def unread(self) -> int:
        """Bytes from it that are still in its socket."""

    @property
    def unsent(self) -> int:
        """Bytes for it that it has not taken."""

    def next_turn(self) -> None:
        """Go on with what was sent ahead."""

    def give_up_line(self, why: str, cause: Cause) -> None:
        """Answer ``con_lost`` and close it."""

    def turn_away(self, cause: Cause) -> None:
        """Say ``con_lost`` as the last thing."""

    def disconnect(self, why: str) -> None:
        """Close it now, and say why in the log."""

    def hang_up(self) -> None:
        """Answer what it has asked, and close it."""

    def abort(self) -> None:
        """Close it now."""


K = TypeVar("K", bound=Holder)


class Budget(Generic[K]):
    """
    A limit on the bytes that many holders have in memory together.

    Past it one of them has to free its bytes at once. A single holder may exceed it.

    :param limit: in bytes.
    :param choose: returns the holder that has to free its bytes, given all of them.
    :ivar sizes: holder -> its bytes; the one that changed last is the last.
    :ivar used: bytes of all holders.
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
    """Return the largest holder that is abandoned; where none is, the largest."""
    return max(sizes, key=lambda each: (each.abandoned, sizes[each]))


class Unread:
    """
    What one client has not read of its answers.

    :ivar since: when it last read something, in seconds of the reactor's clock.
    :ivar unsent: bytes that were unsent then.
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
    """Return the client with most unread bytes, of the program with most of them."""
    of_program: Counter[int] = Counter()
    for each, size in sizes.items():
        of_program[each.client.program] += size
    return max(sizes, key=lambda each: (of_program[each.client.program], sizes[each]))


class Places:
    """
    Who has the places at one moment, the silent ones in order.

    It takes milliseconds to see that of thousands, so one look has to do for the newcomers of the
    next moment: a flood of them would else be all that the loop is busy with.
    """

    def __init__(self, clients: Iterable[Client]) -> None:
        staying = [client for client in clients if not client.leaving]
        self._held = Counter(client.program for client in staying)
        self._silent: dict[int, list[Client]] = {}
        # The last one of each list has been silent for longest.
        silent = [client for client in staying if client.silent]
        for client in sorted(silent, key=lambda each: (-each.quiet_since, -each.number)):
            self._silent.setdefault(client.program, []).append(client)

    def make_room(self, newcomer: Client) -> Client | None:
        """
        Return the client that makes room for a newcomer, None if nobody has to.

        It is the one that has been silent for longest, of the program with most places, or of the
        next where all of that one's have something to say; but never of a program with fewer
        places than the newcomer's own, for else one program could push out all others.
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
            # It may have said something since, or gone.
            if client.silent and not client.unread:
                held[program] -= 1
                return client
        return None


class Tally:
    """
    Counts what happens to clients.

    :ivar count: how often since the start.
    :ivar last: when it last did, in Unix time; 0.0 when never.
    """

    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0

    def note(self) -> None:
        """Count one more."""
        self.count += 1
        self.last = time.time()

    def is_news(self, now: float) -> bool:
        """Return whether it happened in the last five minutes; `now` is Unix time."""
        return now - self.last < NEWS


class Clients:
    """
    All clients of all hosts: the limits that they share (rows F3 and F16).

    :ivar everyone: who is connected, the first one first.
    :ivar usual_size: bytes of a request at most for which there is nothing to count or to cut.
    :param room: returns how many the limit of open files allows; it is asked again when the
        settings change.
    :ivar requests: the memory that their large requests take: begun, sent ahead and under way.
    :ivar replies: the memory that the unfinished large answers of londs take.
    :ivar next_number: returns the number of a client that comes.
    :ivar refused: newcomers that were turned away because all places were taken.
    :ivar cut_off: those that lonc closed, for they broke a limit or made room.
    :ivar released: large requests and answers that ended because others needed their memory.
    :ivar now: the time of the last sweep: near enough for who has been silent longest.
    :ivar unread: clients that do not read their answers, or are to be closed when they have.
    :ivar unfinished: clients that began a line -> since when.
    :ivar leaving: clients that were turned away and have not gone yet -> since when.
    """

    def __init__(
        self,
        settings: Settings,
        clock: IReactorTime,
        room: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        self.settings = settings
        self._room_now = room
        self._room = room()
        self.usual_size = min(UNCOUNTED, settings.max_line)
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

    @property
    def open(self) -> int:
        """How many are connected."""
        return len(self.everyone)

    @property
    def unread_bytes(self) -> int:
        """Bytes of answers that clients do not read."""
        return self._unread_memory.used

    def reconfigure(self, settings: Settings) -> None:
        """Take over new settings; a lower limit is for what comes from now on."""
        self.settings = settings
        self._room = self._room_now()
        self.usual_size = min(UNCOUNTED, settings.max_line)
        self.requests.limit = self.replies.limit = settings.max_request_memory
        self._unread_memory.limit = settings.max_unread

    def allow_line(self, key: str, host_id: str) -> str | None:
        """Tell whether a line that clients can cause may be logged now; see `RateLimited.allow`."""
        return self._limited.allow(f"{key} {host_id}")

    def warn(self, key: str, host_id: str, what: str) -> None:
        """Log a warning that clients could repeat as often as they like."""
        more = self.allow_line(key, host_id)
        if more is not None:
            log.warn("{what}{more}", what=what, more=more, host_id=host_id)

    def admit(self, client: Client) -> bool:
        """Count a newcomer in; return whether there is a place for it."""
        self.everyone[client] = None
        count = len(self.everyone) - len(self.leaving)
        if count <= self.settings.max_clients and count <= self._room:  # each client passes here
            return True
        limit = min(self.settings.max_clients, self._room)
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
        """Let a client go on in the loop's next turn: it has had its share of this one."""
        self._held[client] = None
        if not self._turn_is_due:
            self._turn_is_due = True
            self._call_later(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn_is_due = False
        for client in list(islice(self._held, HELD_A_TURN)):
            del self._held[client]
            client.next_turn()
        if self._held and not self._turn_is_due:
            self.postpone(next(iter(self._held)))

    def note_unread(self, client: Client) -> None:
        """Count what did not fit into a client's socket, and begin its time limit."""
        self.unread[client] = unread = Unread(client, self.seconds())
        self._unread_memory.note(unread, unread.unsent)

    def note_read(self, client: Client) -> None:
        """Count it no more: the client has read it, or has gone."""
        unread = self.unread.pop(client, None)
        if unread is not None:
            self._unread_memory.note(unread, 0)

    def close_when_read(self, client: Client) -> None:
        """Begin the time limit of a client that is closed once it has read its last answer."""
        if client not in self.unread:
            self.unread[client] = Unread(client, self.seconds())

    def forget(self, client: Client) -> None:
        """Forget a client that has gone."""
        self.everyone.pop(client, None)
        if self.unread:
            self.note_read(client)
        if self.unfinished or self.leaving:
            self.unfinished.pop(client, None)
            self.leaving.pop(client, None)

    def problems(self, now: float) -> Iterator[Problem]:
        """
        Report shortages of places and of memory.

        :param now: Unix time.
        """
        places = min(self.settings.max_clients, self._room)
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
        """End the waits of clients that are over their time; called several times a second."""
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
    """Return those that have waited since before a time; the pairs are in the order of time."""
    late = []
    for client, began in since:
        if began > before:
            break
        late.append(client)
    return late
