# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
A port on a Twisted endpoint, which can be moved to another one while lonc runs.
"""

from __future__ import annotations

import contextlib
from abc import ABCMeta, abstractmethod
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, execute, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.report.events import Logger, RateLimited
from lonc.transport.endpoint import Endpoint
from lonc.transport.network import Keeper, Network, listen
from lonc.transport.unix_socket import SocketFile

log = Logger()


@implementer(IStreamServerEndpoint)
class UnixEndpoint:
    """
    A UNIX socket, as described by ``unix:PATH:mode=MODE:backlog=NUMBER``.

    :param lockfile: accepted as Twisted does, and not needed: see `ListeningReactor.listenUNIX`.
    """

    def __init__(
        self,
        reactor: Any,
        address: str,
        mode: str = "666",
        backlog: str = "50",
        lockfile: str = "1",
    ) -> None:
        int(lockfile)
        self._reactor = reactor
        self._address = address
        self._options = {"mode": int(mode, 8), "backlog": int(backlog)}

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen."""
        return execute(self._reactor.listenUNIX, self._address, factory, **self._options)


def server_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    Return the endpoint of a description; may raise any exception.

    :param reactor: None to check the description only.
    """
    endpoint = Endpoint.parse(description)
    if endpoint.kind == "unix":
        with contextlib.suppress(TypeError):  # a wrong option: Twisted says what is wrong
            return UnixEndpoint(reactor, *endpoint.arguments, **endpoint.named)
    # Imports TLS, which needs 4 MB, and finds the descriptors of ``systemd:``.
    from twisted.internet.endpoints import serverFromString

    other: IStreamServerEndpoint = serverFromString(reactor, description)
    return other


class PortError(Exception):
    """Listening failed; the readable message contains the port and its description."""


class ListeningReactor:
    """
    The reactor that is passed to an endpoint; it intercepts listening on UNIX sockets.

    :param network: listens on UNIX sockets.
    :param description: the endpoint description.
    :param keeper: keeps UNIX sockets open across a restart.
    :ivar file: the file of the UNIX socket, if one was created.
    """

    def __init__(self, reactor: Any, network: Network, description: str, keeper: Keeper) -> None:
        self.reactor = reactor
        self._network = network
        self._keeper = keeper
        self.description = description
        self.file: SocketFile | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reactor, name)

    def listenSSL(
        self, port: int, factory: Factory, contextFactory: Any, backlog: int, interface: str
    ) -> IListeningPort:
        """Listen as the reactor would, which may have been imported without TLS."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        wrapped = TLSMemoryBIOFactory(contextFactory, False, factory)
        listening: IListeningPort = self.reactor.listenTCP(port, wrapped, backlog, interface)
        listening._type = "TLS"  # type: ignore[attr-defined]  # for the log, as the reactor does
        return listening

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """Listen, replacing a socket left behind by a crash."""
        port = listen(self._network, self._keeper, address, factory, backlog, mode)
        self.file = SocketFile(address)
        return port


class EndpointPort(Service, metaclass=ABCMeta):
    """
    Listens on a Twisted endpoint.

    :param network: listens on UNIX sockets.
    :param name: for messages.
    :param description: a server endpoint description; None for no port.
    :param keeper: keeps a UNIX socket open across a restart.
    :cvar error: the exception raised when listening fails.
    :cvar advice: appended to the reason in the error message.
    :cvar reactor_for: the reactor class passed to the endpoint.
    """

    error: type[PortError] = PortError
    advice = ""
    reactor_for: type[ListeningReactor] = ListeningReactor

    def __init__(
        self,
        reactor: Any,
        network: Network,
        factory: IProtocolFactory,
        name: str,
        description: str | None,
        keeper: Keeper | None = None,
    ) -> None:
        self.setName(name)
        self.description = description
        self._keeper = keeper or Keeper()
        self._reactor = reactor
        self._network = network
        self._factory = factory
        self._port: IListeningPort | None = None
        self._file: SocketFile | None = None
        self._moving = DeferredLock()
        self._missed = RateLimited(reactor, 60.0)
        self._not_moved = self._gone = ""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the connections that are open."""

    def endpoint(self, reactor: ListeningReactor, description: str) -> IStreamServerEndpoint:
        """Return the endpoint of a description; may raise any exception."""
        return server_endpoint(reactor, description)

    def startService(self) -> None:
        """
        Listen.

        :raises PortError: listening failed.
        """
        super().startService()
        self._listen(self.description)

    async def relocate(self, description: str | None) -> None:
        """
        Listen elsewhere; open connections are closed in the next iteration of the reactor.

        :raises PortError: listening failed; it continues to listen at the old place.
        """
        async with self._moving:
            before = self.description
            self._not_moved = ""
            if description == before and (self._port is not None or before is None):
                return
            await self._close_port()
            try:
                self._listen(description)
            except PortError as error:
                self._not_moved = str(error)
                self._listen(before)
                raise
        # Such a connection may have requested this: its answer is sent first.
        self._reactor.callLater(0, lambda: Deferred.fromCoroutine(self.disconnect()))

    @property
    def failure(self) -> str:
        """Why it does not listen at its configured place; empty if it does."""
        return self._gone or self._not_moved

    @property
    def listening(self) -> bool:
        """Whether clients can reach it: its socket file may have been removed or replaced."""
        if self._port is None or self._file is None:
            return self._port is not None or self.description is None
        return self._file.intact

    def restore(self) -> None:
        """Listen again if the socket file is missing; open connections are kept."""
        if self.running and not self._moving.locked and not self.listening:
            Deferred.fromCoroutine(self._restore())

    async def _restore(self) -> None:
        async with self._moving:
            await self._close_port()
            if not self.running:
                return
            try:
                self._listen(self.description)
            except PortError as error:
                self._gone = str(error)
                if self._missed.allow() is not None:
                    log.critical("{error}", error=error, event="port-not-restored")
            else:
                log.warn("the {port} was missing and has been created again", port=self.name)

    def _listen(self, description: str | None) -> None:
        if description is None:
            self.description = self._file = None
            return
        reactor = self.reactor_for(self._reactor, self._network, description, self._keeper)
        try:
            listening = self.endpoint(reactor, description).listen(self._factory)
        except Exception as error:  # endpoints may raise anything
            raise self.error(f"{self.name} {description}: {error}") from None
        failures: list[Failure] = []
        listening.addCallbacks(self._listens, failures.append)
        for failure in failures:
            reason = failure.value
            told = reason.socketError if isinstance(reason, CannotListenError) else reason
            why = told.strerror if isinstance(told, OSError) and told.strerror else told
            raise self.error(f"{self.name} {description}: {why}{self.advice}")
        self.description = description
        self._file = reactor.file

    def _listens(self, port: IListeningPort) -> None:
        self._port = port
        self._gone = ""

    def stopService(self) -> Deferred[None]:
        """Stop listening and close all connections; fires when everything is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._close_port()
        await self.disconnect()

    async def _close_port(self) -> None:
        port, self._port = self._port, None
        if port is not None and not self._keeper.release(port):
            await maybeDeferred(port.stopListening)
