# twisted.web has few annotations:
# mypy: allow-untyped-calls
"""
HTTP connections with limits on their number, time and requests.

Clients may be slow, send unexpected data, or use a name that an attacker has made resolve to this
machine (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection
from itertools import islice
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as BaseRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

#: Maximum number of connections: some browsers, each with a few, and scrapers.
MAX_CONNECTIONS: Final = 64

#: Additional connections from this machine for health checks.
MAX_CHECKS: Final = 8

#: Seconds from the first byte of a request until its answer was read, and between two requests.
TIME_LIMIT: Final = 30

#: Seconds without a request after which a connection counts as idle and may be closed first; a new
#: one is about to send its request.
IDLE_AFTER: Final = 1.0

#: Paths of health checks.
CHECKS: Final = (b"/healthz", b"/readyz")

_BODY_REFUSED: Final = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def is_allowed(host: bytes, loopback: bool, own: Collection[str], given: Collection[str]) -> bool:
    """
    Return whether a request may be served.

    :param host: its ``Host`` header; empty without one, which no browser does.
    :param loopback: whether it arrived on a loopback address.
    :param own: this machine's names.
    :param given: names in the settings; if empty, any name is accepted on other addresses than
        loopback.
    """
    if not host or not (loopback or given):
        return True
    name = re.sub(r":\d*\Z", "", host.decode("latin-1")).lower().rstrip(".")
    return (
        name == "localhost"
        or _is_address(name.removeprefix("[").removesuffix("]"))
        or any(name == each.lower() for each in (*own, *given))
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(address: IAddress) -> bool:
    """Return whether a Twisted address is a loopback TCP address."""
    if not isinstance(address, IPv4Address | IPv6Address):
        return False
    ip = ipaddress.ip_address(address.host.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


class Slots:
    """The open connections; beyond the limit, one that is idle or unfinished is closed."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.usual: dict[Channel, None] = {}
        self.checks: dict[Channel, None] = {}

    def add(self, channel: Channel) -> None:
        """Add a new connection."""
        self._put(self.usual, channel, MAX_CONNECTIONS)

    def move_to_checks(self, channel: Channel) -> None:
        """Move it to the slots reserved for health checks."""
        self.remove(channel)
        self._put(self.checks, channel, MAX_CHECKS)

    def move_to_end(self, channel: Channel) -> None:
        """Move it to the end of the order, because a request has begun or ended."""
        if channel in self.usual:
            del self.usual[channel]
            self.usual[channel] = None

    def close(self) -> None:
        """Close all connections."""
        for channel in [*self.usual, *self.checks]:
            channel.transport.abortConnection()

    def remove(self, channel: Channel) -> None:
        """Remove a connection that has ended."""
        self.usual.pop(channel, None)
        self.checks.pop(channel, None)

    def _put(self, slots: dict[Channel, None], channel: Channel, limit: int) -> None:
        slots[channel] = None
        if len(slots) > limit:
            # Close an idle one if there is one, else that with the oldest unfinished request.
            before = self._clock.seconds() - IDLE_AFTER
            idle = (each for each in islice(slots, limit) if each.is_idle_since(before))
            oldest = next(idle, next(iter(slots)))
            self.remove(oldest)
            oldest.transport.abortConnection()


class ChannelTransport(ITCPTransport, IPushProducer):
    """What a channel needs of its transport."""


class Channel(HTTPChannel):
    """
    One connection.

    :ivar since: when it was opened, or its last request began or ended.
    """

    site: LimitedSite
    transport: ChannelTransport

    def __init__(self) -> None:
        super().__init__()
        self.since = 0.0
        self._asking = False  # a request has begun, and its answer was not read yet
        self._unread: BaseRequest | None = None  # the request whose answer was not read yet
        self._blocked = False
        self._end: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Take a slot, and start the time limit."""
        super().connectionMade()
        self._restart(asking=False)
        self.site.slots.add(self)

    def _restart(self, asking: bool) -> None:
        self.since = self.site.reactor.seconds()
        self._asking = asking
        if self._end is not None and self._end.active():
            self._end.reset(TIME_LIMIT)
        else:
            self._end = self.site.reactor.callLater(TIME_LIMIT, self.transport.abortConnection)
        self.site.slots.move_to_end(self)

    def is_idle_since(self, before: float) -> bool:
        """Return whether it has been idle since before a time."""
        return not self._asking and self.since <= before

    def dataReceived(self, data: bytes) -> None:
        """Restart the time limit at the first byte of a request."""
        if not self._asking:
            self._restart(asking=True)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        """Refuse a request with a body before it is read."""
        if self.length == 0:
            super().allHeadersReceived()
            return
        self.transport.write(_BODY_REFUSED)
        self.loseConnection()

    def requestDone(self, request: BaseRequest) -> None:
        """Begin with the next request once the answer to this one was read."""
        if self._blocked:
            self._unread = request
            return
        self._restart(asking=False)
        super().requestDone(request)

    def pauseProducing(self) -> None:
        """Stop reading from a client that does not read."""
        self._blocked = True
        super().pauseProducing()
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._blocked = False
        super().resumeProducing()
        request, self._unread = self._unread, None
        if request is not None:
            self.requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Free the slot."""
        self.site.slots.remove(self)
        if self._end is not None and self._end.active():
            self._end.cancel()
        super().connectionLost(reason)


class PageRequest(Request):
    """A request, which is only served under an allowed host name."""

    channel: Channel

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Accept the absolute form of a target too (RFC 9112, section 3.2.2)."""
        absolute = _ABSOLUTE.fullmatch(path)
        if absolute is not None:
            self.requestHeaders.setRawHeaders(b"Host", [absolute[1]])
            path = b"/" + absolute[2].removeprefix(b"/")
        super().requestReceived(command, path, version)

    def process(self) -> None:
        """Serve it, or answer with status 421."""
        site, host = self.channel.site, self.getHeader(b"host") or b""
        if not is_allowed(host.strip(), _is_loopback(self.channel.getHost()), *site.names()):
            self.setResponseCode(421, b"Misdirected Request")
            self.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
            self.write(b"Nothing is served under this name: see the setting loncHTTPNames.\n")
            self.finish()
            return
        peer = self.channel.getPeer()
        if self.path in CHECKS and (isinstance(peer, UNIXAddress) or _is_loopback(peer)):
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")
            site.slots.move_to_checks(self.channel)
        super().process()


class LimitedSite(Site):
    """
    A site whose connections have limits.

    :param names: returns this machine's names, and those in the settings.
    :ivar slots: its connections.
    """

    displayTracebacks = False
    noisy = False
    protocol = Channel  # type: ignore[assignment]
    requestFactory = PageRequest

    def __init__(
        self,
        root: Resource,
        names: Callable[[], tuple[Collection[str], Collection[str]]],
        clock: IReactorTime,
    ) -> None:
        super().__init__(root, timeout=None, reactor=clock)  # a channel has its own limit
        self.names = names
        self.slots = Slots(clock)

    def logPrefix(self) -> str:
        """Its name in Twisted's log lines."""
        return "the HTTP port"

    def startFactory(self) -> None:
        """Do not start Twisted's access log."""

    def stopFactory(self) -> None:
        """Do not stop Twisted's access log."""

    def log(self, request: BaseRequest) -> None:
        """Do not log requests: each scrape would be a line in a log that people read."""
