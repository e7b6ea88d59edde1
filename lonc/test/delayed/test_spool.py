"""Delayed requests on disk: found, read, removed, set aside."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle, pairwise

from twisted.trial.unittest import SynchronousTestCase

from lonc.delayed.names import ANSWER, REASON, SEALED, host_of, order, own_name
from lonc.delayed.sealing import seal, unseal
from lonc.delayed.spool import Found, Spool
from lonc.disk.files import LOOK_ANYWAY, REST_AFTER, Changed, Files, Stamp, Unfinished, Unusable
from lonc.test.fixtures.delayed import Crash, Steps, disk_calls, mode, read, write
from lonc.test.fixtures.properties import given, settings, st

NAME = "1062000000.4711.putmsu.l1"
LIMIT = 100

#: The last steps of setting a request aside.
KEPT_STEPS = ["move request", "close request to others", "sync kept", "sync folder"]


class NameTests(SynchronousTestCase):
    """The host in the name of a delayed request (protocol section 6)."""

    def test_forms(self) -> None:
        """
        Names of the protocol's form are read, and those of older and later programs. A host id may
        contain dots, also if its end is another host's id.
        """
        for name, host_id in [
            ("1062000000.4711.put.l1", "l1"),
            ("1062000000.put.l1", "l1"),
            ("1062000000.3.4711.put.l1", "l1"),
            ("1062000000.4711.put_2.msu-l1_x", "msu-l1_x"),
            ("1062000000.4711..l1", "l1"),
            ("1062000000.4711.put.a.l1", "a.l1"),
            ("1062000000.4711.put.7.l1", "7.l1"),
            ("1062000000.put.put.l1", "put.l1"),
        ]:
            self.assertEqual(host_of(name), host_id, name)

    def test_others(self) -> None:
        """Other names are not those of delayed requests."""
        for name in [
            "kept",
            ".1062000000.4711.put.l1",
            "1062000000.4711.put.l1~",
            "1062000000.4711.put.l1~1",
            "1062000000.4711.put.",
            "1062000000.4711.l1",
            "1.2.3.4.put.l1",
            "put.l1",
            "1062000000.4711.put.l1\n",
            "1062000000.4711.put.l\u0661",
            "README",
        ]:
            self.assertIsNone(host_of(name), name)

    @settings(deadline=None)
    @given(
        numbers=st.lists(st.integers(0, 2**31), min_size=1, max_size=3),
        letters=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,15}", fullmatch=True),
        host_id=st.from_regex(r"[A-Za-z0-9_.-]{1,30}", fullmatch=True),
    )
    def test_any(self, numbers: list[int], letters: str, host_id: str) -> None:
        """Whatever the letters and the host id are, the host id is read unchanged."""
        name = ".".join([*map(str, numbers), letters, host_id])
        self.assertEqual(host_of(name), host_id)

    @settings(deadline=None)
    @given(st.lists(st.tuples(*[st.integers(0, 10**12)] * 3), max_size=20))
    def test_numbers(self, numbers: list[tuple[int, int, int]]) -> None:
        """S13: names are in the order of their numbers, sealed or not, in whatever folder."""
        forms = [("", ""), ("", "~sealed"), ("sealed/", "~2~sealed")]
        found = sorted(
            (
                f"{folder}{time}.{count}.{pid}.put.l1{ending}"
                for (time, count, pid), (folder, ending) in zip(numbers, cycle(forms))
            ),
            key=order,
        )
        plain = [own_name(file).removesuffix(".put.l1") for file in found]
        self.assertEqual([tuple(map(int, name.split("."))) for name in plain], sorted(numbers))


class SpoolCase(SynchronousTestCase):
    """A folder to work in."""

    def setUp(self) -> None:
        self.steps = Steps()
        self.folder = os.path.join(tempfile.mkdtemp(dir="."), "delayed")
        self.kept = os.path.join(self.folder, "kept")
        os.mkdir(self.folder)
        self.spool = Spool(self.folder, step=self.steps)

    def put(self, data: bytes, name: str = NAME) -> str:
        """Write a delayed request; return its path."""
        path = self.spool.path(name)
        write(path, data)
        return path

    def stamp(self, name: str = NAME) -> Stamp:
        return Stamp.of(os.lstat(self.spool.path(name)))

    def files(self, name: str = NAME) -> Files:
        return {name: self.stamp(name)}

    def in_kept(self) -> dict[str, bytes]:
        """Return what was set aside."""
        if not os.path.isdir(self.kept):
            return {}
        return {name: read(os.path.join(self.kept, name)) for name in os.listdir(self.kept)}

    def assert_there(self, when: str) -> None:
        """The request is in at least one of the folders, sealed or not."""
        copies = []
        for folder in (self.folder, self.spool.sealed, self.kept):
            path = os.path.join(folder, NAME)
            if os.path.exists(path):
                copies.append(read(path))
            if self.spool.key is not None and os.path.exists(path + SEALED):
                copies.append(unseal(self.spool.key, NAME, read(path + SEALED)))
        self.assertIn(b"x\n", copies, when)

    def crash_each_step(
        self, begin: Callable[[], object], act: Callable[[Spool], object]
    ) -> list[str]:
        """Stop the machine at each step of a call; return the steps of a complete one."""
        steps = Steps()
        while not steps.taken or steps.crash_at == len(steps.taken):
            steps = Steps(crash_at=steps.crash_at + 1)
            begin()
            with contextlib.suppress(Crash):
                act(Spool(self.folder, self.spool.key, steps))
            self.assert_there(f"before step {steps.crash_at}")
            shutil.rmtree(self.folder)
            os.mkdir(self.folder)
        return steps.taken

    def assert_kept_in_a_crash(self) -> None:
        """After a crash at any step of setting a request aside, it is on disk."""
        steps = self.crash_each_step(
            lambda: self.put(b"x\n"),
            lambda spool: spool.set_aside({NAME: self.stamp()}, ANSWER, b"no\n"),
        )
        self.assertEqual(steps[-4:], KEPT_STEPS)


class ScanTests(SpoolCase):
    """The requests found for each host."""

    def test_order(self) -> None:
        """S13: numbers in names are compared as numbers, as lonnet does not pad its count."""
        counted = [f"20.{count}.4711.put.l1" for count in (1, 2, 10, 11)]
        for name in ["100.1.put.l1", "3.1.put.l2", "20.1.put.l1", "9.1._x.l1", *counted]:
            self.put(b"x\n", name)
        self.assertEqual(
            self.spool.scan().requests,
            {
                "l1": ["9.1._x.l1", counted[0], "20.1.put.l1", *counted[1:], "100.1.put.l1"],
                "l2": ["3.1.put.l2"],
            },
        )

    def test_order_of_names(self) -> None:
        """S13: folder and seal do not matter; of files with one name the sealed are first."""
        stored = ["5.1.put.l1", "5.01.put.l1", "sealed/5.2.put.l1~sealed"]
        named = ["6.1.put.l1~sealed", "sealed/6.1.put.l1~2~sealed", "6.1.put.l1~10~sealed"]
        files = [*sorted(stored, key=order), *named, "6.1.put.l1", "sealed/6.2.put.l1~sealed"]
        self.assertEqual(files[:3], ["5.01.put.l1", "5.1.put.l1", "sealed/5.2.put.l1~sealed"])
        self.assertEqual(sorted(set(files), key=order), files)

    def test_left_alone(self) -> None:
        """Hidden and kept files, and those with other names, are not found."""
        os.mkdir(self.kept)
        write(os.path.join(self.kept, NAME), b"x\n")
        for name in ["." + NAME, "notes", NAME + "~", "\udcff.1.put.l1"]:
            self.put(b"x\n", name)
        self.assertEqual(self.spool.scan(), Found({}, kept=1))

    def test_unchanged(self) -> None:
        """While nothing changes the folder is not listed again, except from time to time."""
        spool = self.spool
        self.put(b"x\n", NAME)
        found = [spool.scan() for _ in range(REST_AFTER + 5)]
        self.assertTrue(all(each is found[REST_AFTER] for each in found[REST_AFTER:]))
        self.put(b"x\n", NAME + "2")
        self.assertEqual(spool.scan().requests["l12"], [NAME + "2"])
        os.unlink(self.spool.path(NAME))
        self.assertNotIn("l1", spool.scan().requests)
        found = [spool.scan() for _ in range(LOOK_ANYWAY + 1)]
        listed = [one is not other for one, other in pairwise(found[REST_AFTER:])]
        self.assertEqual(listed.count(True), 1)

    def test_changed_inside(self) -> None:
        """Changes in the subfolders are noticed too."""
        os.mkdir(self.spool.sealed)
        for _ in range(REST_AFTER + 5):
            self.spool.scan()
        self.put(b"x\n", f"sealed/{NAME}{SEALED}")
        self.assertIn("l1", self.spool.scan().requests)
        for _ in range(REST_AFTER + 5):
            self.spool.scan()
        os.mkdir(self.kept)
        write(os.path.join(self.kept, NAME), b"x\n")
        self.assertEqual(self.spool.scan().kept, 1)

    def test_no_folder(self) -> None:
        """A folder that cannot be created is an error that names it, each time."""
        nowhere = Spool(os.path.join(self.folder, "x", "y"))
        for _ in range(REST_AFTER + 2):
            self.assertIn("x/y", str(self.assertRaises(FileNotFoundError, nowhere.scan)))

    def test_missing_folder(self) -> None:
        """A missing folder is created, closed to others."""
        os.rmdir(self.folder)
        self.assertEqual(self.spool.scan(), Found({}))
        self.assertEqual(mode(self.folder) & 0o707, 0o700)


class TakeTests(SpoolCase):
    """Reading a request once its file is complete (F7)."""

    def take(self, still: Stamp | None = None) -> bytes:
        return self.spool.read(NAME, LIMIT, still)[0]

    def assert_unusable(self, reason: str, still: Stamp | None = None) -> None:
        fault = self.assertRaises(Unusable, self.take, still)
        self.assertEqual(str(fault), reason)

    def test_newline(self) -> None:
        """A file with a newline at its end is complete."""
        self.put(b"put:a:b\n")
        self.assertEqual(self.spool.read(NAME, LIMIT), (b"put:a:b\n", self.stamp()))

    def test_no_newline(self) -> None:
        """F7: one without is complete once it has been unchanged, not grown, for long enough."""
        self.put(b"put:a")
        before = self.assertRaises(Unfinished, self.take)
        self.put(b"put:a:b")
        unfinished = self.assertRaises(Unfinished, self.take, before.stamp)
        self.assertEqual(unfinished.stamp, self.stamp())
        self.assertEqual(self.take(unfinished.stamp), b"put:a:b\n")

    def test_grows(self) -> None:
        """F7: one that is written to while it is read is not complete, with a newline or not."""
        path = self.put(b"put:a\n")
        self.steps.faults["look again"] = lambda: write(path, b"put:a\nput:b\n")
        unfinished = self.assertRaises(Unfinished, self.take)
        self.assertEqual(unfinished.stamp, self.stamp())

    def test_bytes(self) -> None:
        """A line may contain any bytes but newlines."""
        self.put(b" put:\xff\x00:b \r\n")
        self.assertEqual(self.take(), b" put:\xff\x00:b \r\n")

    def test_blank_lines(self) -> None:
        """Blank lines around the request are ignored."""
        self.put(b"\nput:a:b\n\n \n\r\n")
        self.assertEqual(self.take(), b"put:a:b\n")

    def test_two_lines(self) -> None:
        """A file with two requests is not sent: one of them would be lost."""
        for data in [b"put:a\nput:b\n", b"put:a\n\nput:b\n", b"  \nput:b\n"]:
            self.put(data)
            self.assert_unusable("it contains more than one line")

    def test_empty(self) -> None:
        """An empty file is incomplete at first, and unusable if it stays empty."""
        for data in [b"", b"\n", b" \n\n"]:
            self.put(data)
            unfinished = self.assertRaises(Unfinished, self.take)
            self.assert_unusable("it is empty", unfinished.stamp)

    def test_limit(self) -> None:
        """The limit on a line does not include its newline."""
        self.put(b"x" * LIMIT + b"\n")
        self.assertEqual(len(self.take()), LIMIT + 1)
        self.put(b"x" * (LIMIT + 1) + b"\n")
        self.assert_unusable("it is longer than the limit of 100 bytes")
        self.put(b"x" * (LIMIT + 2))
        self.assert_unusable("it is longer than the limit of 100 bytes")

    def test_folder_that_is_a_link(self) -> None:
        """Nothing is read, written or kept through a link in the place of a folder."""
        elsewhere = os.path.abspath(os.path.join(os.path.dirname(self.folder), "elsewhere"))
        os.mkdir(elsewhere)
        os.symlink(elsewhere, self.kept)
        self.put(b"x\n")
        error = self.assertRaises(OSError, self.spool.set_aside, self.files(), ANSWER, b"no\n")
        self.assertIn("it is a symbolic link; it must be a folder itself", str(error))
        self.assertEqual(os.listdir(elsewhere), [])
        self.assertRaises(OSError, self.spool.kept_in_clear)
        self.assertEqual(self.take(), b"x\n")
        os.rename(self.folder, elsewhere + ".more")
        os.symlink(elsewhere + ".more", self.folder)
        self.assertRaises(OSError, self.spool.scan)

    def test_anothers_folder(self) -> None:
        """Nothing is set aside in a folder where another user could delete it."""
        os.mkdir(self.kept)
        real = os.lstat

        def lstat(path: str) -> os.stat_result:
            info = real(path)
            return os.stat_result([*info[:4], 4711, *info[5:10]]) if path == self.kept else info

        self.patch(os, "lstat", lstat)
        path = self.put(b"x\n")
        error = self.assertRaises(OSError, self.spool.set_aside, self.files(), ANSWER, b"no\n")
        self.assertEqual(
            (error.filename, error.strerror), (self.kept, "it belongs to another user")
        )
        self.assertEqual((read(path), self.in_kept()), (b"x\n", {}))

    def test_left_by_a_crash(self) -> None:
        """Unfinished files left by a crash are deleted after a day, and no others."""
        left = [f".{NAME}.part", f".{NAME}{SEALED}.part", f"{NAME}~sealing"]
        others = [NAME, ".part", ".x.part", f".{NAME}", f"{NAME}.part", f"x.{NAME}.part"]
        for name in [*left, *others]:
            os.utime(self.put(b"x\n", name), (1000.0, 1000.0))
        for age, there in ((86_399.0, {*left, *others}), (86_401.0, {*others})):
            spool = Spool(self.folder, now=partial(sum, (1000.0, age)))
            self.assertEqual(spool.scan().requests["l1"], [NAME])
            self.assertEqual(set(os.listdir(self.folder)), there)

    def test_hard_link(self) -> None:
        """
        A file that has another name too is not sent. At first it is incomplete, as it may just be
        being stored. Its mode is not changed.
        """
        path = os.path.join(self.folder, "other")
        write(path, b"secret\n")
        os.chmod(path, 0o640)
        os.link(path, self.spool.path(NAME))
        with self.assertRaises(Unfinished):
            self.spool.read(NAME, LIMIT)
        with self.assertRaises(Unusable) as caught:
            self.spool.read(NAME, LIMIT, self.stamp())
        self.assertEqual(
            str(caught.exception), "it is a hard link: the file has another name as well"
        )
        self.spool.set_aside({NAME: caught.exception.stamp}, REASON, b"why\n")
        self.assertEqual((read(path), mode(path)), (b"secret\n", 0o640))

    def test_being_stored(self) -> None:
        """A request that kept its hidden name too after a crash is sent."""
        os.link(self.put(b"put:a:b\n"), self.spool.path(f".{NAME}.part"))
        self.assertEqual(self.take(), b"put:a:b\n")

    def test_no_file(self) -> None:
        """A link is not followed, a named pipe not waited for, and a folder is no request."""
        write(os.path.join(self.folder, "secret"), b"x\n")
        for make, remove in (
            (partial(os.symlink, "secret"), os.unlink),
            (os.mkfifo, os.unlink),
            (os.mkdir, os.rmdir),
        ):
            make(self.spool.path(NAME))
            self.assert_unusable("it is not a regular file")
            remove(self.spool.path(NAME))

    def test_swapped(self) -> None:
        """The same if a link or a pipe replaces the file at the last moment."""
        path = self.put(b"x\n")

        def swap(make: Callable[[], None]) -> None:
            os.unlink(path)
            make()

        self.steps.faults["open request"] = lambda: swap(lambda: os.symlink("/dev/null", path))
        self.assert_unusable("it cannot be read: Too many levels of symbolic links")
        os.unlink(path)
        self.put(b"x\n")
        self.steps.faults["open request"] = lambda: swap(lambda: os.mkfifo(path))
        self.assert_unusable("it is not a regular file")

    def test_unreadable(self) -> None:
        """
        A file that may not be read, or that the disk cannot read, is unusable, but not after a
        temporary error.
        """
        self.put(b"x\n")
        for number, reason in [
            (errno.EACCES, "it cannot be read: Permission denied"),
            (errno.EIO, "it cannot be read: Input/output error"),
        ]:
            self.steps.fail("open request", number)
            self.assert_unusable(reason)
        self.steps.fail("open request", errno.EMFILE)
        self.assertRaises(OSError, self.take)

    def test_gone(self) -> None:
        """A file that was deleted is an error of its own."""
        self.assertRaises(FileNotFoundError, self.take)


class SealedTests(SpoolCase):
    """Sealed requests, with a key and without. See also ``test_sealer``."""

    KEY = bytes(32)

    def setUp(self) -> None:
        super().setUp()
        self.locked = self.spool
        self.spool = Spool(self.folder, self.KEY, self.steps)

    def put_sealed(self, data: bytes, name: str = NAME, folder: str = "sealed/") -> str:
        """Write a sealed request; return its path."""
        os.makedirs(self.spool.sealed, exist_ok=True)
        return self.put(seal(self.KEY, name, data), folder + name + SEALED)

    def files(self, name: str = "sealed/" + NAME + SEALED) -> Files:
        return super().files(name)

    def read(self) -> bytes:
        """Read the sealed request."""
        return self.spool.read(f"sealed/{NAME}{SEALED}", LIMIT)[0]

    def waiting(self) -> set[str]:
        """Return the files where requests are stored, and where sealed ones wait."""
        sealed = os.listdir(self.spool.sealed) if os.path.isdir(self.spool.sealed) else []
        here = {*os.listdir(self.folder)} - {"sealed", "kept"}
        return here | {f"sealed/{name}" for name in sealed}

    def test_scan(self) -> None:
        """Sealed requests are found with a key and without; those in the clear are counted."""
        self.put(b"x\n")
        self.put_sealed(b"x\n")
        self.put_sealed(b"x\n", NAME + "~10")
        self.put_sealed(b"x\n", "1.2.put.l2", folder="")
        self.put(b"x\n", "1.2.put.l3")
        for other in ["notes~sealed", NAME + "~sealing", NAME + "~sealed~1", NAME + "~x~sealed"]:
            self.put(b"x\n", other)
        for spool in (self.spool, self.locked):
            found = spool.scan()
            self.assertEqual(
                found.requests,
                {
                    "l1": [f"sealed/{NAME}~sealed", f"sealed/{NAME}~10~sealed", NAME],
                    "l2": ["1.2.put.l2~sealed"],
                    "l3": ["1.2.put.l3"],
                },
            )
            self.assertEqual(found.unsealed, 3)

    def test_folder_is_a_link(self) -> None:
        """Nothing is read or sealed through a link in the place of the folder."""
        elsewhere = os.path.abspath(os.path.join(os.path.dirname(self.folder), "elsewhere"))
        os.mkdir(elsewhere)
        write(os.path.join(elsewhere, "1.2.put.l2~sealed"), b"x")
        os.symlink(elsewhere, self.spool.sealed)
        self.put(b"x\n")
        self.assertEqual(self.spool.scan().requests, {"l1": [NAME]})
        (fault,) = self.spool.faults
        self.assertIn("it is a symbolic link; it must be a folder itself", fault.what)
        self.assertRaises(OSError, self.spool.seal, NAME)

    def test_folder_cannot_be_listed(self) -> None:
        """A folder that cannot be listed is an error, as its requests are not gone."""
        self.put_sealed(b"x\n")
        listdir = os.listdir

        def fail(path: str) -> list[str]:
            if path == self.spool.sealed:
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return listdir(path)

        self.patch(os, "listdir", fail)
        self.assertRaises(OSError, self.spool.scan)

    def test_read(self) -> None:
        """A sealed request is complete, with a newline or without."""
        for data in (b"put:a:b\n", b"put:a:b"):
            self.put_sealed(data)
            self.assertEqual(self.read(), b"put:a:b\n")

    def test_limit(self) -> None:
        """F3: the limit on lines is the same."""
        self.put_sealed(b"x" * LIMIT + b"\n")
        self.assertEqual(len(self.read()), LIMIT + 1)
        self.put_sealed(b"x" * (LIMIT + 1) + b"\n")
        fault = self.assertRaises(Unusable, self.read)
        self.assertEqual(str(fault), "it is longer than the limit of 100 bytes")

    def test_no_request(self) -> None:
        """Sealed content that is no request is unusable too."""
        for data, reason in [(b"", "it is empty"), (b"a\nb\n", "it contains more than one line")]:
            self.put_sealed(data)
            fault = self.assertRaises(Unusable, self.read)
            self.assertEqual((str(fault), fault.stamp), (reason, *self.files().values()))

    def test_sealed(self) -> None:
        """
        A file is replaced by its sealed form, in a folder that others cannot list. The form and its
        folder are synced before the file is deleted.
        """
        self.put(b"x\n")
        calls = disk_calls(self, self.folder)
        form = self.spool.seal(NAME)
        self.assertEqual(
            calls,
            [
                "sync .",
                f"unlink sealed/{NAME}~sealing",
                f"sync sealed/{NAME}~sealing",
                f"rename sealed/{NAME}~sealing {form}",
                "sync sealed",
                f"unlink {NAME}",
            ],
        )
        self.assertEqual(mode(self.spool.sealed), 0o710)
        self.assertEqual((self.waiting(), self.read()), ({f"sealed/{NAME}{SEALED}"}, b"x\n"))

    def test_moved_on_the_disk(self) -> None:
        """When a sealed request is moved, and moved back, both folders are synced."""
        self.put_sealed(b"x\n", folder="")
        calls = disk_calls(self, self.folder)
        form = self.spool.seal(NAME + SEALED)
        self.spool.unfold()
        there, back = f"rename {NAME}{SEALED} {form}", f"rename {form} {NAME}{SEALED}"
        self.assertEqual(calls, [there, "sync sealed", "sync .", back, "sync .", "sync sealed"])

    def test_moved(self) -> None:
        """A sealed request in the folder of programs is moved to the others, replacing none."""
        self.put_sealed(b"1\n")
        self.put_sealed(b"2\n", folder="")
        self.assertEqual(self.spool.seal(NAME + SEALED), f"sealed/{NAME}~1{SEALED}")
        self.assertEqual(self.waiting(), {f"sealed/{NAME}{SEALED}", f"sealed/{NAME}~1{SEALED}"})
        self.assertEqual(self.spool.read(f"sealed/{NAME}~1{SEALED}", LIMIT)[0], b"2\n")

    def test_sealing_a_hard_link(self) -> None:
        """A file with another name, which others may not be able to read, is not sealed."""
        path = self.put(b"secret\n", "other")
        os.link(path, self.spool.path(NAME))
        self.assertRaises(Unfinished, self.spool.seal, NAME, None)
        self.assertRaises(Unusable, self.spool.seal, NAME, self.stamp())

    def test_remove_again(self) -> None:
        """If only one of two files could be deleted, the other one is deleted later."""
        self.put(b"x\n")
        self.put_sealed(b"x\n")
        files = {**self.files(), **self.files(NAME)}
        taken = len(self.steps.taken)

        def fail_later() -> None:
            if len(self.steps.taken) > taken + 1:
                raise OSError(errno.EROFS, "")

        self.steps.faults["remove request"] = fail_later
        self.assertRaises(OSError, self.spool.remove, files)
        self.assertEqual(self.waiting(), {NAME})
        self.steps.faults.clear()
        self.spool.remove(files)
        self.assertEqual(self.waiting(), set())

    def test_kept(self) -> None:
        """F8: a request in the clear and its note are both sealed when it is set aside."""
        self.put(b"x\n")
        files = self.files(NAME)
        kept = self.spool.set_aside(files, ANSWER, b"refused\n")
        self.assertEqual(kept, os.path.join(self.kept, NAME + SEALED))
        found = {name: unseal(self.KEY, name, data) for name, data in self.in_kept().items()}
        self.assertEqual(found, {NAME + SEALED: b"x\n", f"{NAME}.answer{SEALED}": b"refused\n"})
        self.assertEqual([mode(os.path.join(self.kept, name)) for name in found], [0o600, 0o600])

    def test_kept_beside_others(self) -> None:
        """Setting aside replaces no file, sealed or not."""
        os.mkdir(self.kept)
        for name in [NAME, NAME + "~1" + SEALED]:
            write(os.path.join(self.kept, name), b"old\n")
        self.put_sealed(b"x\n")
        self.spool.set_aside(self.files(), REASON, b"why\n")
        new = {NAME + "~2" + SEALED, f"{NAME}~2.reason{SEALED}"}
        self.assertEqual(set(self.in_kept()), {NAME, NAME + "~1" + SEALED} | new)

    def test_kept_as_it_is(self) -> None:
        """A folder, or a file that the disk cannot read, is set aside unsealed."""
        self.steps.fail("read request", errno.EIO)
        for make in (lambda: self.put(b"x\n"), lambda: os.mkdir(self.spool.path(NAME))):
            make()
            self.spool.set_aside(self.files(NAME), REASON, b"why\n")
            self.assertEqual({*os.listdir(self.kept)}, {NAME, f"{NAME}.reason{SEALED}"})
            shutil.rmtree(self.kept)

    def test_kept_and_plain_stays(self) -> None:
        """If the file cannot be deleted, twice even, its form is set aside later, once."""
        self.put(b"x\n")
        files = self.files(NAME)
        self.steps.fail("remove plain", errno.EROFS)
        self.assertRaises(OSError, self.spool.set_aside, files, ANSWER, b"no\n")
        self.assertEqual(list(files), [f"sealed/{NAME}{SEALED}", NAME])
        self.steps.fail("remove request", errno.EROFS)
        self.assertRaises(OSError, self.spool.set_aside, files, ANSWER, b"no\n")
        self.steps.faults.clear()
        self.spool.set_aside(files, ANSWER, b"no\n")
        self.assertEqual(self.waiting(), set())
        self.assertEqual(set(self.in_kept()), {NAME + SEALED, f"{NAME}.answer{SEALED}"})

    def test_name_is_taken(self) -> None:
        """A folder with the name of a sealed form is left alone."""
        os.makedirs(self.spool.path(f"sealed/{NAME}{SEALED}"))
        self.put(b"x\n")
        self.assertEqual(self.spool.seal(NAME), f"sealed/{NAME}~1{SEALED}")

    def test_crash(self) -> None:
        """After a crash at any step the request is in one of the folders."""
        self.assert_kept_in_a_crash()

    def test_crash_while_it_moves(self) -> None:
        """The same while a sealed request is moved to the others."""
        steps = self.crash_each_step(
            lambda: self.put_sealed(b"x\n", folder=""),
            lambda spool: spool.seal(NAME + SEALED),
        )
        self.assertEqual(
            steps, ["make sealed folder", "move sealed", "sync sealed folder", "sync folder"]
        )

    def test_crash_while_it_is_unfolded(self) -> None:
        """The same while sealed requests are moved back; that can be repeated."""
        steps = self.crash_each_step(
            lambda: self.put_sealed(b"x\n"), lambda spool: (spool.unfold(), self.spool.unfold())
        )
        self.assertEqual(steps, ["move sealed", "sync sealed folder", "sync folder"])

    def test_unfold(self) -> None:
        """For an older lonc sealed requests are moved back, replacing none."""
        self.put_sealed(b"1\n")
        self.put_sealed(b"2\n", folder="")
        self.put_sealed(b"3\n", "1.2.put.l2")
        self.assertEqual(self.locked.unfold(), 2)
        names = [NAME + SEALED, f"{NAME}~1{SEALED}", "1.2.put.l2~sealed"]
        self.assertEqual(set(os.listdir(self.folder)), {*names})
        found = [self.spool.read(name, LIMIT)[0] for name in names]
        self.assertEqual(found, [b"2\n", b"1\n", b"3\n"])
        self.assertEqual(self.locked.unfold(), 0)


class KeepTests(SpoolCase):
    """Setting aside (F8)."""

    def keep(self, ending: str = ANSWER, note: bytes = b"refused\n") -> str:
        return self.spool.set_aside(self.files(), ending, note)

    def test_kept(self) -> None:
        """F8: the request is moved to the subfolder, with the answer, closed to others."""
        path = self.put(b"x\n")
        os.chmod(path, 0o644)
        self.assertEqual(self.keep(), os.path.join(self.kept, NAME))
        self.assertFalse(os.path.lexists(path))
        self.assertEqual(self.in_kept(), {NAME: b"x\n", NAME + ".answer": b"refused\n"})
        self.assertEqual(mode(self.kept), 0o700)
        self.assertEqual(mode(os.path.join(self.kept, NAME)), 0o600)
        self.assertEqual(mode(os.path.join(self.kept, NAME + ".answer")), 0o600)

    def test_on_the_disk(self) -> None:
        """The note and both folders are synced in the right order."""
        path = self.put(b"x\n")
        calls = disk_calls(self, self.folder)
        kept = self.keep()
        self.assertEqual(
            calls,
            [
                "sync .",  # there is a folder for what is kept now
                f"sync kept/{NAME}.answer",
                f"rename {os.path.basename(path)} kept/{os.path.basename(kept)}",
                "sync kept",
                "sync .",
            ],
        )

    def test_nothing_overwritten(self) -> None:
        """No file or note is replaced: new ones are numbered."""
        os.mkdir(self.kept)
        for left in (".answer", "~1.reason"):
            write(os.path.join(self.kept, NAME + left), b"old\n")
        expected = self.in_kept()
        for number, ending in enumerate((REASON, REASON, ANSWER, REASON), 2):
            self.put(b"%d\n" % number)
            self.keep(ending, b"why %d\n" % number)
            name = f"{NAME}~{number}"
            expected |= {name: b"%d\n" % number, name + ending: b"why %d\n" % number}
        self.assertEqual(self.in_kept(), expected)

    def test_changed(self) -> None:
        """A file that has changed since it was read stays where it is."""
        self.put(b"x")
        files = self.files()
        path = self.put(b"xyz\n")
        self.assertRaises(Changed, self.spool.set_aside, files, ANSWER, b"refused\n")
        self.assertEqual(read(path), b"xyz\n")
        self.assertEqual(self.in_kept(), {})

    def test_failure(self) -> None:
        """If a step fails the request stays, and no note is left."""
        for step in ["make note", "write note", "sync note", "move request"]:
            path = self.put(b"x\n")
            self.steps.faults.clear()
            self.steps.fail(step, errno.ENOSPC)
            self.assertRaises(OSError, self.keep)
            self.assertEqual(read(path), b"x\n", step)
            self.assertEqual(self.in_kept(), {}, step)

    def test_folder(self) -> None:
        """A folder is set aside too, with its mode."""
        os.mkdir(self.spool.path(NAME))
        os.chmod(self.spool.path(NAME), 0o755)
        kept = self.spool.set_aside(self.files(), REASON, b"why\n")
        self.assertTrue(os.path.isdir(kept))
        self.assertEqual(mode(kept), 0o755)

    def test_link(self) -> None:
        """A link is set aside itself; the mode of its target is not changed."""
        secret = os.path.join(self.folder, "secret")
        write(secret, b"x\n")
        os.chmod(secret, 0o644)
        os.symlink(os.path.abspath(secret), self.spool.path(NAME))
        kept = self.spool.set_aside(self.files(), REASON, b"why\n")
        self.assertTrue(os.path.islink(kept))
        self.assertEqual(mode(secret), 0o644)

    def test_crash(self) -> None:
        """After a crash at any step the request is in one of the folders."""
        self.assert_kept_in_a_crash()
