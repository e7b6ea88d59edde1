"""Our own files and folders, what may stand in their place, and whether they have changed."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

import lonc
from lonc.disk import files
from lonc.disk.files import (
    LOOK_ANYWAY,
    REST_AFTER,
    RestingFolder,
    check_own_folder,
    is_replaced,
    make_own_folder,
    open_own,
    replace_file,
)

WRITE = os.O_WRONLY | os.O_CREAT


class OwnTests(SynchronousTestCase):
    """lonc's own files, in a folder where others can place files."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "own")
        self.other = os.path.join(self.folder, "other")
        with open(self.other, "w") as file:
            file.write("another's")

    def why_not(self) -> str:
        """Return why the file is not opened."""
        error = self.assertRaises(OSError, open_own, self.path, WRITE)
        self.assertEqual(error.filename, self.path)
        return str(error.strerror)

    def test_own(self) -> None:
        """A file is opened or created; nobody else can read a new one."""
        for _ in range(2):
            os.close(open_own(self.path, WRITE))
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_symbolic_link(self) -> None:
        """A link is not followed, whether its target exists or not."""
        for target in (self.other, "/nowhere", self.folder):
            os.symlink(target, self.path)
            self.assertEqual(self.why_not(), "it is a symbolic link, which is not followed")
            os.unlink(self.path)

    def test_hard_link(self) -> None:
        """A file that has another name is not opened."""
        os.link(self.other, self.path)
        self.assertEqual(self.why_not(), "it is a hard link: the file has another name as well")

    def test_no_file(self) -> None:
        """A FIFO is not waited for, whether it has a reader or not; a socket is not opened."""
        os.mkfifo(self.path)
        self.assertEqual(self.why_not(), "it is not a regular file")
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.assertEqual(self.why_not(), "it is not a regular file")
        os.unlink(self.path)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.relpath(self.path))
        self.assertEqual(self.why_not(), "it is not a regular file")

    def test_folder(self) -> None:
        """A folder is created once; a link in its place is an error."""
        self.assertTrue(make_own_folder(self.path))
        self.assertFalse(make_own_folder(self.path))
        check_own_folder(self.path)
        os.rmdir(self.path)
        os.symlink(self.folder, self.path)
        for look in (make_own_folder, check_own_folder):
            error = self.assertRaises(OSError, look, self.path)
            self.assertIn("it is a symbolic link; it must be a folder itself", str(error))
            self.assertRaises(NotADirectoryError, look, self.other)

    def test_replaced(self) -> None:
        """
        Whatever is where the new file is prepared is removed, and nothing it leads to is changed;
        the file is for everybody to read, and whoever has the old one open reads that to its end.
        """
        self.addCleanup(os.umask, os.umask(0o077))
        replace_file(self.path, b"old")
        with open(self.path, "rb", buffering=0) as reader:
            for put in (
                lambda path: os.symlink(self.other, path),
                lambda path: os.link(self.other, path),
                os.mkfifo,
            ):
                put(f"{self.path}.new")
                replace_file(self.path, b"content")
                with open(self.path) as own, open(self.other) as other:
                    self.assertEqual((own.read(), other.read()), ("content", "another's"))
            self.assertEqual(reader.read(), b"old")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o644)
        self.assertEqual(set(os.listdir(self.folder)), {"own", "other"})

    def test_not_replaced(self) -> None:
        """A file that cannot be replaced is left, and the error names it."""
        os.mkdir(self.path)
        for path in (self.path, "/nowhere/own"):
            error = self.assertRaises(OSError, replace_file, path, b"content")
            self.assertIn(path, str(error))
        self.assertTrue(os.path.isdir(self.path))


class RestingTests(SynchronousTestCase):
    """A folder that is only checked again when it has changed."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)
        self.folder = RestingFolder()

    def looks(self) -> list[bool]:
        """Check several times; return the results."""
        return [self.folder.rests(self.path) for _ in range(REST_AFTER + 2)]

    def test_change(self) -> None:
        """It counts as unchanged some checks after the last change, whatever that was."""
        rested = [False] * REST_AFTER + [True] * 2
        self.assertEqual(self.looks(), rested)
        name = os.path.join(self.path, "name")
        for time, change in enumerate((os.mkdir, os.rmdir, lambda _: self.folder.disturb())):
            change(name)
            os.utime(self.path, (time, time))  # as if the clock had ticked
            self.assertEqual(self.looks(), rested)

    def test_after_long(self) -> None:
        """From time to time it does not count as unchanged."""
        rested = [self.folder.rests(self.path) for _ in range(2 * LOOK_ANYWAY + 1)]
        self.assertEqual(rested[REST_AFTER + 1 :].count(False), 2)

    def test_not_there(self) -> None:
        """A missing folder never counts as unchanged."""
        os.rmdir(self.path)
        self.assertNotIn(True, self.looks())


class ReplacedTests(SynchronousTestCase):
    """The code that is running, and the code on disk."""

    def test_installed_anew(self) -> None:
        """The code counts as replaced after an upgrade, even if that is identical."""
        self.assertFalse(is_replaced())
        path = self.mktemp()
        self.patch(lonc, "__file__", path)
        self.assertTrue(is_replaced())
        with open(path, "w"):
            self.assertTrue(is_replaced())
            self.patch(files, "_STARTED_WITH", files._stamp_of_code())
            self.assertFalse(is_replaced())
        with open(f"{path}.new", "w"):
            os.replace(f"{path}.new", path)
        self.assertTrue(is_replaced())
