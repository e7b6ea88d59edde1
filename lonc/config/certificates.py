"""
The certificates of this machine and its authority, and names in certificates.

The files are read once for all connections. OpenSSL checks that a certificate is signed by the
authority and valid now; the name in it is checked here, because LON-CAPA has its own rule for that.
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

#: A certificate may be for the host name with this prefix: hosts that are reached under another
#: name than that of their web server have a second certificate.
INTERNAL: Final = "internal-"

#: Maximum size of a file of certificates in bytes: that of all public authorities has 0.2 MiB.
SIZE_LIMIT: Final = 1024 * 1024

_DAY: Final = 86400.0  # seconds


class CertificateError(Exception):
    """A file is unusable. The message is a readable line that names the file."""


@attrs.frozen
class CertificateFiles:
    """
    The paths of the certificates, in PEM format.

    :ivar authority: the cluster's authority, whose certificates are accepted.
    :ivar certificate: the own certificate, followed by intermediate ones if there are any.
    :ivar key: the private key of the own certificate, without a password.
    """

    authority: str
    certificate: str
    key: str

    def contents(self) -> list[bytes]:
        """
        Read the files. If OpenSSL opens them, it blocks on a FIFO and its errors name no file.

        :raises CertificateError: one of them cannot be read.
        """
        return [read_certificates(path) for path in (self.authority, self.certificate, self.key)]

    def context(self, protocol: int) -> ssl.SSLContext:
        """
        Return the TLS context for a side that presents its certificate and requires the peer's.

        :param protocol: ``ssl.PROTOCOL_TLS_CLIENT``, or ``_SERVER`` for a lond.
        :raises CertificateError: a file is unusable.
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
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            raise CertificateError(f"{self.certificate}, {self.key}: {_reason(error)}") from None
        return context

    def read(self, check_names: bool = True) -> Certificates:
        """
        Read the files, for use by a client.

        :param check_names: whether a lond's certificate must be for its host name.
        :raises CertificateError: one of them is unusable.
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
    The certificates that were read; equal if the files have the same content.

    :ivar files: their paths.
    :ivar expires: when the first certificate in the chain, from the own one to the
        authority's, expires, in Unix time.
    :ivar ends_first: the file of that certificate, and its subject unless it is the own one.
    :ivar check_names: whether a lond's certificate must be for its host name.
    :ivar digest: SHA-256 of the files' contents.
    """

    files: CertificateFiles
    expires: float
    ends_first: str
    check_names: bool
    digest: str
    context: ssl.SSLContext = attrs.field(eq=False, repr=False)

    def client(self, name: str) -> TLSPhase:
        """Return the client side of TLS with the host of this name."""
        if not self.check_names:
            return TLSPhase(self.context)
        return TLSPhase(self.context, partial(check_name, name))

    def days_left(self, now: float) -> float:
        """
        Return the days until the first certificate of the chain expires; negative afterwards.

        :param now: Unix time.
        """
        return (self.expires - now) / _DAY


def check_name(name: str, certificate: Certificate) -> None:
    """
    Check that a certificate is for a host name.

    :param name: the host name in the table.
    :raises lonc.wire.tls.TLSError: it is for another.
    """
    wanted = name.lower().removesuffix(".")
    names = names_in(certificate)
    # Some letters outside of ASCII become ASCII ones in lower case.
    sound = {each.lower().removesuffix(".") for each in names if each.isascii()}
    if not {wanted, INTERNAL + wanted} & sound:
        shown = ", ".join(names) or "nobody"
        raise TLSError(f"the certificate shown is for {quoted(shown, 200)[1:-1]}, not for {name}")


def names_in(certificate: Certificate) -> list[str]:
    """Return the DNS names of a certificate, or without these its common name."""
    others = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    return others or [value for kind, value in subject if kind == "commonName"]


def read_certificates(path: str) -> bytes:
    """Read a file of certificates, or a key; raises CertificateError if that fails."""
    try:
        return read_file(path, SIZE_LIMIT)
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _ends_first(own: str, authority: str) -> tuple[x509.Certificate, str]:
    """Find the certificate that expires first, in the chain from the own one to the authority."""
    from cryptography.x509 import (
        load_pem_x509_certificates,
    )  # only loaded if needed, to save memory

    found = []
    for path in (own, authority):
        try:
            found += [(path, each) for each in load_pem_x509_certificates(read_certificates(path))]
        except ValueError as error:
            raise CertificateError(f"{path}: {error}") from None
    chain = found[:1]
    while issuers := [each for each in found[1:] if _issued(each[1], chain[-1][1])]:
        # A renewed authority has two certificates; londs use the valid one.
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
