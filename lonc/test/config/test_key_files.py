"""Key files, which pass a session key to a lond on the same machine (protocol, section 9)."""

from __future__ import annotations

import os
import resource
import stat

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.key_files import KeyFileError, KeyFolder

KEY = b"0123456789abcdefABCDEF0123456789"


class KeyFolderTestCase(SynchronousTestCase):
    """A folder that does not exist yet."""

    def setUp(self) -> None:
        self.above = os.path.abspath(self.mktemp())
        os.mkdir(self.above)
        self.path = os.path.join(self.above, "lonc.keys")
        self.folder = KeyFolder(self.path)

    def mode(self, path: str) -> int:
        """Return the permissions of a file or folder."""
        return stat.S_IMODE(os.lstat(path).st_mode)


class MakeTests(KeyFolderTestCase):
    """Creating key files."""

    def test_file(self) -> None:
        """It contains 32 hex digits, and only its owner may read it."""
        for umask in (0o022, 0o000, 0o077):
            self.addCleanup(os.umask, os.umask(umask))
            made = self.folder.make()
            with open(made.path, "rb") as file:
                self.assertEqual(file.read(), made.key)
            self.assertRegex(made.key, rb"\A[0-9a-f]{32}\Z")
            self.assertEqual((self.mode(made.path), self.mode(self.path)), (0o600, 0o700))
            self.assertEqual(os.path.dirname(made.path), self.path)
            made.remove()

    def test_random(self) -> None:
        """All names and keys differ."""
        made = [self.folder.make() for _ in range(50)]
        self.assertEqual(len({each.path for each in made}), 50)
        self.assertEqual(len({each.key for each in made}), 50)

    def test_remove(self) -> None:
        """A file is deleted if it still exists, and with the last one the folder."""
        one, two = self.folder.make(), self.folder.make()
        one.remove()
        self.assertEqual(os.listdir(self.path), [os.path.basename(two.path)])
        os.unlink(two.path)
        two.remove()
        two.remove()
        self.assertEqual(os.listdir(self.above), [])

    def test_no_folder(self) -> None:
        """
        Without a folder for its own user only, no file is created: one that others have access to,
        a link or a file in its place, one that cannot be created, and one with a colon in its name.
        """
        os.mkdir(f"{self.above}/elsewhere", 0o700)
        os.mkdir(f"{self.above}/open", 0o755)
        os.symlink(f"{self.above}/elsewhere", f"{self.above}/link")
        with open(f"{self.above}/file", "w"):
            pass
        for name, why in (
            ("open", "not a folder that is lonc's alone"),
            ("link", "not a folder that is lonc's alone"),
            ("file", "not a folder that is lonc's alone"),
            ("missing/keys", "No such file or directory"),
            ("a:b", "a lond cannot be told a name with a colon"),
        ):
            path = os.path.join(self.above, name)
            error = self.assertRaises(OSError, KeyFolder(path).make)
            self.assertEqual((error.filename, error.strerror), (path, why))
        self.assertEqual(len(os.listdir(self.above)), 4)

    def test_full_disk(self) -> None:
        """If the key cannot be written, no file is left, and the error names it."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            error = self.assertRaises(OSError, self.folder.make)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertEqual(error.strerror, "File too large")
        self.assertEqual(os.listdir(self.above), [])


class SweepTests(KeyFolderTestCase):
    """Removing what a crash left behind."""

    def test_sweep(self) -> None:
        """Key files are removed, and the folder if nothing else is in it; it need not exist."""
        for _ in range(3):
            self.folder.make()
        for _ in range(2):
            self.folder.sweep()
            self.assertEqual(os.listdir(self.above), [])
        made = self.folder.make()
        for name in ("notes", os.path.basename(made.path) + ".bak"):
            with open(os.path.join(self.path, name), "w"):
                pass
        self.folder.sweep()
        self.assertEqual(len(os.listdir(self.path)), 2)
        self.assertFalse(os.path.exists(made.path))

    def test_link(self) -> None:
        """A link in place of the folder is not followed."""
        elsewhere = KeyFolder(f"{self.above}/elsewhere")
        made = elsewhere.make()
        os.symlink(elsewhere.path, self.path)
        self.folder.sweep()
        self.assertTrue(os.path.exists(made.path))


class ReadTests(KeyFolderTestCase):
    """Reading key files, as a lond does."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.path, 0o700)
        self.file = os.path.join(self.path, "0123456789abcdef")

    def write(self, content: bytes, mode: int = 0o600) -> bytes:
        """Write a file; return its path as a caller sends it."""
        with open(self.file, "wb") as file:
            file.write(content)
        os.chmod(self.file, mode)
        return os.fsencode(self.file)

    def refusal(self, path: bytes) -> str:
        """Return why a file is refused."""
        with self.assertRaises(KeyFileError) as caught:
            self.folder.read_and_delete(path)
        self.assertTrue(str(caught.exception).isprintable() and str(caught.exception).isascii())
        return str(caught.exception)

    def test_read(self) -> None:
        """The key is read once, and its file deleted; a newline may follow it."""
        made = self.folder.make()
        self.assertEqual(self.folder.read_and_delete(os.fsencode(made.path)), made.key)
        for content in (KEY, KEY + b"\n"):
            path = self.write(content)
            self.assertEqual(self.folder.read_and_delete(path), KEY)
            self.assertIn("No such file", self.refusal(path))

    def test_other_files(self) -> None:
        """A file without a key, or with a wrong mode, is left: the caller chose its name."""
        contents = (b"", KEY[:-1], KEY + b"0", KEY + b"\n\n", b"x" * 32, b"root:x:0:0" * 10)
        modes = (0o640, 0o604, 0o660, 0o777)
        for content, mode in [(each, 0o600) for each in contents] + [(KEY, each) for each in modes]:
            self.assertIn("not a key file", self.refusal(self.write(content, mode)))
            self.assertTrue(os.path.exists(self.file))

    def test_no_file(self) -> None:
        """Links are not followed, and a FIFO is not waited for."""
        target = self.write(KEY)
        link = os.path.join(self.path, "0" * 16)
        os.symlink(self.file, link)
        self.refusal(os.fsencode(link))
        self.assertEqual(self.folder.read_and_delete(target), KEY)
        os.mkdir(os.path.join(self.path, "1" * 16))
        self.refusal(os.fsencode(os.path.join(self.path, "1" * 16)))
        os.mkfifo(self.file, 0o600)
        self.refusal(target)
        self.assertTrue(os.path.exists(self.file))

    def test_elsewhere(self) -> None:
        """A file that is not in the folder, or has another kind of name, is left."""
        for path in ("key", "lonc.keys/key", "lonc.keys/../0123456789abcdef", "0123456789abcdef"):
            path = os.path.join(self.above, path)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(KEY)
            self.assertIn("not a key file of this cluster", self.refusal(os.fsencode(path)))
            self.assertTrue(os.path.exists(path))

    def test_folder_of_others(self) -> None:
        """No file is read in a folder where others can create files."""
        path = self.write(KEY)
        os.chmod(self.path, 0o755)
        self.refusal(path)
        self.assertTrue(os.path.exists(self.file))

    def test_no_name(self) -> None:
        """Impossible names are refused."""
        for path in (b"", b"/a\0b", b"/" + b"x" * 5000, b"\xff\xfe", b"relative"):
            self.refusal(path)
