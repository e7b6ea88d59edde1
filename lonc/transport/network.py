# Twisted's Failure and BaseConnector have few annotations:
# mypy: allow-untyped-calls
"""
Listening on UNIX sockets, and connecting to londs.

That is `SocketNetwork`, with the connections of :mod:`lonc.transport.stream`; tests hand in others.
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
    Listens on UNIX sockets, and makes TCP connections.

    :ivar moment: when what is being handled was found to have happened.
    """

    moment: Moment

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


def network(reactor: Reactor) -> Network:
    """Return the network of a reactor for POSIX; it takes Linux."""
    return SocketNetwork(reactor)


class SocketNetwork:
    """
    Listens and connects with lonc's own sockets, on an epoll of their own.

    :param reactor: a reactor that can watch an epoll, and has the time.
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
