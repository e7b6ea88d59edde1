# Twisted's services and its web server have few annotations:
# mypy: allow-untyped-calls
"""
A web server for the cluster's host table, as on a LON-CAPA machine (protocol, section 7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IOpenSSLContextFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from lonc.config.hosts import Host
from lonc.lond.cluster import who_listens
from lonc.report.events import Logger

#: The address to listen at: the table is for this machine only.
ADDRESS = "127.0.0.1"

log = Logger()


def table_text(hosts: Iterable[Host]) -> bytes:
    """Return the text of a table with these hosts."""
    return "".join(f"{_line(host)}\n" for host in hosts).encode("ascii")


def _line(host: Host) -> str:
    if host.name != host.hostname:
        where = host.name
    elif host.address is None:
        where = f"{host.protocol}:{host.internet_domain}".rstrip(":")
    else:
        where = f"[{host.address}]" if ":" in host.address else host.address
    return ":".join((host.id, host.domain, host.role, host.hostname, where))


class TableServer(Service):
    """
    Serves ``/adm/dns/hosts`` while running.

    :param port: 0 for any free port.
    :param table: called for each request; returns the table.
    :param tls: its certificate, for https.
    :ivar port: on which it listens.
    """

    def __init__(
        self,
        reactor: Any,
        port: int,
        table: Callable[[], bytes],
        tls: IOpenSSLContextFactory | None = None,
    ) -> None:
        self.port = port
        self._reactor = reactor
        site = Site(_folder(b"adm", _folder(b"dns", _folder(b"hosts", _Table(table)))))
        site.noisy = False
        self._factory = site if tls is None else TLSMemoryBIOFactory(tls, False, site)
        self._protocol = "http" if tls is None else "https"
        self._listener: IListeningPort | None = None

    def startService(self) -> None:
        """
        Listen.

        :raises ClusterError: the port is not available.
        """
        with who_listens("the web server of the host table", self.port, ADDRESS):
            listener = self._reactor.listenTCP(self.port, self._factory, interface=ADDRESS)
        self._listener = listener
        self.port = listener.getHost().port
        super().startService()
        url = f"{self._protocol}://{ADDRESS}:{self.port}/adm/dns/hosts"
        log.info("the cluster's host table is at {url}", url=url)

    def stopService(self) -> Deferred[Any]:
        """Stop listening; fires when done."""
        super().stopService()
        listener, self._listener = self._listener, None
        return succeed(None) if listener is None else maybeDeferred(listener.stopListening)


def _folder(name: bytes, content: Resource) -> Resource:
    folder = Resource()
    folder.putChild(name, content)
    return folder


class _Table(Resource):
    """The web resource of the table."""

    isLeaf = True

    def __init__(self, table: Callable[[], bytes]) -> None:
        super().__init__()
        self._table = table

    def render_GET(self, request: Request) -> bytes:
        """Return the current table."""
        request.setHeader("content-type", "text/plain")
        return self._table()
