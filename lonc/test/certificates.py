"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lonc.certificates import CertificateFiles


class Authority:
    """
    An authority, whose files are in a folder.

    :ivar file: its own certificate's.
    """

    def __init__(self, folder: str, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        basic = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(self._name, self._name, self._key.public_key(), -3000.0, 3000.0)
        certificate = builder.add_extension(basic, critical=True).sign(self._key, hashes.SHA256())
        self.file = self._write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        common_name: str,
        names: Sequence[str] = (),
        *,
        begins: float = -1.0,
        ends: float = 365.0,
        file: str = "host",
        password: bytes | None = None,
    ) -> CertificateFiles:
        """
        Sign a certificate; return the files that whoever has it needs.

        :param common_name: its subject's.
        :param names: DNS names beside that.
        :param begins: days from now; negative: ago.
        :param ends: days from now.
        :param file: the files' name, without what it ends with.
        :param password: of the key's file.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(common_name), self._name, key.public_key(), begins, ends)
        if names:
            others = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(others, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            lock = serialization.BestAvailableEncryption(password)
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return CertificateFiles(
            authority=self.file,
            certificate=self._write(f"{file}.pem", certificate.public_bytes(pem)),
            key=self._write(f"{file}.key", key.private_bytes(pem, form, lock)),
        )

    def _write(self, name: str, content: bytes) -> str:
        path = os.path.join(self._folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: float,
    ends: float,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
    )
