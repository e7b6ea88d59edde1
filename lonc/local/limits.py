"""
The limits that all clients of all hosts share (rows F3 and F16).

Descriptors and memory are the process's and not a host's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lonc.config.settings import Settings
from lonc.local.memory import RequestMemory
from lonc.local.places import Places
from lonc.report.rate_limit import RateLimited
from lonc.wire.request import Cause

if TYPE_CHECKING:
    from lonc.local.protocol import ClientProtocol

#: Clients past the limit that are still read, so that they find their ``con_lost`` and no broken
#: pipe; more than that are closed at once.
TURNED_AWAY = 256

#: Lines of one client that are answered in one turn of the loop: some 50 µs, where each is answered
#: at once, as for a DEAD host.
LINES_A_TURN = 8

#: Clients that go on in one turn of the loop with what they sent ahead: 5 ms or so.
HELD_A_TURN = 128

log = Logger()


class Clients:
    """
    All clients of all hosts: the limits that they share (rows F3 and F16).

    :ivar everyone: who is connected, the first one first.
    :ivar room: how many the limit of open files allows.
    :ivar memory: what their requests take.
    :ivar refused: how many were turned away because all places were taken, and when one last was,
        in Unix time.
    :ivar now: the time of the last sweep: near enough for who has been silent longest.
    :ivar unread: clients that do not read their answers, the first one first -> when they last
        took a byte, how many bytes count against the budget, and how many were unsent then.
    :ivar unfinished: clients that began a line -> since when.
    :ivar leaving: clients that were turned away and have not gone yet -> since when.
    """

    def __init__(self, settings: Settings, clock: IReactorTime) -> None:
        self.settings = settings
        self._limited = RateLimited(clock, 10.0)
        self.seconds = clock.seconds
        self.everyone: dict[ClientProtocol, None] = {}
        self.memory = RequestMemory(settings.max_request_memory)
        self.now = clock.seconds()
        self.room = sys.maxsize
        self._counted = 0
        self.refused = 0
        self.last_refused = 0.0
        self._call_later = clock.callLater
        self._held: dict[ClientProtocol, None] = {}
        self._turn_is_due = False
        self._places: Places | None = None  # since the last sweep
        self.unread: dict[ClientProtocol, tuple[float, int, int]] = {}
        self.unread_bytes = 0
        self.unfinished: dict[ClientProtocol, float] = {}
        self.leaving: dict[ClientProtocol, float] = {}

    def count(self) -> int:
        """Return the number of a client that comes: they count from 1."""
        self._counted += 1
        return self._counted

    @property
    def open(self) -> int:
        """How many are connected."""
        return len(self.everyone)

    def reconfigure(self, settings: Settings) -> None:
        """Take over new settings; a lower limit is for what comes from now on."""
        self.settings = settings
        self.memory.limit = settings.max_request_memory

    def may_log(self, key: str, host_id: str) -> str | None:
        """
        Tell whether a line that clients can cause may be logged now: None, if not.

        :return: what it ends with: how many of them were left out.
        """
        left_out = self._limited.allow(f"{key} {host_id}")
        if left_out is None:
            return None
        return f" ({left_out} like this left out)" if left_out else ""

    def warn(self, key: str, host_id: str, what: str) -> None:
        """Log a warning that clients could repeat as often as they like."""
        more = self.may_log(key, host_id)
        if more is not None:
            log.warn("{what}{more}", what=what, more=more, host_id=host_id)

    def admit(self, client: ClientProtocol) -> bool:
        """Count a newcomer in; return whether there is a place for it."""
        self.everyone[client] = None
        limit = min(self.settings.max_clients, self.room)
        if len(self.everyone) - len(self.leaving) <= limit:
            return True
        if self._places is None:
            self._places = Places(each for each in self.everyone if each is not client)
        silent = self._places.make_room(client)
        if silent is None:
            self.refused += 1
            self.last_refused = time.time()
            self.warn(
                "max-clients", client.host_id, f"there are {limit} clients: another gets con_lost"
            )
            return False
        self.warn(
            "silent", silent.host_id, f"there are {limit} clients: one that is silent makes room"
        )
        silent.turn_away(Cause.TOO_MANY_CLIENTS)
        return True

    def hold(self, client: ClientProtocol) -> None:
        """Let a client go on in the loop's next turn: it has had its share of this one."""
        self._held[client] = None
        if not self._turn_is_due:
            self._turn_is_due = True
            self._call_later(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn_is_due = False
        for client in list(islice(self._held, HELD_A_TURN)):
            if client in self._held:  # those before it may have ended it
                del self._held[client]
                client.next_turn()
        if self._held and not self._turn_is_due:
            self.hold(next(iter(self._held)))

    def note_unread(self, client: ClientProtocol, size: int) -> None:
        """So much of an answer does not fit into the client's socket; keep to the budget."""
        self.unread[client] = (self.seconds(), size, client.unsent)
        self.unread_bytes += size
        while self.unread_bytes > self.settings.max_unread and len(self.unread) > 1:
            slowest = next(iter(self.unread))
            slowest.cut("its answers are not read and the memory for such answers is used up")

    def note_read(self, client: ClientProtocol) -> None:
        """The client has read what waited for it, or has gone."""
        _, size, _ = self.unread.pop(client, (0.0, 0, 0))
        self.unread_bytes -= size

    def forget(self, client: ClientProtocol) -> None:
        """Forget a client that has gone."""
        self.everyone.pop(client, None)
        self._held.pop(client, None)
        self.note_read(client)
        self.unfinished.pop(client, None)
        self.leaving.pop(client, None)

    def sweep(self, now: float) -> None:
        """End the waits of clients that are over their time; called several times a second."""
        self.now = now
        self._places = None
        limit = self.settings.write_timeout
        for client, (since, size, before) in list(self.unread.items()):
            if (unsent := client.unsent) < before:
                read = before - unsent
                self.unread[client] = (now, size - read, unsent)  # it reads, slowly
                self.unread_bytes -= read
            elif since <= now - limit:
                client.cut(f"it has not read its answer for {limit:g} s")
        for client in overdue(self.unfinished.items(), now - limit):
            client.give_up_line(f"it has not ended its request for {limit:g} s", Cause.TIMEOUT)
        for client in overdue(self.leaving.items(), now - self.settings.drain_timeout):
            client.transport.abortConnection()


def overdue(since: Iterable[tuple[ClientProtocol, float]], before: float) -> list[ClientProtocol]:
    """Return those that have waited since before a time; the pairs are in the order of time."""
    late = []
    for client, began in since:
        if began > before:
            break
        late.append(client)
    return late
