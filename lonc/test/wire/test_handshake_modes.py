"""
The handshake of later londs, without a network: version and sethost, key files, TLS.

Protocol, sections 2 and 9.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from itertools import product

import attrs
from twisted.trial.unittest import SynchronousTestCase

from lonc.config.certificates import CertificateFiles
from lonc.config.key_files import KeyFolder
from lonc.test.fixtures.certificates import Authority
from lonc.wire.cipher import session_key
from lonc.wire.handshake import (
    AuthModes,
    Handshake,
    HandshakeError,
    LondFacts,
    Omission,
    OtherLondError,
    State,
)
from lonc.wire.tls import TLSPhase

CHALLENGE = b"4711\n"
UNKNOWN = b"unknown_cmd\n"
VERSION = b"$Revision: 1.467 $\n"
KEY = "00112233445566778899aabbccddeeff"


class ModesTestCase(SynchronousTestCase):
    """A handshake with all authentication modes, and certificates of one authority."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.key_dir = os.path.join(self.folder, "lonc.keys")
        authority = Authority(self.folder)
        self.files = authority.issue("l2.test", file="lond")
        self.own_files = authority.issue("l1.test", file="lonc")
        self.auth_modes = self.all_auth_modes = AuthModes(
            key_files=KeyFolder(self.key_dir),
            certificates=self.own_files.read(),
            insecure=True,
            name="l2.test",
        )
        self.omissions: list[Omission] = []
        self.several = False

    def restrict(self, *, local: bool = False, tls: bool = False, insecure: bool = True) -> None:
        """Allow only some of the modes."""
        self.auth_modes = attrs.evolve(
            self.all_auth_modes,
            key_files=self.all_auth_modes.key_files if local else None,
            certificates=self.all_auth_modes.certificates if tls else None,
            insecure=insecure,
        )

    def begun(self) -> Handshake:
        """Start a new handshake; the first bytes are in ``said``."""
        self.handshake = self.new()
        self.said = self.handshake.start()
        return self.handshake

    def new(self) -> Handshake:
        """Return a new handshake."""
        return Handshake(
            "l2", "l1", self.auth_modes, several=self.several, omissions=self.omissions
        )

    @property
    def facts(self) -> LondFacts:
        """What the last handshake revealed."""
        return self.handshake.facts

    def leave_out(self, handshake: Handshake) -> bool:
        """Let a handshake fail; return whether the next one is to omit a step."""
        omission = handshake.fail()
        if omission is not None:
            self.omissions.append(omission)
        return omission is not None

    def failure(self, act: Callable[..., object], *arguments: bytes) -> HandshakeError:
        """Return the error of a call."""
        with self.assertRaises(HandshakeError) as caught:
            act(*arguments)
        error: HandshakeError = caught.exception
        self.assertTrue(str(error).isprintable() and str(error).isascii())
        return error

    @property
    def key_files(self) -> list[str]:
        """The paths of the existing key files."""
        if not os.path.exists(self.key_dir):
            return []
        return [os.path.join(self.key_dir, name) for name in os.listdir(self.key_dir)]


class PreferenceTests(ModesTestCase):
    """The most secure mode is tried first."""

    def test_order(self) -> None:
        """Key files, then TLS, then the insecure mode, which is also the default."""
        self.begun()
        (path,) = self.key_files
        self.assertEqual(self.said, b"init:local:%s\n" % os.fsencode(path))
        self.restrict(tls=True)
        self.begun()
        self.assertEqual(self.said, b"init:ssl\n")
        self.restrict()
        self.begun()
        self.assertEqual(self.said, b"init\n")
        self.assertEqual(Handshake("l2", "l1").start(), b"init\n")

    def test_none(self) -> None:
        """If no mode is possible, nothing is sent."""
        self.restrict(insecure=False)
        handshake = Handshake("l2", "l1", self.auth_modes)
        self.assertIn("loncAllowInsecure is 0", str(self.failure(handshake.start)))


class VersionTests(ModesTestCase):
    """``version`` and ``sethost``."""

    def setUp(self) -> None:
        super().setUp()
        self.restrict()

    def answered(self, *lines: bytes) -> list[bytes]:
        """Return what a handshake sends after a challenge, ``ok`` and these lines."""
        handshake = self.begun()
        return [handshake.receive(line) for line in (CHALLENGE, b"ok\n", *lines)][1:]

    def test_known_or_not(self) -> None:
        """Both are sent before ekey; the lond may support both, one, or none."""
        for version, sethost in product((VERSION, UNKNOWN), (b"ok\n", UNKNOWN)):
            said = self.answered(version, sethost)
            self.assertEqual(self.facts.mode, "")
            said.append(self.handshake.receive(b"ABCDEF\n"))
            self.assertEqual(said, [b"version\n", b"sethost:l2\n", b"ekey\n", b""])
            self.assertEqual(self.facts.knows_version, version != UNKNOWN)
            self.assertEqual(self.facts.version, "1.467" if version == VERSION else "")
            self.assertEqual(self.facts.knows_sethost, sethost != UNKNOWN)
            self.assertEqual((self.facts.mode, self.facts.names), ("insecure", False))

    def test_left_out(self) -> None:
        """If the version is omitted, sethost is sent all the same."""
        self.omissions = [Omission.VERSION]
        self.assertEqual(self.answered(UNKNOWN, b"ABCDEF\n"), [b"sethost:l2\n", b"ekey\n", b""])
        self.assertEqual((self.facts.version, self.facts.knows_version), ("", None))

    def test_versions(self) -> None:
        """The number is found in any form of version."""
        for line, version in (
            (b"$Revision: 1.467 $", "1.467"),
            (b"version:$Revision: 1.489.2.43 $", "1.489.2.43"),
            (b"$Revision: 1.5$", "1.5"),
            (b"1.467", "1.467"),
            (b"LON-CAPA lond, built 2003, version 2.11.4-rc\r", "2.11.4"),
            (b"release 7", "7"),
            (b"$Revision$", "$Revision$"),
            (b"$Revision: HEAD $", "HEAD"),
            (b"refused", "refused"),
            (b"", ""),
            (b"a \x1b[31m lond", "a \\x1b[31m lond"),
            (b"x" * 100, "x" * 37 + "..."),
        ):
            self.answered(line + b"\n")
            self.assertEqual(self.facts.version, version, line)

    def test_whatever_comes_third(self) -> None:
        """S6: of a lond that takes whatever comes third for ekey, and nothing later, the key is
        understood; it is told which host is wanted all the same."""
        said = self.answered(b"0123456789ABCDEF\n", UNKNOWN, UNKNOWN)
        self.assertEqual(said, [b"version\n", b"sethost:l2\n", b"ekey\n", b""])
        self.assertEqual(self.handshake.key, session_key("l2", "l1", b"0123456789ABCDEF"))
        self.answered(b"0123456789ABCDEF\n", UNKNOWN, b"ABCDEF\n")
        self.assertEqual(self.handshake.key, session_key("l2", "l1", b"ABCDEF"))

    def test_break_at_version(self) -> None:
        """One that breaks there is tried again without that question, and never without sethost;
        where the lond serves several ids that is a failure like any other."""
        for self.several, data in product((False, True), (b"", b"one\ntwo\n", b"x" * 2000)):
            self.omissions = []
            self.assertEqual(self.answered(), [b"version\n"])
            if data:
                self.failure(self.handshake.receive, data)
            self.assertEqual(self.leave_out(self.handshake), not self.several)
            if not self.several:
                self.assertEqual(self.answered(b"ok\n"), [b"sethost:l2\n", b"ekey\n"])

    def test_break_at_sethost(self) -> None:
        """A failure at sethost reveals nothing about the lond."""
        for data in (b"", b"unable_to_set\n", b"unknown_cmd \n"):
            self.answered(VERSION)
            if data:
                self.failure(self.handshake.receive, data)
            self.assertFalse(self.leave_out(self.handshake))
            self.assertTrue(self.facts.knows_sethost)

    def test_several_ids(self) -> None:
        """A lond of several ids that knows no sethost tells its id; one that knows it is told in
        each request which one is wanted."""
        self.several = True
        said = self.answered(VERSION, UNKNOWN, b"l2\n", b"ABCDEF\n")
        self.assertEqual(said, [b"version\n", b"sethost:l2\n", b"ping\n", b"ekey\n", b""])
        self.assertEqual((self.facts.only, self.facts.names), ("l2", False))
        said = self.answered(VERSION, b"ok\n", b"ABCDEF\n")
        self.assertEqual(said, [b"version\n", b"sethost:l2\n", b"ekey\n", b""])
        self.assertEqual((self.facts.only, self.facts.names), ("", True))

    def test_other_of_several_ids(self) -> None:
        """If it gives another id, or none, it is an error with a reason."""
        self.several = True
        for line in (b"l3", b"L2", b"l22", b"l2 ", b"", UNKNOWN[:-1]):
            error = self.failure(self.answered, VERSION, UNKNOWN, line + b"\n")
            self.assertIsInstance(error, OtherLondError)
            self.assertIn("does not support sethost", str(error))

    def test_one_of_several_ids(self) -> None:
        """If the lond does not serve the wanted id, the next one is tried."""
        handshake = Handshake("l2", "l1", others=("l2", "l3"), several=True)
        handshake.start()
        said = [handshake.receive(line) for line in (CHALLENGE, b"ok\n", VERSION)]
        said += [handshake.receive(line) for line in (b"unable_to_set\n", b"ok\n", b"ABCDEF\n")]
        self.assertEqual(said[2:], [b"sethost:l2\n", b"sethost:l3\n", b"ekey\n", b""])
        self.assertEqual((handshake.facts.host_id, handshake.facts.unserved), ("l3", ["l2"]))

    def test_sethost_refused(self) -> None:
        """A lond that refuses the host id is an error, which contains the id."""
        for line in (b"refused", b"no", b"", b"OK", b"ok ", VERSION[:-1], b"unable_to_set"):
            error = self.failure(self.answered, VERSION, line + b"\n")
            self.assertIn("that lond is not l2", str(error))
            self.assertEqual(isinstance(error, OtherLondError), line == b"unable_to_set")


class LocalTests(ModesTestCase):
    """``init:local``: the key is passed in a file."""

    def setUp(self) -> None:
        super().setUp()
        self.restrict(local=True)

    def take(self) -> bytes:
        """Read and delete the key file as a lond does; return the key."""
        return KeyFolder(self.key_dir).read_and_delete(os.fsencode(self.key_files[0]))

    def test_taken(self) -> None:
        """The content of the file is the key; challenge and ekey are omitted."""
        handshake = self.begun()
        key = self.take()
        self.assertEqual(handshake.receive(b"ok:local\n"), b"version\n")
        self.assertEqual(handshake.receive(VERSION), b"sethost:l2\n")
        self.assertEqual(handshake.receive(b"ok\n"), b"")
        self.assertEqual(handshake.state, State.IDLE)
        self.assertEqual(handshake.key, bytes.fromhex(key.decode()))
        self.assertEqual(self.facts.mode, "local")

    def test_not_there(self) -> None:
        """ok:local alone does not prove that the lond is here: the file has to be deleted."""
        handshake = self.begun()
        self.assertEqual(handshake.receive(b"ok:local\n"), b"")
        self.assertEqual(
            (handshake.state, handshake.check_key_file()), (State.TAKING_KEY_FILE, b"")
        )
        self.assertIsNone(handshake.key)
        self.assertTrue(self.leave_out(handshake))
        self.assertEqual(self.key_files, [])
        self.begun()
        self.assertEqual(self.said, b"init\n")

    def test_taken_late(self) -> None:
        """A lond may answer first, and then delete the file."""
        handshake = self.begun()
        handshake.receive(b"ok:local\n")
        key = self.take()
        self.assertEqual(handshake.check_key_file(), b"version\n")
        self.assertEqual(handshake.check_key_file(), b"")
        self.assertEqual(handshake.key, bytes.fromhex(key.decode()))

    def test_more_meanwhile(self) -> None:
        """Data sent before it was asked for is an error."""
        handshake = self.begun()
        handshake.receive(b"ok:local\n")
        self.assertIn("more than one line", str(self.failure(handshake.receive, b"x")))

    def test_file_goes(self) -> None:
        """The file is removed once the lond has answered, if it has not deleted it."""
        for is_deleted in (False, True):
            handshake = self.begun()
            if is_deleted:
                os.unlink(self.key_files[0])
            handshake.receive(CHALLENGE)
            self.assertFalse(os.path.exists(self.key_dir))

    def test_file_goes_in_the_end(self) -> None:
        """It is also removed if the handshake fails."""
        for answer in (b"", b"refused", b"ok\n", b"ok:ssl\n", b"no\n", b"x" * 2000):
            self.omissions = []
            handshake = self.begun()
            self.assertEqual(len(self.key_files), 1)
            if answer:
                self.failure(handshake.receive, answer)
            handshake.fail()
            self.assertEqual(self.key_files, [], answer)

    def test_old_lond(self) -> None:
        """After a challenge of an old lond, the insecure mode is used."""
        handshake = self.begun()
        self.assertEqual(handshake.receive(CHALLENGE), CHALLENGE)
        for line in (b"ok\n", VERSION, b"ok\n", b"ABCDEF\n"):
            self.assertIsNone(handshake.key)
            handshake.receive(line)
        self.assertEqual(self.facts.mode, "insecure")
        self.assertFalse(self.leave_out(handshake))

    def test_old_lond_where_the_clear_is_closed(self) -> None:
        """If that is not allowed, it is an error with a reason."""
        for local in (True, False):
            self.restrict(local=local, tls=True, insecure=False)
            handshake = self.begun()
            error = str(self.failure(handshake.receive, CHALLENGE))
            self.assertIn("old lond", error)
            self.assertIn("loncAllowInsecure is 0", error)
            self.assertEqual(self.leave_out(handshake), local)
            self.assertEqual(self.key_files, [])
            self.omissions = []

    def test_not_taken(self) -> None:
        """After any other failure the next connection uses another mode, if possible."""
        self.assertTrue(self.leave_out(self.begun()))
        self.begun()
        self.assertEqual(self.said, b"init\n")
        self.restrict(local=True, tls=True)
        self.begun()
        self.assertEqual(self.said, b"init:ssl\n")
        self.omissions = []
        error = self.failure(self.begun().receive, CHALLENGE)
        self.assertEqual(str(error), "that lond takes no key files")
        self.restrict(local=True, insecure=False)
        for self.omissions in ([], [Omission.KEY_FILES]):
            handshake = self.begun()
            self.assertTrue(self.said.startswith(b"init:local:"))
            self.assertFalse(self.leave_out(handshake))

    def test_mode_stays_possible(self) -> None:
        """A failure after the key was accepted, or before the start, excludes no mode."""
        handshake = self.begun()
        self.take()
        for line in (b"ok:local\n", VERSION):
            handshake.receive(line)
        self.assertFalse(self.leave_out(handshake))
        self.assertFalse(self.leave_out(self.new()))

    def test_no_file_can_be_made(self) -> None:
        """If no file can be created, nothing is sent, and another mode is next."""
        os.mkdir(self.key_dir, 0o777)
        handshake = self.new()
        self.assertIn(
            f"no key file can be made: {self.key_dir}: ", str(self.failure(handshake.start))
        )
        self.assertTrue(self.leave_out(handshake))
        self.begun()
        self.assertEqual(self.said, b"init\n")

    def test_not_asked_for(self) -> None:
        """ok:local without a key file is an error."""
        self.restrict()
        handshake = self.begun()
        self.assertIn("expected a challenge", str(self.failure(handshake.receive, b"ok:local\n")))


class SSLTests(ModesTestCase):
    """``init:ssl``: the key is sent inside TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.restrict(tls=True, insecure=False)

    def established(self, files: CertificateFiles | None = None) -> tuple[Handshake, TLSPhase]:
        """Return both sides after the TLS handshake."""
        handshake = self.begun()
        lond = TLSPhase((files or self.files).context(ssl.PROTOCOL_TLS_SERVER))
        to_lond = handshake.receive(b"ok:ssl\n")
        while not lond.established:
            self.assertEqual(handshake.state, State.RECEIVING_KEY_IN_TLS)
            to_lond = handshake.receive(lond.receive(to_lond))
        return handshake, lond

    def test_taken(self) -> None:
        """The line inside TLS is the key; then plain lines follow."""
        handshake, lond = self.established()
        self.assertIsNone(handshake.key)
        said = handshake.receive(lond.send(KEY.encode() + b"\n"))
        self.assertEqual(said, b"version\n")
        self.assertEqual(handshake.receive(VERSION), b"sethost:l2\n")
        self.assertEqual(handshake.receive(b"ok\n"), b"")
        self.assertEqual(handshake.state, State.IDLE)
        self.assertEqual(handshake.key, bytes.fromhex(KEY))
        self.assertEqual((self.facts.mode, self.facts.version), ("ssl", "1.467"))

    def test_bytes_behind_the_key(self) -> None:
        """Plain bytes in the same segment as the key belong to the first answer."""
        for behind, answer in ((b"$Revision: 1.4", b"67 $\n"), (VERSION, b"")):
            handshake, lond = self.established()
            said = handshake.receive(lond.send(KEY.encode() + b"\n") + behind)
            if answer:
                self.assertEqual(said, b"version\n")
                said += handshake.receive(answer)
            self.assertEqual(said, b"version\nsethost:l2\n")
            self.assertEqual(self.facts.version, "1.467")

    def test_only_what_follows_the_key_is_tls(self) -> None:
        """Within a plain line, a byte that could begin a record does not."""
        handshake, lond = self.established()
        handshake.receive(lond.send(KEY.encode() + b"\n") + b"$Rev")
        handshake.receive(b"\x15\n")
        self.assertEqual(self.facts.version, "$Rev\\x15")

    def test_no_key(self) -> None:
        """An invalid key inside TLS is an error, which does not contain it."""
        upper = KEY.upper()[:-1].encode() + b"\r"
        for line in (b"", KEY[:-1].encode(), b"x" * 32, b"secret", upper):
            handshake, lond = self.established()
            error = str(self.failure(handshake.receive, lond.send(line + b"\n")))
            self.assertIn("expected a key", error)
            self.assertNotIn("secret", error)

    def test_no_tls(self) -> None:
        """Plain data after ok:ssl is an error."""
        handshake = self.begun()
        handshake.receive(b"ok:ssl\n")
        error = self.failure(handshake.receive, KEY.encode() + b"\n")
        self.assertIn("expected TLS, got", str(error))

    def test_wrong_certificate(self) -> None:
        """An invalid certificate is an error, of which the lond is informed."""
        for name in ("other", "odd"):
            os.mkdir(f"{self.folder}/{name}")
        other = Authority(f"{self.folder}/other").issue("l2.test")
        odd = Authority(f"{self.folder}/odd").issue("l2.test", alternative=b"l2.test\xff")
        for files, trusted, why in (
            (self.own_files, self.own_files, "is for l1.test, not for l2.test"),
            (other, self.own_files, "not signed by our authority"),
            (odd, odd, "the certificate shown cannot be read"),
        ):
            self.auth_modes = attrs.evolve(self.auth_modes, certificates=trusted.read())
            handshake = self.begun()
            lond = TLSPhase(files.context(ssl.PROTOCOL_TLS_SERVER))
            error = self.failure(handshake.receive, lond.receive(handshake.receive(b"ok:ssl\n")))
            self.assertIn(why, str(error))
            self.assertEqual(bool(error.farewell), files is other)
            self.assertEqual(self.facts.mode, "")

    def test_no_name_check(self) -> None:
        """Without the name check, the certificate of another host is accepted."""
        self.auth_modes = attrs.evolve(
            self.auth_modes, certificates=self.own_files.read(check_names=False)
        )
        handshake, lond = self.established(self.own_files)
        handshake.receive(lond.send(KEY.encode() + b"\n"))
        self.assertIsNotNone(handshake.key)

    def test_old_lond_in_the_clear(self) -> None:
        """After a challenge of an old lond, the insecure mode is used if allowed."""
        self.restrict(tls=True)
        handshake = self.begun()
        for line in (CHALLENGE, b"ok\n", UNKNOWN, UNKNOWN, b"ABCDEF\n"):
            handshake.receive(line)
        self.assertEqual((handshake.state, self.facts.mode), (State.IDLE, "insecure"))

    def test_wrong_ok(self) -> None:
        """Other confirmations are errors, and so is TLS before its time."""
        for line in (b"ok\n", b"ok:local\n", b"ok:SSL\n", b"ok:ssl\r\n", b"ok:ssl:\n"):
            handshake = self.begun()
            self.failure(handshake.receive, line)
        self.failure(self.begun().receive, b"ok:ssl\n\x16\x03\x01")

    def test_never_in_the_clear_after_tls(self) -> None:
        """Once TLS has begun, the insecure mode is not used."""
        self.restrict(tls=True)
        handshake = self.begun()
        handshake.receive(b"ok:ssl\n")
        self.failure(handshake.receive, CHALLENGE)
        self.assertFalse(self.leave_out(handshake))
        self.begun()
        self.assertEqual(self.said, b"init:ssl\n")
