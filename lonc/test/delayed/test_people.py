"""Delayed requests and those that are kept, as people see them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from lonc.delayed.names import SEALED
from lonc.delayed.people import Listing, UnknownRequest
from lonc.delayed.sealing import seal
from lonc.delayed.spool import Spool
from lonc.test.fixtures.delayed import Crash, Steps, write

NOW = 1_700_000_600.0
KEY = bytes(range(32))
FIRST = "1700000000.4711.put.l1"
SECOND = "1700000300.4711.put.l2"


class ListingTests(SynchronousTestCase):
    """A folder with requests of each kind."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        for folder in ("kept", "sealed"):
            os.makedirs(os.path.join(self.folder, folder))
        self.listing = Listing(Spool(self.folder, KEY), lambda: NOW)

    def put(self, file: str, content: bytes) -> None:
        """Write a file."""
        write(os.path.join(self.folder, file), content)

    def there(self) -> list[str]:
        """Return the paths of all files."""
        return sorted(
            os.path.relpath(os.path.join(folder, file), self.folder)
            for folder, _, files in os.walk(self.folder)
            for file in files
        )

    def refused(self, file: str) -> str:
        """Return why a file can be neither shown, dropped nor requeued."""
        for act in (self.listing.drop, self.listing.requeue):
            self.assertRaises(UnknownRequest, act, file)
        return str(self.assertRaises(UnknownRequest, self.listing.show, file, 10))

    def test_rows(self) -> None:
        """Each row has file, host, age, command and outcome, also of sealed and kept requests."""
        self.put(FIRST, b"put:msu:alice:x=secret\n")
        sealed = f"sealed/{SECOND}{SEALED}"
        self.put(sealed, seal(KEY, SECOND, b"encrypt:passwd:msu\n"))
        self.put("kept/" + SECOND + "~1", b"put:msu\n")
        self.put("kept/" + SECOND + "~1.answer", b"refused\n")
        self.put("other", b"x")
        rows = {row.file: row for row in self.listing.rows(None, {FIRST: (3, "timeout")})}
        self.assertEqual(set(rows), {FIRST, sealed, f"kept/{SECOND}~1"})
        first, second, kept = rows[FIRST], rows[sealed], rows[f"kept/{SECOND}~1"]
        self.assertEqual((first.host_id, first.command, first.age), ("l1", "put", 600.0))
        self.assertEqual((first.tries, first.last_answer, first.size), (3, "timeout", 23))
        self.assertEqual((second.command, second.kept), ("encrypt:passwd", False))
        self.assertEqual((kept.host_id, kept.last_answer, kept.kept), ("l2", "refused", True))
        self.assertEqual([row.file for row in self.listing.rows("l1", {})], [FIRST])

    def test_order(self) -> None:
        """
        Numbers in names are compared as numbers, also for the cursor; sealed requests are in the
        same order as others, and kept ones come last.
        """
        files = [f"20.{count}.4711.put.l1" for count in (1, 2, 10, 11)]
        files = [files[0], f"sealed/{files[1]}{SEALED}", *files[2:], f"kept/{files[0]}"]
        for file in reversed(files):
            self.put(file, b"put\n")
        ticks = count(NOW)
        self.listing = Listing(Spool(self.folder, KEY), lambda: next(ticks))
        ages = {row.age for row in self.listing.rows(None, {})}
        self.assertEqual(len(ages), 1)
        for number in range(len(files) + 1):
            after = files[number - 1] if number else ""
            rows = self.listing.rows(None, {}, after)
            self.assertEqual([row.file for row in rows], files[number:])

    def test_without_the_key(self) -> None:
        """Without the key a sealed request is listed, without its command, and cannot be shown."""
        self.put(SECOND + SEALED, seal(KEY, SECOND, b"put\n"))
        listing = Listing(Spool(self.folder, None), lambda: NOW)
        [row] = listing.rows(None, {})
        self.assertEqual((row.command, row.host_id), ("", "l2"))
        self.assertRaises(UnknownRequest, listing.show, row.file, 10)

    def test_no_folder(self) -> None:
        """The folder of kept requests may be missing."""
        os.rmdir(os.path.join(self.folder, "kept"))
        self.assertEqual(self.listing.rows(None, {}), [])

    def test_show(self) -> None:
        """The content is shown, decrypted, or only its beginning."""
        self.put(SECOND + SEALED, seal(KEY, SECOND, b"put:abc\n"))
        self.assertEqual(self.listing.show(SECOND + SEALED, 100), (b"put:abc\n", False))
        self.assertEqual(self.listing.show(SECOND + SEALED, 3), (b"put", True))

    def test_no_request(self) -> None:
        """A name that is not that of a request in these folders is refused."""
        self.put("other", b"x")
        os.symlink("/etc/passwd", os.path.join(self.folder, SECOND))
        for file in ("other", "../" + FIRST, "kept/../other", "/etc/passwd", "", "kept/", FIRST):
            self.refused(file)
        self.assertRaises(UnknownRequest, self.listing.show, SECOND, 10)

    def test_drop(self) -> None:
        """A dropped request is deleted in all its forms, a kept one with its notes."""
        for file in (FIRST, FIRST + SEALED, f"sealed/{FIRST}{SEALED}"):
            self.put(file, b"x")
        self.listing.drop(FIRST)
        self.put("kept/" + FIRST, b"x")
        self.put("kept/" + FIRST + ".reason", b"x")
        self.listing.drop("kept/" + FIRST)
        self.assertEqual(self.there(), [])

    def test_requeue(self) -> None:
        """A requeued request has its own name again, under which it was sealed."""
        self.put(f"kept/{SECOND}~2{SEALED}", seal(KEY, SECOND, b"put\n"))
        self.put(f"kept/{SECOND}~2.answer{SEALED}", b"x")
        self.assertEqual(self.listing.requeue(f"kept/{SECOND}~2{SEALED}"), SECOND + SEALED)
        self.assertEqual(self.there(), [SECOND + SEALED])
        self.assertEqual(self.listing.show(SECOND + SEALED, 9), (b"put\n", False))

    def crash_each_step(self, act: Callable[[Listing], object]) -> Iterator[None]:
        """Stop the machine at each step, and then call the same again."""
        steps = Steps()
        while not steps.taken or steps.crash_at == len(steps.taken):
            self.put("kept/" + FIRST, b"put\n")
            self.put(f"kept/{FIRST}.answer", b"refused\n")
            steps = Steps(crash_at=steps.crash_at + 1)
            with contextlib.suppress(Crash):
                act(Listing(Spool(self.folder, KEY, steps), lambda: NOW))
            with contextlib.suppress(UnknownRequest):  # it was done
                act(self.listing)
            yield
            self.assertEqual(self.there(), [])

    def test_requeue_and_a_crash(self) -> None:
        """After a crash at any step of requeueing, a second call completes it."""
        for _ in self.crash_each_step(lambda listing: listing.requeue("kept/" + FIRST)):
            self.assertEqual(self.there(), [FIRST])
            self.assertEqual(os.lstat(os.path.join(self.folder, FIRST)).st_nlink, 1)
            os.unlink(os.path.join(self.folder, FIRST))

    def test_drop_and_a_crash(self) -> None:
        """After a crash at any step of dropping, a second call completes it."""
        for _ in self.crash_each_step(lambda listing: listing.drop("kept/" + FIRST)):
            pass

    def test_requeue_fails(self) -> None:
        """If requeueing fails at a step, nothing is lost, and a second call completes it."""
        steps = Steps()
        listing = Listing(Spool(self.folder, KEY, steps), lambda: NOW)
        self.put("kept/" + FIRST, b"put\n")
        self.put(f"kept/{FIRST}.answer", b"refused\n")
        steps.fail("move request", errno.ENOSPC)
        self.assertRaises(OSError, listing.requeue, "kept/" + FIRST)
        self.assertEqual(self.there(), ["kept/" + FIRST, f"kept/{FIRST}.answer"])
        steps.faults.clear()
        steps.fail("delete", errno.EROFS)
        self.assertRaises(OSError, listing.requeue, "kept/" + FIRST)
        self.assertEqual(self.there(), [FIRST, f"kept/{FIRST}.answer"])
        self.listing.requeue("kept/" + FIRST)
        self.assertEqual(self.there(), [FIRST])

    def test_link_left(self) -> None:
        """Two names of one file, left by an interrupted lonc, become one."""
        kept, other = f"kept/{FIRST}", f"kept/{FIRST}~1"
        for left in (FIRST, other):
            self.put(kept, b"put\n")
            self.put(f"{kept}.answer", b"refused\n")
            self.put(f"kept/{FIRST}~1.reason", b"it is a hard link\n")
            os.link(os.path.join(self.folder, kept), os.path.join(self.folder, left))
            self.listing.requeue(kept)
            self.assertEqual(os.lstat(os.path.join(self.folder, FIRST)).st_nlink, 1)
            self.assertNotIn(kept, self.there())
            self.assertNotIn(other, self.there())
            os.unlink(os.path.join(self.folder, FIRST))

    def test_kept_is_a_link(self) -> None:
        """Nothing is shown, deleted or moved through a link in the place of a folder."""
        elsewhere = os.path.abspath(self.mktemp())
        for folder in ("kept", "sealed"):
            os.rmdir(os.path.join(self.folder, folder))
            os.makedirs(elsewhere, exist_ok=True)
            os.symlink(elsewhere, os.path.join(self.folder, folder))
            write(os.path.join(elsewhere, FIRST), b"secret\n")
            self.assertRaises(OSError, self.listing.rows, None, {})
            file = f"{folder}/{FIRST}" + ("" if folder == "kept" else SEALED)
            self.assertRaises(OSError, self.listing.show, file, 10)
            self.assertRaises(OSError, self.listing.drop, file)
            self.assertRaises(OSError, self.listing.requeue, file)
            self.assertEqual(os.listdir(elsewhere), [FIRST])
            os.unlink(os.path.join(self.folder, folder))
            os.mkdir(os.path.join(self.folder, folder))

    def test_one_waits_already(self) -> None:
        """A request is not requeued if another one with its name is waiting."""
        self.put(FIRST, b"one\n")
        self.put("kept/" + FIRST, b"two\n")
        self.assertRaises(UnknownRequest, self.listing.requeue, "kept/" + FIRST)
        self.assertRaises(UnknownRequest, self.listing.requeue, FIRST)
        self.assertEqual(self.listing.show(FIRST, 9), (b"one\n", False))
