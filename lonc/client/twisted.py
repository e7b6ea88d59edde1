"""The client for Twisted, with a protocol for each exchange, and threads for the disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from lonc.client.exchange import CON_LOST, Exchange, Installation, Limits, Reply
from lonc.config.settings import Settings
from lonc.delayed.outbox import Outbox
from lonc.disk.threads import Disk, InThread
from lonc.wire.escaping import Value

T = TypeVar("T")


class TwistedClient:
    """
    Sends requests to hosts and returns Deferreds. To be used in the reactor's thread only.

    The methods are those of :class:`Client`. ``ValueError`` is raised immediately. Cancelling a
    Deferred closes the connection; a critical request may or may not be stored then.

    :param reactor: provides ``connectUNIX``, the time and a thread pool.
    :param in_thread: runs a function in a thread; the reactor's pool by default.
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
        self._lonc = Installation(where, limits, outbox)
        self.limits = self._lonc.limits
        self._disk = Disk(reactor, in_thread or self._in_pool, lambda: self.limits.store)

    def ask(self, host_id: str, request: Value, timeout: float | None = None) -> Deferred[Reply]:
        """See :meth:`Client.ask`."""
        return Deferred.fromCoroutine(self._ask(self._exchange(host_id, request, timeout)))

    def ask_encrypted(
        self, host_id: str, request: Value, timeout: float | None = None
    ) -> Deferred[Reply]:
        """See :meth:`Client.ask_encrypted`."""
        return self.ask(host_id, self._lonc.encrypted(request), timeout)

    def critical(
        self, host_id: str, request: Value, timeout: float | None = None
    ) -> Deferred[Reply]:
        """See :meth:`Client.critical`."""
        exchange = self._exchange(host_id, request, timeout)
        return Deferred.fromCoroutine(self._critical(host_id, exchange))

    def _exchange(self, host_id: str, request: Value, timeout: float | None) -> Exchange:
        return self._lonc.exchange(host_id, request, timeout, self._reactor.seconds)

    async def _critical(self, host_id: str, exchange: Exchange) -> Reply:
        reply = await self._ask(exchange)
        if reply != CON_LOST:
            return reply
        outbox, line = self._lonc.outbox, exchange.request
        not_stored = await self._fault_of(partial(outbox.store, host_id, line))
        letter = "F" if not_stored else "D"  # failed or delayed
        not_noted = await self._fault_of(partial(outbox.note, letter, host_id, line))
        return self._lonc.critical_reply(reply, not_stored, not_noted)

    async def _ask(self, exchange: Exchange) -> Reply:
        protocol = None
        try:
            protocol = await self._connect(exchange)
            return await protocol.reply.addTimeout(exchange.left(), self._reactor)
        except (TimeoutError, defer.TimeoutError):
            return exchange.late()
        except (ConnectError, ConnectionError) as error:
            return exchange.con_lost(str(error))
        finally:
            if protocol is not None:
                protocol.transport.abortConnection()  # also when lonc does not read

    async def _connect(self, exchange: Exchange) -> _OneExchange:
        limit = exchange.connect_limit()
        factory = Factory.forProtocol(partial(_OneExchange, exchange))
        factory.noisy = False  # no log messages for each request
        endpoint: Any = UNIXClientEndpoint(self._reactor, exchange.path, timeout=limit)  # type: ignore[no-untyped-call]
        try:
            protocol: _OneExchange = await endpoint.connect(factory)
        except ConnectTimeout:
            raise ConnectionError(f"no connection within {limit:g} s") from None
        except ConnectingCancelledError:
            raise defer.CancelledError from None  # as everywhere else
        return protocol

    async def _fault_of(self, call: Callable[[], object]) -> Exception | None:
        """Call in a thread; return its exception, if any."""
        try:
            await self._disk.run("", call)
        except defer.CancelledError:
            raise
        except Exception as error:
            return error
        return None

    def _in_pool(self, work: Callable[[], T], /) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)


class _OneExchange(Protocol):
    """
    A connection for one exchange.

    :ivar reply: fires with the reply.
    """

    transport: ITCPTransport

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.reply = Deferred[Reply]()

    def connectionMade(self) -> None:
        """Send the request."""
        self.transport.write(self._exchange.line)

    def dataReceived(self, data: bytes) -> None:
        """Pass data on until the reply is complete."""
        if not self.reply.called and (reply := self._exchange.receive(data)) is not None:
            self.reply.callback(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the exchange."""
        self.dataReceived(b"")
