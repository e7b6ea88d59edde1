# Twisted's Failure and BaseConnector have few annotations:
# mypy: allow-untyped-calls
"""
Sockets that send at once and keep only what did not fit.

Twisted's own transports wait for the reactor's next turn before they send, and the reactor looks
at each socket by itself. Here all sockets share one epoll, which the reactor watches as a single
reader: when it wakes, `SocketLoop.doRead` hands out everything that has arrived. To protocols
this is a transport like any other.

Three rules hold the whole together:

* No protocol is told of the end of its connection while it is calling us: ends that begin in a
  call are kept until the events at hand have been given out.
* No descriptor is closed while events are given out, so that its number cannot come back in
  between, and an event meant for the old socket cannot reach a new one.
* Nothing on the way of an ordinary read or write makes a Deferred, a timer or a log line.

Linux only; :func:`network` falls back on Twisted's transports elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet import error, tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IHalfCloseableProtocol,
    IListeningPort,
    IProducer,
    IProtocol,
    IPushProducer,
    IReadDescriptor,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import ClientFactory, Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: Bytes that one read takes at most.
READ_SIZE = 65536

#: Bytes unsent above which a producer is paused.
PAUSE_ABOVE = 65536

#: Events that one look at the epoll takes at most.
EVENTS = 256

#: How often the epoll is looked at before the reactor has its turn again. Its turn costs as much
#: as two requests; at most some 2,000 events, a few milliseconds, lie between two turns.
LOOKS = 8

#: Connections accepted at a time from one listening socket.
ACCEPTS = 64

#: Seconds without accepting when there are no descriptors left.
ACCEPT_PAUSE = 0.5

_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_IN = getattr(select, "EPOLLIN", 1)
_OUT = getattr(select, "EPOLLOUT", 4)
_HANG_UP = getattr(select, "EPOLLHUP", 16)
_ERROR = getattr(select, "EPOLLERR", 8)

log = Logger()


class Network(Protocol):
    """Who listens and connects; the tests have their own."""

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> IListeningPort:
        """
        Listen on a UNIX socket.

        :param backlog: clients that may wait to be accepted.
        :param mode: permissions of the socket file.
        :raises CannotListenError: with the path.
        """

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> IConnector:
        """
        Connect to an IPv4 or IPv6 address (not a name); the factory learns the outcome.

        :param timeout: seconds.
        """


def network(reactor: Any) -> Network:
    """Return the quickest network that there is for this reactor."""
    if not isinstance(reactor, PosixReactorBase):
        return _ReactorNetwork(reactor)
    return SocketLoop(reactor) if hasattr(select, "epoll") else _PosixNetwork(reactor)


class _ReactorNetwork:
    """Twisted's own transports."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> IListeningPort:
        port: IListeningPort = self._reactor.listenUNIX(
            path, factory, backlog=backlog, mode=mode, wantPID=0
        )
        return port

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> IConnector:
        connector: IConnector = self._reactor.connectTCP(host, port, factory, timeout=timeout)
        return connector


class _PosixNetwork(_ReactorNetwork):
    """Twisted's own transports, but for a port that does not remove another's file."""

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> IListeningPort:
        port = _PosixPort(path.encode(), factory, backlog, mode, self._reactor)
        port.startListening()
        port.inode = _inode(path)
        return port


class _PosixPort(unix.Port):
    inode: tuple[int, int] | None = None

    def connectionLost(self, reason: Failure) -> None:
        _remove(os.fsdecode(self._bindPath), self.inode)
        tcp.Port.connectionLost(self, reason)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remove(path: str, inode: tuple[int, int] | None) -> None:
    """Remove a socket file if it is still the one that was made."""
    if inode is not None and _inode(path) == inode:
        with contextlib.suppress(OSError):
            os.unlink(path)


class _Watched(Protocol):
    """What the loop knows by a descriptor."""

    def ready(self, mask: int) -> None:
        """Deal with the epoll events in this mask."""

    def shut_down(self, reason: Failure) -> None:
        """End: the reactor stops."""


@implementer(IReadDescriptor)
class SocketLoop:
    """
    The sockets on one epoll; a `Network`.

    It is with the reactor only while it has sockets.

    :param reactor: watches the epoll and gives the time.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._epoll: select.epoll | None = None
        self._transports: dict[int, SocketTransport] = {}
        self._others: dict[int, _Watched] = {}
        self._ending: list[tuple[SocketTransport, Failure]] = []
        self._closing: list[int] = []
        self._busy = False  # events are being given out, or ends are being dealt with

    # ------------------------------------------------------------------ the ordinary way

    def doRead(self) -> None:
        """Give out what has arrived."""
        assert self._epoll is not None
        poll, read, transports = self._epoll.poll, os.read, self._transports
        self._busy = True
        try:
            for _ in range(LOOKS):
                events = poll(0, EVENTS)
                if not events:
                    break
                for descriptor, mask in events:
                    if mask != _IN or descriptor not in transports:
                        self._unusual(descriptor, mask)
                        continue
                    transport = transports[descriptor]
                    try:
                        data = read(descriptor, READ_SIZE)
                        if data:
                            transport.protocol.dataReceived(data)
                            continue
                    except Exception:
                        transport.failed()
                        continue
                    transport.ended()
                if self._ending or self._closing:
                    self._settle()
        finally:
            self._busy = False
        self._rest()

    def _unusual(self, descriptor: int, mask: int) -> None:
        """Deal with an event that is not just data for a transport."""
        watched = self._transports.get(descriptor) or self._others.get(descriptor)
        # None: it was closed by an earlier event of the same look.
        if watched is not None:
            try:
                watched.ready(mask)
            except Exception:
                log.failure("an event on {watched} could not be dealt with", watched=watched)

    # ------------------------------------------------------------------ ends

    def end(self, transport: SocketTransport, reason: Failure) -> None:
        """Have a transport told of its end, after the protocols have returned."""
        self._transports.pop(transport.descriptor, None)
        self._ending.append((transport, reason))
        self._settle_soon()

    def close(self, descriptor: int) -> None:
        """Close a descriptor, after all events have been given out."""
        self._transports.pop(descriptor, None)
        self._others.pop(descriptor, None)
        self._closing.append(descriptor)
        self._settle_soon()

    def _settle_soon(self) -> None:
        if not self._busy and len(self._ending) + len(self._closing) == 1:
            self.reactor.callLater(0, self._settle)

    def _settle(self) -> None:
        """Tell transports of their ends, and close descriptors."""
        busy, self._busy = self._busy, True
        while self._ending:
            ending, self._ending = self._ending, []
            for transport, reason in ending:
                transport.lost(reason)
        closing, self._closing = self._closing, []
        for descriptor in closing:
            os.close(descriptor)
        self._busy = busy
        if not busy:
            self._rest()
