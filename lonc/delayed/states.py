"""
The record of a delayed request, its states, and the queue of a host.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol, TypedDict

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from lonc.delayed.names import SEALED, SEALED_FOLDER, host_of_file, name_of
from lonc.delayed.spool import Spool
from lonc.disk.files import Files, Stamp
from lonc.wire.request import Provable

#: Seconds without a change after which a file without a newline at its end is complete (F7).
STILL: Final = 2.0

#: Seconds from the discovery of a file until it may be moved or sent. lonnet reads back what it
#: wrote after up to two seconds; if the file were gone, it would return con_failed to its caller.
READ_BACK: Final = 2.5


class State(Enum):
    """The state of a delayed request."""

    FOUND = "found"  #: where programs store requests; left alone until it was read back
    GROWING = "growing"  #: it may still be being written
    WHOLE = "whole"  #: to be sent from where it is
    SEALED = "sealed"  #: to be sent from the folder of sealed requests
    SENDING = "sending"  #: submitted, and waiting for its answer
    ANSWERED = "answered"  #: answered, but the connection may be out of step
    PROVEN = "proven"  #: the answer is valid: to be deleted or set aside
    SKIPPED = "skipped"  #: it cannot be sent: to be set aside
    KEPT = "kept"  #: it was set aside
    GONE = "gone"  #: it was deleted


def _states(names: str) -> frozenset[State]:
    return frozenset(map(State, names.split()))


#: The possible transitions; ``docs/architecture.rst`` explains them.
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
    """Sends requests to one host: a :class:`lonc.host.service.HostService`."""

    @property
    def alive(self) -> bool:
        """Whether requests can be sent; false while the host is DEAD."""

    def deliver(self, line: bytes, fresh: bool) -> Deferred[tuple[bytes, Provable | None]]:
        """
        Send a delayed request.

        :param line: the request with its newline.
        :param fresh: whether it must be the first one on its connection.
        :return: fires with the answer and its newline, and with the connection that must be
            proven before the answer is valid; None if it is valid already, because the request was
            the first one on its connection. Fails with :exc:`lonc.wire.request.ConLost`.
        """


class Answered(TypedDict):
    """
    What another process needs to know so that it does not send a request again, as JSON.

    ``files`` has inode, size and modification time of each; for the rest see `StoredRequest`.
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
    :param clock: the reactor's clock.
    :ivar found: when it was found, in the reactor's time.
    :ivar moved: when it entered its state.
    :ivar stamp: in the state GROWING, the state of the file when it was last checked.
    :ivar busy: whether it is being processed.
    :ivar again: when to try a failed disk operation again; 0.0 if none has failed.
    :ivar files: the files to be removed: its own in the state in which it was read, and possibly
        another form of it.
    :ivar ending: the ending of the note's name if it is to be set aside; empty if it is to be
        deleted.
    :ivar note: the answer, or why it cannot be sent.
    :ivar line: the request, until it has a proven answer.
    :ivar connection: the connection that must be proven before its answer is valid.
    :ivar doubted: whether a proof has failed: then it is sent on a new connection.
    :ivar tries: number of failed attempts to send it.
    :ivar outcome: result of the last one.
    """

    spool: Spool
    file: str
    _clock: IReactorTime
    found: float = attrs.field(init=False)
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
        self.state = self.first_state
        self.found = self.moved = self._clock.seconds()

    @property
    def first_state(self) -> State:
        """Its state when it is found."""
        return State.SEALED if self.file.startswith(SEALED_FOLDER) else State.FOUND

    @property
    def ready_state(self) -> State:
        """Its state when it may be sent."""
        return State.SEALED if self.file.startswith(SEALED_FOLDER) else State.WHOLE

    @property
    def is_locked(self) -> bool:
        """Whether it is sealed and there is no key."""
        return self.file.endswith(SEALED) and self.spool.key is None

    @property
    def host_id(self) -> str:
        """The host it is for."""
        return host_of_file(self.file) or ""

    @property
    def path(self) -> str:
        """Its absolute path."""
        return self.spool.path(self.file)

    @property
    def paths(self) -> list[str]:
        """Its absolute path, and that of its other form if there is one."""
        return [self.spool.path(file) for file in dict.fromkeys([self.file, *self.files])]

    def move(self, state: State) -> None:
        """Change the state."""
        assert state in MOVES[self.state], f"{self.file}: from {self.state} to {state}"
        self.state, self.moved = state, self._clock.seconds()

    def forget_answer(self, state: State) -> None:
        """Discard its answer, which is not valid, and return to an earlier state."""
        self.ending, self.note, self.line, self.again = "", b"", b"", 0.0
        self.connection = None
        self.move(state)

    def note_sealed(self, form: str) -> None:
        """Record that its file was replaced by a sealed form."""
        self.file, self.again = form, 0.0
        self.move(State.SEALED)

    def is_ripe(self) -> bool:
        """Return whether it may be moved or sent."""
        is_sealed = self.first_state is State.SEALED
        return is_sealed or self._clock.seconds() >= self.found + READ_BACK

    def note_growth(self, stamp: Stamp) -> None:
        """Record the state of a file that may be incomplete, to see how long it stays unchanged."""
        if self.state is not State.GROWING:
            self.move(State.GROWING)
        elif stamp == self.stamp:
            return
        self.stamp, self.moved = stamp, self._clock.seconds()

    def settled_stamp(self) -> Stamp | None:
        """Return the state in which it was unchanged for long enough to be complete, or None."""
        is_still = self._clock.seconds() - self.moved >= STILL
        return self.stamp if self.state is State.GROWING and is_still else None

    def clear(self) -> None:
        """
        Delete it, or set it aside with its note; this blocks.

        :raises lonc.disk.files.Changed: it was written to since it was read.
        :raises OSError: that failed.
        """
        if self.ending:
            self.spool.set_aside(self.files, self.ending, self.note)
        else:
            self.spool.remove(self.files)

    # ------------------------------------------------------------------ for another process

    def as_dict(self) -> Answered:
        """Return what another process needs to know so that it does not send it again, as JSON."""
        return {
            "file": self.file,
            "files": {x: (s.inode, s.size, s.mtime_ns) for x, s in self.files.items()},
            "ending": self.ending,
            "note": self.note.decode("latin-1"),
        }

    def restore(self, fields: Answered) -> None:
        """Restore the state from another process; raises KeyError and the like for a wrong dict."""
        self.files = {file: Stamp(*stamp) for file, stamp in fields["files"].items()}
        self.ending, self.note = fields["ending"], fields["note"].encode("latin-1")
        self.state = State.PROVEN


@attrs.define(eq=False)
class DelayedQueue:
    """
    The requests of one host.

    :ivar requests: those of the last scan, in the order in which they are sent, and those that
        are still being processed although their files are elsewhere.
    :ivar waiting: those still to be processed, with the first one at the end.
    :ivar unproven: those with an unproven answer, in the order in which they were sent.
    :ivar proving: connections that are being proven.
    :ivar busy: whether one of them is being processed.
    :ivar overtaken: whether an earlier one must be sent again, so that the current one must wait or
        be sent again as well.
    :ivar pause: pause after the last failure, in seconds; 0.0 after a success.
    :ivar not_before: time before which the next one may not be tried.
    :ivar proved: when the last proof was begun.
    """

    host_id: str
    requests: list[StoredRequest] = attrs.field(factory=list)
    waiting: list[StoredRequest] = attrs.field(factory=list)
    unproven: list[StoredRequest] = attrs.field(factory=list)
    proving: list[Provable] = attrs.field(factory=list)
    busy: bool = False
    overtaken: bool = False
    pause: float = 0.0
    not_before: float = 0.0
    proved: float = float("-inf")

    def refill(self, has_key: bool) -> None:
        """Process all of them again; those that exist sealed only with a key."""
        sealed = (each.file for each in self.requests if each.file.endswith(SEALED))
        locked = frozenset() if has_key else frozenset(map(name_of, sealed))
        self.waiting = [x for x in reversed(self.requests) if name_of(x.file) not in locked]
