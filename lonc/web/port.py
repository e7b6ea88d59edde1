# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""The HTTP port for the page and the metrics (setting ``loncHTTP``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory

from lonc.control.reporter import Reporter
from lonc.transport.endpoint import Endpoint
from lonc.transport.endpoint_port import EndpointPort
from lonc.transport.network import Network
from lonc.web.history import History

if TYPE_CHECKING:
    from lonc.web.channel import LimitedSite


def address(description: str | None) -> str:
    """
    Return the readable address of the page.

    :param description: a server endpoint description; None for no page.
    """
    if description is None:
        return "none (see --http)"
    endpoint = Endpoint.parse(description)
    if endpoint.kind not in ("tcp", "tcp6"):
        return description
    port = endpoint.argument("port")
    host = endpoint.named.get("interface", "localhost")
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class HTTPPort(EndpointPort):
    """
    Listens for browsers and scrapers.

    :param reporter: provides the content of the pages.
    :param description: a server endpoint description; None for no port.
    """

    advice = "; --http takes another port or none, as in make run HTTP=none"

    def __init__(
        self, reactor: Any, network: Network, reporter: Reporter, description: str | None
    ) -> None:
        self._reporter = reporter
        self._history = History()
        self._site: LimitedSite | None = None
        super().__init__(reactor, network, Factory(), "HTTP port", description)

    def _listen(self, description: str | None) -> None:
        if description is not None and self._site is None:
            # Imported only here, because most daemons have no such port; and not at the first
            # request, because the import would block all clients for a tenth of a second.
            from lonc.web.site import site

            self._factory = self._site = site(self._reporter, self._history, self._reactor)
        super()._listen(description)

    def sampling(self) -> Iterator[None]:
        """
        Add a sample to the history, one host per step; every :data:`lonc.web.history.PAUSE` s.
        """
        if self.description is None:
            return
        for status in self._reporter.looking():
            self._history.note(status)
            yield
        self._history.complete(self._reactor.seconds())

    async def disconnect(self) -> None:
        """Close all connections; clients will request again."""
        if self._site is not None:
            self._site.slots.close()
