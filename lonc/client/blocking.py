"""The client that blocks: a socket, and a thread for each call to a disk."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Self

from lonc.client.exchange import CON_LOST, Exchange, Limits, Reply
from lonc.client.installation import Installation, note_letter
from lonc.config.settings import Settings
from lonc.delayed.outbox import Outbox
from lonc.disk.threads import PLACES, NoPlace, Stuck
from lonc.wire.escaping import Value

#: Bytes that are read at a time.
CHUNK = 65536


class Connection:
    """
    A connection to one host for many requests, one after the other: not for several threads.

    It is made with the first request, and made anew when lonc has closed it meanwhile. Its methods
    are those of :class:`Client`, without the host id. Leaving its ``with`` block closes it.
    """

    def __init__(self, lonc: Installation, host_id: str, places: threading.Semaphore) -> None:
        lonc.check_host_id(host_id)
        self._lonc = lonc
        self._host_id = host_id
        self._places = places
        # Between requests neither side owes anything on it.
        self._socket: socket.socket | None = None

    def ask(self, request: Value, timeout: float | None = None) -> Reply:
        """Ask, and return the reply."""
        return self._ask(self._exchange(request, timeout))

    def ask_encrypted(self, request: Value, timeout: float | None = None) -> Reply:
        """Ask so that nobody on the way between the machines can read it."""
        return self.ask(self._lonc.encrypted(request), timeout)

    def critical(self, request: Value, timeout: float | None = None) -> Reply:
        """Ask, and store the request when the answer is ``con_lost``."""
        exchange = self._exchange(request, timeout)
        reply = self._ask(exchange)
        if reply != CON_LOST:
            return reply
        outbox, host_id, line = self._lonc.outbox, self._host_id, exchange.request
        not_stored = self._fault_of(partial(outbox.store, host_id, line))
        letter = note_letter(not_stored)
        not_noted = self._fault_of(partial(outbox.note, letter, host_id, line))
        return self._lonc.critical_reply(reply, not_stored, not_noted)

    def close(self) -> None:
        """Close it; the next request would open it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _exchange(self, request: Value, timeout: float | None) -> Exchange:
        return self._lonc.exchange(self._host_id, request, timeout, time.monotonic)

    def _ask(self, exchange: Exchange) -> Reply:
        try:
            lonc = self._connected(exchange)
            lonc.settimeout(exchange.left())
            lonc.sendall(exchange.line)
            reply = None
            while reply is None:
                lonc.settimeout(exchange.left())
                reply = exchange.receive(lonc.recv(CHUNK))
            return reply
        except TimeoutError:
            return exchange.late()
        except OSError as error:
            return exchange.con_lost(error.strerror or str(error))
        finally:
            # Also when it is interrupted: it leaves nothing that the next could trip over.
            if not exchange.is_reusable:
                self.close()

    def _connected(self, exchange: Exchange) -> socket.socket:
        """Return the connection, made anew unless it is there and silent as it should be."""
        if self._socket is not None:
            self._socket.settimeout(0)
            with contextlib.suppress(OSError):
                try:
                    self._socket.recv(1)
                except BlockingIOError:
                    return self._socket
            self.close()  # lonc has closed it, perhaps because it was started anew
        limit = exchange.connect_limit()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(limit)
        try:
            self._socket.connect(exchange.path)
        except TimeoutError:
            raise ConnectionError(f"no connection within {limit:g} s") from None
        return self._socket

    def _fault_of(self, call: Callable[[], object]) -> Exception | None:
        """Do it in a thread, for nothing else can end a wait for a disk; return what it raised."""
        limit = self._lonc.limits.store
        if not self._places.acquire(timeout=limit):
            return NoPlace()
        outcome: SimpleQueue[Exception | None] = SimpleQueue()

        def work() -> None:
            error = None
            try:
                call()
            except Exception as raised:
                error = raised
            self._places.release()
            outcome.put(error)

        try:
            threading.Thread(target=work, name="lonc disk", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            self._places.release()
            return error
        try:
            return outcome.get(timeout=limit)
        except Empty:
            return Stuck()


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
        self._lonc = Installation(where, limits, outbox)
        self.limits = self._lonc.limits
        self._places = threading.BoundedSemaphore(PLACES)

    def connection(self, host_id: str) -> Connection:
        """
        Return a connection for many requests; ``with client.connection("l2") as l2: ...``.

        :raise ValueError: this cannot be a host id.
        """
        return Connection(self._lonc, host_id, self._places)

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
        has to go encrypted begins with ``encrypt:``.

        :param timeout: seconds for the exchange; storing has its own, ``limits.store``.
        :raise ValueError: the host id or the request cannot be one; nothing was sent or stored.
        """
        with self.connection(host_id) as connection:
            return connection.critical(request, timeout)
