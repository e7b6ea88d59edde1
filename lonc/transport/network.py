# Twisted's Failure and BaseConnector have few annotations:
# mypy: allow-untyped-calls
"""
Listening on UNIX sockets, and connecting to londs.

That is `SocketNetwork`, with the connections of :mod:`lonc.transport.stream`; with a reactor that
has no descriptors, as in tests, it is the reactor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any
from typing import Protocol as Interface

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConnector, IDelayedCall, IListeningPort
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.report.events import Logger
from lonc.transport.epoll_loop import SocketLoop
from lonc.transport.socket_file import SocketFile
from lonc.transport.stream import IN, OUT, SocketTransport

#: Clients that are accepted at a time on one port.
ACCEPTS = 64

#: Seconds without accepting when there is no descriptor for another client.
ACCEPT_PAUSE = 0.5

#: How often a port that stops waits so: other clients have left by then, with their descriptors.
LAST_PAUSES = 20

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Who connects to a UNIX socket has no name.
_NAMELESS = UNIXAddress(None)

log = Logger()


class Network(Interface):
    """Listens on UNIX sockets, and makes TCP connections."""

    @property
    def behind(self) -> bool:
        """Whether something has arrived that has not been read."""

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> IListeningPort:
        """
        Listen on a UNIX socket. The port, when it stops, removes its own file and no other.

        :param backlog: how many may wait to be accepted.
        :param mode: the file's permissions.
        :raises twisted.internet.error.CannotListenError: with the path.
        """

    def resumeUNIX(
        self, listening: socket.socket, path: str, factory: Factory, backlog: int, mode: int
    ) -> IListeningPort:
        """Accept clients on a socket that listens already, and is the port's from now on."""

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> IConnector:
        """
        Connect to an IPv4 or IPv6 address, no name; the factory learns the outcome.

        :param timeout: seconds.
        """


def network(reactor: Any) -> Network:
    """Return the network of a reactor."""
    posix = isinstance(reactor, PosixReactorBase)
    return SocketNetwork(reactor) if posix else ReactorNetwork(reactor)


class ReactorNetwork:
    """A reactor without descriptors, such as a test's."""

    behind = False

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> IListeningPort:
        """See `Network`; such a port removes whatever has its path."""
        listen = self._reactor.listenUNIX
        port: IListeningPort = listen(path, factory, backlog=backlog, mode=mode, wantPID=0)
        return port

    def resumeUNIX(
        self, listening: socket.socket, path: str, factory: Factory, backlog: int, mode: int
    ) -> IListeningPort:
        """See `Network`."""
        listening.setblocking(False)
        with listening:
            adopt = self._reactor.adoptStreamPort
            port: IListeningPort = adopt(listening.fileno(), socket.AF_UNIX, factory)
        os.chmod(path, mode)
        return port

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> IConnector:
        """See `Network`."""
        connector: IConnector = self._reactor.connectTCP(host, port, factory, timeout=timeout)
        return connector


class SocketNetwork:
    """
    Listens and connects with lonc's own sockets, on an epoll of their own.

    :param reactor: a reactor that can watch an epoll, and has the time.
    """

    def __init__(self, reactor: Any) -> None:
        self.loop = SocketLoop(reactor)

    @property
    def behind(self) -> bool:
        """See `Network`."""
        return self.loop.behind

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> IListeningPort:
        """See `Network`."""
        port = Port(self.loop, path, factory, backlog, mode)
        port.startListening()
        return port

    def resumeUNIX(
        self, listening: socket.socket, path: str, factory: Factory, backlog: int, mode: int
    ) -> IListeningPort:
        """See `Network`."""
        port = Port(self.loop, path, factory, backlog, mode)
        port.resume(listening)
        return port

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> IConnector:
        """See `Network`."""
        connector = _Connector(self.loop, host, port, factory, timeout)
        connector.connect()
        return connector


@implementer(IListeningPort)
class Port:
    """
    A UNIX socket that listens.

    :ivar factory: makes the protocols of its clients.
    """

    def __init__(
        self, loop: SocketLoop, path: str, factory: Factory, backlog: int, mode: int
    ) -> None:
        self._loop = loop
        self._path = path
        self.factory = factory
        self._backlog = backlog
        self._mode = mode
        self._socket: socket.socket | None = None
        self._file: SocketFile | None = None
        self._pause: IDelayedCall | None = None
        self._refused = False  # the last client could not be accepted
        self._pauses = -1  # how many are left; -1: it does not stop
        self._closed = Deferred[None]()

    def startListening(self) -> None:
        """Listen; raises :exc:`twisted.internet.error.CannotListenError`."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        file = None
        try:
            listening.setblocking(False)
            # Linux makes the file with the socket's own mode: it is at no time more open.
            os.fchmod(listening.fileno(), self._mode)
            listening.bind(self._path)
            file = SocketFile(self._path)
            os.chmod(self._path, self._mode)  # whatever the umask
            listening.listen(self._backlog)
            self._loop.watch(listening.fileno(), self, IN)
        except OSError as problem:
            listening.close()
            if file is not None:
                file.remove()
            raise error.CannotListenError(None, self._path, problem) from problem
        self._socket, self._file = listening, file
        self._pauses, self._closed = -1, Deferred()
        self.factory.doStart()

    def resume(self, listening: socket.socket) -> None:
        """Go on where another process has left."""
        listening.setblocking(False)
        os.chmod(self._path, self._mode)
        listening.listen(self._backlog)  # this process is the one that clients see now
        self._loop.watch(listening.fileno(), self, IN)
        self._socket, self._file = listening, SocketFile(self._path)
        self._pauses, self._closed = -1, Deferred()
        self.factory.doStart()

    def fileno(self) -> int:
        """Return its descriptor, -1 once it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def leave(self) -> None:
        """Accept nobody any more; the socket and its file are for another process."""
        if self._file is not None:
            self._file.leave()
        self._close()

    def ready(self, mask: int) -> None:
        """Accept who waits."""
        self._accept()

    def _accept(self) -> bool:
        """Accept who waits, `ACCEPTS` of them at most; return whether there may be more."""
        assert self._socket is not None
        # What socket.accept() is made of: a socket object for each client would cost 2 µs.
        accept = self._socket._accept  # type: ignore[attr-defined]
        for _ in range(ACCEPTS):
            try:
                descriptor, _ = accept()
            except BlockingIOError:
                return False
            except OSError as problem:
                if problem.errno in _NO_DESCRIPTOR:
                    self._wait(problem)
                return False  # otherwise the client has gone already
            self._refused = False
            os.set_blocking(descriptor, False)
            try:
                protocol = self.factory.buildProtocol(_NAMELESS)
            except Exception:
                log.failure("a fault in {factory}", factory=self.factory)
                protocol = None
            if protocol is None:
                os.close(descriptor)
                continue
            self._loop.start(SocketTransport(self._loop, descriptor, protocol))
            self._loop.read_soon(descriptor)
        return True

    def serve(self, descriptor: int, data: bytes) -> None:
        """Serve a client that another process has accepted, and of which it has read this."""
        protocol = self.factory.buildProtocol(_NAMELESS)
        if protocol is None:
            os.close(descriptor)
            return
        self._loop.adopt(socket.socket(fileno=descriptor), protocol)
        if data:
            protocol.dataReceived(data)

    def _wait(self, problem: OSError) -> None:
        """Leave clients waiting until there are descriptors again."""
        if not self._refused:
            log.warn("{path}: no client is accepted: {why}", path=self._path, why=problem.strerror)
        self._refused = True
        assert self._socket is not None
        self._loop.watch_for(self._socket.fileno(), 0)
        self._pause = self._loop.reactor.callLater(ACCEPT_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        assert self._socket is not None
        if self._pauses < 0:
            self._loop.watch_for(self._socket.fileno(), IN)
        else:
            self._accept_last()

    def stopListening(self) -> Deferred[None]:
        """
        Take no newcomers, accept who has connected, and stop.

        Closing the socket would end those connections without a word; the kernel made them, so
        these clients take themselves for served. It takes a while when there are no descriptors.

        :return: fires when the socket is closed.
        """
        if self._socket is not None and self._pauses < 0:
            self._remove_file()
            # Refuses those who found the path before it was removed.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)
            self._pauses = LAST_PAUSES
            self._accept_last()
        stopped = Deferred[None]()
        self._closed.addBoth(lambda _: stopped.callback(None))
        return stopped

    def _accept_last(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        while self._accept():
            pass
        self._pauses -= 1
        if self._pause is None or self._pauses < 0:
            self._close()

    def _close(self) -> None:
        listening, self._socket = self._socket, None
        if listening is None:
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._remove_file()
        # Another process may have it open, and then closing alone would not end the events.
        self._loop.forget(listening.fileno())
        self._loop.close(listening.detach())
        self.factory.doStop()
        self._loop.when_closed().chainDeferred(self._closed)

    def _remove_file(self) -> None:
        if self._file is not None:
            self._file.remove()

    def shut_down(self, reason: Failure) -> None:
        """Stop listening, for the reactor stops."""
        self._close()

    def getHost(self) -> UNIXAddress:
        """Return where it listens."""
        return UNIXAddress(self._path)


class _Connector(BaseConnector):
    """Makes one TCP connection, as often as `connect` is called."""

    def __init__(
        self, loop: SocketLoop, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> None:
        super().__init__(factory, timeout, loop.reactor)
        self.loop = loop
        self.host = host
        self.port = port

    def _makeTransport(self) -> Any:
        return _Attempt(self)

    def getDestination(self) -> IPv4Address | IPv6Address:
        kind = IPv6Address if ":" in self.host else IPv4Address
        return kind("TCP", self.host, self.port)


def _wants_loss(factory: Any) -> bool:
    """
    Return whether a factory does anything at a connection's end.

    Where it does not, factory and connector need not stay in memory as long as the connection:
    that is a third of what one of thousands takes.
    """
    return type(factory).clientConnectionLost is not ClientFactory.clientConnectionLost


class _Attempt:
    """A connection that is being made."""

    def __init__(self, connector: _Connector) -> None:
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
            self._loop.watch(connecting.fileno(), self, OUT)
        except OSError as problem:
            # Not before connectTCP has returned.
            failure = error.getConnectError(problem)
            self._loop.reactor.callLater(0, self.failIfNotConnected, failure)

    def ready(self, mask: int) -> None:
        """It is connected, or has failed."""
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
        self._loop.forget(self._socket.fileno())
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
        """End an attempt to connect, and tell the factory why."""
        if self._over:
            return
        if isinstance(reason, error.TimeoutError) and self._is_made():
            # Timers come before sockets: the process was stopped, or busy, until the time was over.
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
        """Give the attempt up, for the reactor stops."""
        self.failIfNotConnected(error.UserError())
