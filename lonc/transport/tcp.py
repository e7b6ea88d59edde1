# Twisted's Failure and BaseConnector have few annotations:
# mypy: allow-untyped-calls
"""
Making TCP connections on lonc's epoll instance, and TCP keepalive.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, cast

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.base import BaseConnector, ReactorBase
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from lonc.report.events import Logger
from lonc.transport.epoll_loop import SocketLoop
from lonc.transport.stream import OUT, SocketTransport

log = Logger()


class TCPConnector(BaseConnector):
    """Makes one TCP connection per call of `connect`."""

    def __init__(
        self, loop: SocketLoop, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> None:
        super().__init__(factory, timeout, cast(ReactorBase, loop.reactor))
        self.loop = loop
        self.host = host
        self.port = port

    def _makeTransport(self) -> Any:
        return _Attempt(self)

    def getDestination(self) -> IPv4Address | IPv6Address:
        """Return the address to connect to."""
        kind = IPv6Address if ":" in self.host else IPv4Address
        return kind("TCP", self.host, self.port)


def _wants_loss(factory: object) -> bool:
    """
    Return whether a factory handles the loss of a connection.

    If not, factory and connector need not stay in memory as long as the connection: they make up a
    third of an idle connection's memory.
    """
    if not isinstance(factory, ClientFactory):
        return True
    return type(factory).clientConnectionLost is not ClientFactory.clientConnectionLost


class _Attempt:
    """A connection attempt."""

    def __init__(self, connector: TCPConnector) -> None:
        self._connector = connector
        self._loop = connector.loop
        self._socket: socket.socket | None = None
        self._over = False
        try:
            family, _, _, _, address = socket.getaddrinfo(
                connector.host, connector.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )[0]
            self._socket = connecting = socket.socket(family, socket.SOCK_STREAM)
            connecting.setblocking(False)
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            code = connecting.connect_ex(address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._loop.register(connecting.fileno(), self, OUT)
        except OSError as problem:
            # Not before connectTCP has returned.
            failure = error.getConnectError(problem)
            self._loop.reactor.callLater(0, self.failIfNotConnected, failure)

    def ready(self, mask: int) -> None:
        """Handle the end of the attempt: it succeeded or failed."""
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.failIfNotConnected(error.getConnectError((code, os.strerror(code))))
            return
        connector = self._connector
        try:
            protocol = connector.buildProtocol(connector.getDestination())
        except Exception as problem:
            log.failure("a fault in {factory}", factory=connector.factory)
            self.failIfNotConnected(problem)
            return
        self._over = True
        self._loop.unregister(self._socket.fileno())
        transport = SocketTransport(
            self._loop,
            self._socket.detach(),
            protocol or Protocol(),
            connector.connectionLost if _wants_loss(connector.factory) else None,
            first=True,
        )
        connector.transport = transport  # type: ignore[assignment]
        self._loop.start(transport)
        if protocol is None:
            transport.loseConnection()

    def failIfNotConnected(self, reason: BaseException) -> None:
        """End the attempt and inform the factory of the reason."""
        if self._over:
            return
        if isinstance(reason, error.TimeoutError) and self._is_made():
            # Timers are handled before sockets: the process was stopped, or busy, until the
            # timeout.
            self.ready(OUT)
            return
        self._over = True
        if self._socket is not None:
            self._loop.close(self._socket.detach())
        self._connector.connectionFailed(Failure(reason))

    def _is_made(self) -> bool:
        try:
            return self._socket is not None and bool(self._socket.getpeername())
        except OSError:
            return False

    def shut_down(self, reason: Failure) -> None:
        """Abort the attempt because the reactor stops."""
        self.failIfNotConnected(error.UserError())


def keep_alive(transport: ITCPTransport, idle: int, interval: int, probes: int) -> None:
    """
    Enable TCP keepalive: the kernel probes an idle peer.

    :param idle: seconds without traffic before the first probe.
    :param interval: seconds between probes.
    :param probes: unanswered probes after which the connection breaks.
    """
    transport.setTcpKeepAlive(True)
    handle = transport.getHandle()  # type: ignore[attr-defined]  # Twisted's transports have it
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
    if isinstance(transport, SocketTransport):
        transport.forget_handle()
