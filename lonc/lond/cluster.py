# Twisted's services have no annotations:
# mypy: allow-untyped-calls
"""
A cluster on one machine: the londs of a table, and the initial files.

`prepare` writes the files, `check_ports` checks beforehand whether the ports are available, and
`Cluster` is the Service. All londs use the same port, as in any cluster, each at its own address;
hosts with the same address share a lond.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from ipaddress import ip_address
from typing import Final

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime
from twisted.internet.task import LoopingCall

from lonc.config.hosts import Host, HostTable
from lonc.config.key_files import KeyFolder
from lonc.disk.files import replace_file
from lonc.lond import illness
from lonc.lond.faults import Faults
from lonc.lond.protocol import LondFactory
from lonc.lond.store import Store, StoreError
from lonc.report.events import Logger
from lonc.transport.endpoint_port import PortError

log = Logger()

#: The default port of londs.
LOND_PORT: Final = 5663

_HOSTS: Final = """\
# The hosts of this cluster: id:domain:role:hostname:address.
# Each address gets a lond, so it has to be one of this machine's.
l1:local:library:l1.localhost:127.0.0.1
l2:local:access:l2.localhost:127.0.0.2
"""
_CONF: Final = """\
# The configuration of this cluster. It is written once; from then on it is yours.
PerlSetVar lonHostID  l1
PerlSetVar lonTabDir  {tabs}
PerlSetVar lonSockDir {sock}
PerlSetVar lonDaemons {daemons}
PerlSetVar lonDocRoot {html}
PerlSetVar londPort   {port}
"""


class ClusterError(PortError):
    """The cluster cannot run. The message is a readable line with the reason."""


class NoPort(ClusterError):
    """A lond cannot listen on its port at its address."""


def prepare(folder: str, lond_port: int | None = None) -> str:
    """
    Create the missing folders and files of a cluster of two hosts.

    Files are created atomically, so the next run completes an interrupted one. Existing files are
    not changed.

    :param folder: created if missing.
    :param lond_port: for a new ``loncapa.conf``; 5663 if None.
    :return: the absolute path of ``loncapa.conf``.
    :raises ClusterError: a file or folder cannot be created; the message contains its path.
    """
    folder = os.path.abspath(folder)
    if not folder.isprintable():
        raise ClusterError(f"{folder!a}: its name does not fit into a line of loncapa.conf")
    names = ("tabs", "sock", "daemons", "html")
    where = {name: _quoted(os.path.join(folder, name)) for name in names}
    conf = os.path.join(folder, "loncapa.conf")
    try:
        for name in ("tabs", "sock/delayed", "daemons/logs", "html/lon-status"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        os.makedirs(os.path.join(folder, "data"), mode=0o700, exist_ok=True)
        _write_once(os.path.join(folder, "tabs", "hosts.tab"), _HOSTS)
        _write_once(conf, _CONF.format(port=lond_port or LOND_PORT, **where))
    except OSError as error:
        raise ClusterError(f"{error.filename or folder}: {error.strerror}") from error
    return conf


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write_once(path: str, text: str) -> None:
    if not os.path.exists(path):
        replace_file(path, text.encode())


def _address(host: Host) -> str:
    if host.address is None:
        raise ClusterError(f"the lond {host.id} has no address in the host table, only a name")
    return host.address


@contextmanager
def who_listens(who: str, port: int, address: str) -> Iterator[None]:
    """
    Listen in the body of the ``with``.

    :param who: for the message, such as the name of a lond.
    :raises NoPort: that failed; the message has all of these.
    """
    try:
        yield
    except (CannotListenError, OSError) as error:  # the reactor does not convert all
        reason = error.socketError if isinstance(error, CannotListenError) else error
        told = reason.strerror or reason
        raise NoPort(f"{who} cannot listen on port {port} at {address}: {told}") from error


def _londs(table: HostTable) -> list[list[Host]]:
    """Return the hosts of each lond: those with the same address."""
    found: dict[str, list[Host]] = {}
    for host in table.hosts.values():
        found.setdefault(str(ip_address(_address(host))), []).append(host)
    return list(found.values())


def check_ports(table: HostTable, port: int) -> None:
    """
    Check that the port is available at all addresses, by binding to all at the same time.

    :raises ClusterError: not available; the message contains address and port.
    """
    with ExitStack() as held:
        for host, *_ in _londs(table):
            address = _address(host)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with who_listens(f"the lond {host.id}", port, address):
                listener = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((address, port))
                listener.listen()


class _Reactor(IReactorTCP, IReactorTime):
    """The interfaces of the reactor that a lond needs."""


class LondService(Service):
    """
    A lond as a Service, named after its first host id.

    :param hosts: the hosts that it serves, at the same address.
    :param paths: the data files of the hosts.
    :ivar factory: the lond itself, while running.
    :ivar faults: its faults, which are kept when it is stopped and started.
    """

    factory: LondFactory

    def __init__(
        self,
        reactor: _Reactor,
        hosts: Sequence[Host],
        port: int,
        caller: str,
        paths: Sequence[str],
        tls: ssl.SSLContext | None = None,
        key_folder: KeyFolder | None = None,
    ) -> None:
        self._host = hosts[0]
        self.name = self._host.id
        self.host_ids = [host.id for host in hosts]
        self.faults = Faults()
        self._reactor = reactor
        self._port = port
        self._paths = paths
        self._make_lond = partial(
            LondFactory,
            reactor,
            self._host.id,
            caller,
            faults=self.faults,
            tls=tls,
            key_folder=key_folder,
        )
        self._stores = ExitStack()
        self._listener: IListeningPort | None = None

    def startService(self) -> None:
        """
        Open the data and listen.

        :raises ClusterError: one of these failed.
        """
        with ExitStack() as opened:
            # Not opened earlier: SQLite connections do not survive the fork of a daemon.
            try:
                stores = [opened.enter_context(closing(Store(path))) for path in self._paths]
            except StoreError as error:
                raise ClusterError(str(error)) from error
            others = dict(zip(self.host_ids[1:], stores[1:], strict=True))
            self.factory = self._make_lond(stores[0], others=others)
            address = _address(self._host)
            with who_listens(f"the lond {self.name}", self._port, address):
                self._listener = self._reactor.listenTCP(
                    self._port, self.factory, interface=address
                )
            self._stores = opened.pop_all()
        super().startService()
        for host_id in self.host_ids:
            log.info(
                "{lond}: a lond listens on port {port} at {address}",
                lond=host_id,
                port=self._port,
                address=self._host.address,
            )

    def stopService(self) -> Deferred[None]:
        """Stop listening, close connections and data; fires when done."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        await maybeDeferred(listener.stopListening)
        await self.factory.close_connections()
        self._stores.close()


class Cluster(MultiService):
    """
    The londs of a table, one per address; each is a `LondService`.

    ``cluster.getServiceNamed("l2")``, with any host id of a lond, can be stopped and started
    separately, and given ``faults``, to observe the reaction of lonc.

    :param folder: prepared by `prepare`; the data are in ``data/<host id>.sqlite`` there.
    :param port: of all londs.
    :param caller: the host id of the lonc known to the londs.
    :param tls: the context for TLS of all londs; without it they do not support TLS.
    :param key_folder: the folder of that lonc's key files, used by the lond of the caller.
    """

    #: Seconds between checks of the wanted state of the londs.
    PAUSE: Final = 1.0

    def __init__(
        self,
        reactor: _Reactor,
        folder: str,
        table: HostTable,
        port: int,
        caller: str,
        tls: ssl.SSLContext | None = None,
        key_folder: KeyFolder | None = None,
    ) -> None:
        super().__init__()
        self._folder = folder
        self._ill: dict[LondService, str] = {}
        self._looks = LoopingCall(lambda: Deferred.fromCoroutine(self._look()))
        self._looks.clock = reactor
        for hosts in _londs(table):
            ids = [host.id for host in hosts]
            paths = [os.path.join(folder, "data", f"{each}.sqlite") for each in ids]
            # The others simulate londs on other machines.
            own = key_folder if caller in ids else None
            lond = LondService(reactor, hosts, port, caller, paths, tls, own)
            lond.setServiceParent(self)

    def getServiceNamed(self, name: str) -> LondService:
        """
        Return the lond that serves a host id.

        :raises KeyError: there is none.
        """
        for lond in self:
            if name in lond.host_ids:
                return lond  # type: ignore[no-any-return]
        raise KeyError(name)

    def startService(self) -> None:
        """
        Start all londs, or none.

        :raises ClusterError: a port or data are not available.
        """
        try:
            super().startService()
        except BaseException:
            self.stopService()
            raise
        self._looks.start(self.PAUSE)

    def stopService(self) -> Deferred[None]:
        """Stop all londs; fires when done."""
        if self._looks.running:
            self._looks.stop()
        stopped: Deferred[None] = super().stopService()
        return stopped

    async def _look(self) -> None:
        """Apply the states recorded by `lonc.lond.illness`."""
        try:
            ill = illness.read(self._folder)
            for lond in self:
                wanted = next((ill[each] for each in lond.host_ids if each in ill), illness.WELL)
                if wanted != self._ill.get(lond, illness.WELL):
                    await self._change(lond, wanted)
        except (OSError, ClusterError) as error:  # the next check tries again
            log.warn("the londs cannot be changed: {error}", error=error)

    async def _change(self, lond: LondService, wanted: str) -> None:
        illness.order(lond.faults, wanted)
        if lond.running:
            await lond.stopService()  # ends replies begun before
        if wanted != illness.STOPPED and self.running:
            lond.startService()
        self._ill[lond] = wanted
        log.info("{lond}: the lond is {illness} now", lond=lond.name, illness=wanted)
