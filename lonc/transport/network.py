# Twisted's Failure and BaseConnector have few annotations:
# mypy: allow-untyped-calls
"""
Listening on UNIX sockets, and connecting to londs.

`SocketNetwork` does this with the connections of :mod:`lonc.transport.stream`; tests pass in
others.
"""

from __future__ import annotations

import socket
from typing import Protocol as Interface

from twisted.internet.interfaces import IConnector, IListeningPort
from twisted.internet.protocol import ClientFactory, Factory

from lonc.transport.epoll_loop import Moment, Reactor, SocketLoop
from lonc.transport.listening import Port
from lonc.transport.tcp import TCPConnector


class Network(Interface):
    """
    Listens on UNIX sockets and makes TCP connections.

    :ivar moment: the time at which the event being handled was noticed.
    """

    moment: Moment

    @property
    def behind(self) -> bool:
        """Whether data has arrived that has not been read."""

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> IListeningPort:
        """
        Listen on a UNIX socket. When the port stops, it removes its own file only.

        :param backlog: number of clients that may wait to be accepted.
        :param mode: the file's permissions.
        :raises twisted.internet.error.CannotListenError: contains the path.
        """

    def resumeUNIX(
        self, listening: socket.socket, path: str, factory: Factory, backlog: int, mode: int
    ) -> IListeningPort:
        """Accept clients on a listening socket, which the port then owns."""

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> IConnector:
        """
        Connect to an IPv4 or IPv6 address (not a name); the factory is informed of the outcome.

        :param timeout: seconds.
        """


def network(reactor: Reactor) -> Network:
    """Return the network of a POSIX reactor; requires Linux."""
    return SocketNetwork(reactor)


class SocketNetwork:
    """
    Listens and connects with lonc's own sockets and epoll instance.

    :param reactor: can watch the epoll descriptor, and provides the time.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.loop = SocketLoop(reactor)
        self.moment = self.loop.moment

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
        connector = TCPConnector(self.loop, host, port, factory, timeout)
        connector.connect()
        return connector
