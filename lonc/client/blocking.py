"""The blocking client, which uses a socket, and a thread for each disk operation."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Self

from lonc.client.exchange import CON_LOST, Exchange, Installation, Limits, Reply
from lonc.config.settings import Settings
from lonc.delayed.outbox import Outbox
from lonc.disk.threads import PLACES, NoPlace, Stuck
from lonc.wire.escaping import Value

#: Bytes read at a time.
CHUNK = 65536


class Connection:
    """
    A connection to one host for a sequence of requests. It is not thread-safe.

    It is opened by the first request, and reopened if lonc has closed it meanwhile. Its methods are
    those of :class:`Client`, without the host id. Leaving its ``with`` block closes it.
    """

    def __init__(self, lonc: Installation, host_id: str, places: threading.Semaphore) -> None:
        lonc.socket(host_id)  # raises ValueError if it is not a host id
        self._lonc = lonc
        self._host_id = host_id
        self._places = places
        # Open only while no request is outstanding on it, or during a request.
        self._socket: socket.socket | None = None

    def ask(self, request: Value, timeout: float | None = None) -> Reply:
        """Send a request and return the reply."""
        return self._ask(self._exchange(request, timeout))

    def ask_encrypted(self, request: Value, timeout: float | None = None) -> Reply:
        """Send a request that is encrypted on the network, and return the reply."""
        return self.ask(self._lonc.encrypted(request), timeout)

    def critical(self, request: Value, timeout: float | None = None) -> Reply:
        """Send a request, and store it if the reply is ``con_lost``."""
        exchange = self._exchange(request, timeout)
        reply = self._ask(exchange)
        if reply != CON_LOST:
            return reply
        outbox, host_id, line = self._lonc.outbox, self._host_id, exchange.request
        not_stored = self._fault_of(partial(outbox.store, host_id, line))
        letter = "F" if not_stored else "D"  # failed or delayed
        not_noted = self._fault_of(partial(outbox.note, letter, host_id, line))
        return self._lonc.critical_reply(reply, not_stored, not_noted)

    def close(self) -> None:
        """Close the connection; the next request would reopen it."""
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
            # Also if interrupted: a late reply must not reach the next request.
            if not exchange.is_reusable:
                self.close()

    def _connected(self, exchange: Exchange) -> socket.socket:
        """Return the connection, reopened unless it is open and nothing has arrived on it."""
        if self._socket is not None:
            self._socket.settimeout(0)
            with contextlib.suppress(OSError):
                try:
                    self._socket.recv(1)
                except BlockingIOError:
                    return self._socket
            self.close()  # lonc has closed it, perhaps by a restart
        limit = exchange.connect_limit()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(limit)
        try:
            self._socket.connect(exchange.path)
        except TimeoutError:
            raise ConnectionError(f"no connection within {limit:g} s") from None
        return self._socket

    def _fault_of(self, call: Callable[[], object]) -> Exception | None:
        """Call in a thread, since disk waits cannot be interrupted; return its exception."""
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
        except RuntimeError as error:  # no more threads available
            self._places.release()
            return error
        try:
            return outcome.get(timeout=limit)
        except Empty:
            return Stuck()


class Client:
    """
    Sends requests to hosts and waits for their replies. It is thread-safe.

    :param where: lonc's settings (:func:`lonc.config.settings.read_settings`), or just its
        ``lonSockDir``: then lonc's default limits are assumed, ``lonnet.perm.log`` is not written,
        and stored requests are not sealed.
    :param limits: time limits; those following from the settings by default.
    :param outbox: stores requests; by default a ``lonc.delayed.outbox.Outbox`` for the settings.
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
        Return a connection for many requests: ``with client.connection("l2") as l2: ...``.

        :raises ValueError: not a valid host id.
        """
        return Connection(self._lonc, host_id, self._places)

    def ask(self, host_id: str, request: Value, timeout: float | None = None) -> Reply:
        """
        Send a request to a host and return the reply.

        :param timeout: seconds in total, instead of ``limits.exchange``.
        :raises ValueError: the host id or the request is invalid; nothing was sent.
        """
        with self.connection(host_id) as connection:
            return connection.ask(request, timeout)

    def ask_encrypted(self, host_id: str, request: Value, timeout: float | None = None) -> Reply:
        """Like :meth:`ask`, but the request is encrypted on the network."""
        with self.connection(host_id) as connection:
            return connection.ask_encrypted(request, timeout)

    def critical(self, host_id: str, request: Value, timeout: float | None = None) -> Reply:
        """
        Send a request; on ``con_lost`` store it, for lonc to send it when it reaches the host.

        The reply is ``con_delayed`` if the request is stored; it will be executed at least once,
        and may have been executed already. It is ``con_failed`` if storing failed. A request to be
        encrypted on the network must begin with ``encrypt:``.

        :param timeout: seconds for the exchange; storing has its own limit, ``limits.store``.
        :raises ValueError: the host id or the request is invalid; nothing was sent or stored.
        """
        with self.connection(host_id) as connection:
            return connection.critical(request, timeout)
