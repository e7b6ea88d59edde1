# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
The management port, and all ports other than the hosts' sockets.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory

from lonc.config.current import InForce
from lonc.config.settings import Settings
from lonc.report.events import Logger
from lonc.report.problems import Problem, problem
from lonc.transport.endpoint import Endpoint
from lonc.transport.endpoint_port import EndpointPort, ListeningReactor, PortError, server_endpoint
from lonc.transport.network import Keeper, Network

if TYPE_CHECKING:
    from lonc.config.certificates import Certificates
    from lonc.control.access import Names
    from lonc.control.parts import Parts
    from lonc.control.server import ManagementFactory, ManagementProtocol

#: Twisted's default mode of a UNIX socket. A colon after a backslash is part of a path.
_EVERYBODY = 0o666
_ASKED_FOR_EVERYBODY = re.compile(r"(?<!\\):(mode=)?(0o)?0*666(:|$)")

log = Logger()


class ManagementPortError(PortError):
    """The management port cannot be opened; the message is readable and has its description."""


class _GuardedReactor(ListeningReactor):
    """Refuses descriptions that would be accessible from other machines."""

    def listenTCP(self, *where: object, interface: str = "", **more: object) -> IListeningPort:
        """Listen; raises ManagementPortError if other machines could connect."""
        _check_loopback(interface)
        port: IListeningPort = self.reactor.listenTCP(*where, interface=interface, **more)
        return port

    def listenSSL(
        self, port: int, factory: Factory, contextFactory: Any, backlog: int, interface: str
    ) -> IListeningPort:
        """Listen; this does not request client certificates, so it is no safer than TCP."""
        _check_loopback(interface)
        return super().listenSSL(port, factory, contextFactory, backlog, interface)

    def adoptStreamPort(self, fd: int, family: int, factory: Factory) -> IListeningPort:
        """Adopt a socket opened by another program, such as systemd."""
        if family != socket.AF_UNIX:
            with socket.socket(fileno=os.dup(fd)) as adopted:
                _check_loopback(adopted.getsockname()[0])
        listening: IListeningPort = self.reactor.adoptStreamPort(fd, family, factory)
        return listening

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = 50,
        mode: int = _EVERYBODY,
        wantPID: bool = False,
    ) -> IListeningPort:
        """Listen; the default mode is 0600, for lonc's own user only."""
        if mode == _EVERYBODY and not _ASKED_FOR_EVERYBODY.search(self.description):
            mode = 0o600
        return super().listenUNIX(address, factory, backlog, mode)


def _check_loopback(interface: str) -> None:
    """Raise ManagementPortError if an interface is accessible from other machines."""
    try:
        loopback = ipaddress.ip_address(interface).is_loopback
    except ValueError:
        loopback = interface == "localhost"
    if not loopback:
        raise ManagementPortError(
            "clients cannot be identified there: use an interface of this machine only, such as "
            "interface=127.0.0.1, or see loncManagementTLS"
        )


def check_description(description: str, certificates: Certificates | None) -> None:
    """
    Check the description of a management port, without listening.

    :raises ManagementPortError: it is invalid.
    """
    try:
        if description.startswith("lonctls:"):
            from lonc.control.tls import ServerEndpoint

            ServerEndpoint(None, description, lambda: certificates).context()
            return
        server_endpoint(None, description)
        endpoint = Endpoint.parse(description)
        if endpoint.kind in ("tcp", "tcp6", "ssl"):
            _check_loopback(endpoint.named.get("interface", ""))
    except Exception as error:  # endpoints raise any exception
        raise ManagementPortError(f"{description}: {error}") from None


class _OnDemand(Factory):
    """Imports AMP at the first connection: often there is none, and it takes two megabytes."""

    noisy = False

    def __init__(
        self, parts: Callable[[], Parts], reactor: Any, names: Callable[[], Names]
    ) -> None:
        self._names = names
        self._parts = parts
        self._reactor = reactor
        self._made: ManagementFactory | None = None

    def logPrefix(self) -> str:
        """Its name in Twisted's log lines."""
        return "the management port"

    def buildProtocol(self, addr: IAddress | None) -> ManagementProtocol | None:
        from lonc.control.access import visitor_of
        from lonc.control.responders import Responders
        from lonc.control.server import ManagementFactory

        if self._made is None:
            self._made = ManagementFactory(
                partial(Responders, self._parts()),
                self._reactor,
                visitor_of=lambda each: visitor_of(each, self._names()),
            )
        return self._made.buildProtocol(addr)

    async def disconnect(self) -> None:
        if self._made is not None:
            await self._made.disconnect()


class ManagementPort(EndpointPort):
    """
    Listens for management connections.

    :param parts: returns the parts of the daemon; called at the first connection.
    :param description: a server endpoint description; None for no port.
    :param group: a group that may see over a UNIX socket; None to use only its mode.
    :param certificates: returns the own certificates, for ``lonctls:``.
    :param names: returns the certificate names that may see, or steer.
    :param name: a readable name.
    :param keeper: keeps its UNIX socket over a restart.
    """

    error = ManagementPortError
    reactor_for = _GuardedReactor

    def __init__(
        self,
        reactor: Any,
        network: Network,
        parts: Callable[[], Parts],
        description: str | None,
        group: int | None = None,
        certificates: Callable[[], Certificates | None] = lambda: None,
        names: Callable[[], Names] = tuple,
        name: str = "management port",
        keeper: Keeper | None = None,
    ) -> None:
        self._group = group
        self._shared = False
        self._not_shared = ""
        self._certificates = certificates
        self._made_on_demand = _OnDemand(parts, reactor, names)
        super().__init__(reactor, network, self._made_on_demand, name, description, keeper)

    def endpoint(self, reactor: ListeningReactor, description: str) -> IStreamServerEndpoint:
        """Return the endpoint of a description; ``lonctls:`` is lonc's own."""
        if not description.startswith("lonctls:"):
            return super().endpoint(reactor, description)
        from lonc.control.tls import ServerEndpoint

        # Other machines may connect here, since they must present a certificate.
        return ServerEndpoint(reactor.reactor, description, self._certificates)

    @property
    def failure(self) -> str:
        """Why it does not listen at its configured place or for its group; empty if it does."""
        return super().failure or self._not_shared

    def share(self, group: int | None) -> str:
        """Set the group that may see; return why that failed, or an empty text."""
        before, self._group = self._group, group
        return "" if group == before else self._share()

    def _share(self) -> str:
        self._not_shared = ""
        if self._file is not None and (self._group is not None or self._shared):
            try:
                os.chown(self._file.path, -1, os.getegid() if self._group is None else self._group)
                os.chmod(self._file.path, 0o600 if self._group is None else 0o660)
                self._shared = self._group is not None
            except OSError as error:  # its owner and root still have access
                told = f"not for group {self._group}: {error.strerror}"
                self._not_shared = f"{self.name} {self.description}: {told}"
                log.critical("{error}", error=self._not_shared, event="port-not-shared")
        return self._not_shared

    def _listen(self, description: str | None) -> None:
        super()._listen(description)
        if self._file is not None:
            self._shared = False
            self._share()
        elif description is not None and not description.startswith("lonctls:"):
            log.warn(
                "management port {description}: every local user may see, and nobody may steer",
                description=description,
            )

    async def disconnect(self) -> None:
        """Close all connections, once they have read their answers."""
        await self._made_on_demand.disconnect()


class Ports(MultiService):
    """
    All ports other than the hosts' sockets. Each has a setting.

    :param parts: returns the parts of the daemon for the management ports.
    :param keeper: keeps the UNIX socket of the management port over a restart.
    :param http: the HTTP port.
    :ivar unshared: ports that only one process can have at a time.
    """

    def __init__(
        self,
        reactor: Any,
        network: Network,
        in_force: InForce,
        parts: Callable[[], Parts],
        keeper: Keeper,
        http: EndpointPort,
    ) -> None:
        super().__init__()
        settings, group = in_force.settings, in_force.settings.management_group
        at = reactor, network, parts
        who = (lambda: in_force.access.certificates, lambda: in_force.settings.management_names)
        self._management = ManagementPort(*at, settings.management, group, *who, keeper=keeper)
        self._tls = ManagementPort(
            *at, settings.management_tls, None, *who, name="TLS management port"
        )
        self._http = http
        self.unshared: Sequence[EndpointPort] = (self._tls, self._http)
        self._all: Sequence[EndpointPort] = (self._management, *self.unshared)
        for each in self._all:
            each.setServiceParent(self)
        self._moving: list[Deferred[list[str]]] = []

    def restore(self) -> None:
        """Listen again if a socket has disappeared."""
        for port in self._all:
            port.restore()

    def problems(self) -> Iterator[Problem]:
        """Yield a problem for each port that does not listen where it should."""
        for port in self._all:
            if port.failure:
                yield problem("port-not-open", str(port.name), port.failure)

    def share(self, group: int | None) -> list[str]:
        """Set the group that may see; return errors."""
        told = self._management.share(group)
        return [f"loncManagementGroup: {told}"] if told else []

    def relocate(self, settings: Settings) -> list[Deferred[list[str]]]:
        """Listen as configured; each Deferred fires with a list of errors."""
        where = [
            ("loncManagement", self._management, settings.management),
            ("loncManagementTLS", self._tls, settings.management_tls),
            ("loncHTTP", self._http, settings.http),
        ]
        moved = [Deferred.fromCoroutine(_relocate(*each)) for each in where]
        self._moving = [*(each for each in self._moving if not each.called), *moved]
        return moved

    def relocated(self) -> Deferred[list[tuple[bool, list[str]]]]:
        """Return a Deferred that fires when all ports have been moved."""
        return DeferredList(self._moving, consumeErrors=True)


async def _relocate(setting: str, port: EndpointPort, description: str | None) -> list[str]:
    """Listen as configured; return errors."""
    try:
        await port.relocate(description)
    except Exception as error:
        log.critical("{error}", error=error, event="port-not-moved")
        return [f"{setting}: {error}"]
    return []
