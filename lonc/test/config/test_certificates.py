"""The files of the own certificate, and whom a certificate is for."""

from __future__ import annotations

import os
import shutil
import ssl
import time
from typing import Any

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
    """What is made of the files."""

    def test_end(self) -> None:
        """The end of the own certificate's time is known, in days from now."""
        certificates = self.files.read()
        now = time.time()
        self.assertAlmostEqual(certificates.days_left(now), 20.0, places=2)
        self.assertAlmostEqual(certificates.days_left(now + 30 * 86400), -10.0, places=2)
        self.assertEqual(certificates.file, self.files.certificate)

    def test_chain(self) -> None:
        """What ends first in the chain counts, wherever that is, and is named."""
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
        self.assertEqual(self.files.read().ends_first, self.files.certificate)

    def test_renewed_authority(self) -> None:
        """An authority's old certificate beside its new one, and those of others, do not count."""
        authority = Authority(self.folder, "renewed", ends=-5.0)
        authority.renew(500.0)
        other = Authority(self.folder, "other", ends=-1.0)
        with open(authority.file, "ab") as file, open(other.file, "rb") as foreign:
            file.write(foreign.read())
        files = authority.issue("l1.test", ends=20.0)
        self.assertAlmostEqual(files.read().days_left(time.time()), 20.0, places=2)

    def test_own_and_what_follows(self) -> None:
        """Of several certificates in the file the first one is the own."""
        with open(self.files.certificate, "ab") as file, open(self.authority.file, "rb") as other:
            file.write(other.read())
        self.assertLess(self.files.read().days_left(time.time()), 21)

    def test_equal(self) -> None:
        """What was read twice is equal; it is not when a file or the name check has changed."""
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

    def test_expired_is_read(self) -> None:
        """A certificate whose time is over can be read: it is the londs that refuse it."""
        files = self.authority.issue("l1.test", ends=-0.5)
        self.assertLess(files.read().days_left(time.time()), 0)


class UnusableTests(FilesTestCase):
    """Files that cannot be used: the message names them."""

    def refusal(self, **changes: str) -> str:
        """Return why changed files are refused, which is one line."""
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

    def test_missing(self) -> None:
        """Each of them is named when it is not there, or is something else than a file."""
        for name in ("authority", "certificate", "key"):
            missing = os.path.join(self.folder, "missing")
            self.assertEqual(
                self.refusal(**{name: missing}), f"{missing}: No such file or directory"
            )
            self.assertEqual(self.refusal(**{name: self.folder}), f"{self.folder}: not a file")

    def test_pipe_or_device(self) -> None:
        """A FIFO is not waited for, and what has no end is not read; nor by who asks over TLS."""
        pipe = os.path.join(self.folder, "pipe")
        os.mkfifo(pipe)
        for path in (pipe, "/dev/zero"):
            for name in ("authority", "certificate", "key"):
                files = attrs.evolve(self.files, **{name: path})
                self.assertEqual(self.refusal(**{name: path}), f"{path}: not a file")
                with self.assertRaisesRegex(NoCertificates, f"{path}: not a file"):
                    context_of(files)

    def test_too_long(self) -> None:
        """One that is over the limit is refused before OpenSSL has it."""
        path = self.write("#" * (SIZE_LIMIT + 1))
        self.assertIn("longer than", self.refusal(authority=path))

    def test_content(self) -> None:
        """Each of them is named when it does not hold what it should."""
        for content in ("", "no certificate\n", "-----BEGIN CERTIFICATE-----\nAAAA\n"):
            path = self.write(content)
            for name in ("authority", "certificate", "key"):
                self.assertIn(path, self.refusal(**{name: path}), (name, content))

    def test_wrong_key(self) -> None:
        """The key of another certificate is found out."""
        other = self.authority.issue("l2.test", file="other")
        message = self.refusal(key=other.key)
        self.assertIn(f"{self.files.certificate}, {other.key}: ", message)
        self.assertIn("mismatch", message)

    def test_key_with_password(self) -> None:
        """A key that wants a password is refused; nobody is asked for one."""
        locked = self.authority.issue("l1.test", file="locked", password=b"secret")
        with self.assertRaises(CertificateError) as caught:
            locked.read()
        self.assertIn(locked.key, str(caught.exception))


class ContextTests(FilesTestCase):
    """What OpenSSL is told."""

    def test_certificates_are_asked_for(self) -> None:
        """Both sides want a certificate of the other, and no TLS older than 1.2."""
        for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
            context = self.files.context(protocol)
            self.assertEqual(context.verify_mode, ssl.CERT_REQUIRED)
            self.assertGreaterEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)

    def test_only_our_authority(self) -> None:
        """The authorities of the system do not count."""
        self.assertEqual(self.files.context(ssl.PROTOCOL_TLS_CLIENT).cert_store_stats()["x509"], 1)


class NameTests(SynchronousTestCase):
    """Whom a certificate is for."""

    def refusal(self, name: str, common_name: str | None, *others: tuple[str, str]) -> str:
        """Return why a certificate is refused; nothing when it is not."""
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

    def test_common_name(self) -> None:
        """The common name counts, as it is and with internal-, whatever its capitals."""
        for common_name in (
            "l2.test",
            "internal-l2.test",
            "L2.Test",
            "Internal-L2.test",
            "l2.test.",
        ):
            self.assertEqual(self.refusal("l2.test", common_name), "")
            self.assertEqual(self.refusal("L2.test.", common_name), "")

    def test_other_names(self) -> None:
        """DNS names count, any of them."""
        for name in ("l2.test", "internal-l2.test", "L2.TEST"):
            self.assertEqual(self.refusal("l2.test", "x", ("DNS", "l3.test"), ("DNS", name)), "")

    def test_other_names_win(self) -> None:
        """Where there are DNS names the common name does not count; other kinds are no names."""
        self.assertIn("is for l3.test,", self.refusal("l2.test", "l2.test", ("DNS", "l3.test")))
        self.assertEqual(self.refusal("l2.test", "l2.test", ("IP Address", "127.0.0.1")), "")
        self.assertIn("nobody", self.refusal("l2.test", None, ("email", "l2.test")))

    def test_not_equal(self) -> None:
        """Nothing but the very name will do: no wildcard, no part of it, no other prefix."""
        for name in (
            "l3.test",
            "*.test",
            "l2",
            "l2.test.example",
            "www.l2.test",
            "external-l2.test",
            "internal-internal-l2.test",
            "internal-",
            "",
            "l2.test\0.example",
        ):
            self.assertIn("not for l2.test", self.refusal("l2.test", name))
            self.assertIn("not for l2.test", self.refusal("l2.test", "x", ("DNS", name)))

    def test_internal_host(self) -> None:
        """A host whose name has the prefix does not do with a certificate without it."""
        self.assertIn("not for internal-l2.test", self.refusal("internal-l2.test", "l2.test"))

    def test_beyond_ascii(self) -> None:
        """A name that becomes ours only when its letters are made small is not ours."""
        for name in ("\N{KELVIN SIGN}2.test", "internal-\N{KELVIN SIGN}2.test"):
            certificate: dict[str, Any] = {"subjectAltName": (("DNS", name),)}
            with self.assertRaises(TLSError) as caught:
                check_name("k2.test", certificate)
            self.assertTrue(str(caught.exception).isascii())

    def test_nobody(self) -> None:
        """A certificate without any name is for nobody."""
        self.assertIn("is for nobody, not", self.refusal("l2.test", None))
        with self.assertRaises(TLSError):
            check_name("l2.test", {})

    def test_strange_characters(self) -> None:
        """What cannot be printed is shown so that it can."""
        self.assertIn("\\x1b", self.refusal("l2.test", "\x1b[31m\N{SNOWMAN}"))
