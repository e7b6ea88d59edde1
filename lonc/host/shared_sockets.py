# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
UNIX sockets that bear host names, each shared by all ids of that name (protocol, section 5).

What a client asks there begins with ``sethost:<id>:`` and goes to the host with that id; without
it the first id of the name in the table is meant. The host does the rest, as for a client of its
own socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.service import HostDependencies, HostService
from lonc.local.limits import Clients
from lonc.report.problems import Problem, problem
from lonc.transport.unix_socket import SocketError
from lonc.wire.request import ADDRESSED, Cause, Request, addressee

#: A host id -> its service, None while there is none.
Find = Callable[[str], HostService | None]


def _host_of(request: Request) -> HostService:
    """Return the host that has a request; it may have left the name, or the table, since."""
    assert isinstance(request.host, HostService)
    return request.host


class SharedSocket:
    """
    The socket of one host name; to its clients it is the host.

    :ivar ids: the host ids of that name, in the table's order.
    """

    def __init__(self, ids: tuple[str, ...], find: Find, dependencies: HostDependencies) -> None:
        self.serve(ids)
        self._find = find
        self._clock = dependencies.clock
        self._socket = dependencies.socket_for(self)
        self._last_asked: HostService | None = None
        self._over = False

    def serve(self, ids: tuple[str, ...]) -> None:
        """Share the socket among these ids from now on."""
        self.ids = ids
        self.host_id = ids[0]

    # ------------------------------------------------------------------ what clients ask

    def submit(self, request: Request) -> None:
        """Hand a request to the host that it names; one meant for none the first host refuses."""
        host_id = addressee(request.line) if request.line.startswith(ADDRESSED) else None
        host = self._find(host_id if host_id in self.ids else self.host_id)
        if host is None or self._over:
            request.asker.lost(Cause.CLOSED)
            return
        self._last_asked = host
        host.submit(request)

    def withdraw(self, request: Request) -> bool:
        """Forget a request that still waits; return whether it did."""
        return _host_of(request).withdraw(request)

    def cut_off(self, request: Request) -> None:
        """Close the connection that owes the answer to a request; nobody is told."""
        _host_of(request).cut_off(request)

    def sent_at(self, request: Request) -> float:
        """Return when a request was sent to its lond; 0.0 while it waits for a connection."""
        return _host_of(request).sent_at(request)

    def close_connections(self) -> None:
        """Close every connection to every host of that name and start afresh."""
        for host in self._hosts():
            host.close_connections()

    def count_lost(self, cause: Cause) -> None:
        """Count a ``con_lost`` that a client gave by itself with the first host."""
        for host in self._hosts()[:1]:
            host.count_lost(cause)

    def count_refused(self, cause: Cause) -> None:
        """Count a request that was not taken from its client with the first host."""
        for host in self._hosts()[:1]:
            host.count_refused(cause)

    @property
    def crashed(self) -> bool:
        """Whether the host that was asked last has to be started again."""
        return self._last_asked is not None and self._last_asked.crashed

    @crashed.setter
    def crashed(self, value: bool) -> None:
        if self._last_asked is not None:
            self._last_asked.crashed = value

    def _hosts(self) -> list[HostService]:
        return [host for host in map(self._find, self.ids) if host is not None]

    # ------------------------------------------------------------------ open and close

    def open(self, path: str, settings: Settings) -> None:
        """
        Listen there, if that is not so already.

        :raises SocketError: naming the path.
        """
        self._socket.open(path, settings.socket_mode, settings.socket_group)

    @property
    def listening(self) -> bool:
        """Whether clients find the socket."""
        return self._socket.intact

    def close(self) -> Deferred[object]:
        """Take no more clients; fires when that is so."""
        return self._socket.close()

    async def dismiss(self, grace: float) -> None:
        """
        Close it, and its clients too, those that have not gone after a second.

        :param grace: seconds that clients get for what is in flight.
        """
        closed = self.close()
        if grace:
            await deferLater(self._clock, grace)
        self._over = True
        await self._socket.dismiss(closed)


class SharedSockets:
    """
    The sockets of all host names, if the settings want any.

    :param find: a host id -> its service.
    """

    def __init__(self, find: Find, dependencies: HostDependencies) -> None:
        self._find = find
        self._dependencies = dependencies
        self._clients: Clients = dependencies.clients
        self._sockets: dict[str, SharedSocket] = {}
        self._settings: Settings | None = None
        self._taken: frozenset[str] = frozenset()
        self._leaving: set[Deferred[None]] = set()
        self._missing: dict[str, SocketError] = {}

    def arranging(
        self,
        hosts: Mapping[str, Host],
        settings: Settings,
        errors: list[SocketError | None],
    ) -> Iterator[None]:
        """
        Follow the table and the settings.

        Where a host name is an id as well, the id's own socket has that path.

        :param errors: takes why sockets cannot be had; that is tried again.
        :return: a socket at each step.
        """
        self._settings = settings
        by_id = settings.socket_names != "hostname"
        self._taken = frozenset(hosts) if by_id else frozenset()
        named: dict[str, list[str]] = {}
        if settings.socket_names != "id":
            for host in hosts.values():
                named.setdefault(host.hostname, []).append(host.id)
        wanted = {name: tuple(ids) for name, ids in named.items() if not by_id or ids != [name]}
        for name in [name for name in self._sockets if name not in wanted]:
            self._dismiss(self._sockets.pop(name), settings.drain_timeout)
            self._missing.pop(name, None)
            yield
        for name, ids in wanted.items():
            if name in self._sockets:
                self._sockets[name].serve(ids)
            else:
                self._sockets[name] = SharedSocket(ids, self._find, self._dependencies)
            errors.append(self._open(name))
            yield

    def _open(self, name: str) -> SocketError | None:
        assert self._settings is not None
        shared, path = self._sockets[name], self._settings.socket_path(name)
        room = self._settings.max_host_id
        try:
            if len(name) > room:
                raise SocketError(
                    f"{path}: too long, there is room for {room} characters of a name"
                )
            if name in self._settings.reserved_names:
                shared.close()
                raise SocketError(f"{path}: the name is reserved for one of lonc's own files")
            if name in self._taken:
                shared.close()
                raise SocketError(f"{path}: it is the socket of the host with that id")
            shared.open(path, self._settings)
        except SocketError as error:
            what = f"clients cannot be served: {error}"
            self._clients.warn("shared socket", shared.host_id, what)
            self._missing[name] = error
            return error
        self._missing.pop(name, None)
        return None

    def problems(self) -> Iterator[Problem]:
        """Yield a problem for each host name without a socket."""
        for name, error in self._missing.items():
            yield problem(
                "name-not-served", name, f"{name} has no socket that clients can use: {error}"
            )

    def restore(self) -> None:
        """Open again what somebody removed; called once a second."""
        for name, shared in self._sockets.items():
            if not shared.listening:
                self._open(name)

    def close(self) -> None:
        """Take no more clients: lonc stops."""
        for shared in self._sockets.values():
            shared.close()

    def dismiss(self) -> Deferred[list[tuple[bool, None]]]:
        """Close all clients once they have read their answers; fires when they have gone."""
        while self._sockets:
            self._dismiss(self._sockets.popitem()[1], 0.0)
        return DeferredList(list(self._leaving))

    def _dismiss(self, shared: SharedSocket, grace: float) -> None:
        leaving = Deferred.fromCoroutine(shared.dismiss(grace))
        self._leaving.add(leaving)
        leaving.addBoth(lambda _: self._leaving.discard(leaving))
