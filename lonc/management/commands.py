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
from typing import Any

import attrs
from twisted.protocols import amp

from lonc.management.errors import (
    BadLevel,
    InternalError,
    ReloadFailed,
    ReportFailed,
    UnknownHost,
)
from lonc.report.status import DaemonStatus, HostStatus


class _Json(amp.Argument):
    """What AMP has no type for."""

    def toString(self, inObject: object) -> bytes:
        return json.dumps(inObject).encode()

    def fromString(self, inString: bytes) -> Any:
        return json.loads(inString)


_ARGUMENTS: dict[object, type[amp.Argument]] = {
    str: amp.Unicode,
    int: amp.Integer,
    float: amp.Float,
    bool: amp.Boolean,
}


def _fields(record: type[attrs.AttrsInstance]) -> list[tuple[bytes, amp.Argument]]:
    """Put a record on the wire under the names of its fields, so that a new field travels too."""
    fields = attrs.fields(attrs.resolve_types(record))
    return [(field.name.encode(), _ARGUMENTS.get(field.type, _Json)()) for field in fields]


#: A page of hosts.
HOSTS = amp.AmpList(_fields(HostStatus))
_HOST = (b"host", amp.Unicode())
_MESSAGE = (b"message", amp.Unicode())


class ManagementCommand(amp.Command):
    """What all commands share."""

    errors = {InternalError: b"INTERNAL_ERROR"}


class About(ManagementCommand):
    """Report on the daemon: the fields of :class:`lonc.report.status.DaemonStatus`."""

    response = _fields(DaemonStatus)


class ListHosts(ManagementCommand):
    """
    Report on the hosts, in the order of their ids, one page at a time.

    ``after`` is the last host id of the page before, or empty. A host that comes or goes between
    two pages neither repeats nor hides another. ``more`` tells whether a next page would have any.
    """

    arguments = [(b"after", amp.Unicode())]
    response = [(b"hosts", HOSTS), (b"more", amp.Boolean())]


class Report(ManagementCommand):
    """Write the status file. It is one file for all hosts, and always written as a whole."""

    arguments = [_HOST]
    errors = {UnknownHost: b"UNKNOWN_HOST", ReportFailed: b"REPORT_FAILED"}


class ResetRetries(ManagementCommand):
    """Give a host its retries back: a DEAD one is tried again with the next request."""

    arguments = [_HOST]
    errors = {UnknownHost: b"UNKNOWN_HOST"}


class CloseConnections(ManagementCommand):
    """Close a host's connections and start afresh, as ``close_connection_exit`` does."""

    arguments = [_HOST]
    errors = {UnknownHost: b"UNKNOWN_HOST"}


class SetDebugLevel(ManagementCommand):
    """Set a host's debug level: 0 is off, 9 is all there is (row S20)."""

    arguments = [_HOST, (b"level", amp.Integer())]
    errors = {UnknownHost: b"UNKNOWN_HOST", BadLevel: b"BAD_LEVEL"}


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
