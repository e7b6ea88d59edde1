"""``lonc.pid``: who runs, and who may not."""

from __future__ import annotations

import errno
import fcntl
import os

from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon import pidfile
from lonc.daemon.pidfile import PidFile, PidFileError, holder_of


class PidFileTests(SynchronousTestCase):
    """S3: the pid file, which is also the daemon's lock."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.makedirs(folder)
        self.path = os.path.join(folder, "lonc.pid")

    def acquired(self) -> PidFile:
        """Return a locked pid file, which is released when the test ends."""
        claim = PidFile(self.path)
        claim.acquire()
        self.addCleanup(claim.release)
        return claim

    def written(self, text: str) -> None:
        """Leave a pid file, as a crash does."""
        with open(self.path, "w") as file:
            file.write(text)

    def read(self) -> str:
        """Return the content of the pid file."""
        with open(self.path) as file:
            return file.read()

    def refusal(self) -> str:
        """Return why the file cannot be locked."""
        with self.assertRaises(PidFileError) as caught:
            PidFile(self.path).acquire()
        return str(caught.exception)

    def test_written_and_removed(self) -> None:
        """
        S3: the file holds the process id and a newline, for everybody to read, until the end; then
        it can be had again.
        """
        claim = self.acquired()
        claim.write()
        self.assertEqual(self.read(), f"{os.getpid()}\n")
        self.assertEqual(os.stat(self.path).st_mode & 0o444, 0o444)
        for _ in range(2):
            claim.release()
            self.assertFalse(os.path.exists(self.path))
        self.acquired()

    def test_deleted(self) -> None:
        """S3: if the file is deleted while lonc runs, it is written and locked again."""
        claim = self.acquired()
        claim.write()
        self.assertFalse(claim.restore())
        os.unlink(self.path)
        self.assertTrue(claim.restore())
        self.assertEqual(self.read(), f"{os.getpid()}\n")
        self.assertIn("another lonc is already running", self.refusal())
        claim.release()
        self.assertFalse(os.path.exists(self.path))

    def test_another_number(self) -> None:
        """S3: if another process writes its number into the file, it is corrected."""
        claim = self.acquired()
        claim.write()
        self.written("123456\n")
        self.assertTrue(claim.restore())
        self.assertEqual(self.read(), f"{os.getpid()}\n")

    def test_another_file(self) -> None:
        """S3: a file that has replaced it is left alone, also at the end."""
        claim = self.acquired()
        claim.write()
        os.unlink(self.path)
        self.written("1\n")
        for _ in range(2):
            with self.assertRaisesRegex(PidFileError, "another file has replaced it"):
                claim.restore()
        claim.release()
        self.assertEqual(self.read(), "1\n")

    def test_holder(self) -> None:
        """The holder can be found without locking; a file that is not locked has none."""
        self.assertEqual(holder_of(self.path), "")
        self.written("1\n")
        self.assertEqual(holder_of(self.path), "")
        claim = self.acquired()
        claim.write()
        self.assertEqual(holder_of(self.path), f"{os.getpid()}")

    def test_patience(self) -> None:
        """S3: a process that is about to end is waited for."""
        claim = self.acquired()
        times = iter([0.0, 1.0, 2.0])
        self.patch(pidfile, "monotonic", lambda: next(times))
        self.patch(pidfile, "sleep", lambda seconds: claim.release())
        second = PidFile(self.path)
        second.acquire(1.5)
        second.release()

    def test_second_is_refused(self) -> None:
        """S3: while it is locked, another process is refused, and told by whom, if known."""
        claim = self.acquired()
        self.assertIn("process unknown", self.refusal())
        claim.write()
        self.assertIn(
            f"another lonc is already running in these folders: process {os.getpid()} ",
            self.refusal(),
        )
        self.assertIn(self.path, self.refusal())
        self.assertEqual(self.read(), f"{os.getpid()}\n")

    def test_left_by_a_crash(self) -> None:
        """S3: a file that is not locked is used, even if its number is that of a process."""
        self.written(f"{os.getppid()}\n and more that is no number")
        self.acquired().write()
        self.assertEqual(self.read(), f"{os.getpid()}\n")

    def test_removed_between_open_and_lock(self) -> None:
        """S3: a file that is deleted between opening and locking is not the one locked."""
        owner = self.acquired()
        flock = fcntl.flock

        def ends_first(descriptor: int, how: int) -> None:
            owner.release()
            flock(descriptor, how)

        self.patch(fcntl, "flock", ends_first)
        self.acquired().write()
        self.patch(fcntl, "flock", flock)
        self.assertEqual(self.read(), f"{os.getpid()}\n")
        self.assertIn("another lonc is already running", self.refusal())

    def test_cannot_be_written(self) -> None:
        """Section 8: a file that cannot be created is an error with the reason."""
        os.mkdir(self.path)
        self.assertEqual(self.refusal(), f"{self.path}: Is a directory")
        self.path = os.path.join(self.path, "missing", "lonc.pid")
        self.assertEqual(self.refusal(), f"{self.path}: No such file or directory")

    def test_not_a_file_of_ours(self) -> None:
        """
        Section 8: a link, a FIFO or another's file in its place is an error, and neither written
        nor deleted; a parent folder may be a link.
        """
        other = self.path + ".other"
        with open(other, "w") as file:
            file.write("another's")
        for put, why in (
            (lambda path: os.symlink(other, path), "it is a symbolic link, which is not followed"),
            (lambda path: os.symlink("/nowhere", path), "it is a symbolic link, which is not "),
            (lambda path: os.link(other, path), "it is a hard link: the file has another name as"),
            (os.mkfifo, "it is not a regular file"),
        ):
            put(self.path)
            self.assertIn(f"{self.path}: {why}", self.refusal())
            os.unlink(self.path)
        with open(other) as file:
            self.assertEqual(file.read(), "another's")
        link = os.path.dirname(self.path) + ".link"
        os.symlink(os.path.abspath(os.path.dirname(self.path)), link)
        self.path = os.path.join(link, "lonc.pid")
        self.acquired().write()
        self.assertEqual(self.read(), f"{os.getpid()}\n")

    def test_cannot_be_locked(self) -> None:
        """Section 8: a file system without locks is not taken for another lonc."""

        def no_locks(descriptor: int, how: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        self.patch(fcntl, "flock", no_locks)
        self.assertEqual(self.refusal(), f"{self.path}: No locks available")

    def test_full_disk(self) -> None:
        """Errors while writing name the path; so does writing a file that was released."""

        def no_room(descriptor: int, data: bytes, offset: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        claim = self.acquired()
        self.written("1\n")
        self.patch(os, "pwrite", no_room)
        error = self.assertRaises(PidFileError, claim.write)
        self.assertEqual(str(error), f"{self.path}: No space left on device")
        self.assertEqual(self.read(), "1\n")  # the number of before, and not none
        claim.release()
        self.assertIn(f"{self.path}: ", str(self.assertRaises(PidFileError, claim.write)))

    def test_cannot_be_removed(self) -> None:
        """A file that cannot be deleted prevents neither the end nor the next start."""

        def denied(path: str) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        claim = self.acquired()
        self.patch(os, "unlink", denied)
        claim.release()
        self.assertTrue(os.path.exists(self.path))
        self.acquired()
