"""The other ways in as the embedded lond sees them (protocol, section 9), and their faults."""

from __future__ import annotations

import os
import ssl
from typing import Any

from twisted.logger import capturedLogs

from lonc.config.key_files import KeyFolder
from lonc.lond.faults import CLOSE, NOT_A_KEY, REFUSE, SPLIT, STALL, Fault, Step
from lonc.lond.protocol import LondFactory
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.lond_caller import Caller, LondTestCase
from lonc.wire.cipher import SessionCipher
from lonc.wire.tls import TLSError, TLSPhase


class LocalTests(LondTestCase):
    """``init:local``."""

    def setUp(self) -> None:
        """Create a key file."""
        super().setUp()
        self.folder = KeyFolder(os.path.abspath(self.mktemp()))
        self.file = self.folder.make()
        self.line = b"init:local:" + os.fsencode(self.file.path)

    def local_lond(self, *arguments: Any) -> LondFactory:
        """Return a lond that accepts key files of that folder."""
        return self.lond(*arguments, key_folder=self.folder)

    def test_taken(self) -> None:
        """The file is read and deleted; its content is the key, and there is no challenge."""
        caller = Caller(self.local_lond())
        self.assertEqual(caller.say(self.line), b"ok:local\n")
        self.assertFalse(os.path.exists(self.file.path))
        cipher = SessionCipher(bytes.fromhex(self.file.key.decode()))
        self.assertEqual(caller.say(cipher.encrypt(b"ping")), b"l2\n")
        self.assertEqual(caller.say(b"version"), b"$Revision: 1.0 $\n")
        self.assertEqual(caller.say(b"sethost:l2"), b"ok\n")

    def test_refused(self) -> None:
        """Invalid files, files of others, and unknown callers are refused; no file is deleted."""
        other = KeyFolder(os.path.abspath(self.mktemp())).make()
        with open(self.file.path, "w") as file:
            file.write("something else")
        for path, address, why in (
            (self.file.path, "127.0.0.1", "names no key file: "),
            (other.path, "127.0.0.1", "names no key file: "),
            (self.file.path, "127.0.0.9", "comes from an unknown address"),
        ):
            caller = Caller(self.local_lond({"127.0.0.1": "l1"}), address)
            with capturedLogs() as events:
                said = caller.say(b"init:local:" + os.fsencode(path))
            self.assertEqual((said, caller.hung_up), (b"refused\n", True))
            self.assertIn(why, events[0]["why"])
            self.assertTrue(os.path.exists(path))

    def test_not_known(self) -> None:
        """A lond without key files, or of an old release, does not touch the file."""
        old: dict[str, Any] = {"revision": None, "key_folder": self.folder}
        for options in (old, {}):
            caller = Caller(self.lond(**options))
            self.assertRegex(caller.say(self.line), rb"\A[0-9]+\n\Z")
            self.assertTrue(os.path.exists(self.file.path))

    def test_faults(self) -> None:
        """Faults are possible at this step, although the file is deleted."""
        for fault, said in ((STALL, b""), (CLOSE, b""), (REFUSE, b"refused\n")):
            factory = self.local_lond()
            factory.faults.order(Step.LOCAL, fault)
            made = self.folder.make()
            caller = Caller(factory)
            self.assertEqual(caller.say(b"init:local:" + os.fsencode(made.path)), said)
            self.assertFalse(os.path.exists(made.path))
            self.assertEqual(caller.hung_up, fault.close)


class TLSTestCase(LondTestCase):
    """A lond with a certificate, and the caller's side of TLS."""

    def setUp(self) -> None:
        """Issue certificates of one authority."""
        super().setUp()
        folder = self.mktemp()
        os.mkdir(folder)
        self.authority = Authority(folder)
        self.lond_files = self.authority.issue("l2.test", file="lond")
        self.caller_files = self.authority.issue("l1.test", file="lonc")
        self.tls = self.new_tls()

    def new_tls(self) -> TLSPhase:
        """Return a new TLSPhase of the caller."""
        return self.caller_files.read(check_names=False).client("l2.test")

    def secure_lond(self, **options: Any) -> LondFactory:
        """Return a lond that supports TLS."""
        return self.lond(tls=self.lond_files.context(ssl.PROTOCOL_TLS_SERVER), **options)

    def exchange(self, caller: Caller, said: bytes) -> None:
        """Transfer data in both directions until neither side sends any."""
        while said:
            caller.lond.dataReceived(said)
            said = self.tls.receive(caller.heard())

    def established(self, **options: Any) -> Caller:
        """Return a new caller that has received its key."""
        self.tls = self.new_tls()
        caller = Caller(self.secure_lond(**options))
        self.assertEqual(caller.say(b"init:ssl"), b"ok:ssl\n")
        self.exchange(caller, self.tls.start())
        return caller

    def cipher(self) -> SessionCipher:
        """Return the cipher of the received key."""
        assert self.tls.line is not None
        return SessionCipher(bytes.fromhex(self.tls.line.decode()))


class SSLTests(TLSTestCase):
    """``init:ssl``."""

    def test_taken(self) -> None:
        """After TLS and a key of 32 hex digits inside it, plain lines follow."""
        caller = self.established()
        self.assertRegex(self.tls.line or b"", rb"\A[0-9a-f]{32}\Z")
        self.assertEqual(caller.say(b"version"), b"$Revision: 1.0 $\n")
        self.assertEqual(caller.say(self.cipher().encrypt(b"ping")), b"l2\n")
        self.assertEqual(self.requests, [b"ping"])
        self.assertFalse(caller.hung_up)

    def test_byte_by_byte(self) -> None:
        """The data may be split anywhere."""
        caller = Caller(self.secure_lond())
        data = b"init:ssl\n"
        while data:
            for byte in data:
                caller.lond.dataReceived(bytes([byte]))
            heard = caller.heard()
            if heard == b"ok:ssl\n":
                data = self.tls.start()
            else:
                data = b"".join(self.tls.receive(bytes([byte])) for byte in heard)
        for byte in b"version":
            caller.lond.dataReceived(bytes([byte]))
        self.assertEqual(caller.say(b""), b"$Revision: 1.0 $\n")

    def test_keys_are_random(self) -> None:
        """Each connection has another key."""
        self.established()
        first = self.tls.line
        self.established()
        self.assertNotEqual(first, self.tls.line)

    def test_caller_announces_the_end(self) -> None:
        """A caller may send close_notify."""
        caller = self.established()
        caller.lond.dataReceived(self.tls.close())
        self.assertEqual(caller.heard(), b"")
        self.assertEqual(caller.say(b"ping"), b"l2\n")
        caller = self.established()
        caller.lond.dataReceived(self.tls.close() + b"ping\n")
        self.assertEqual(caller.heard(), b"l2\n")

    def test_lond_announces_the_end(self) -> None:
        """A lond can be made to send close_notify."""
        caller = self.established(close_notify=True)
        self.assertIsNotNone(self.tls.line)
        self.assertEqual(caller.say(b"ping"), b"l2\n")

    def test_not_known(self) -> None:
        """A lond without TLS, or of an old release, sends a challenge."""
        for factory in (self.lond(), self.secure_lond(revision=None)):
            self.assertRegex(Caller(factory).say(b"init:ssl"), rb"\A[0-9]+\n\Z")

    def test_in_the_clear(self) -> None:
        """A lond with TLS also serves callers without."""
        caller = Caller(self.secure_lond())
        caller.enter()
        self.assertEqual(caller.say(b"ping"), b"l2\n")

    def test_bad_caller(self) -> None:
        """A caller with a bad certificate is disconnected; both sides know the reason."""
        files = self.authority.issue("l1.test", ends=-0.5, file="expired")
        self.tls = files.read(check_names=False).client("")
        caller = Caller(self.secure_lond())
        caller.say(b"init:ssl")
        with capturedLogs() as events, self.assertRaises(TLSError) as caught:
            self.exchange(caller, self.tls.start())
        self.assertIn("certificate expired", str(caught.exception))
        (event,) = events
        self.assertIn("has expired", str(event["error"]))
        self.assertTrue(caller.hung_up)
        self.assertEqual(self.requests, [])

    def test_no_tls(self) -> None:
        """A caller that sends anything but TLS is disconnected."""
        caller = Caller(self.secure_lond())
        caller.say(b"init:ssl")
        caller.say(b"ping")
        self.assertTrue(caller.hung_up)

    def test_time_limit(self) -> None:
        """TLS is subject to the time limit of the handshake, a minute."""
        caller = Caller(self.secure_lond())
        caller.say(b"init:ssl")
        caller.lond.dataReceived(self.tls.start())
        self.clock.advance(59)
        self.assertFalse(caller.hung_up)
        self.clock.advance(1)
        self.assertTrue(caller.hung_up)


class FaultTests(TLSTestCase):
    """Faults in TLS."""

    def at(self, step: Step, fault: Fault) -> Caller:
        """Return a caller at a fault; what it receives there is in ``heard``."""
        factory = self.secure_lond()
        factory.faults.order(step, fault, times=1)
        caller = Caller(factory)
        self.heard = caller.say(b"init:ssl")
        if step is Step.SSL:
            return caller
        self.tls = self.new_tls()
        caller.lond.dataReceived(self.tls.start())
        self.heard = caller.heard()
        if step is not Step.TLS:
            caller.lond.dataReceived(self.tls.receive(self.heard))
            self.heard = caller.heard()
        return caller

    def test_stall(self) -> None:
        """At each step the lond can stop answering."""
        for step in (Step.SSL, Step.TLS):
            self.assertFalse(self.at(step, STALL).hung_up)
            self.assertEqual(self.heard, b"", step)
        self.at(Step.TLS_KEY, STALL)
        self.assertTrue(self.heard, "session tickets come before the key")
        self.tls.receive(self.heard)
        self.assertTrue(self.tls.established)
        self.assertIsNone(self.tls.line)

    def test_close(self) -> None:
        """At each step it can close the connection."""
        for step in (Step.SSL, Step.TLS, Step.TLS_KEY, Step.TLS_END):
            self.assertTrue(self.at(step, CLOSE).hung_up, step)

    def test_plain_in_place_of_tls(self) -> None:
        """It can send plain data instead of TLS."""
        for step in (Step.SSL, Step.TLS):
            self.at(step, REFUSE)
            self.assertEqual(self.heard, b"refused\n")

    def test_lie_inside(self) -> None:
        """It sends anything instead of the key inside TLS."""
        self.at(Step.TLS_KEY, NOT_A_KEY)
        self.tls.receive(self.heard)
        self.assertEqual(self.tls.line, b"not a key")

    def test_split(self) -> None:
        """It can send TLS byte by byte, and each byte of the key in its own record."""
        caller = self.at(Step.TLS, SPLIT)
        self.assertEqual(len(self.heard), 1)
        self.tls.receive(self.heard)
        caller = self.at(Step.TLS_KEY, SPLIT)
        self.tls.receive(self.heard)
        for _ in range(32):
            self.assertIsNone(self.tls.line)
            self.clock.advance(0.001)
            self.tls.receive(caller.heard())
        self.assertIsNotNone(self.tls.line)
        self.clock.advance(0.001)
        self.assertEqual(caller.say(b"ping"), b"l2\n")

    def test_plain_behind_the_key(self) -> None:
        """It can send plain data directly after the key."""
        self.at(Step.TLS_END, Fault(instead=b"hello\n"))
        self.tls.receive(self.heard)
        self.assertIsNotNone(self.tls.line)
        self.assertEqual(self.tls.rest(), b"hello\n")
