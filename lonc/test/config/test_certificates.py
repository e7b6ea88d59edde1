"""The certificate files, and the names in certificates."""

from __future__ import annotations

import os
import shutil
import ssl
import time

import attrs
from twisted.trial.unittest import SynchronousTestCase

from lonc.config.certificates import SIZE_LIMIT, CertificateError, check_name
from lonc.control.tls import NoCertificates, context_of
from lonc.test.fixtures.certificates import Authority
from lonc.wire.tls import TLSError


class FilesTestCase(SynchronousTestCase):
    """Files in a folder."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.authority = Authority(self.folder)
        self.files = self.authority.issue("l1.test", ends=20.0)


class ReadTests(FilesTestCase):
    """Reading the files."""

    def test_days_left(self) -> None:
        """The days until the own certificate expires are known, and negative afterwards."""
        certificates, now = self.files.read(), time.time()
        self.assertAlmostEqual(certificates.days_left(now), 20.0, places=2)
        self.assertAlmostEqual(certificates.days_left(now + 30 * 86400), -10.0, places=2)
        self.assertEqual(certificates.files, self.files)
        expired = self.authority.issue("l1.test", ends=-0.5)
        self.assertLess(expired.read().days_left(now), 0)

    def test_chain(self) -> None:
        """The certificate in the chain that expires first counts, wherever it is, and is named."""
        between = Authority(self.folder, "between", self.authority, ends=15.0)
        files = attrs.evolve(between.issue("l1.test"), authority=self.authority.file)
        with open(files.certificate, "ab") as file, open(between.file, "rb") as other:
            file.write(other.read())
        certificates = files.read()
        self.assertAlmostEqual(certificates.days_left(time.time()), 15.0, places=2)
        self.assertEqual(certificates.ends_first, f"{files.certificate} (between)")
        short = Authority(self.folder, "short", ends=10.0)
        certificates = short.issue("l1.test").read()
        self.assertAlmostEqual(certificates.days_left(time.time()), 10.0, places=2)
        self.assertEqual(certificates.ends_first, f"{short.file} (short)")
        with open(self.files.certificate, "ab") as file, open(self.authority.file, "rb") as other:
            file.write(other.read())
        self.assertEqual(self.files.read().ends_first, self.files.certificate)

    def test_renewed_authority(self) -> None:
        """An expired certificate of a renewed authority, or of another one, does not count."""
        authority = Authority(self.folder, "renewed", ends=-5.0)
        authority.renew(500.0)
        other = Authority(self.folder, "other", ends=-1.0)
        with open(authority.file, "ab") as file, open(other.file, "rb") as foreign:
            file.write(foreign.read())
        files = authority.issue("l1.test", ends=20.0)
        self.assertAlmostEqual(files.read().days_left(time.time()), 20.0, places=2)

    def test_equal(self) -> None:
        """Certificates are equal until a file or the name check changes."""
        before = self.files.read()
        self.assertEqual(before, self.files.read())
        self.assertNotEqual(before, self.files.read(check_names=False))
        for name in ("authority", "certificate", "key"):
            path = getattr(self.files, name)
            shutil.copy(path, path + ".kept")
            with open(path, "a") as file:
                file.write("\n")
            self.assertNotEqual(before, self.files.read(), name)
            os.replace(path + ".kept", path)
        self.assertEqual(before, self.files.read())


class UnusableTests(FilesTestCase):
    """Files that cannot be used are named."""

    def refusal(self, **changes: str) -> str:
        """Return why changed files are refused, in one line."""
        with self.assertRaises(CertificateError) as caught:
            attrs.evolve(self.files, **changes).read()
        self.assertTrue(str(caught.exception).isprintable())
        return str(caught.exception)

    def write(self, content: str) -> str:
        """Write a file."""
        path = os.path.join(self.folder, "other.pem")
        with open(path, "w") as file:
            file.write(content)
        return path

    def test_no_file(self) -> None:
        """
        A file that cannot be read is named with the reason. A FIFO is not waited for, a device
        without an end and a long file are not read, not for AMP over TLS either.
        """
        pipe, missing = (os.path.join(self.folder, name) for name in ("pipe", "missing"))
        os.mkfifo(pipe)
        for path, why in (
            (missing, "No such file or directory"),
            (self.folder, "not a file"),
            (pipe, "not a file"),
            ("/dev/zero", "not a file"),
            (self.write("#" * (SIZE_LIMIT + 1)), f"longer than {SIZE_LIMIT} bytes"),
        ):
            for name in ("authority", "certificate", "key"):
                files = attrs.evolve(self.files, **{name: path})
                self.assertEqual(self.refusal(**{name: path}), f"{path}: {why}")
                with self.assertRaisesRegex(NoCertificates, f"{path}: {why}"):
                    context_of(files)

    def test_content(self) -> None:
        """A file with the wrong content is named."""
        for content in ("", "no certificate\n", "-----BEGIN CERTIFICATE-----\nAAAA\n"):
            path = self.write(content)
            for name in ("authority", "certificate", "key"):
                self.assertIn(path, self.refusal(**{name: path}), (name, content))

    def test_wrong_key(self) -> None:
        """A key of another certificate, or with a password, is refused; OpenSSL does not ask."""
        other = self.authority.issue("l2.test", file="other")
        message = self.refusal(key=other.key)
        self.assertIn(f"{self.files.certificate}, {other.key}: ", message)
        self.assertIn("mismatch", message)
        locked = self.authority.issue("l1.test", file="locked", password=b"secret")
        told = self.refusal(certificate=locked.certificate, key=locked.key)
        self.assertIn(locked.key, told)


class ContextTests(FilesTestCase):
    """The settings of OpenSSL."""

    def test_context(self) -> None:
        """Both sides require a certificate of our authority only, and at least TLS 1.2."""
        for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
            context = self.files.context(protocol)
            self.assertEqual(context.verify_mode, ssl.CERT_REQUIRED)
            self.assertGreaterEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
            self.assertEqual(context.cert_store_stats()["x509"], 1)


class NameTests(SynchronousTestCase):
    """The host name in a certificate."""

    def refusal(self, name: str, common_name: str | None, *others: tuple[str, str]) -> str:
        """Return why a certificate is refused; empty if it is not."""
        subject: tuple[object, ...] = ((("organizationName", "x"),),)
        if common_name is not None:
            subject += ((("commonName", common_name),),)
        certificate = {"subject": subject, "subjectAltName": others}
        try:
            check_name(name, certificate if others else {"subject": subject})
        except TLSError as error:
            self.assertTrue(str(error).isprintable() and str(error).isascii())
            return str(error)
        return ""

    def test_good(self) -> None:
        """The common name or any DNS name must match, also with internal-, in any case."""
        for name in ("l2.test", "internal-l2.test", "L2.Test", "Internal-L2.test", "l2.test."):
            self.assertEqual(self.refusal("l2.test", name), "")
            self.assertEqual(self.refusal("L2.test.", name), "")
            self.assertEqual(self.refusal("l2.test", "x", ("DNS", "l3.test"), ("DNS", name)), "")

    def test_dns_names(self) -> None:
        """If there are DNS names, the common name does not count; other kinds are ignored."""
        self.assertIn("is for l3.test,", self.refusal("l2.test", "l2.test", ("DNS", "l3.test")))
        self.assertEqual(self.refusal("l2.test", "l2.test", ("IP Address", "127.0.0.1")), "")
        for others in ((), (("email", "l2.test"),)):
            self.assertIn("is for nobody, not", self.refusal("l2.test", None, *others))
        with self.assertRaises(TLSError):
            check_name("l2.test", {})

    def test_bad(self) -> None:
        """Wildcards, parts and other prefixes do not match; letters outside of ASCII neither."""
        for wanted, names in {
            "l2.test": (
                *("l3.test", "*.test", "l2", "l2.test.example", "www.l2.test"),
                *("external-l2.test", "internal-internal-l2.test", "internal-", ""),
                "l2.test\0.example",
            ),
            "internal-l2.test": ("l2.test",),
            # In lower case it is a k.
            "k2.test": ("\N{KELVIN SIGN}2.test", "internal-\N{KELVIN SIGN}2.test"),
        }.items():
            for name in names:
                self.assertIn(f"not for {wanted}", self.refusal(wanted, name))
                self.assertIn(f"not for {wanted}", self.refusal(wanted, "x", ("DNS", name)))
        self.assertIn("\\x1b", self.refusal("l2.test", "\x1b[31m\N{SNOWMAN}"))
