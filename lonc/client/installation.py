"""What both clients need of a lonc: its sockets, limits and folder of delayed requests."""

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

#: Seconds to wait longer than lonc itself does.
SPARE = 10.0

_HOST = re.compile(r"[A-Za-z0-9_.-]+")


class Installation:
    """
    A lonc on this machine, described by its settings or its ``lonSockDir``.

    :ivar limits: the time limits in use.
    :ivar outbox: stores critical requests; it blocks.
    """

    def __init__(self, where: Settings | str, limits: Limits | None, outbox: Outbox | None) -> None:
        settings = where if isinstance(where, Settings) else _defaults(where)
        lonc_waits = settings.queue_timeout + settings.request_timeout
        self._settings = settings
        self._names = _HostNames(settings)
        self.outbox = outbox or _outbox(settings)
        self.limits = limits or Limits(exchange=lonc_waits + SPARE, store=settings.disk_timeout)

    def check_host_id(self, host_id: str) -> None:
        """Raise ValueError if this is not a valid host id."""
        self.socket(host_id)

    def socket(self, host_id: str) -> tuple[str, bytes]:
        """
        Return the path of a host's socket, and the prefix for it (protocol, section 5).

        If sockets are named after host names only, the name is looked up in the table.

        :raises ValueError: not a valid host id.
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
        """Begin an exchange; raise ValueError if host id or request are invalid."""
        path, prefix = self.socket(host_id)
        line = self._line(request, len(prefix))
        limits = self.limits if timeout is None else attrs.evolve(self.limits, exchange=timeout)
        return Exchange(path, line, limits, self._settings.max_line, seconds, prefix)

    def encrypted(self, request: Value) -> bytes:
        """Return a request with the prefix for encryption (protocol, section 4)."""
        return b"encrypt:" + self._line(request)

    def _line(self, request: Value, more: int = 0) -> bytes:
        line = to_bytes(request)
        if b"\n" in line:
            raise ValueError("a request is one line: escape what holds a newline")
        if not line.strip():
            raise ValueError("the request is empty")
        max_line = self._settings.max_line
        if len(line) + more > max_line:  # lonc would reject it, now and when stored
            raise ValueError(f"the request is longer than lonc's limit of {max_line} bytes")
        return line

    def critical_reply(
        self, lost: Reply, not_stored: Exception | None, not_noted: Exception | None
    ) -> Reply:
        """
        Return the reply to a critical request (protocol, section 6).

        It is stored after any ``con_lost``, even if our own time limit expired and lonc may still
        send it: executing it twice is the lesser evil, and lonc promises no more either.

        :param not_stored: the error of storing, if any.
        :param not_noted: the error of writing the note, if any.
        """
        why = [lost.why]
        if not_stored:
            may_be = isinstance(not_stored, Stuck) and not isinstance(not_stored, NoPlace)
            why.append(self._fault(not_stored) + ", and it may be stored all the same" * may_be)
        if not_noted:
            why.append(self._fault(not_noted))
        return Reply(CON_FAILED if not_stored else CON_DELAYED, "; ".join(filter(None, why)))

    def _fault(self, error: Exception) -> str:
        """Return a readable text for a disk error."""
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
    """The host names of the table, read again when one of its files has changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = settings.hosts_file, settings.fetched_hosts_file
        self._stamps: list[Stamp | None] = []
        self._names: dict[str, str] = {}

    def of(self, host_id: str) -> str | None:
        """Return a host's name; None if it is not in the table, or that is unreadable."""
        stamps = [_stamp(each) for each in self._files]
        if stamps != self._stamps:
            self._stamps = stamps
            with contextlib.suppress(TableError):  # keep the last readable one
                table = read_both_tables(*self._files, self._settings.max_host_id, lenient=True)
                self._names = {row.id: row.hostname for row in table.hosts.values()}
        return self._names.get(host_id)


def _stamp(file: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(file))
    except OSError:
        return None


def note_letter(not_stored: Exception | None) -> str:
    """Return the letter for ``lonnet.perm.log``: ``D`` for delayed, ``F`` for failed."""
    return "F" if not_stored else "D"


def _defaults(sock_dir: str) -> Settings:
    return Settings(
        config_file="", host_id="", tab_dir="", sock_dir=sock_dir, daemons_dir="", doc_root=""
    )


def _outbox(settings: Settings) -> Outbox:
    perm_log = settings.perm_log_file if settings.daemons_dir else None
    read_key = partial(key_of, settings) if settings.delayed_key_file else None
    return Outbox(settings.delayed_dir, perm_log, read_key)
