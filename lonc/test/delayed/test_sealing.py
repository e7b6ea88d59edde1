"""Sealing, and the file with the key."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from functools import partial

from Crypto.Cipher import AES
from twisted.trial.unittest import SynchronousTestCase

from lonc.delayed.names import own_name
from lonc.delayed.sealing import (
    KEY_SIZE,
    OVERHEAD,
    Key,
    NotAuthentic,
    UnusableKey,
    is_form_of,
    key_of,
    make_key_file,
    read_key_file,
    seal,
    seal_parts,
    unseal,
)
from lonc.test.fixtures.doubles import some_settings
from lonc.test.fixtures.properties import given, settings, st

KEY = Key(range(KEY_SIZE))
OTHER_KEY = Key(range(1, KEY_SIZE + 1))
NAME = "1062000000.4711.passwd.l1"
LINE = b"passwd:msu:alice:secret\n"


class SealTests(SynchronousTestCase):
    """Sealing and unsealing content."""

    @settings(deadline=None)
    @given(st.binary(max_size=300))
    def test_back(self, content: bytes) -> None:
        """Any content can be unsealed; the sealed form is longer by a fixed number of bytes."""
        sealed = seal(KEY, NAME, content)
        self.assertEqual(unseal(KEY, NAME, sealed), content)
        self.assertEqual(len(sealed), len(content) + OVERHEAD)

    def test_form(self) -> None:
        """The sealed form is AES-256-GCM after a line that identifies it."""
        sealed = seal(KEY, NAME, LINE)
        magic, nonce, body, tag = sealed[:14], sealed[14:26], sealed[26:-16], sealed[-16:]
        self.assertEqual(magic, b"lonc sealed 1\n")
        cipher = AES.new(KEY, AES.MODE_GCM, nonce=nonce)
        cipher.update(magic + NAME.encode())
        self.assertEqual(cipher.decrypt_and_verify(body, tag), LINE)

    def test_hidden(self) -> None:
        """The sealed form shows nothing of the content, and each has its own nonce."""
        files = {seal(KEY, NAME, LINE) for _ in range(100)}
        self.assertEqual(len({sealed[14:26] for sealed in files}), 100)
        for sealed in files:
            for word in (b"passwd", b"alice", b"secret"):
                self.assertNotIn(word, sealed)

    def test_parts(self) -> None:
        """Content in parts is sealed like the whole."""
        sealed = b"".join(seal_parts(KEY, NAME, [b"passwd:msu", b"", b":alice"]))
        self.assertEqual(unseal(KEY, NAME, sealed), b"passwd:msu:alice")

    def test_key_is_hidden(self) -> None:
        """A key does not show its value when formatted."""
        self.assertEqual(f"{KEY!r} {KEY}", "<key> <key>")


class AuthenticityTests(SynchronousTestCase):
    """Sealed content that is not authentic."""

    def setUp(self) -> None:
        self.sealed = seal(KEY, NAME, LINE)

    def assert_refused(self, sealed: bytes, name: str = NAME, key: bytes = KEY) -> None:
        error = self.assertRaises(NotAuthentic, unseal, key, name, sealed)
        self.assertNotIn("secret", str(error))

    def test_other_key(self) -> None:
        """Another key does not unseal it."""
        self.assert_refused(self.sealed, key=OTHER_KEY)

    def test_changed(self) -> None:
        """A change of any bit is detected, also in the nonce and in the first line."""
        for place in range(len(self.sealed)):
            for bit in (1, 128):
                changed = bytearray(self.sealed)
                changed[place] ^= bit
                self.assert_refused(bytes(changed))

    def test_cut(self) -> None:
        """A part of it is not authentic, nor is it with an additional byte."""
        for size in range(len(self.sealed)):
            self.assert_refused(self.sealed[:size])
        self.assert_refused(self.sealed + b"\n")

    def test_in_the_clear(self) -> None:
        """An unsealed request is recognised as such."""
        error = self.assertRaises(NotAuthentic, unseal, KEY, NAME, LINE * 10)
        self.assertEqual(str(error), "it is not a sealed file, or only a part of one")

    def test_renamed(self) -> None:
        """It is not authentic under another name, such as that of another host."""
        for name in [
            "1062000000.4711.passwd.l2",
            "1062000001.4711.passwd.l1",
            "1062000000.4711.passwd.l1.answer",
            "1062000000.4711.passwd.a.l1",
        ]:
            self.assert_refused(self.sealed, name)

    def test_moved(self) -> None:
        """It is authentic in another folder, and with another number after its name."""
        for name in ["~sealed", "~1~sealed", "~12"]:
            self.assertEqual(unseal(KEY, f"/a~b/{NAME}{name}", self.sealed), LINE)

    def test_own_name(self) -> None:
        """The own name of a file or a note does not depend on numbers after it."""
        for name, own in [
            (NAME, NAME),
            (f"kept/{NAME}~1~sealed", NAME),
            (f"{NAME}~1.answer~sealed", f"{NAME}.answer"),
            (f"{NAME}~1.answer~2~sealed", f"{NAME}.answer"),
            (f"{NAME}~sealing", f"{NAME}~sealing"),
        ]:
            self.assertEqual(own_name(name), own)


class FormTests(SynchronousTestCase):
    """Whether a sealed file contains certain content."""

    def is_form(self, sealed: bytes, *parts: bytes, key: bytes = KEY) -> bool:
        return is_form_of(key, NAME, io.BytesIO(sealed), parts)

    def test_same(self) -> None:
        """A sealed file contains its content, in whatever parts that is given."""
        sealed = seal(KEY, NAME, LINE)
        self.assertTrue(self.is_form(sealed, LINE))
        self.assertTrue(self.is_form(sealed, LINE[:5], LINE[5:]))

    def test_other(self) -> None:
        """It does not contain other, less or more content, nor any under another name or key."""
        sealed = seal(KEY, NAME, LINE)
        for parts in [(LINE[:-1],), (LINE, b"x"), (b"x" * len(LINE),), ()]:
            self.assertFalse(self.is_form(sealed, *parts), parts)
        self.assertFalse(self.is_form(sealed + b"x", LINE))
        self.assertFalse(self.is_form(sealed, LINE, key=OTHER_KEY))
        self.assertFalse(self.is_form(seal(KEY, "1.put.l1", LINE), LINE))

    def test_damaged(self) -> None:
        """A damaged or incomplete file contains nothing."""
        sealed = seal(KEY, NAME, LINE)
        for place in range(len(sealed)):
            damaged = bytearray(sealed)
            damaged[place] ^= 1
            self.assertFalse(self.is_form(bytes(damaged), LINE), place)
            self.assertFalse(self.is_form(sealed[:place], LINE), place)


class KeyFileTests(SynchronousTestCase):
    """The file with the key."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(tempfile.mkdtemp(dir="."))
        self.path = os.path.join(self.folder, "key")

    def put(self, content: bytes = KEY, mode: int = 0o600) -> None:
        """Write a key file."""
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, mode)

    def refusal(self, owners: set[int] | None = None) -> str:
        """Return how the file is refused, without its path."""
        error = str(self.assertRaises(UnusableKey, read_key_file, self.path, owners))
        self.assertTrue(error.startswith(f"{self.path}: "), error)
        self.assertNotIn("\n", error)
        return error.removeprefix(f"{self.path}: ")

    def test_made(self) -> None:
        """A new key file has a new key, and only its owner can read it."""
        make_key_file(self.path)
        key = read_key_file(self.path, {0, os.geteuid()})
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        os.unlink(self.path)
        make_key_file(self.path)
        self.assertNotEqual(read_key_file(self.path), key)

    def test_not_overwritten(self) -> None:
        """An existing file or link is left unchanged."""
        self.put()
        for make in (lambda: None, lambda: os.symlink("nowhere", self.path)):
            make()
            error = self.assertRaises(UnusableKey, make_key_file, self.path)
            self.assertEqual(str(error), f"{self.path}: it exists, and is left unchanged")
            os.unlink(self.path)
        self.assertEqual(os.listdir(self.folder), [])

    def test_cannot_be_made(self) -> None:
        """A missing folder is an error."""
        error = self.assertRaises(UnusableKey, make_key_file, os.path.join(self.path, "key"))
        self.assertEqual(str(error), f"{self.path}/key: No such file or directory")

    def test_size(self) -> None:
        """A key has exactly 32 bytes."""
        self.put()
        self.assertEqual(read_key_file(self.path), KEY)
        for size, told in [(0, "0"), (31, "31"), (33, "more"), (100_000, "more")]:
            self.put(b"x" * size)
            self.assertEqual(self.refusal(), f"a key has 32 bytes, this file has {told}")

    def test_mode(self) -> None:
        """A key file to which others have any access is refused."""
        for mode in (0o400, 0o600, 0o700):
            self.put(mode=mode)
            self.assertEqual(read_key_file(self.path), KEY)
            os.unlink(self.path)
        for mode in (0o601, 0o602, 0o604, 0o610, 0o620, 0o640):
            self.put(mode=mode)
            told = f"its mode is {mode:04o}, so others have access to it: make it 0600"
            self.assertEqual(self.refusal(), told)

    def test_owner(self) -> None:
        """The daemon only uses a key file of its own user or root; others read any."""
        self.put()
        own = os.stat(self.path).st_uid
        self.assertEqual(read_key_file(self.path, {own}), KEY)
        self.assertEqual(read_key_file(self.path), KEY)
        self.assertEqual(
            self.refusal({own + 1}),
            f"it belongs to user {own}, not to lonc's own user or root",
        )

    def test_no_file(self) -> None:
        """A folder, a pipe and a link are refused; the pipe is not waited for."""
        self.assertEqual(self.refusal(), "No such file or directory")
        self.put()
        os.rename(self.path, self.path + "2")
        for make, remove, what in (
            (os.mkdir, os.rmdir, "not a regular file"),
            (partial(os.mkfifo, mode=0o600), os.unlink, "not a regular file"),
            (partial(os.symlink, "key2"), os.unlink, "a symbolic link"),
        ):
            make(self.path)
            self.assertEqual(self.refusal(), f"it is {what}; a key must be a file itself")
            remove(self.path)

    def test_settings(self) -> None:
        """The key file of the settings is read; errors name the setting."""
        self.assertIsNone(key_of(some_settings()))
        wanted = some_settings(delayed_key_file=self.path)
        error = self.assertRaises(UnusableKey, key_of, wanted)
        self.assertEqual(str(error), f"loncDelayedKeyFile: {self.path}: No such file or directory")
        self.put()
        self.assertEqual(key_of(wanted), KEY)
