"""
The way in for Python programs: ask a host, or leave a request that must not be lost.

:class:`Client` blocks, :class:`TwistedClient` returns Deferreds; both take the same steps, which
``lonc.client.exchange`` plans. Values are escaped and unescaped by :mod:`lonc.wire.escaping`.

A request is ``str``, which is sent as UTF-8, or ``bytes``; it has no newline. A ``Reply`` is
``bytes`` without the newline. ``con_lost`` is a reply like any other, never an exception: nobody
knows then whether the request was done. It comes from lonc, and from here when lonc does not run,
closes the connection, or does not answer in time; ``reply.why`` says which it was.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from lonc.client.exchange import (
    CON_DELAYED,
    CON_FAILED,
    CON_LOST,
    Broken,
    Conversation,
    Late,
    Limits,
    Plan,
    Reply,
    advance,
    critical,
)
from lonc.client.steps import BlockingSteps, TwistedSteps
from lonc.config.hosts import RESERVED_IDS
from lonc.config.settings import SOCKET_PATH_LIMIT, Settings
from lonc.delayed.outbox import Outbox
from lonc.delayed.sealing import key_of
from lonc.disk.threads import PLACES, Disk, InThread
from lonc.wire.escaping import Value, to_bytes

__all__ = [
    "CON_DELAYED",
    "CON_FAILED",
    "CON_LOST",
    "Client",
    "Connection",
    "Limits",
    "Reply",
    "TwistedClient",
]

#: Seconds that we wait longer than lonc itself does.
SPARE = 10.0

T = TypeVar("T")

_HOST = re.compile(r"[A-Za-z0-9_.-]+")


class Access:
    """How both clients reach the hosts' sockets and the folder of delayed requests."""

    def __init__(
        self, where: Settings | str, limits: Limits | None = None, outbox: Outbox | None = None
    ) -> None:
        settings = where if isinstance(where, Settings) else _defaults(where)
        lonc_waits = settings.queue_timeout + settings.request_timeout
        self._settings = settings
        self._outbox = outbox or _outbox(settings)
        self.limits = limits or Limits(exchange=lonc_waits + SPARE, store=settings.disk_timeout)

    def conversation(self, host_id: str, seconds: Callable[[], float]) -> Conversation:
        """Return a connection to a host, not made yet; ValueError: it is no host id."""
        path = self._settings.socket_path(host_id)
        if not _HOST.fullmatch(host_id) or host_id in (".", "..") or host_id in RESERVED_IDS:
            raise ValueError(f"{host_id!a} is not a host id")
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            raise ValueError(f"{path} is too long: a UNIX socket has {SOCKET_PATH_LIMIT} bytes")
        return Conversation(path, self._settings.max_line, self.limits, seconds)

    def asking(self, talk: Conversation, request: Value, timeout: float | None) -> Plan:
        """Plan a request; ValueError: it cannot be sent."""
        return talk.ask(self._line(request), self.limits.exchange if timeout is None else timeout)

    def asking_critical(
        self, host_id: str, talk: Conversation, request: Value, timeout: float | None
    ) -> Plan:
        """Plan a request that must not be lost; ValueError: it cannot be sent."""
        line = self._line(request)
        return critical(
            self.asking(talk, line, timeout),
            partial(self._outbox.store, host_id, line),
            lambda letter: self._outbox.note(letter, host_id, line),
            self.limits.store,
        )

    def encrypted(self, request: Value) -> bytes:
        """Return a request so that it goes to the lond enciphered (protocol, section 4)."""
        return b"encrypt:" + self._line(request)

    def _line(self, request: Value) -> bytes:
        line = to_bytes(request)
        if b"\n" in line:
            raise ValueError("a request is one line: escape what holds a newline")
        if not line.strip():
            raise ValueError("the request is empty")
        limit = self._settings.max_line
        if len(line) > limit:  # such a request would only be thrown out, now and when it is stored
            raise ValueError(f"the request is longer than lonc's limit of {limit} bytes")
        return line


def _defaults(sock_dir: str) -> Settings:
    return Settings(
        config_file="", host_id="", tab_dir="", sock_dir=sock_dir, daemons_dir="", doc_root=""
    )


def _outbox(settings: Settings) -> Outbox:
    perm_log = settings.perm_log_file if settings.daemons_dir else None
    read_key = partial(key_of, settings) if settings.delayed_key_file else None
    return Outbox(settings.delayed_dir, perm_log, read_key)


# For programs that block


class Connection:
    """
    A connection to one host for many requests, one after the other: not for several threads.

    It is made with the first request, and made anew when lonc has closed it meanwhile. Its methods
    are those of :class:`Client`, without the host id. Leaving its ``with`` block closes it.
    """

    def __init__(self, access: Access, host_id: str, places: threading.Semaphore) -> None:
        self._access = access
        self._host_id = host_id
        self._talk = access.conversation(host_id, time.monotonic)
        self._steps = BlockingSteps(places)

    def ask(self, request: Value, timeout: float | None = None) -> Reply:
        """Ask, and return the reply."""
        return self._run(self._access.asking(self._talk, request, timeout))

    def ask_encrypted(self, request: Value, timeout: float | None = None) -> Reply:
        """Ask so that nobody on the way between the machines can read it."""
        return self.ask(self._access.encrypted(request), timeout)

    def critical(self, request: Value, timeout: float | None = None) -> Reply:
        """Ask, and store the request when the answer is ``con_lost``."""
        access = self._access
        return self._run(access.asking_critical(self._host_id, self._talk, request, timeout))

    def close(self) -> None:
        """Close it; the next request would open it again."""
        self._steps.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, plan: Plan) -> Reply:
        step = advance(plan)
        while not isinstance(step, Reply):
            try:
                outcome: bytes | Broken | Late = self._steps.take(step)
            except (Broken, Late) as error:
                outcome = error
            step = advance(plan, outcome)
        return step


class Client:
    """
    Asks hosts, and waits for their answers. Threads may share it.

    :param where: lonc's settings (:func:`lonc.config.settings.read_settings`), or no more than its
        ``lonSockDir``: then lonc is taken to have its default limits, no note goes to
        ``lonnet.perm.log``, and what is stored is not sealed.
    :param limits: other time limits than those that follow from the settings.
    :param outbox: another way to store than ``lonc.delayed.outbox.Outbox`` does by itself.
    :ivar limits: the time limits in use.
    """

    def __init__(
        self, where: Settings | str, limits: Limits | None = None, outbox: Outbox | None = None
    ) -> None:
        self._access = Access(where, limits, outbox)
        self.limits = self._access.limits
        self._places = threading.BoundedSemaphore(PLACES)

    def connection(self, host_id: str) -> Connection:
        """
        Return a connection for many requests; ``with client.connection("l2") as l2: ...``.

        :raise ValueError: this cannot be a host id.
        """
        return Connection(self._access, host_id, self._places)

    def ask(self, host_id: str, request: Value, timeout: float | None = None) -> Reply:
        """
        Ask a host, and return the reply.

        :param timeout: seconds for all of it, in place of ``limits.exchange``.
        :raise ValueError: the host id or the request cannot be one; nothing was sent.
        """
        with self.connection(host_id) as connection:
            return connection.ask(request, timeout)

    def ask_encrypted(self, host_id: str, request: Value, timeout: float | None = None) -> Reply:
        """Ask so that nobody on the way between the machines can read it; else as :meth:`ask`."""
        with self.connection(host_id) as connection:
            return connection.ask_encrypted(request, timeout)

    def critical(self, host_id: str, request: Value, timeout: float | None = None) -> Reply:
        """
        Ask; on ``con_lost`` store the request, for lonc to send it once it reaches the host.

        The reply is ``con_delayed`` when it is on the disk, and will be done at least once: it may
        have been done already. It is ``con_failed`` when it could not be stored. A request that
        has to go enciphered begins with ``encrypt:``.

        :param timeout: seconds for the exchange; storing has its own, ``limits.store``.
        :raise ValueError: the host id or the request cannot be one; nothing was sent or stored.
        """
        with self.connection(host_id) as connection:
            return connection.critical(request, timeout)


# For Twisted


class TwistedClient:
    """
    Asks hosts, and returns a Deferred for each answer. To be used in the reactor's thread.

    The methods are those of :class:`Client`. ``ValueError`` is raised at once. Cancelling a
    Deferred closes the connection; a critical request may or may not be stored then.

    :param reactor: connects (``connectUNIX``), has the time and a thread pool.
    :param in_thread: runs a function in a thread; the reactor's pool unless given.
    """

    def __init__(
        self,
        reactor: Any,
        where: Settings | str,
        limits: Limits | None = None,
        outbox: Outbox | None = None,
        in_thread: InThread | None = None,
    ) -> None:
        self._reactor = reactor
        self._access = Access(where, limits, outbox)
        self.limits = self._access.limits
        self._disk = Disk(reactor, in_thread or self._in_pool)

    def ask(self, host_id: str, request: Value, timeout: float | None = None) -> Deferred[Reply]:
        """Ask a host; see :meth:`Client.ask`."""
        talk = self._access.conversation(host_id, self._reactor.seconds)
        return self._run(self._access.asking(talk, request, timeout))

    def ask_encrypted(
        self, host_id: str, request: Value, timeout: float | None = None
    ) -> Deferred[Reply]:
        """Ask so that nobody on the way between the machines can read it."""
        return self.ask(host_id, self._access.encrypted(request), timeout)

    def critical(
        self, host_id: str, request: Value, timeout: float | None = None
    ) -> Deferred[Reply]:
        """Ask, and store the request when the answer is con_lost; see :meth:`Client.critical`."""
        talk = self._access.conversation(host_id, self._reactor.seconds)
        return self._run(self._access.asking_critical(host_id, talk, request, timeout))

    def _run(self, plan: Plan) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._take_all(plan))

    async def _take_all(self, plan: Plan) -> Reply:
        steps = TwistedSteps(self._reactor, self._disk)
        try:
            step = advance(plan)
            while not isinstance(step, Reply):
                try:
                    outcome: bytes | Broken | Late = await steps.take(step)
                except (Broken, Late) as error:
                    outcome = error
                step = advance(plan, outcome)
            return step
        finally:
            steps.close()

    def _in_pool(self, work: Callable[[], T], /) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
