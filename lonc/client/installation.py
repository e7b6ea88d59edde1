"""What both clients know of a lonc: its sockets, its limits, its folder of delayed requests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial

import attrs

from lonc.client.exchange import CON_DELAYED, CON_FAILED, Exchange, Limits, Reply
from lonc.config.hosts import RESERVED_IDS
from lonc.config.settings import SOCKET_PATH_LIMIT, Settings, SettingsError
from lonc.delayed.outbox import NotStored, Outbox
from lonc.delayed.sealing import key_of
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
        self.outbox = outbox or _outbox(settings)
        self.limits = limits or Limits(exchange=lonc_waits + SPARE, store=settings.disk_timeout)

    def socket_path(self, host_id: str) -> str:
        """Return the path of a host's socket; ValueError: this cannot be a host id."""
        path = self._settings.socket_path(host_id)
        if not _HOST.fullmatch(host_id) or host_id in (".", "..") or host_id in RESERVED_IDS:
            raise ValueError(f"{host_id!a} is not a host id")
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            raise ValueError(f"{path} is too long: a UNIX socket has {SOCKET_PATH_LIMIT} bytes")
        return path

    def exchange(
        self, host_id: str, request: Value, timeout: float | None, seconds: Callable[[], float]
    ) -> Exchange:
        """Begin an exchange, whose time runs from now; ValueError: it cannot be asked."""
        path, line = self.socket_path(host_id), self._line(request)
        limits = self.limits if timeout is None else attrs.evolve(self.limits, exchange=timeout)
        return Exchange(path, line, limits, self._settings.max_line, seconds)

    def encrypted(self, request: Value) -> bytes:
        """Return a request so that it goes to the lond enciphered (protocol, section 4)."""
        return b"encrypt:" + self._line(request)

    def _line(self, request: Value) -> bytes:
        line = to_bytes(request)
        if b"\n" in line:
            raise ValueError("a request is one line: escape what holds a newline")
        if not line.strip():
            raise ValueError("the request is empty")
        max_line = self._settings.max_line
        if len(line) > max_line:  # it would only be thrown out, now and when it is stored
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
