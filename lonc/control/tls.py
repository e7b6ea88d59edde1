# Twisted's endpoints and TLS have few annotations:
# mypy: allow-untyped-calls
"""
The management port over TLS, with certificates of the cluster's authority on both sides:
``lonctls:PORT`` (``:interface=ADDRESS``) to listen, ``lonctls:HOST:PORT`` to connect.

Twisted's own ``ssl:`` cannot ask clients for theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import endpoints
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from lonc.config.certificates import CertificateError, CertificateFiles, Certificates
from lonc.config.endpoint import Endpoint
from lonc.wire.tls import Certificate


class NoCertificates(Exception):
    """There are none, or they cannot be used; the message is for a person."""


def context_of(files: CertificateFiles) -> SSL.Context:
    """
    Return what shows the own certificate, and wants one of the authority's.

    :raises NoCertificates: a file cannot be used.
    """
    try:
        files.contents()
    except CertificateError as error:
        raise NoCertificates(str(error)) from None
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # With a password of its own OpenSSL does not ask the terminal for one.
    context.set_passwd_cb(lambda *_: b"")
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # each connection is checked
    for load, path in (
        (context.load_verify_locations, files.authority),
        (context.use_certificate_chain_file, files.certificate),
        (context.use_privatekey_file, files.key),
    ):
        try:
            load(path)
        except SSL.Error:
            raise NoCertificates(f"{path}: it cannot be used for TLS") from None
    return context


@implementer(IOpenSSLServerConnectionCreator)
class _Server:
    """Begins our end of a connection, with the certificates that are in force then."""

    def __init__(self, certificates: Callable[[], Certificates | None]) -> None:
        self._certificates = certificates
        self._made: tuple[Certificates, SSL.Context] | None = None

    def context(self) -> SSL.Context:
        """Return what belongs to them; those of before, when there are none any more."""
        now = self._certificates()
        if now is not None and (self._made is None or self._made[0] != now):
            self._made = now, context_of(now.files)
        if self._made is None:
            raise NoCertificates("it takes certificates: see lonnetCertificate")
        return self._made[1]

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """Return our end of TLS for a connection that has come."""
        try:
            context = self.context()
        except NoCertificates:  # the files have changed since they were read
            assert self._made is not None
            context = self._made[1]
        return SSL.Connection(context, None)


class _Incoming(TLSMemoryBIOProtocol):
    """
    A connection that has come.

    :ivar has_begun: whether the other side has sent anything.
    """

    has_begun = False

    def dataReceived(self, data: bytes) -> None:
        """Take what the other side has sent."""
        self.has_begun = True
        super().dataReceived(data)


class _IncomingFactory(TLSMemoryBIOFactory):
    protocol = _Incoming


@implementer(IStreamServerEndpoint)
class ServerEndpoint:
    """
    Where a lonc is managed by others of the cluster.

    :param reactor: listens.
    :param description: see above.
    :param certificates: gives the own ones.
    :raises ValueError: the description is not understood.
    """

    def __init__(
        self, reactor: Any, description: str, certificates: Callable[[], Certificates | None]
    ) -> None:
        described = Endpoint.parse(description)
        port, interface = described.argument("port"), described.named.get("interface", "")
        more = len(described.arguments) > 1 or described.named.keys() - {"port", "interface"}
        if more or not port.isdecimal() or int(port) > 65535:
            raise ValueError("it is lonctls:PORT, or lonctls:PORT:interface=ADDRESS")
        self._reactor = reactor
        self._server = _Server(certificates)
        kind = endpoints.TCP6ServerEndpoint if ":" in interface else endpoints.TCP4ServerEndpoint
        self._endpoint = kind(reactor, int(port), interface=interface)

    def check(self) -> None:
        """Raise NoCertificates where there are none, or they cannot be used."""
        self._server.context()

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; raises NoCertificates where there are none."""
        self.check()
        wrapped = _IncomingFactory(self._server, False, factory, self._reactor)
        listening: Deferred[IListeningPort] = self._endpoint.listen(wrapped)
        return listening


@implementer(IOpenSSLClientConnectionCreator)
class _Client:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        return connection


def client_endpoint(
    reactor: Any, description: str, files: CertificateFiles | None, timeout: float
) -> tuple[IStreamClientEndpoint, str]:
    """
    Return where to connect to, and for which host its certificate has to be.

    :param files: the own certificate's.
    :raises ValueError: the description is not understood.
    :raises NoCertificates: there are none, or they cannot be used.
    """
    described = Endpoint.parse(description)
    host, port = (*described.arguments, "", "")[:2]
    if described.named or len(described.arguments) != 2 or not port.isdecimal():
        raise ValueError("it is lonctls:HOST:PORT")
    if files is None:
        raise NoCertificates("it takes certificates: see lonnetCertificate")
    connecting = endpoints.HostnameEndpoint(reactor, host, int(port), timeout)
    return endpoints.wrapClientTLS(_Client(context_of(files)), connecting), host


def peer_certificate(transport: object) -> Certificate | None:
    """Return the other side's certificate in the form of the ssl module's, once it is known."""
    shown = getattr(transport, "getPeerCertificate", lambda: None)()
    if shown is None:
        return None
    certificate = shown.to_cryptography()
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = others.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    except ValueError:  # it cannot be read, so it is for nobody
        return {}
    subject = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        "subjectAltName": tuple(("DNS", name) for name in names),
        "subject": tuple((("commonName", each.value),) for each in subject),
    }
