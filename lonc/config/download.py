# Twisted's web client has few annotations, and its protocols none:
# mypy: allow-untyped-calls
"""
Downloads a file from an untrusted web server, with limits on everything that it sends.

The web client costs memory and time to load, so this module is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import attrs
from OpenSSL import SSL, crypto
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, DNSLookupError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

import lonc
from lonc.config.certificates import SIZE_LIMIT
from lonc.config.hosts import same_target
from lonc.config.table_fetcher import Downloaded, FetchError
from lonc.disk.files import read_file

#: Bytes that a server may send in addition to the file: headers and chunk sizes.
OVERHEAD = 65536

#: Maximum number of consecutive redirections.
MOST_REDIRECTIONS = 3

#: Reasons for rejecting a certificate, by OpenSSL's code; other codes mean malformed ones.
_DISTRUST = {
    9: "is not valid yet",
    10: "has expired",
    **dict.fromkeys((2, 7, 18, 19, 20, 21), "is not signed by a trusted authority"),
}


async def download(reactor: Any, url: str, limit: int, authority: str | None = None) -> Downloaded:
    """
    Download a file from a web server.

    Redirections are followed only to the same name and never from https to http. All connections
    are closed at the end. It can be cancelled at any time; the caller sets the time limit.

    :param limit: maximum size in bytes.
    :param authority: a PEM file with authorities that are trusted for ``https``, in addition to
        those that the system trusts.
    :raises FetchError: it failed; with the reason.
    """
    connections = _Connections(reactor, limit + OVERHEAD, authority)
    client = HTTPClient(_Uncompressed(Agent.usingEndpointFactory(reactor, connections)))
    headers = Headers({"User-Agent": [f"lonc/{lonc.__version__}"]})
    try:
        for _ in range(1 + MOST_REDIRECTIONS):
            response = await client.get(
                url, headers=headers, allow_redirects=False, unbuffered=True, reactor=reactor
            )
            if not 300 <= response.code < 400:
                break
            url = redirected(url, response.headers.getRawHeaders("location", [""])[0])
        else:
            raise FetchError(f"it redirects more than {MOST_REDIRECTIONS} times")
        if response.code != 200:
            raise FetchError(f"it answers with status {response.code}")
        body = _Body()
        response.deliverBody(body)
        downloaded = await body.done
        if len(downloaded.content) > limit:
            raise FetchError(f"it is longer than {limit} bytes")
        if not (downloaded.certain or connections.ended_cleanly):
            raise FetchError("it may be truncated: it came without a length, and it broke off")
        return downloaded
    except CancelledError:
        raise
    except Exception as error:
        if any(failure.check(CancelledError) for failure in getattr(error, "reasons", ())):
            raise CancelledError from None
        if connections.overflow:
            raise FetchError(f"it is longer than {limit} bytes") from None
        if isinstance(error, FetchError):
            raise
        raise FetchError(connections.distrust or _reason(error)) from None
    finally:
        connections.close()


def redirected(url: str, location: str) -> str:
    """Return the target of a redirection; raises FetchError if it is not followed."""
    refused = FetchError(f"it redirects to {location[:200] or 'nowhere'!a}, which is not followed")
    try:
        to = urldefrag(urljoin(url, location)).url
        here, there = urlsplit(url), urlsplit(to)
        plain = to.isascii() and to.isprintable() and "@" not in there.netloc and there.port != 0
    except ValueError:
        raise refused from None
    allowed = ("https",) if here.scheme == "https" else ("http", "https")
    same = same_target(here.hostname or "", there.hostname or "")
    if not (location and plain and same and there.scheme in allowed):
        raise refused
    return to


def _reason(error: Exception) -> str:
    """Return a readable reason for a failed request."""
    if isinstance(error, DNSLookupError):
        return f"no address: {error}"
    if isinstance(error, ConnectError):
        return f"no connection: {error}"
    # Connection failures come in lists, those of TLS in lists of tuples.
    inner = [failure.getErrorMessage() for failure in getattr(error, "reasons", ())]
    return "the connection broke: " + ("; ".join(inner) or str(error) or repr(error))[:200]


class _Body(Protocol):
    """
    Collects the body of a response; _Limited limits its size.

    :ivar done: fires with the body.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.done: Deferred[Downloaded] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone, PotentialDataLoss):
            certain = reason.check(ResponseDone) is not None
            self.done.callback(Downloaded(b"".join(self._parts), certain))
        else:
            self.done.errback(reason)


@implementer(IAgent)
class _Uncompressed:
    """Requests uncompressed content, because a few compressed bytes could expand to any size."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders("accept-encoding", ["identity"])
        asked: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return asked.addCallback(self._check)

    def _check(self, response: IResponse) -> IResponse:
        encodings: Sequence[str] = response.headers.getRawHeaders("content-encoding", [])
        if any(encoding.lower() != "identity" for encoding in encodings):
            raise FetchError("it is compressed, although this was not requested")
        return response


class _Limited(ProtocolWrapper):
    """
    A connection that is aborted when the server sends more than the limit.

    :ivar left: bytes that may still be received.
    :ivar ended_cleanly: whether the server has closed it cleanly; None while it is open.
    """

    ended_cleanly: bool | None = None

    def __init__(self, factory: WrappingFactory[_Limited], wrapped: IProtocol, limit: int) -> None:
        super().__init__(factory, wrapped)
        self.left = limit

    def dataReceived(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            self.transport.abortConnection()  # type: ignore[union-attr]
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended_cleanly = reason.check(ConnectionDone) is not None
        super().connectionLost(reason)


@implementer(IStreamClientEndpoint)
@attrs.frozen
class _Endpoint:
    """Limits the connection made by another endpoint."""

    _endpoint: IStreamClientEndpoint
    _limited: Callable[[WrappingFactory[_Limited], IProtocol], _Limited]

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory: WrappingFactory[_Limited] = WrappingFactory(protocolFactory)
        # Otherwise they would log their start and stop.
        protocolFactory.noisy = factory.noisy = False  # type: ignore[attr-defined]
        factory.protocol = self._limited
        return self._endpoint.connect(factory).addCallback(attrgetter("wrappedProtocol"))


@implementer(IAgentEndpointFactory)
@attrs.define
class _Connections:
    """
    Makes and keeps track of the connections of a download.

    :ivar distrust: why a server's certificate was rejected; empty if none was.
    """

    _reactor: Any
    _limit: int
    _authority: str | None
    distrust: str = ""
    _made: list[_Limited] = attrs.field(factory=list)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, uri.host, uri.port)
        if uri.scheme == b"https":
            check = _Check(uri.host.decode("ascii"), self._authority, self)
            endpoint = wrapClientTLS(check, endpoint)
        return _Endpoint(endpoint, self._limited)

    def _limited(self, factory: WrappingFactory[_Limited], wrapped: IProtocol) -> _Limited:
        self._made.append(_Limited(factory, wrapped, self._limit))
        return self._made[-1]

    @property
    def ended_cleanly(self) -> bool:
        """Whether the latest connection was closed cleanly."""
        return bool(self._made[-1].ended_cleanly)

    @property
    def overflow(self) -> bool:
        """Whether a server sent too much."""
        return any(each.left < 0 for each in self._made)

    def close(self) -> None:
        """Close all connections that are still open."""
        for each in self._made:
            if each.ended_cleanly is None:
                each.transport.abortConnection()  # type: ignore[union-attr]


@implementer(IOpenSSLClientConnectionCreator)
class _Check:
    """
    Makes TLS connections to one server, and records what was wrong with its certificate.

    Twisted's own class does not report the reason.
    """

    def __init__(self, name: str, authority: str | None, connections: _Connections) -> None:
        self._connections = connections
        self._name = name.rstrip(".")
        try:
            self._id = IPAddress_ID(name) if isIPAddress(name) else DNS_ID(self._name)
        except ValueError:
            raise FetchError(f"no certificate can be for {name}") from None
        self._context = CertificateOptions().getContext()
        self._context.set_default_verify_paths()
        if authority is not None:
            try:
                read_file(authority, SIZE_LIMIT)  # OpenSSL would block on a FIFO
                self._context.load_verify_locations(authority)
            except (OSError, SSL.Error):
                raise FetchError(f"the certificates in {authority} cannot be used") from None

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if isinstance(self._id, DNS_ID):
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return connection

    def _verify(
        self, connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int
    ) -> bool:
        """Check the certificate at this depth of the chain; 0 is the server's own."""
        why = "" if ok else _DISTRUST.get(code, f"cannot be used (OpenSSL's code {code})")
        if ok and depth == 0:
            try:
                verify_service_identity(extract_patterns(certificate), [self._id], [])
            except CertificateError:
                why = "has no subjectAltName that can be used"
            except (VerificationError, ValueError):
                why = "is for another host"
        if why:
            self._connections.distrust = f"its certificate {why}"
        return not why
