"""
What is known of each file of a delayed request, and the states that it goes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol, TypedDict

import attrs
from twisted.internet.defer import Deferred

from lonc.delayed.names import SEALED_FOLDER, host_of_file
from lonc.delayed.sealing import SEALED
from lonc.delayed.spool import Spool
from lonc.disk.files import Files, Stamp
from lonc.wire.request import Provable

#: Seconds without a change after which a file is whole without a newline at its end (F7).
STILL: Final = 2.0

#: Seconds from a file's discovery to its being moved or sent. lonnet looks after a pause of up to
#: two seconds whether what it wrote is there; were it gone, it would tell its caller con_failed.
READ_BACK: Final = 2.5


class State(Enum):
    """How far a file has come."""

    FOUND = "found"  #: where programs store requests, and left alone until it was read back
    GROWING = "growing"  #: it may still be being written
    WHOLE = "whole"  #: to be sent from where it is
    SEALED = "sealed"  #: to be sent from the folder of sealed ones
    SENDING = "sending"  #: the request waits for its answer
    ANSWERED = "answered"  #: the answer is there, but its connection may be out of step
    PROVEN = "proven"  #: the answer counts: the file is to be deleted or set aside
    SKIPPED = "skipped"  #: it cannot be sent: the file is to be set aside
    KEPT = "kept"  #: it was set aside
    GONE = "gone"  #: it was deleted


def _states(names: str) -> frozenset[State]:
    return frozenset(map(State, names.split()))


#: From each state to which others. ``docs/architecture.rst`` says when.
MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.FOUND: _states("growing whole sealed proven skipped gone"),
    State.GROWING: _states("whole sealed proven skipped gone"),
    State.WHOLE: _states("growing sealed proven sending skipped gone"),
    State.SEALED: _states("sending skipped gone"),
    State.SENDING: _states("answered whole sealed skipped"),
    State.ANSWERED: _states("proven whole sealed"),
    State.PROVEN: _states("kept gone found sealed"),
    State.SKIPPED: _states("kept gone found sealed"),
    State.KEPT: frozenset(),
    State.GONE: frozenset(),
}


class Sender(Protocol):
    """What takes requests for one host: a :class:`lonc.host.service.HostService`."""

    @property
    def alive(self) -> bool:
        """Whether a request has a chance; false while the host is DEAD."""

    def deliver(self, line: bytes, fresh: bool) -> Deferred[tuple[bytes, Provable | None]]:
        """
        Send a request that must not be lost.

        :param line: with its newline.
        :param fresh: whether it has to be the first one on its connection.
        :return: fires with the answer and its newline, and with the connection that has to be
            proven before the answer counts, None where it counts already: it was the first one on
            its connection. Fails with :exc:`lonc.wire.request.ConLost`.
        """


class Answered(TypedDict):
    """
    What another process has to know so as not to send a request again; JSON can hold it.

    ``files`` has inode, size and time of change of each; for the rest see `StoredRequest`.
    """

    file: str
    files: dict[str, tuple[int, int, int]]
    ending: str
    note: str


@attrs.define(eq=False)
class StoredRequest:
    """
    A file with a delayed request.

    :ivar file: its path below the folder.
    :ivar found: when it was found, in seconds of the reactor's clock.
    :ivar moved: when it came into its state.
    :ivar stamp: while it grows: how it was when it was looked at last, for the first time.
    :ivar busy: whether something is being done with it.
    :ivar again: when to try again what could not be done on the disk; 0.0 where nothing failed.
    :ivar files: what is to be cleared away: itself as it was read, and perhaps another form of it.
    :ivar ending: with which name the note stands beside it when it is set aside; empty: it is
        deleted.
    :ivar note: the answer, or why it cannot be sent.
    :ivar line: the request, while it waits for its answer, or for this to count.
    :ivar connection: what has to be proven before its answer counts.
    :ivar doubted: whether that has failed once: it goes out on a fresh connection.
    :ivar tries: how often it was sent, or tried to be.
    :ivar outcome: what came of that last.
    """

    spool: Spool
    file: str
    found: float
    moved: float = attrs.field(init=False)
    state: State = attrs.field(init=False)
    stamp: Stamp | None = None
    busy: bool = False
    again: float = 0.0
    files: Files = attrs.field(factory=dict)
    ending: str = ""
    note: bytes = b""
    line: bytes = b""
    connection: Provable | None = None
    doubted: bool = False
    tries: int = 0
    outcome: str = ""

    def __attrs_post_init__(self) -> None:
        self.state, self.moved = self.first_state, self.found

    @property
    def first_state(self) -> State:
        """The state in which it is found."""
        return State.SEALED if self.file.startswith(SEALED_FOLDER) else State.FOUND

    @property
    def ready_state(self) -> State:
        """The state in which it may be sent."""
        return State.SEALED if self.file.startswith(SEALED_FOLDER) else State.WHOLE

    @property
    def is_locked(self) -> bool:
        """Whether it is sealed and there is no key."""
        return self.file.endswith(SEALED) and self.spool.key is None

    @property
    def host_id(self) -> str:
        """Whom it is for."""
        return host_of_file(self.file) or ""

    @property
    def path(self) -> str:
        """Where it is."""
        return self.spool.path(self.file)

    @property
    def paths(self) -> list[str]:
        """Where it is, and its other form if there is one."""
        return [self.spool.path(file) for file in dict.fromkeys([self.file, *self.files])]

    def move(self, state: State, now: float) -> None:
        """Go on to another state."""
        assert state in MOVES[self.state], f"{self.file}: from {self.state} to {state}"
        self.state, self.moved = state, now

    def forget_answer(self, state: State, now: float) -> None:
        """Begin again from a state: its answer does not count, or was that to another request."""
        self.ending, self.note, self.line, self.again = "", b"", b"", 0.0
        self.connection = None
        self.move(state, now)

    def note_sealed(self, form: str, now: float) -> None:
        """Its sealed form has taken its place."""
        self.file, self.again = form, 0.0
        self.move(State.SEALED, now)

    def is_ripe(self, now: float) -> bool:
        """Return whether it may be moved or sent."""
        return self.first_state is State.SEALED or now >= self.found + READ_BACK

    def note_growth(self, stamp: Stamp, now: float) -> None:
        """It may not be whole: time how long it stays as it is."""
        if self.state is not State.GROWING:
            self.move(State.GROWING, now)
        elif stamp == self.stamp:
            return
        self.stamp, self.moved = stamp, now

    def settled_stamp(self, now: float) -> Stamp | None:
        """Return the state in which it has been for long enough to be whole, if it has."""
        is_still = self.state is State.GROWING and now - self.moved >= STILL
        return self.stamp if is_still else None

    def clear(self) -> None:
        """
        Delete it, or set it aside with its note; this blocks.

        :raise lonc.disk.files.Changed: somebody has written to it since it was read.
        :raise OSError: it cannot be done.
        """
        if self.ending:
            self.spool.set_aside(self.files, self.ending, self.note)
        else:
            self.spool.remove(self.files)

    # ------------------------------------------------------------------ for another process

    def as_dict(self) -> Answered:
        """Return what another process has to know so as not to send it again; JSON can hold it."""
        return {
            "file": self.file,
            "files": {x: (s.inode, s.size, s.mtime_ns) for x, s in self.files.items()},
            "ending": self.ending,
            "note": self.note.decode("latin-1"),
        }

    def restore(self, fields: Answered, now: float) -> None:
        """Go on where another process had to leave it; errors as those of a wrong dict."""
        self.files = {file: Stamp(*stamp) for file, stamp in fields["files"].items()}
        self.ending, self.note = fields["ending"], fields["note"].encode("latin-1")
        self.state, self.moved = State.PROVEN, now
