"""Requests that must not be lost, on their way to the disk (protocol section 6)."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from lonc.delayed.names import SEALED, order
from lonc.delayed.outbox import TRIES, NotStored, Numbers, Outbox
from lonc.delayed.spool import Spool
from lonc.test.fixtures.delayed import Steps, read

NOW = 1062000000
PID = os.getpid()
KEY = b"k" * 32
PUT = b"put:msu:alice:grades:essay=A"

#: All steps of storing a request, in their order.
STEPS = [
    "make folder",
    "make file",
    "write file",
    "sync file",
    "name file",
    "read back",
    "sync folder",
]


class OutboxTests(SynchronousTestCase):
    """The folder of delayed requests, as seen by a program that stores requests there."""

    def setUp(self) -> None:
        self.sockets = self.mktemp()
        os.mkdir(self.sockets)
        self.folder = os.path.join(self.sockets, "delayed")
        self.perm_log = os.path.join(self.sockets, "lonnet.perm.log")
        self.now = float(NOW)
        self.steps = Steps()
        self.outbox = self.make()

    def make(self, read_key: Callable[[], bytes] | None = None) -> Outbox:
        """Return an outbox of a program of its own."""
        numbers = Numbers(lambda: self.now)
        return Outbox(self.folder, self.perm_log, read_key, numbers, lambda: self.now, self.steps)

    def files(self) -> list[str]:
        """Return all names in the folder, hidden ones too, in the order in which lonc sends."""
        return sorted(os.listdir(self.folder), key=order)

    def found(
        self, host_id: str = "l2", key: bytes | None = None, folder: str | None = None
    ) -> list[bytes]:
        """Return the requests to a host that lonc finds, in the order in which it sends them."""
        folder = folder or self.folder
        spool = Spool(folder, key)
        self.assertLessEqual(spool.scan().requests.keys(), {host_id})
        return [spool.read(file, 1000)[0] for file in spool.scan().requests.get(host_id, [])]

    # What is stored

    def test_file(self) -> None:
        """A request is one line under the protocol's name, for its owner only; lonc finds it."""
        path = self.outbox.store("l2", PUT)
        self.assertEqual(path, os.path.join(self.folder, f"{NOW}.{PID}.put.l2"))
        self.assertEqual(read(path), PUT + b"\n")
        self.assertEqual(stat.S_IMODE(os.lstat(path).st_mode), 0o600)
        self.assertEqual(self.files(), [os.path.basename(path)])
        self.assertEqual(self.found(), [PUT + b"\n"])

    def test_letters(self) -> None:
        """The name contains only the letters of the command, and never only digits."""
        for request, letters in [
            (b"encrypt:passwd:msu:alice:secret", "encryptpasswd"),
            (b"put_2:x", "put_2"),
            (b"17:x", ""),
            (b"\xff:x", ""),
            (b"../../etc", ""),
            (b"x" * 33, ""),
        ]:
            self.now += 1
            path = self.outbox.store("l2", request)
            self.assertEqual(os.path.basename(path), f"{int(self.now)}.{PID}.{letters}.l2")
            self.assertEqual(self.found()[-1], request + b"\n")

    def test_host_ids(self) -> None:
        """lonc finds the host id that was given, also one with dots or with leading digits."""
        for host_id in ("msu-l1_x", "a.l1", "7.l1", "17", "put.l1"):
            shutil.rmtree(self.folder, ignore_errors=True)
            requests = (PUT, b"17:x", PUT)
            for request in requests:
                self.outbox.store(host_id, request)
            self.assertEqual(self.found(host_id), [request + b"\n" for request in requests])

    def test_order(self) -> None:
        """Requests of one second are sent in their order, also after the clock was set back."""
        requests = [b"%s:%d" % (word, n) for n in range(3) for word in (b"put", b"Inc", b"9", b"a")]
        for number, request in enumerate(requests):
            if number == 8:
                self.now -= 3600
            self.outbox.store("l2", request)
        self.now += 7200
        self.outbox.store("l2", b"a:last")
        self.assertEqual(self.found(), [r + b"\n" for r in [*requests, b"a:last"]])

    def test_folder_mode(self) -> None:
        """A missing folder is created for owner and group, subject to the umask."""
        self.addCleanup(os.umask, os.umask(0o027))
        self.outbox.store("l2", PUT)
        self.assertEqual(stat.S_IMODE(os.lstat(self.folder).st_mode), 0o750)

    # Others in the same folder

    def test_name_taken(self) -> None:
        """Another program's file of the same name stays, and the request gets the next name."""
        first = self.outbox.store("l2", b"put:first")
        second = self.make().store("l2", b"put:second")
        self.assertNotEqual(first, second)
        self.assertEqual(self.found(), [b"put:first\n", b"put:second\n"])

    def test_name_taken_meanwhile(self) -> None:
        """The same if the other file appears at the last moment."""
        path = os.path.join(self.folder, f"{NOW}.{PID}.put.l2")

        def another() -> None:
            del self.steps.faults["name file"]
            with open(path, "xb") as file:
                file.write(b"put:first\n")

        self.steps.faults["name file"] = another
        self.assertNotEqual(self.outbox.store("l2", b"put:second"), path)
        self.assertEqual(self.found(), [b"put:first\n", b"put:second\n"])
        self.assertEqual(len(self.files()), 2)

    def test_hidden_name_taken(self) -> None:
        """A file that a crash left under a hidden name stays, and is not taken for the request."""
        os.mkdir(self.folder)
        left = os.path.join(self.folder, f".{NOW}.{PID}.put.l2.part")
        with open(left, "wb") as file:
            file.write(b"put:fir")
        self.outbox.store("l2", PUT)
        self.assertEqual(read(left), b"put:fir")
        self.assertEqual(self.found(), [PUT + b"\n"])

    def test_no_free_name(self) -> None:
        """The number of attempts is limited."""

        def another() -> None:
            raise FileExistsError

        self.steps.faults["name file"] = another
        error = self.assertRaises(NotStored, self.outbox.store, "l2", PUT)
        self.assertEqual(str(error), f"{self.folder}: no free name in {TRIES} tries")
        self.assertEqual(self.files(), [])

    def test_link(self) -> None:
        """A link in the place of the file is not followed."""
        os.mkdir(self.folder)
        for form in (f"{NOW}.{PID}.put.l2", f".{NOW}.{PID}.put.l2.part"):
            os.symlink(self.perm_log, os.path.join(self.folder, form))
        self.outbox.store("l2", PUT)
        self.assertFalse(os.path.exists(self.perm_log))

    def test_folder_that_is_a_link(self) -> None:
        """Nothing is stored through a link in the place of the folder."""
        elsewhere = self.mktemp()
        os.mkdir(elsewhere)
        os.symlink(os.path.abspath(elsewhere), self.folder)
        error = self.assertRaises(OSError, self.outbox.store, "l2", PUT)
        self.assertIn("it is a symbolic link; it must be a folder itself", str(error))
        self.assertEqual(os.listdir(elsewhere), [])

    # When something goes wrong

    def test_synced(self) -> None:
        """The order of syncing is: a new folder, the file, the file's name."""
        synced = []
        sync = os.fsync

        def fsync(fd: int) -> None:
            info = os.fstat(fd)
            synced.append((info.st_ino, info.st_size if stat.S_ISREG(info.st_mode) else None))
            sync(fd)

        self.patch(os, "fsync", fsync)
        path = self.outbox.store("l2", PUT)
        inode = os.lstat(path).st_ino
        folder, above = os.lstat(self.folder).st_ino, os.lstat(self.sockets).st_ino
        self.assertEqual(synced, [(above, None), (inode, len(PUT) + 1), (folder, None)])

    def test_crash(self) -> None:
        """At whichever step the machine stops, lonc finds the whole request or nothing."""
        snapshots = []

        def snapshot() -> None:
            if os.path.exists(self.folder):
                snapshots.append((self.steps.taken[-1], self.mktemp()))
                shutil.copytree(self.folder, snapshots[-1][1])

        self.steps.faults = dict.fromkeys(STEPS, snapshot)
        self.outbox.store("l2", PUT)
        after = {step: self.found(folder=folder) for step, folder in snapshots}
        nothing: list[bytes] = []
        self.assertEqual(
            after,
            dict.fromkeys(STEPS[1:5], nothing) | {step: [PUT + b"\n"] for step in STEPS[5:]},
        )

    def test_failure(self) -> None:
        """If any step fails, no file is left: an error means that nothing was stored."""
        os.mkdir(self.folder)
        for step in STEPS:
            self.steps.faults.clear()
            self.steps.fail(step, errno.ENOSPC)
            error = self.assertRaises(OSError, self.outbox.store, "l2", PUT)
            self.assertEqual(error.errno, errno.ENOSPC)
            self.assertEqual(self.files(), [], step)

    def test_no_folder(self) -> None:
        """A missing parent of the folder, or a file in its place, is an error."""
        for folder in (os.path.join(self.folder, "delayed"), os.devnull):
            outbox = Outbox(folder)
            self.assertRaises(OSError, outbox.store, "l2", PUT)

    def test_read_back(self) -> None:
        """A file that does not contain what was written is an error, and is deleted."""

        def spoil() -> None:
            (name,) = self.files()
            with open(os.path.join(self.folder, name), "ab") as file:
                file.write(b".")

        self.steps.faults["read back"] = spoil
        self.assertRaises(NotStored, self.outbox.store, "l2", PUT)
        self.assertEqual(self.files(), [])

    def test_replaced(self) -> None:
        """If another file has replaced the one that was written, it is not deleted."""

        def replace() -> None:
            (name,) = self.files()
            path = os.path.join(self.folder, name)
            with open(path + "~", "wb") as file:
                file.write(b"put:other\n")
            os.rename(path + "~", path)

        self.steps.faults["read back"] = replace
        self.assertRaises(NotStored, self.outbox.store, "l2", PUT)
        self.assertEqual(self.found(), [b"put:other\n"])

    def test_there_all_the_same(self) -> None:
        """If the file cannot be deleted after an error, the message names it."""

        def fail() -> None:
            self.patch(os, "unlink", refuse)
            raise OSError(errno.EIO, "Input/output error")

        def refuse(path: str) -> None:
            raise PermissionError(errno.EROFS, "Read-only file system", path)

        self.steps.faults["sync folder"] = fail
        error = self.assertRaises(NotStored, self.outbox.store, "l2", PUT)
        (name,) = self.files()
        path = os.path.join(self.folder, name)
        told = f"[Errno 5] Input/output error; {path} exists nevertheless"
        self.assertEqual(str(error), told)

    def test_named_with_an_error(self) -> None:
        """If the file got its name although the disk reported an error, it is deleted."""

        def link(source: str, target: str) -> None:
            really(source, target)
            raise OSError(errno.EIO, "Input/output error", target)

        really = os.link
        self.patch(os, "link", link)
        self.assertRaises(OSError, self.outbox.store, "l2", PUT)
        self.assertEqual(self.files(), [])

    @skipIf(os.geteuid() != 0, "only root can be another user")
    def test_other_user(self) -> None:
        """What root stores in another user's folder belongs to that user."""
        os.mkdir(self.folder)
        os.chown(self.folder, 12345, -1)
        path = self.outbox.store("l2", PUT)
        info = os.lstat(path)
        self.assertEqual((info.st_uid, stat.S_IMODE(info.st_mode)), (12345, 0o600))

    @skipIf(os.geteuid() != 0, "only root can be another user")
    def test_unreadable(self) -> None:
        """If the file cannot be given to the folder's owner, that is an error; none is left."""
        os.mkdir(self.folder, 0o777)
        os.chmod(self.folder, 0o777)
        os.chown(self.folder, 12345, -1)

        def drop() -> None:
            os.seteuid(54321)

        self.addCleanup(os.seteuid, 0)
        self.steps.faults["make file"] = drop
        self.assertRaises(PermissionError, self.outbox.store, "l2", PUT)
        os.seteuid(0)
        self.assertEqual(self.files(), [])

    # Sealed

    def test_sealed(self) -> None:
        """With a key the request is sealed, under such a name, and never on disk in the clear."""

        def look() -> None:
            for name in self.files() if os.path.exists(self.folder) else ():
                self.assertNotIn(b"alice", read(os.path.join(self.folder, name)))

        self.steps.faults = dict.fromkeys(STEPS, look)
        path = self.make(lambda: KEY).store("l2", PUT)
        self.assertEqual(os.path.basename(path), f"{NOW}.{PID}.put.l2~sealed")
        look()
        self.assertEqual(self.steps.taken, STEPS)
        self.assertEqual(self.found(key=KEY), [PUT + b"\n"])

    def test_no_key(self) -> None:
        """When the key cannot be read, nothing is stored."""

        def read_key() -> bytes:
            raise NotStored("no key")

        self.assertRaises(NotStored, self.make(read_key).store, "l2", PUT)
        self.assertEqual(self.files(), [])

    def seal_it(self) -> None:
        """Seal the only file, as a lonc does."""
        (name,) = self.files()
        Spool(self.folder, KEY).seal(name)

    def test_sealed_meanwhile(self) -> None:
        """A request that lonc seals before it is read back is stored."""
        self.steps.faults["read back"] = self.seal_it
        path = self.outbox.store("l2", PUT)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.found(key=KEY), [PUT + b"\n"])

    def test_sealed_and_failed(self) -> None:
        """If lonc has sealed the request before a step fails, the message names the sealed form."""

        def fail() -> None:
            self.seal_it()
            raise OSError(errno.EIO, "Input/output error")

        self.steps.faults["sync folder"] = fail
        error = self.assertRaises(NotStored, self.outbox.store, "l2", PUT)
        self.assertIn(f"{SEALED} exists nevertheless", str(error))

    def test_gone(self) -> None:
        """A file that has disappeared without a sealed form is an error."""
        self.steps.faults["read back"] = lambda: shutil.rmtree(self.folder)
        self.assertRaises(FileNotFoundError, self.outbox.store, "l2", PUT)

    # The notes

    def notes(self) -> list[bytes]:
        """Return the lines of ``lonnet.perm.log``, without the local time."""
        return [line.rsplit(b":", 3)[0] for line in read(self.perm_log).splitlines()]

    def test_note(self) -> None:
        """Lines with ``D`` and ``F`` have the same form as lonnet's (protocol section 7)."""
        self.outbox.note("D", "l2", PUT)
        self.outbox.note("F", "l2", b"put:\xff")
        first, second = read(self.perm_log).decode().splitlines()
        self.assertTrue(first.startswith(f"{NOW}:D:l2:{PUT.decode()}:"), first)
        self.assertTrue(second.startswith(f"{NOW}:F:l2:put:\\xff:"), second)

    def test_secret_note(self) -> None:
        """For requests that are encrypted, or sealed on disk, only the command is noted."""
        self.outbox.note("D", "l2", b"encrypt:passwd:msu:alice:secret")
        self.outbox.note("D", "l2", b"sethost:l2:encrypt:passwd:msu:alice:secret")
        self.make(lambda: KEY).note("D", "l2", PUT)
        self.assertNotIn(b"alice", read(self.perm_log))
        self.assertIn(b":D:l2:encrypt:passwd:", read(self.perm_log))
        self.assertIn(b":D:l2:put:", read(self.perm_log))

    def test_no_perm_log(self) -> None:
        """Without a log nothing is noted; one that cannot be written is an error."""
        Outbox(self.folder).note("D", "l2", PUT)
        outbox = Outbox(self.folder, os.path.join(self.folder, "lonnet.perm.log"))
        error = self.assertRaises(NotStored, outbox.note, "D", "l2", PUT)
        self.assertIn("lonnet.perm.log: cannot be written", str(error))


class NumbersTests(SynchronousTestCase):
    """The numbers that keep the requests of one process in order."""

    def test_forked(self) -> None:
        """A child process is not blocked by a lock held by a thread of its parent."""
        numbers = Numbers(lambda: 1.0)
        numbers._lock.acquire()
        numbers.forked()
        self.assertEqual(numbers.next(), (1, 0))
