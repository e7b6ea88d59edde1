"""
Delayed requests and their hosts: what is remembered from one scan of the folder to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from lonc.disk.files import Stamp

#: Seconds without a change after which a file is whole without a newline at its end (F7).
STILL = 2.0

#: Seconds from a file's discovery to its request's way out. lonnet looks after a pause of up to
#: two seconds whether what it wrote is there; were it gone, it would tell its caller con_failed.
READ_BACK = 2.5


@attrs.define
class FileAges:
    """
    Since when files in the clear are there, and in the state in which they are.

    All by lonc's own clock: a file's time stamp is the wall clock's, which may be set meanwhile.
    """

    _seen: dict[str, float] = attrs.field(factory=dict)
    _growing: dict[str, tuple[Stamp, float]] = attrs.field(factory=dict)

    def found(self, names: AbstractSet[str], now: float) -> None:
        """Take over what a scan found, and forget what has gone."""
        self._seen = {name: self._seen.get(name, now) for name in names}
        self._growing = {name: x for name, x in self._growing.items() if name in names}

    def is_ripe(self, name: str, now: float) -> bool:
        """Return whether a request may go its way; one that is sealed already always may."""
        return name not in self._seen or now >= self._seen[name] + READ_BACK

    def still(self, name: str, now: float) -> Stamp | None:
        """Return the state that a file has had for long enough to be whole, if it has."""
        stamp, since = self._growing.get(name, (None, now))
        return stamp if now - since >= STILL else None

    def knows(self, name: str, stamp: Stamp) -> bool:
        """Return whether a file is watched already in this state."""
        return name in self._growing and self._growing[name][0] == stamp

    def watch(self, stamps: Mapping[str, Stamp], now: float) -> None:
        """Watch files that may not be whole, from the time on when they were seen as they are."""
        for name, stamp in stamps.items():
            if not self.knows(name, stamp):
                self._growing[name] = (stamp, now)


class Sender(Protocol):
    """What takes requests for one host: a :class:`lonc.host.service.HostService`."""

    @property
    def alive(self) -> bool:
        """Whether a request has a chance; false while the host is DEAD."""

    def ask(self, line: bytes) -> Deferred[bytes]:
        """Fire with the answer and its newline; fail with :exc:`lonc.wire.request.ConLost`."""


@attrs.define
class DelayedQueue:
    """
    One host's requests.

    :ivar waiting: names of the last scan that are still to be looked at, the first at the end.
    :ivar busy: whether one of them is under way.
    :ivar current: which one, or the last one that was.
    :ivar pause: how long the last failure made us wait; 0.0 after a success.
    :ivar not_before: when the next one may be tried.
    :ivar answered: how to clear away what has its answer, and must not be sent again.
    :ivar tries: how often a request was sent, or tried to be, and what came of it last.
    :ivar skipped: when to look again at files that could not be deleted or moved.
    """

    host_id: str
    waiting: list[str] = attrs.field(factory=list)
    busy: bool = False
    current: str = ""
    pause: float = 0.0
    not_before: float = 0.0
    answered: dict[str, Callable[[], object]] = attrs.field(factory=dict)
    skipped: dict[str, float] = attrs.field(factory=dict)
    tries: dict[str, tuple[int, str]] = attrs.field(factory=dict)

    def found(self, names: Sequence[str]) -> None:
        """Take over what a scan found, and forget what has gone."""
        self.waiting = list(reversed(names))
        there = set(names)
        self.answered = {name: x for name, x in self.answered.items() if name in there}
        self.skipped = {name: x for name, x in self.skipped.items() if name in there}
        self.tries = {name: x for name, x in self.tries.items() if name in there}

    def tried(self, name: str, outcome: str) -> None:
        """Note how an attempt to send a request ended."""
        self.tries[name] = (self.tries.get(name, (0, ""))[0] + 1, outcome)

    def has_in_hand(self, name: str) -> bool:
        """Return whether a request is being dealt with, or has its answer."""
        return name in self.answered or (self.busy and name == self.current)
