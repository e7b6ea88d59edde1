"""What both clients know of a lonc: its sockets, its limits, its folder of delayed requests."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from functools import partial

import attrs

from lonc.client.exchange import CON_DELAYED, CON_FAILED, Exchange, Limits, Reply
from lonc.config.hosts import RESERVED_IDS, TableError, read_both_tables
from lonc.config.settings import SOCKET_PATH_LIMIT, Settings, SettingsError
from lonc.delayed.outbox import NotStored, Outbox
from lonc.delayed.sealing import key_of
from lonc.disk.files import Stamp
from lonc.disk.threads import NoPlace, Stuck
from lonc.wire.escaping import Value, to_bytes

#: Seconds that we wait longer than lonc itself does.
SPARE = 10.0

_HOST = re.compile(r"[A-Za-z0-9_.-]+")


class Installation:
    """
    A lonc on this machine, as its settings or its ``lonSockDir`` tell.

    :ivar limits: the time limits in use.
    :ivar outbox: stores what must not be lost, and blocks.
    """

    def __init__(self, where: Settings | str, limits: Limits | None, outbox: Outbox | None) -> None:
        settings = where if isinstance(where, Settings) else _defaults(where)
        lonc_waits = settings.queue_timeout + settings.request_timeout
        self._settings = settings
        self._names = _HostNames(settings)
        self.outbox = outbox or _outbox(settings)
        self.limits = limits or Limits(exchange=lonc_waits + SPARE, store=settings.disk_timeout)

    def check_host_id(self, host_id: str) -> None:
        """Raise ValueError where this cannot be a host id."""
        self._socket(host_id)

    def _socket(self, host_id: str) -> tuple[str, bytes]:
        """
        Return the path of a host's socket, and what names the host there (protocol, section 5).

        Where sockets bear host names alone, the table tells the host's. A host that it does not
        have has no socket.

        :raises ValueError: this cannot be a host id.
        """
        if not _HOST.fullmatch(host_id) or host_id in (".", "..") or host_id in RESERVED_IDS:
            raise ValueError(f"{host_id!a} is not a host id")
        name = self._names.of(host_id) if self._settings.socket_names == "hostname" else None
        path = self._settings.socket_path(name or host_id)
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            raise ValueError(f"{path} is too long: a UNIX socket has {SOCKET_PATH_LIMIT} bytes")
        return path, b"" if name is None else b"sethost:%b:" % host_id.encode()

    def exchange(
        self, host_id: str, request: Value, timeout: float | None, seconds: Callable[[], float]
    ) -> Exchange:
        """Begin an exchange, whose time runs from now; ValueError: it cannot be asked."""
        path, prefix = self._socket(host_id)
        line = self._line(request, len(prefix))
        limits = self.limits if timeout is None else attrs.evolve(self.limits, exchange=timeout)
        return Exchange(path, line, limits, self._settings.max_line, seconds, prefix)

    def encrypted(self, request: Value) -> bytes:
        """Return a request so that it goes to the lond encrypted (protocol, section 4)."""
        return b"encrypt:" + self._line(request)

    def _line(self, request: Value, more: int = 0) -> bytes:
        line = to_bytes(request)
        if b"\n" in line:
            raise ValueError("a request is one line: escape what holds a newline")
        if not line.strip():
            raise ValueError("the request is empty")
        max_line = self._settings.max_line
        if len(line) + more > max_line:  # it would only be thrown out, now and when it is stored
            raise ValueError(f"the request is longer than lonc's limit of {max_line} bytes")
        return line

    def critical_reply(
        self, lost: Reply, not_stored: Exception | None, not_noted: Exception | None
    ) -> Reply:
        """
        Return the reply to a request that must not be lost (protocol, section 6).

        Whatever made it ``con_lost``, it is stored: also when only our own time was over, and lonc
        may still come to send it. Done twice is the lesser evil, and lonc promises no more itself.

        :param not_stored: what went wrong with its file, if anything.
        :param not_noted: what went wrong with its note.
        """
        why = [lost.why]
        if not_stored:
            may_be = isinstance(not_stored, Stuck) and not isinstance(not_stored, NoPlace)
            why.append(self._fault(not_stored) + ", and it may be stored all the same" * may_be)
        if not_noted:
            why.append(self._fault(not_noted))
        return Reply(CON_FAILED if not_stored else CON_DELAYED, "; ".join(filter(None, why)))

    def _fault(self, error: Exception) -> str:
        """Say for a person what went wrong on a disk."""
        if isinstance(error, NoPlace):
            return "other disk calls hang"
        if isinstance(error, Stuck):
            return f"no answer from the disk within {self.limits.store:g} s"
        if isinstance(error, OSError) and error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        if isinstance(error, OSError | NotStored | SettingsError):
            return str(error) or "no reason is known"
        return f"{type(error).__name__}: {error}"


class _HostNames:
    """The host names of the table, read anew when one of its files has changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = settings.hosts_file, settings.fetched_hosts_file
        self._stamps: list[Stamp | None] = []
        self._names: dict[str, str] = {}

    def of(self, host_id: str) -> str | None:
        """Return a host's name; None where the table does not have it, or cannot be read."""
        stamps = [_stamp(each) for each in self._files]
        if stamps != self._stamps:
            self._stamps = stamps
            with contextlib.suppress(TableError):  # the last one that could be read will do
                table = read_both_tables(*self._files, self._settings.max_host_id, lenient=True)
                self._names = {row.id: row.hostname for row in table.hosts.values()}
        return self._names.get(host_id)


def _stamp(file: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(file))
    except OSError:
        return None


def note_letter(not_stored: Exception | None) -> str:
    """Return what ``lonnet.perm.log`` has: ``D``, the request was delayed, or ``F``, has failed."""
    return "F" if not_stored else "D"


def _defaults(sock_dir: str) -> Settings:
    return Settings(
        config_file="", host_id="", tab_dir="", sock_dir=sock_dir, daemons_dir="", doc_root=""
    )


def _outbox(settings: Settings) -> Outbox:
    perm_log = settings.perm_log_file if settings.daemons_dir else None
    read_key = partial(key_of, settings) if settings.delayed_key_file else None
    return Outbox(settings.delayed_dir, perm_log, read_key)
