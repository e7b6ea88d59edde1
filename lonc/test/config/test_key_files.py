"""Key files: the private way to agree on a key on one machine (protocol, section 9)."""

from __future__ import annotations

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.key_files import KeyFileError, KeyFolder

KEY = b"0123456789abcdefABCDEF0123456789"


class KeyFolderTestCase(SynchronousTestCase):
    """A folder that is not there yet."""

    def setUp(self) -> None:
        self.above = os.path.abspath(self.mktemp())
        os.mkdir(self.above)
        self.path = os.path.join(self.above, "lonc.keys")
        self.folder = KeyFolder(self.path)

    def mode(self, path: str) -> int:
        """Return the permissions of a file or folder."""
        return stat.S_IMODE(os.lstat(path).st_mode)


class MakeTests(KeyFolderTestCase):
    """Key files as lonc makes them."""

    def test_file(self) -> None:
        """It holds 32 hex digits and nothing else, and nobody but its owner may read it."""
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
        """Names and keys are all different."""
        made = [self.folder.make() for _ in range(50)]
        self.assertEqual(len({each.path for each in made}), 50)
        self.assertEqual(len({each.key for each in made}), 50)

    def test_remove(self) -> None:
        """The file goes, and with the last one the folder; a file that is gone is no error."""
        one, two = self.folder.make(), self.folder.make()
        one.remove()
        self.assertEqual(os.listdir(self.path), [os.path.basename(two.path)])
        os.unlink(two.path)
        two.remove()
        two.remove()
        self.assertEqual(os.listdir(self.above), [])

    def test_folder_of_others(self) -> None:
        """A folder that others can look into, a link, or a file in its place is not used."""
        os.mkdir(self.path, 0o755)
        self.assert_not_made("not a folder that is lonc's alone")
        os.rmdir(self.path)
        os.mkdir(f"{self.above}/elsewhere", 0o700)
        os.symlink(f"{self.above}/elsewhere", self.path)
        self.assert_not_made("not a folder that is lonc's alone")
        os.unlink(self.path)
        with open(self.path, "w"):
            pass
        self.assert_not_made("not a folder that is lonc's alone")

    def assert_not_made(self, why: str) -> None:
        """Check that no file can be made, and what is said of that."""
        with self.assertRaises(OSError) as caught:
            self.folder.make()
        self.assertEqual((caught.exception.filename, caught.exception.strerror), (self.path, why))

    def test_no_place(self) -> None:
        """Where the folder cannot be made the error names it."""
        os.rmdir(self.above)
        self.assert_not_made("No such file or directory")

    def test_colon(self) -> None:
        """A name with a colon cannot be told to a lond, so it is not made."""
        self.folder = KeyFolder(f"{self.above}/a:b")
        self.path = self.folder.path
        self.assert_not_made("a lond cannot be told a name with a colon")
        self.assertEqual(os.listdir(self.above), [])


class SweepTests(KeyFolderTestCase):
    """What a crash left behind."""

    def test_sweep(self) -> None:
        """Key files go at the next start, and the folder with them."""
        for _ in range(3):
            self.folder.make()
        self.folder.sweep()
        self.assertEqual(os.listdir(self.above), [])

    def test_other_files(self) -> None:
        """What is no key file stays."""
        made = self.folder.make()
        for name in ("notes", os.path.basename(made.path) + ".bak"):
            with open(os.path.join(self.path, name), "w"):
                pass
        self.folder.sweep()
        self.assertEqual(len(os.listdir(self.path)), 2)
        self.assertFalse(os.path.exists(made.path))

    def test_nothing_there(self) -> None:
        """Without the folder there is nothing to do."""
        self.folder.sweep()
        self.assertEqual(os.listdir(self.above), [])

    def test_link(self) -> None:
        """The folder is not looked for elsewhere: a link could lead anywhere."""
        elsewhere = KeyFolder(f"{self.above}/elsewhere")
        made = elsewhere.make()
        os.symlink(elsewhere.path, self.path)
        self.folder.sweep()
        self.assertTrue(os.path.exists(made.path))


class TakeTests(KeyFolderTestCase):
    """Key files as a lond takes them."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.path, 0o700)
        self.file = os.path.join(self.path, "0123456789abcdef")

    def write(self, content: bytes, mode: int = 0o600) -> bytes:
        """Write a file; return its name as it comes from a caller."""
        with open(self.file, "wb") as file:
            file.write(content)
        os.chmod(self.file, mode)
        return os.fsencode(self.file)

    def refusal(self, path: bytes) -> str:
        """Return why a file is not taken."""
        with self.assertRaises(KeyFileError) as caught:
            self.folder.read_and_delete(path)
        self.assertTrue(str(caught.exception).isprintable() and str(caught.exception).isascii())
        return str(caught.exception)

    def test_take(self) -> None:
        """The key is read and the file deleted."""
        made = self.folder.make()
        self.assertEqual(self.folder.read_and_delete(os.fsencode(made.path)), made.key)
        self.assertFalse(os.path.exists(made.path))
        self.assertEqual(self.folder.read_and_delete(self.write(KEY + b"\n")), KEY)

    def test_twice(self) -> None:
        """A file serves once."""
        path = self.write(KEY)
        self.folder.read_and_delete(path)
        self.assertIn("No such file", self.refusal(path))

    def test_other_files_are_left_alone(self) -> None:
        """What is no key file is neither taken nor deleted, for the caller chose the name."""
        for content in (b"", KEY[:-1], KEY + b"0", KEY + b"\n\n", b"x" * 32, b"root:x:0:0" * 10):
            self.assertIn("not a key file", self.refusal(self.write(content)))
            self.assertTrue(os.path.exists(self.file))

    def test_file_of_others(self) -> None:
        """A file that others may read or write is none that lonc has made."""
        for mode in (0o640, 0o604, 0o660, 0o777):
            self.assertIn("not a key file", self.refusal(self.write(KEY, mode)))
            self.assertTrue(os.path.exists(self.file))

    def test_no_file(self) -> None:
        """Links are not followed, and a folder or a pipe is not waited for."""
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
        """A key file that is not in the folder, or has another name, is left alone."""
        for path in ("key", "lonc.keys/key", "lonc.keys/../0123456789abcdef", "0123456789abcdef"):
            path = os.path.join(self.above, path)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(KEY)
            self.assertIn("not a key file of this cluster", self.refusal(os.fsencode(path)))
            self.assertTrue(os.path.exists(path))

    def test_folder_of_others(self) -> None:
        """Nothing is taken from a folder in which others can put files."""
        path = self.write(KEY)
        os.chmod(self.path, 0o755)
        self.refusal(path)
        self.assertTrue(os.path.exists(self.file))

    def test_no_name(self) -> None:
        """Names that no file can have are refused as well."""
        for path in (b"", b"/a\0b", b"/" + b"x" * 5000, b"\xff\xfe", b"relative"):
            self.refusal(path)
