"""
What both clients share: a lonc on this machine, and an exchange with it (protocol, section 5): a
request, its reply, and its time limits.

An exchange uses no socket: :mod:`lonc.client.blocking` and :mod:`lonc.client.twisted` connect, send
``line``, and pass on the received data.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from functools import partial

import attrs

from lonc.config.hosts import RESERVED_IDS, TableError, read_both_tables
from lonc.config.settings import SOCKET_PATH_LIMIT, Settings, SettingsError
from lonc.delayed.outbox import NotStored, Outbox
from lonc.delayed.sealing import key_of
from lonc.disk.files import Stamp
from lonc.disk.threads import NoPlace, Stuck
from lonc.wire.escaping import Value, to_bytes, to_text
from lonc.wire.framing import LineBuffer, LineTooLong

#: The request may or may not have been executed.
CON_LOST = b"con_lost"
#: The request is stored and will be sent.
CON_DELAYED = b"con_delayed"
#: The request could not be stored.
CON_FAILED = b"con_failed"


class Reply(bytes):
    """
    A reply without its newline.

    :ivar why: the readable reason of ``con_lost``, ``con_delayed`` or ``con_failed``; empty for a
        reply of lond.
    """

    why: str

    def __new__(cls, value: bytes, why: str = "") -> Reply:
        """Create a reply with a reason."""
        reply = super().__new__(cls, value)
        reply.why = why
        return reply

    @property
    def text(self) -> str:
        r"""The reply as readable text; bytes that are not UTF-8 are written as ``\xff``."""
        return to_text(self)


@attrs.frozen
class Limits:
    """
    Time limits of a program, in seconds.

    :ivar connect: for the connection to lonc.
    :ivar exchange: from the call to the last byte of the reply, including connecting. By default
        lonc itself gives up a request after waiting 60 s for a connection and 60 s for the reply.
        This limit is longer, so that lonc sends ``con_lost`` first: then the request has ended in
        lonc, too.
    :ivar store: for each of two disk operations: storing the request and its note.
    """

    connect: float = 10.0
    exchange: float = 130.0
    store: float = 10.0


class Exchange:
    """
    One request to one host, the only one at a time on its connection.

    :param limits: ``exchange`` is counted from now.
    :param max_line: maximum bytes of a reply.
    :param seconds: returns the time.
    :param prefix: names the host if several share the socket.
    :ivar path: the host's socket.
    :ivar request: the request, without its newline.
    :ivar line: the bytes to send.
    :ivar is_reusable: whether the reply, and nothing else, has arrived. Otherwise the connection
        must be closed immediately, so that lonc drops the request if it is still waiting.
    """

    def __init__(
        self,
        path: str,
        request: bytes,
        limits: Limits,
        max_line: int,
        seconds: Callable[[], float],
        prefix: bytes = b"",
    ) -> None:
        self.path = path
        self.request = request
        self.line = prefix + request + b"\n"
        self.is_reusable = False
        self._limits = limits
        self._seconds = seconds
        self._deadline = seconds() + limits.exchange
        self._lines = LineBuffer(max_line)

    def left(self) -> float:
        """Return the remaining seconds; raise TimeoutError if there are none."""
        left = self._deadline - self._seconds()
        if left <= 0:
            raise TimeoutError
        return left

    def connect_limit(self) -> float:
        """Return the seconds for connecting; raise TimeoutError if none remain."""
        return min(self._limits.connect, self.left())

    def receive(self, data: bytes) -> Reply | None:
        """Handle received data (empty: closed); return the reply, None if incomplete."""
        if not data:
            return self.con_lost("closed without an answer")
        try:
            line = self._lines.push(data)
        except LineTooLong as error:
            return self.con_lost(str(error))
        if line is None:
            return None
        self.is_reusable = not self._lines.rest  # lonc sends nothing unasked
        reply = line[:-1]
        return Reply(
            reply,
            f"{self.path}: lonc itself says con_lost; `lonc hosts` tells why"
            if reply == CON_LOST
            else "",
        )

    def con_lost(self, why: str) -> Reply:
        """Return ``con_lost`` with a reason."""
        return Reply(CON_LOST, f"{self.path}: {why}")

    def late(self) -> Reply:
        """Return ``con_lost`` after the time limit."""
        return self.con_lost(f"no answer within {self._limits.exchange:g} s")


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


def _defaults(sock_dir: str) -> Settings:
    return Settings(
        config_file="", host_id="", tab_dir="", sock_dir=sock_dir, daemons_dir="", doc_root=""
    )


def _outbox(settings: Settings) -> Outbox:
    perm_log = settings.perm_log_file if settings.daemons_dir else None
    read_key = partial(key_of, settings) if settings.delayed_key_file else None
    return Outbox(settings.delayed_dir, perm_log, read_key)
