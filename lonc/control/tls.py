# Twisted's endpoints and TLS have few annotations:
# mypy: allow-untyped-calls
"""
The management port over TLS, with certificates of the cluster's authority on both sides:
``lonctls:PORT`` (``:interface=ADDRESS``) to listen, ``lonctls:HOST:PORT`` to connect.

Twisted's own ``ssl:`` cannot request client certificates.
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
from lonc.transport.endpoint import Endpoint
from lonc.wire.tls import Certificate


class NoCertificates(Exception):
    """There are no certificates, or they are unusable; the message is readable."""


def context_of(files: CertificateFiles) -> SSL.Context:
    """
    Return a context that presents the own certificate and requires one of the authority.

    :raises NoCertificates: a file is unusable.
    """
    try:
        files.contents()
    except CertificateError as error:
        raise NoCertificates(str(error)) from None
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # Without a password OpenSSL would ask for one on the terminal.
    context.set_passwd_cb(lambda *_: b"")
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_session_cache_mode(
        SSL.SESS_CACHE_OFF
    )  # the certificate is checked on each connection
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


class _Incoming(TLSMemoryBIOProtocol):
    """
    An incoming connection.

    :ivar has_begun: whether the client has sent anything.
    """

    has_begun = False

    def dataReceived(self, data: bytes) -> None:
        """Record that the client has begun, and handle its data."""
        self.has_begun = True
        super().dataReceived(data)


class _IncomingFactory(TLSMemoryBIOFactory):
    protocol = _Incoming


@implementer(IStreamServerEndpoint, IOpenSSLServerConnectionCreator)
class ServerEndpoint:
    """
    The endpoint on which other machines of the cluster manage lonc, with the certificates in force.

    :param reactor: listens.
    :param description: see above.
    :param certificates: returns the own certificates.
    :raises ValueError: the description is invalid.
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
        self._certificates = certificates
        self._made: tuple[Certificates, SSL.Context] | None = None
        kind = endpoints.TCP6ServerEndpoint if ":" in interface else endpoints.TCP4ServerEndpoint
        self._endpoint = kind(reactor, int(port), interface=interface)

    def context(self) -> SSL.Context:
        """
        Return the current context; the previous one if there are no certificates any more.

        :raises NoCertificates: there were none, or they are unusable.
        """
        now = self._certificates()
        if now is not None and (self._made is None or self._made[0] != now):
            self._made = now, context_of(now.files)
        if self._made is None:
            raise NoCertificates("certificates are required: see lonnetCertificate")
        return self._made[1]

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """Return the server side of TLS for a new connection."""
        try:
            context = self.context()
        except NoCertificates:  # the files have changed since they were read
            assert self._made is not None
            context = self._made[1]
        return SSL.Connection(context, None)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; raises NoCertificates if there are none."""
        self.context()
        wrapped = _IncomingFactory(self, False, factory, self._reactor)
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
    Return an endpoint, and the host name that its certificate must have.

    :param files: the own certificates.
    :raises ValueError: the description is invalid.
    :raises NoCertificates: there are none, or they are unusable.
    """
    described = Endpoint.parse(description)
    host, port = (*described.arguments, "", "")[:2]
    if described.named or len(described.arguments) != 2 or not port.isdecimal():
        raise ValueError("it is lonctls:HOST:PORT")
    if files is None:
        raise NoCertificates("certificates are required: see lonnetCertificate")
    connecting = endpoints.HostnameEndpoint(reactor, host, int(port), timeout)
    return endpoints.wrapClientTLS(_Client(context_of(files)), connecting), host


def peer_certificate(transport: object) -> Certificate | None:
    """Return the peer's certificate in the format of the ssl module, once it is known."""
    shown = getattr(transport, "getPeerCertificate", lambda: None)()
    if shown is None:
        return None
    certificate = shown.to_cryptography()
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = others.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    except ValueError:  # it is malformed, so it matches no name
        return {}
    subject = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        "subjectAltName": tuple(("DNS", name) for name in names),
        "subject": tuple((("commonName", each.value),) for each in subject),
    }
