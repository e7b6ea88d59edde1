# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
The AMP commands for a running lonc, and the errors they end with (row S18).

An empty ``host`` means all hosts. Every command can fail with :class:`InternalError`, and with the
errors in its ``errors``. The text of an error is a readable line.

An AMP value has at most 65,535 bytes, and a list is one value, so lists are sent in pages.
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

#: Size of a page in bytes: it takes about 10 ms to generate, and others are served before the next
#: one. A single row always fits into an AMP value.
PAGE: Final = 16_384

K = TypeVar("K", int, str)
T = TypeVar("T")


class BoundedAMP(amp.AMP):
    """
    AMP with a limit on the size of a box, for both sides.

    :cvar longest_box: maximum size of a box in bytes, keys and values together. AMP itself only
        limits keys, to 255 bytes, and values.
    """

    longest_box: int
    transport: Any
    paused: bool
    _currentKey: bytes
    _box_size = 0

    def refuse(self, why: str) -> None:
        """Close the connection, because of a violation of the protocol."""
        self.paused = True  # ignore data that was already received
        if self.transport is not None:
            self.transport.abortConnection()

    def proto_value(self, string: bytes) -> str:
        """Handle a value of a box."""
        self._box_size += len(self._currentKey) + len(string)
        if self._box_size > self.longest_box:
            self.refuse(f"a box is longer than {self.longest_box} bytes")
        state: str = super().proto_value(string)
        return state

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Handle a complete box."""
        self._box_size = 0
        super().ampBoxReceived(box)

    def lengthLimitExceeded(self, length: int) -> None:
        """Refuse a key of more than 255 bytes, which other protocols look like."""
        self.refuse(f"this is not AMP: a key of {length} bytes")


class _Json(amp.Argument):
    """An argument of any type, as JSON."""

    def toString(self, inObject: object) -> bytes:
        return json.dumps(inObject).encode()

    def fromString(self, inString: bytes) -> object:
        return json.loads(inString)


class _Number(amp.Float):
    """A float; integers are accepted too."""

    def toString(self, inObject: float) -> bytes:
        data: bytes = super().toString(float(inObject))
        return data


_ARGUMENTS: dict[object, type[amp.Argument]] = {
    str: amp.Unicode,
    int: amp.Integer,
    float: _Number,
    bool: amp.Boolean,
}


_Fields = list[tuple[bytes, amp.Argument]]


def _fields(record: type[attrs.AttrsInstance]) -> _Fields:
    """Return AMP arguments for all fields of a record, under their names."""
    fields = attrs.fields(attrs.resolve_types(record))
    return [(field.name.encode(), _ARGUMENTS.get(field.type, _Json)()) for field in fields]


def _listing(record: type[attrs.AttrsInstance], name: bytes = b"rows") -> _Fields:
    return [(name, amp.AmpList(_fields(record))), (b"more", amp.Boolean())]


_MESSAGE = (b"message", amp.Unicode())


class ManagementCommand(amp.Command):
    """
    Base class of all commands.

    :cvar level: the required access level.
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
        Parse the arguments of a received command.

        :raises lonc.control.errors.BadArguments: one is missing, or has the wrong type.
        """
        try:
            arguments: dict[str, object] = super().parseArguments(box, protocol)
        except Exception as error:  # AMP's types raise any exception
            what = f"{cls.__name__} has wrong arguments"
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
        Return as many rows as fit into a page, at least one, and whether there are more.

        The response of the command must have a list of rows first, and ``more`` second.

        :param rows: consumed only as far as needed.
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
    Return the values whose keys are greater than ``after``, sorted by key.

    Keys identify rows while others are added and removed, so no row is skipped or repeated.

    :param after: the key of the last row of the previous page; None for the first page.
    :raises BadArguments: it cannot be compared with the keys.
    """
    last = cast("K | None", after)
    try:
        return [rows[key] for key in sorted(key for key in rows if last is None or key > last)]
    except TypeError:
        raise BadArguments(f"after is not a key of these rows: {after!r}") from None


class _HostCommand(ManagementCommand):
    """A command for one host, or for all."""

    arguments = [(b"host", amp.Unicode())]
    errors = {UnknownHost: b"UNKNOWN_HOST"}


class _FileCommand(ManagementCommand):
    """A command for one delayed request."""

    arguments = [(b"file", amp.Unicode())]
    errors = {UnknownFile: b"UNKNOWN_FILE"}


class About(ManagementCommand):
    """The status of the daemon: :class:`lonc.report.status.DaemonStatus`."""

    level = Level.SEE
    response = _fields(DaemonStatus)


class ListHosts(ManagementCommand):
    """
    The status of the hosts, in the order of their ids, one page at a time.

    ``after`` is the last host id of the previous page, or empty. A host that is added or removed
    between two pages causes no repetition or omission. ``more`` is whether there is another page.
    """

    level = Level.SEE
    arguments = [(b"after", amp.Unicode())]
    response = _listing(HostStatus, b"hosts")


class Report(_HostCommand):
    """Write the status file, which always contains all hosts."""

    errors = {ReportFailed: b"REPORT_FAILED"}


class ResetRetries(_HostCommand):
    """Restore a host's retries: a DEAD one becomes unproven and is probed at once."""


class CloseConnections(_HostCommand):
    """Close a host's connections, as ``close_connection_exit`` does."""


class SetDebugLevel(_HostCommand):
    """Set a host's debug level, from 0 (off) to 9 (everything) (row S20)."""

    arguments = [*_HostCommand.arguments, (b"level", amp.Integer())]
    errors = {BadLevel: b"BAD_LEVEL"}


class Pause(_HostCommand):
    """
    Make a host's requests wait, or fail at once; answered when none is in flight.

    ``seconds`` is the duration, 0.0 for until :class:`Resume`; ``by`` is who pauses it.
    The queue timeout still applies.
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
    """Read the host table again, as USR2 does; answered when done."""

    response = [_MESSAGE]
    errors = {ReloadFailed: b"RELOAD_FAILED"}


class Reload(ManagementCommand):
    """Read the configuration and the host table again, as HUP does; answered when done."""

    response = [_MESSAGE]
    errors = {ReloadFailed: b"RELOAD_FAILED"}


class Stop(ManagementCommand):
    """Stop lonc, as TERM does; answered before it begins."""


class HandOver(ManagementCommand):
    """
    Prepare to hand everything over to a new process: see :mod:`lonc.daemon.takeover`.

    Answered when delayed requests in flight have ended. ``path`` is the socket to which the new
    process must connect.
    """

    response = [(b"path", amp.Unicode())]


class Listing(_HostCommand):
    """
    Rows of one kind, in the order of their first field, one page at a time.

    ``after`` is that field of the last row of the previous page, or null. ``more`` is whether there
    is another page. An empty ``host`` means all.
    """

    level = Level.SEE
    arguments = [*_HostCommand.arguments, (b"after", _Json())]


class ListClients(Listing):
    """The open client connections: :class:`lonc.report.records.ClientStatus`."""

    response = _listing(ClientStatus)


class ListConnections(Listing):
    """The connections to londs: :class:`lonc.report.records.ConnectionStatus`."""

    response = _listing(ConnectionStatus)


class ListSlow(Listing):
    """The slowest recent requests: :class:`lonc.report.records.RequestRecord`."""

    response = _listing(RequestRecord)


class ListProblems(Listing):
    """The current problems: :class:`lonc.report.problems.Problem`, in the order they began."""

    response = _listing(Problem)


class ListSettings(Listing):
    """The settings in force: :class:`lonc.report.records.SettingStatus`; ``host`` is ignored."""

    response = _listing(SettingStatus)


class ListDelayed(Listing):
    """Delayed requests, including kept ones: :class:`lonc.report.records.DelayedStatus`."""

    response = _listing(DelayedStatus)


class Trace(Listing):
    """
    Requests as they end: :class:`lonc.report.records.RequestRecord`.

    The first call starts tracing for this connection. Each call is answered as soon as there are
    rows, or after a second without any. ``contents`` adds the requests themselves, for the owner
    only. The latest 1,000 requests are buffered between calls.
    """

    arguments = [*Listing.arguments, (b"contents", amp.Boolean())]
    response = _listing(RequestRecord)


class ShowDelayed(_FileCommand):
    """
    Return the content of a delayed request, decrypted if it is sealed; for the owner only.

    ``more`` is whether it was cut to fit into an answer.
    """

    level = Level.OWN
    response = [(b"content", amp.String()), (b"more", amp.Boolean())]


class RetryDelayed(_HostCommand):
    """Try to send a host's delayed requests now."""


class DropDelayed(_FileCommand):
    """Delete a delayed or kept request, with the note beside it."""


class RequeueDelayed(_FileCommand):
    """Move a kept request back to those that are sent."""
