"""TLS for the length of one line, without a network: bytes in, bytes out (protocol, section 9)."""

from __future__ import annotations

import os
import ssl
from functools import partial
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.certificates import CertificateFiles, check_name
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.properties import given, settings, st
from lonc.wire.tls import TLSError, TLSPhase

KEY = b"0123456789abcdef0123456789abcdef"
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class TLSTestCase(SynchronousTestCase):
    """A client and a server with certificates of one authority."""

    version = ssl.TLSVersion.TLSv1_3

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.authority = Authority(self.folder)
        self.files = self.authority.issue("l2.test", file="server")
        self.make(self.files, self.authority.issue("l1.test", file="client"))

    def make(self, server: CertificateFiles, client: CertificateFiles, name: str = "") -> None:
        """Create both sides; the client checks the name if one is given."""
        contexts = []
        for files, protocol in (
            (server, ssl.PROTOCOL_TLS_SERVER),
            (client, ssl.PROTOCOL_TLS_CLIENT),
        ):
            context = files.context(protocol)
            context.maximum_version = self.version
            contexts.append(context)
        self.server = TLSPhase(contexts[0])
        self.client = (
            TLSPhase(contexts[1], partial(check_name, name)) if name else TLSPhase(contexts[1])
        )

    def establish(self, size: int = 10**6) -> bytes:
        """Do the TLS handshake with data in such pieces; return the last data for the client."""
        self.assertEqual(self.server.start(), b"")
        to_server, to_client = self.client.start(), b""
        while not self.server.established:
            self.assertTrue(to_server, "the client has something to say")
            to_client = self.pass_on(self.server, to_server, size)
            to_server = self.pass_on(self.client, to_client, size)
        return to_client

    def pass_on(self, side: TLSPhase, data: bytes, size: int) -> bytes:
        """Pass data to a side in pieces; return what it sends."""
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        return b"".join(map(side.receive, pieces))

    def failure(self, side: TLSPhase, data: bytes) -> TLSError:
        """Return the error caused by data."""
        with self.assertRaises(TLSError) as caught:
            side.receive(data)
        error: TLSError = caught.exception
        self.assertTrue(str(error).isprintable() and str(error).isascii())
        return error


class GoodTests(TLSTestCase):
    """Two sides that accept each other."""

    def test_line(self) -> None:
        """The client gets the line, which is encrypted; no plain data is left."""
        for self.version in VERSIONS:
            self.setUp()
            self.establish()
            self.assertTrue(self.client.established)
            self.assertIsNone(self.client.line)
            sent = self.server.send(KEY + b"\n")
            self.assertNotIn(KEY[:4], sent)
            self.assertEqual(self.client.receive(sent), b"")
            self.assertEqual(self.client.line, KEY)
            self.assertEqual((self.client.rest(), self.server.rest()), (b"", b""))

    def test_byte_by_byte(self) -> None:
        """The data may be split anywhere."""
        for self.version in VERSIONS:
            self.setUp()
            self.establish(1)
            self.pass_on(self.client, self.server.send(KEY + b"\n"), 1)
            self.assertEqual(self.client.line, KEY)

    def test_line_in_pieces(self) -> None:
        """Each byte of the line may have its own record."""
        self.establish()
        for byte in KEY + b"\n":
            self.assertIsNone(self.client.line)
            self.client.receive(self.server.send(bytes([byte])))
        self.assertEqual(self.client.line, KEY)

    def test_tickets_and_line_at_once(self) -> None:
        """Session tickets in the same segment are not part of the line."""
        to_server = self.client.start()
        to_client = self.server.receive(to_server)
        last = self.server.receive(self.client.receive(to_client))
        self.assertTrue(last, "a TLS 1.3 server has session tickets to send")
        self.client.receive(last + self.server.send(KEY + b"\n"))
        self.assertEqual(self.client.line, KEY)


class BehindTests(TLSTestCase):
    """Plain data after TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.establish()
        self.last = self.server.send(KEY + b"\n")

    def test_plain_in_the_same_segment(self) -> None:
        """Plain bytes after the line are kept, however the data is split."""
        for size in (1, 5, 7, 10**6):
            self.setUp()
            self.pass_on(self.client, self.last + b"$Revision: 1 $\nok", size)
            self.assertEqual(self.client.line, KEY)
            self.assertEqual(self.client.rest(), b"$Revision: 1 $\nok")
            self.assertEqual(self.client.rest(), b"")

    def test_nothing_is_plain_before(self) -> None:
        """Before the end of the line, nothing is plain."""
        self.client.receive(self.last[:-1])
        self.assertEqual(self.client.rest(), b"")
        self.client.receive(self.last[-1:] + b"x")
        self.assertEqual(self.client.rest(), b"x")

    def test_end_that_is_announced(self) -> None:
        """close_notify is skipped, and nothing else."""
        for self.version, size in product(VERSIONS, (1, 10**6)):
            self.setUp()
            self.pass_on(self.client, self.last + self.server.close() + b"ok\n", size)
            self.assertEqual((self.client.line, self.client.rest()), (KEY, b"ok\n"))

    def test_end_that_is_announced_later(self) -> None:
        """close_notify may come separately, and in pieces."""
        self.client.receive(self.last)
        closing = self.server.close()
        self.client.receive(closing[:3])
        self.assertEqual(self.client.rest(), b"")
        self.client.receive(closing[3:] + b"ok\n")
        self.assertEqual(self.client.rest(), b"ok\n")

    def test_nothing_behind_an_announced_end(self) -> None:
        """After close_notify, a byte that could begin a record does not."""
        self.client.receive(self.last + self.server.close() + b"\x15\x03\x03")
        self.assertEqual(self.client.rest(), b"\x15\x03\x03")

    def test_more_inside(self) -> None:
        """More data inside TLS is an error."""
        self.client.receive(self.last)
        self.assertIn("more than a key", str(self.failure(self.client, self.server.send(b"x"))))

    def test_forged_record(self) -> None:
        """A forged record is an error, not plain data."""
        self.client.receive(self.last)
        self.failure(self.client, b"\x17\x03\x03\x00\x20" + bytes(32))


class WrongTests(TLSTestCase):
    """Violations of the protocol."""

    def test_no_tls(self) -> None:
        """Plain data instead of TLS is recognised at once, and shown."""
        for data in (b"refused\n", b"r", b"\x16\x02\x00", b"\x16G", b"\n", b"\x00" * 100):
            self.setUp()
            self.client.start()
            self.assertIn("expected TLS, got", str(self.failure(self.client, data)))

    def test_record_too_long(self) -> None:
        """A record that is too long is an error at once."""
        self.client.start()
        self.assertIn("65540", str(self.failure(self.client, b"\x16\x03\x03\xff\xff")))

    def test_wrong_line(self) -> None:
        """A line of more than 33 bytes, or more data in its record, is an error."""
        for start, rest in ((b"0" * 32, b"0"), (b"", KEY + b"\nx"), (b"", b"0" * 16000)):
            self.setUp()
            self.establish()
            for byte in start:
                self.client.receive(self.server.send(bytes([byte])))
            self.failure(self.client, self.server.send(rest))

    def test_ended_too_soon(self) -> None:
        """close_notify before the line is an error."""
        self.establish()
        self.assertIn("too soon", str(self.failure(self.client, self.server.close())))

    def test_client_that_talks(self) -> None:
        """Data from the client inside TLS is an error."""
        self.establish()
        self.failure(self.server, self.client.send(b"ping\n"))

    def test_broken_record(self) -> None:
        """A modified record is an error."""
        self.establish()
        sent = bytearray(self.server.send(KEY + b"\n"))
        sent[-1] ^= 1
        self.failure(self.client, bytes(sent))

    def test_no_version_in_common(self) -> None:
        """The other side is informed of an unsupported version."""
        server = self.files.context(ssl.PROTOCOL_TLS_SERVER)
        server.minimum_version = ssl.TLSVersion.TLSv1_3
        self.version = ssl.TLSVersion.TLSv1_2
        self.make(self.files, self.files)
        self.server = TLSPhase(server)
        error = self.failure(self.server, self.client.start())
        self.assertIn("protocol version", str(self.failure(self.client, error.farewell)))

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.lists(st.binary(min_size=1, max_size=80), max_size=8), st.booleans())
    def test_noise(self, segments: list[bytes], is_established: bool) -> None:
        """Any data gives no line, and no error but TLSError."""
        self.make(self.files, self.files)
        if is_established:
            self.establish()
        else:
            self.client.start()
        for segment in segments:
            try:
                self.client.receive(segment)
            except TLSError:
                break
        self.assertIsNone(self.client.line)


class CertificateTests(TLSTestCase):
    """Certificates that are not accepted; the error has the reason."""

    def refusal_by_client(self, server: CertificateFiles, name: str = "") -> TLSError:
        """Return the error of the client about the server."""
        self.make(server, self.files, name)
        return self.failure(self.client, self.server.receive(self.client.start()))

    def refusal_by_server(self, client: CertificateFiles) -> TLSError:
        """Return the error of the server about the client."""
        self.make(self.files, client)
        to_client = self.server.receive(self.client.start())
        return self.failure(self.server, self.client.receive(to_client))

    def bad(self) -> list[tuple[CertificateFiles, str, str]]:
        """Return bad certificates, with texts of the errors on both sides."""
        other = Authority(self.folder, "other")
        namesake = Authority(self.folder, "authority")  # the same name, but another key
        trusting = {"authority": self.authority.file}
        return [
            (
                self.authority.issue("l2.test", ends=-0.5, file="expired"),
                "has expired",
                "certificate expired",
            ),
            (
                self.authority.issue("l2.test", begins=0.5, file="early"),
                "is not valid yet",
                "bad certificate",
            ),
            (self.of(other.issue("l2.test", file="other-host"), **trusting), "authority", "ca"),
            (self.of(namesake.issue("l2.test", file="fake"), **trusting), "authority", "decrypt"),
        ]

    def of(self, files: CertificateFiles, authority: str) -> CertificateFiles:
        """Return a certificate whose owner trusts our authority."""
        return CertificateFiles(authority, files.certificate, files.key)

    def setUp(self) -> None:
        super().setUp()
        # A namesake writes to the same file, so the true one is kept elsewhere.
        os.rename(self.authority.file, self.authority.file + ".true")
        self.authority.file += ".true"
        self.files = self.authority.issue("l2.test", file="server")

    def test_bad(self) -> None:
        """Either side says which it is: expired, not yet valid, of another authority; what is sent
        as farewell tells the other side."""
        for self.version in VERSIONS:
            for files, words, heard in self.bad():
                error = self.refusal_by_client(files)
                self.assertIn(words, str(error))
                self.assertFalse(self.client.established)
                self.assertIn(heard, str(self.failure(self.server, error.farewell)))
                error = self.refusal_by_server(files)
                self.assertIn(words, str(error))
                self.assertFalse(self.server.established)
                message = str(self.failure(self.client, error.farewell))
                self.assertIn("the other side ended TLS", message)
                self.assertIn(heard, message)

    def test_another_host(self) -> None:
        """The certificate of another host is an error, with both names."""
        files = self.authority.issue("l3.test", ["l3.test", "internal-l3.test"], file="l3")
        message = str(self.refusal_by_client(files, "l2.test"))
        self.assertIn("is for l3.test, internal-l3.test, not for l2.test", message)

    def test_right_host(self) -> None:
        """The host's own certificate is accepted, with and without the name check."""
        for name in ("l2.test", ""):
            self.make(self.files, self.files, name)
            self.establish()
            self.assertTrue(self.client.established)

    def test_no_certificate(self) -> None:
        """A client without a certificate is refused."""
        for self.version in VERSIONS:
            self.make(self.files, self.files)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.maximum_version = self.version
            context.check_hostname = False
            context.load_verify_locations(self.authority.file)
            self.client = TLSPhase(context)
            to_client = self.server.receive(self.client.start())
            error = self.failure(self.server, self.client.receive(to_client))
            self.assertIn("did not return a certificate", str(error))
