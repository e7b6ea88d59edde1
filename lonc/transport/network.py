"""
Listening on UNIX sockets, some of which outlive a restart, and connecting to londs.
"""

from __future__ import annotations

import socket

from twisted.internet.interfaces import IConnector, IListeningPort
from twisted.internet.protocol import ClientFactory, Factory

from lonc.transport.epoll_loop import Reactor, SocketLoop
from lonc.transport.listening import Port
from lonc.transport.tcp import TCPConnector
from lonc.transport.unix_socket import clear_stale_socket


class Network:
    """
    Listens on UNIX sockets and makes TCP connections, with lonc's own sockets and epoll instance.

    Tests pass in others.

    :param reactor: can watch the epoll descriptor, and provides the time.
    :ivar moment: the time at which the event being handled was noticed.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.loop = SocketLoop(reactor)
        self.moment = self.loop.moment

    @property
    def behind(self) -> bool:
        """Whether data has arrived that has not been read."""
        return self.loop.behind

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> IListeningPort:
        """
        Listen on a UNIX socket. When the port stops, it removes its own file only.

        :param backlog: number of clients that may wait to be accepted.
        :param mode: the file's permissions.
        :raises twisted.internet.error.CannotListenError: contains the path.
        """
        port = Port(self.loop, path, factory, backlog, mode)
        port.startListening()
        return port

    def resumeUNIX(
        self, listening: socket.socket, path: str, factory: Factory, backlog: int, mode: int
    ) -> IListeningPort:
        """Accept clients on a listening socket, which the port then owns."""
        port = Port(self.loop, path, factory, backlog, mode)
        port.resume(listening)
        return port

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> IConnector:
        """
        Connect to an IPv4 or IPv6 address (not a name); the factory is informed of the outcome.

        :param timeout: seconds.
        """
        connector = TCPConnector(self.loop, host, port, factory, timeout)
        connector.connect()
        return connector


def network(reactor: Reactor) -> Network:
    """Return the network of a POSIX reactor; requires Linux."""
    return Network(reactor)


class Keeper:
    """
    Keeps listening sockets open across a restart.

    This one keeps none: they end with the process.
    """

    def claim(self, path: str) -> socket.socket | None:
        """Return the kept listening socket of this path, if any; only once."""
        return None

    def store(self, path: str, port: IListeningPort) -> None:
        """Keep a socket from now on."""

    def release(self, port: IListeningPort) -> bool:
        """Stop keeping it; return whether it has to be left open instead of closed."""
        return False


def listen(
    network: Network, keeper: Keeper, path: str, factory: Factory, backlog: int, mode: int
) -> IListeningPort:
    """
    Listen on the kept socket, or on a new one, which is kept from now on.

    :raises SocketError: another process is listening there, or something else exists at the path.
    :raises CannotListenError: listening failed.
    """
    kept = keeper.claim(path)
    if kept is None:
        clear_stale_socket(path)
        port = network.listenUNIX(path, factory, backlog, mode)
    else:
        port = network.resumeUNIX(kept, path, factory, backlog, mode)
    keeper.store(path, port)
    return port
