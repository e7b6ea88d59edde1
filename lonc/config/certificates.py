"""
This machine's certificate and its authority's, as files and as TLS contexts; names in certificates.

The files are read once for all connections. OpenSSL checks that a certificate leads to the
authority and is in its time; the name in it is checked here, since LON-CAPA has a rule of its own.
"""

from __future__ import annotations

import hashlib
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from lonc.disk.files import read_file
from lonc.wire.printable import quoted
from lonc.wire.tls import Certificate, TLSError, TLSPhase

if TYPE_CHECKING:
    from cryptography import x509

#: A certificate may be for a host under this name too: hosts that are reached by another name than
#: that of their web server have a second certificate.
INTERNAL: Final = "internal-"

#: The longest file of certificates, in bytes: that of all public authorities has 0.2 MiB.
SIZE_LIMIT: Final = 1024 * 1024

_DAY: Final = 86400.0  # seconds


class CertificateError(Exception):
    """A file cannot be used. The message is one line for a person and names the file."""


@attrs.frozen
class CertificateFiles:
    """
    Where the certificates are, in PEM form.

    :ivar authority: the cluster's authority, whose certificates are accepted.
    :ivar certificate: the own one, and behind it what leads to the authority, if anything does.
    :ivar key: the own certificate's private key, without a password.
    """

    authority: str
    certificate: str
    key: str

    def contents(self) -> list[bytes]:
        """
        Read the files. OpenSSL, which opens them by itself, would wait for a FIFO, and names none.

        :raises CertificateError: when one of them cannot be read.
        """
        return [read_certificates(path) for path in (self.authority, self.certificate, self.key)]

    def context(self, protocol: int) -> ssl.SSLContext:
        """
        Return the TLS context for a side that presents its certificate and requires the peer's.

        :param protocol: ``ssl.PROTOCOL_TLS_CLIENT``, or ``_SERVER`` for a lond.
        :raises CertificateError: when a file cannot be used.
        """
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        self.contents()
        try:
            context.load_verify_locations(self.authority)
        except ssl.SSLError as error:
            raise CertificateError(f"{self.authority}: {_reason(error)}") from None
        try:
            # With a password of its own OpenSSL does not ask the terminal for one.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            raise CertificateError(f"{self.certificate}, {self.key}: {_reason(error)}") from None
        return context

    def read(self, check_names: bool = True) -> Certificates:
        """
        Read the files, for use by a client.

        :raises CertificateError: when one of them cannot be used.
        """
        context = self.context(ssl.PROTOCOL_TLS_CLIENT)
        digest = hashlib.sha256()
        for content in self.contents():
            digest.update(hashlib.sha256(content).digest())
        first, ends_first = _ends_first(self.certificate, self.authority)
        return Certificates(
            files=self,
            expires=first.not_valid_after_utc.timestamp(),
            ends_first=ends_first,
            check_names=check_names,
            digest=digest.hexdigest(),
            context=context,
        )


@attrs.frozen
class Certificates:
    """
    What was read from the files; equal when they contain the same.

    :ivar files: where that was.
    :ivar expires: when the certificate that ends first, of those from the own one to the
        authority's, ends: in Unix time.
    :ivar ends_first: that certificate's file, and whom it is for unless it is the own one.
    :ivar check_names: whether a lond's certificate has to be for that lond.
    :ivar digest: of what the files held.
    """

    files: CertificateFiles
    expires: float
    ends_first: str
    check_names: bool
    digest: str
    context: ssl.SSLContext = attrs.field(eq=False, repr=False)

    def client(self, name: str) -> TLSPhase:
        """Return the client side of TLS with the host of that name."""
        if not self.check_names:
            return TLSPhase(self.context)
        return TLSPhase(self.context, partial(check_name, name))

    @property
    def file(self) -> str:
        """The own certificate's file."""
        return self.files.certificate

    def days_left(self, now: float) -> float:
        """
        Tell how long the chain of certificates is still valid; negative after its end.

        :param now: Unix time.
        """
        return (self.expires - now) / _DAY


def check_name(name: str, certificate: Certificate) -> None:
    """
    Check whom a certificate is for.

    :param name: the host's, as the table has it.
    :raises lonc.wire.tls.TLSError: when it is for another.
    """
    wanted = name.lower().removesuffix(".")
    names = names_in(certificate)
    # There are letters beyond ASCII that become an ASCII one when they are made small.
    sound = {each.lower().removesuffix(".") for each in names if each.isascii()}
    if not {wanted, INTERNAL + wanted} & sound:
        shown = ", ".join(names) or "nobody"
        raise TLSError(f"the certificate shown is for {quoted(shown, 200)[1:-1]}, not for {name}")


def names_in(certificate: Certificate) -> list[str]:
    """Return the host names; the subject's counts where there are no others."""
    others = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    return others or [value for kind, value in subject if kind == "commonName"]


def read_certificates(path: str) -> bytes:
    """Read a file of certificates, or a key; raise CertificateError where that cannot be done."""
    try:
        return read_file(path, SIZE_LIMIT)
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _ends_first(own: str, authority: str) -> tuple[x509.Certificate, str]:
    """Find what ends first of the certificates that lead from the own one to the authority."""
    from cryptography.x509 import load_pem_x509_certificates  # takes memory that few need

    found = []
    for path in (own, authority):
        try:
            found += [(path, each) for each in load_pem_x509_certificates(read_certificates(path))]
        except ValueError as error:
            raise CertificateError(f"{path}: {error}") from None
    chain = found[:1]
    while issuers := [each for each in found[1:] if _issued(each[1], chain[-1][1])]:
        # A renewed authority has two certificates; londs take the one that is valid.
        chain.append(max(issuers, key=lambda each: each[1].not_valid_after_utc))
        found = [each for each in found if each not in issuers]
    path, first = min(chain, key=lambda each: each[1].not_valid_after_utc)
    if first == chain[0][1]:
        return first, path
    return first, f"{path} ({first.subject.rfc4514_string().removeprefix('CN=')})"


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
