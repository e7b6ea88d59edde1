# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
Where the management port listens.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from lonc.report.rate_limit import RateLimited
from lonc.transport.network import PosixNetwork, ReactorNetwork
from lonc.transport.unix_socket import clear_stale_socket

if TYPE_CHECKING:
    from lonc.management.server import Daemon, ManagementFactory, ManagementProtocol

#: Twisted's mode for a UNIX socket whose description names none. A colon behind a backslash is
#: part of a path.
_EVERYBODY = 0o666
_ASKED_FOR_EVERYBODY = re.compile(r"(?<!\\):(mode=)?(0o)?0*666(:|$)")

log = Logger()


class ManagementPortError(Exception):
    """The management port cannot be had; the message names its description, for a person."""


class _GuardedReactor:
    """
    The reactor as an endpoint sees it: what must not listen there is refused.

    Endpoints differ in how they are described, and all come here with what they have made of it.

    :ivar path: where a UNIX socket was made.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        self._reactor = reactor
        self._description = description
        self.path: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Factory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen; raises ManagementPortError where other machines would come through."""
        _check_loopback(interface)
        listening: IListeningPort = self._reactor.listenTCP(
            port, factory, backlog=backlog, interface=interface
        )
        return listening

    def listenSSL(
        self, port: int, factory: Factory, context: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen; it does not ask for the other side's certificate, so it is no safer than TCP."""
        _check_loopback(interface)
        listening: IListeningPort = self._reactor.listenSSL(
            port, factory, context, backlog=backlog, interface=interface
        )
        return listening

    def adoptStreamPort(self, fd: int, family: int, factory: Factory) -> IListeningPort:
        """Take over what somebody else has opened, such as systemd."""
        if family != socket.AF_UNIX:
            with socket.socket(fileno=os.dup(fd)) as adopted:
                _check_loopback(adopted.getsockname()[0])
        listening: IListeningPort = self._reactor.adoptStreamPort(fd, family, factory)
        return listening

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = 50,
        mode: int = _EVERYBODY,
        wantPID: bool = False,
    ) -> IListeningPort:
        """Listen; without a mode that was asked for, for lonc's own user only."""
        if mode == _EVERYBODY and not _ASKED_FOR_EVERYBODY.search(self._description):
            mode = 0o600
        posix = isinstance(self._reactor, PosixReactorBase)
        network = PosixNetwork(self._reactor) if posix else ReactorNetwork(self._reactor)
        clear_stale_socket(address)
        # An earlier release left Twisted's lock there. It holds a process id, which another
        # process may have by now, so none is made.
        with contextlib.suppress(OSError):
            os.unlink(f"{address}.lock")
        self.path = address
        return network.listenUNIX(address, factory, backlog, mode)


def _check_loopback(interface: str) -> None:
    """Raise ManagementPortError where an interface is another than this machine's own."""
    try:
        loopback = ipaddress.ip_address(interface).is_loopback
    except ValueError:
        loopback = interface == "localhost"
    if not loopback:
        raise ManagementPortError(
            "whoever reaches it can stop lonc: it takes an interface of this machine alone, "
            "such as interface=127.0.0.1"
        )


def _file_at(path: str | None) -> os.stat_result | None:
    try:
        return None if path is None else os.lstat(path)
    except OSError:
        return None


class _OnDemand(Factory):
    """Imports AMP when somebody comes: most of the time nobody does, and it takes two megabytes."""

    noisy = False

    def __init__(self, daemon: Daemon, reactor: Any) -> None:
        self._daemon = daemon
        self._reactor = reactor
        self._made: ManagementFactory | None = None

    def buildProtocol(self, addr: IAddress | None) -> ManagementProtocol | None:
        from lonc.management.server import ManagementFactory

        if self._made is None:
            self._made = ManagementFactory(self._daemon, self._reactor)
        return self._made.buildProtocol(addr)

    async def disconnect(self) -> None:
        if self._made is not None:
            await self._made.disconnect()


class ManagementPort(Service):
    """
    Listens for management connections on a Twisted endpoint.

    :param description: a server endpoint description.
    """

    def __init__(self, reactor: Any, daemon: Daemon, description: str) -> None:
        self.setName("management")
        self.description = description
        self._reactor = reactor
        self._factory = _OnDemand(daemon, reactor)
        self._port: IListeningPort | None = None
        self._path: str | None = None
        self._file: os.stat_result | None = None
        self._moving = DeferredLock()
        self._missed = RateLimited(reactor, 60.0)

    def startService(self) -> None:
        """
        Listen.

        :raises ManagementPortError: when that cannot be.
        """
        super().startService()
        self._listen(self.description)

    async def move(self, description: str) -> None:
        """
        Listen elsewhere; connections that are open are closed in the next turn of the reactor.

        :raises ManagementPortError: when that cannot be, and it listens where it did.
        """
        async with self._moving:
            before = self.description
            if description == before and self._port is not None:
                return
            await self._close_port()
            try:
                self._listen(description)
            except ManagementPortError:
                self._listen(before)
                raise
        # Whoever asked for this over such a connection gets an answer first.
        self._reactor.callLater(0, self._factory.disconnect)

    @property
    def listening(self) -> bool:
        """Whether it can be found: somebody may have removed or replaced its socket."""
        if self._port is None or self._file is None:
            return self._port is not None
        there = _file_at(self._path)
        return there is not None and os.path.samestat(there, self._file)

    def watch(self) -> None:
        """Listen again where the socket has gone; connections that are open stay."""
        if self.running and not self._moving.locked and not self.listening:
            restoring = Deferred.fromCoroutine(self._restore())
            restoring.addErrback(self._not_restored)

    async def _restore(self) -> None:
        async with self._moving:
            await self._close_port()
            if self.running:
                self._listen(self.description)
                log.warn("the management port was gone and is there again")

    def _not_restored(self, failure: Failure) -> None:
        if self._missed.allow() is not None:
            log.critical("{error}", error=failure.value)

    def _listen(self, description: str) -> None:
        reactor = _GuardedReactor(self._reactor, description)
        try:
            listening = serverFromString(reactor, description).listen(self._factory)
        except Exception as error:  # endpoints raise whatever they like
            raise ManagementPortError(f"management port {description}: {error}") from None
        failures: list[Failure] = []
        listening.addCallbacks(self._listens, failures.append)
        for failure in failures:
            reason = failure.value
            told = reason.socketError if isinstance(reason, CannotListenError) else reason
            raise ManagementPortError(f"management port {description}: {told}")
        self.description = description
        self._path = reactor.path
        self._file = _file_at(reactor.path)

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None]:
        """Listen no more and close every connection; fires when all is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._close_port()
        await self._factory.disconnect()

    async def _close_port(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
