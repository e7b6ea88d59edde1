# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
The AMP commands for a running lonc, and the errors they end with (row S18).

Wherever a command takes a ``host``, an empty one means all hosts. Every command can fail with
:class:`InternalError`; what else it can fail with stands in its ``errors``. Each error's text is
one line for a person.

AMP ends a value at 65,535 bytes, and a list is one value: hosts come in pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, cast

import attrs
from twisted.protocols import amp

from lonc.control.access import Level
from lonc.control.errors import (
    BadArguments,
    BadLevel,
    InternalError,
    NotAllowed,
    NotDone,
    ReloadFailed,
    ReportFailed,
    UnknownFile,
    UnknownHost,
)
from lonc.report.problems import Problem
from lonc.report.records import (
    ClientStatus,
    ConnectionStatus,
    DelayedStatus,
    RequestRecord,
    SettingStatus,
)
from lonc.report.status import DaemonStatus, HostStatus

#: Bytes of a page: it takes some 10 ms to make, and others are served before the next one. One row
#: always fits into a value of AMP.
PAGE: Final = 16_384

K = TypeVar("K", int, str)
T = TypeVar("T")


class BoundedAMP(amp.AMP):
    """
    AMP that ends a connection at the first box that it has no room for, on both sides.

    :cvar longest_box: bytes of a box at most, keys and values together. A key ends at 255, and AMP
        itself has no bound for a box.
    """

    longest_box: int
    transport: Any
    paused: bool
    _currentKey: bytes
    _box_size = 0

    def refuse(self, why: str) -> None:
        """End the connection: the other side does not speak AMP as lonc does."""
        self.paused = True  # nothing that has come is looked at any more
        if self.transport is not None:
            self.transport.abortConnection()

    def proto_value(self, string: bytes) -> str:
        """Take a value of a box."""
        self._box_size += len(self._currentKey) + len(string)
        if self._box_size > self.longest_box:
            self.refuse(f"a box is longer than {self.longest_box} bytes")
        state: str = super().proto_value(string)
        return state

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Take a whole box."""
        self._box_size = 0
        super().ampBoxReceived(box)

    def lengthLimitExceeded(self, length: int) -> None:
        """Keys end at 255 bytes; text in any other protocol looks like a longer one."""
        self.refuse(f"this is not AMP: a key of {length} bytes")


class _Json(amp.Argument):
    """An argument of any form, as JSON: AMP has no type for it."""

    def toString(self, inObject: object) -> bytes:
        return json.dumps(inObject).encode()

    def fromString(self, inString: bytes) -> object:
        return json.loads(inString)


class _Number(amp.Float):
    """A float; whole numbers are taken too, as they are everywhere in Python."""

    def toString(self, inObject: float) -> bytes:
        data: bytes = super().toString(float(inObject))
        return data


_ARGUMENTS: dict[object, type[amp.Argument]] = {
    str: amp.Unicode,
    int: amp.Integer,
    float: _Number,
    bool: amp.Boolean,
}


def _fields(record: type[attrs.AttrsInstance]) -> list[tuple[bytes, amp.Argument]]:
    """Put a record on the wire under the names of its fields, so that a new field travels too."""
    fields = attrs.fields(attrs.resolve_types(record))
    return [(field.name.encode(), _ARGUMENTS.get(field.type, _Json)()) for field in fields]


#: A page of hosts.
HOSTS = amp.AmpList(_fields(HostStatus))
_MESSAGE = (b"message", amp.Unicode())


class ManagementCommand(amp.Command):
    """
    What all commands share.

    :cvar level: who may give it: who steers, unless it says otherwise.
    """

    level = Level.STEER

    errors = {
        InternalError: b"INTERNAL_ERROR",
        NotAllowed: b"NOT_ALLOWED",
        BadArguments: b"BAD_ARGUMENTS",
        NotDone: b"NOT_DONE",
    }

    @classmethod
    def parseArguments(cls, box: amp.AmpBox, protocol: amp.AMP) -> dict[str, object]:
        """
        Return the arguments of a command that has come.

        :raises lonc.control.errors.BadArguments: one is missing, or not of its type.
        """
        try:
            arguments: dict[str, object] = super().parseArguments(box, protocol)
        except Exception as error:  # AMP's types raise whatever they come across
            what = f"{cls.__name__} has not the arguments that it takes"
            raise BadArguments(f"{what} ({type(error).__name__})") from error
        return arguments

    @classmethod
    def page(cls, rows: Iterable[attrs.AttrsInstance]) -> dict[str, object]:
        """Return an answer with the rows that fit into a page, and whether there are more."""
        name, _ = cls.response[0]
        fitting, more = cls.fitting(rows)
        return {name.decode(): fitting, "more": more}

    @classmethod
    def fitting(cls, rows: Iterable[attrs.AttrsInstance]) -> tuple[list[dict[str, object]], bool]:
        """
        Return as many rows as fit into a page, one at least, and whether there are more.

        The command has a list of rows first in its response, and ``more`` second.

        :param rows: made one by one, as far as they are needed.
        """
        _, argument = cls.response[0]
        page: list[dict[str, object]] = []
        size = 0
        for row in rows:
            fields = attrs.asdict(row, recurse=False)
            size += len(argument.toStringProto([fields], None))
            if size > PAGE and page:
                return page, True
            page.append(fields)
        return page, False


def rows_after(rows: Mapping[K, T], after: object) -> list[T]:
    """
    Return the values whose keys are greater than one, in the order of their keys.

    A key stays a row's own while others come and go, so none is hidden or repeated.

    :param after: the key of the last row of the page before; None for the first page.
    :raises BadArguments: it cannot be compared with the keys.
    """
    last = cast("K | None", after)
    try:
        return [rows[key] for key in sorted(key for key in rows if last is None or key > last)]
    except TypeError:
        raise BadArguments(f"after is no key of these rows: {after!r}") from None


class _HostCommand(ManagementCommand):
    """A command for one host, or for all."""

    arguments = [(b"host", amp.Unicode())]
    errors = {UnknownHost: b"UNKNOWN_HOST"}


class _FileCommand(ManagementCommand):
    """A command for one delayed request."""

    arguments = [(b"file", amp.Unicode())]
    errors = {UnknownFile: b"UNKNOWN_FILE"}


class About(ManagementCommand):
    """Report on the daemon: the fields of :class:`lonc.report.status.DaemonStatus`."""

    level = Level.SEE
    response = _fields(DaemonStatus)


class ListHosts(ManagementCommand):
    """
    Report on the hosts, in the order of their ids, one page at a time.

    ``after`` is the last host id of the page before, or empty. A host that comes or goes between
    two pages neither repeats nor hides another. ``more`` tells whether a next page would have any.
    """

    level = Level.SEE
    arguments = [(b"after", amp.Unicode())]
    response = [(b"hosts", HOSTS), (b"more", amp.Boolean())]


class Report(_HostCommand):
    """Write the status file. It is one file for all hosts, and always written as a whole."""

    errors = {ReportFailed: b"REPORT_FAILED"}


class ResetRetries(_HostCommand):
    """Give a host its retries back: a DEAD one is tried again with the next request."""


class CloseConnections(_HostCommand):
    """Close a host's connections and start afresh, as ``close_connection_exit`` does."""


class SetDebugLevel(_HostCommand):
    """Set a host's debug level: 0 is off, 9 is all there is (row S20)."""

    arguments = [*_HostCommand.arguments, (b"level", amp.Integer())]
    errors = {BadLevel: b"BAD_LEVEL"}


class Pause(_HostCommand):
    """
    Let a host's requests wait, or fail at once; answered when nothing is in flight any more.

    ``seconds`` is how long, 0.0 for until :class:`Resume`; ``by`` whoever wants it, for people.
    The queue timeout goes on.
    """

    arguments = [
        *_HostCommand.arguments,
        (b"by", amp.Unicode()),
        (b"reason", amp.Unicode()),
        (b"seconds", _Number()),
        (b"fail", amp.Boolean()),
    ]


class Resume(_HostCommand):
    """End a host's pause."""


class RereadTable(ManagementCommand):
    """Read the host table again, as USR2 does; answered once it is done."""

    response = [_MESSAGE]
    errors = {ReloadFailed: b"RELOAD_FAILED"}


class Reload(ManagementCommand):
    """Read the configuration and the host table again, as HUP does; answered once it is done."""

    response = [_MESSAGE]
    errors = {ReloadFailed: b"RELOAD_FAILED"}


class Stop(ManagementCommand):
    """Stop lonc, as TERM does; answered before it begins."""


class HandOver(ManagementCommand):
    """
    Be ready to hand everything over to a new process: :mod:`lonc.daemon.takeover`.

    It ends the delayed work first. ``path`` is the socket that the new process has to come to.
    """

    response = [(b"path", amp.Unicode())]


class Listing(_HostCommand):
    """
    Rows of one kind, in the order of their first field, one page at a time.

    ``after`` is that field of the last row of the page before, or null. ``more`` tells whether a
    next page would have any. An empty ``host`` means all.
    """

    level = Level.SEE
    arguments = [*_HostCommand.arguments, (b"after", _Json())]


def _listing(kind: type[attrs.AttrsInstance]) -> list[tuple[bytes, amp.Argument]]:
    return [(b"rows", amp.AmpList(_fields(kind))), (b"more", amp.Boolean())]


class ListClients(Listing):
    """The open client connections: :class:`lonc.report.records.ClientStatus`."""

    response = _listing(ClientStatus)


class ListConnections(Listing):
    """The connections to londs: :class:`lonc.report.records.ConnectionStatus`."""

    response = _listing(ConnectionStatus)


class ListSlow(Listing):
    """The slowest requests of late: :class:`lonc.report.records.RequestRecord`."""

    response = _listing(RequestRecord)


class ListProblems(Listing):
    """What is wrong now: :class:`lonc.report.problems.Problem`, in the order of their beginning."""

    response = _listing(Problem)


class ListSettings(Listing):
    """The settings in force: :class:`lonc.report.records.SettingStatus`; ``host`` is nothing."""

    response = _listing(SettingStatus)


class ListDelayed(Listing):
    """Delayed requests, those kept too: :class:`lonc.report.records.DelayedStatus`."""

    response = _listing(DelayedStatus)


class Trace(Listing):
    """
    Requests as they end: :class:`lonc.report.records.RequestRecord`.

    The first call begins it, for this connection alone, and has no rows; a further one is answered
    as soon as there are any, or after a second. ``contents`` adds the requests' lines: the owner
    may. The latest 1,000 are held for who is slow to ask.
    """

    arguments = [*Listing.arguments, (b"contents", amp.Boolean())]
    response = _listing(RequestRecord)


class ShowDelayed(_FileCommand):
    """
    Give what is in a delayed request, deciphered where it is sealed: the owner may.

    ``more`` tells whether it goes on behind what fits into an answer.
    """

    level = Level.OWN
    response = [(b"content", amp.String()), (b"more", amp.Boolean())]


class RetryDelayed(_HostCommand):
    """Try a host's delayed requests now."""


class DropDelayed(_FileCommand):
    """Delete a delayed request, or one that is kept, and what stands beside it."""


class RequeueDelayed(_FileCommand):
    """Put a kept request back among those that are sent."""
