"""The data of a lond on disk."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lonc.lond.store import Store, StoreError

HERE = (b"msu", b"alice", b"roles")
THERE = (b"msu", b"alice", b"grades")


class StoreTests(SynchronousTestCase):
    """Keys and values."""

    def setUp(self) -> None:
        """Open a new file."""
        self.path = self.mktemp()
        self.store = self.opened()

    def opened(self) -> Store:
        """Open the file, once more."""
        store = Store(self.path)
        self.addCleanup(store.close)
        return store

    def put(self, *pairs: tuple[bytes, bytes]) -> None:
        """Put pairs in a transaction of their own."""
        with self.store.transaction():
            self.store.put(HERE, pairs)

    def test_get(self) -> None:
        """Values come in the order in which they are asked for, empty when there is none."""
        self.put((b"a", b"1"), (b"b", b"2"))
        with self.store.transaction():
            self.assertEqual(self.store.get(HERE, [b"b", b"c", b"a"]), [b"2", b"", b"1"])

    def test_places_are_apart(self) -> None:
        """A key belongs to its namespace."""
        self.put((b"a", b"1"))
        self.assertEqual(self.store.get(THERE, [b"a"]), [b""])
        self.assertEqual(self.store.items(THERE), [])

    def test_items(self) -> None:
        """All pairs come in the order of their keys."""
        self.put((b"b", b"2"), (b"a", b"1"), (b"c", b""))
        self.assertEqual(self.store.items(HERE), [(b"a", b"1"), (b"b", b"2"), (b"c", b"")])

    def test_put_over(self) -> None:
        """A later value takes an earlier one's place, within one put too."""
        self.put((b"a", b"1"))
        self.put((b"a", b"2"), (b"a", b"3"))
        self.assertEqual(self.store.items(HERE), [(b"a", b"3")])

    def test_delete(self) -> None:
        """Keys go; a key that is not there is no error."""
        self.put((b"a", b"1"), (b"b", b"2"))
        with self.store.transaction():
            self.store.delete(HERE, [b"a", b"z"])
        self.assertEqual(self.store.items(HERE), [(b"b", b"2")])

    def test_any_bytes(self) -> None:
        """Keys and values are bytes, and come back as they were."""
        every = bytes(range(256))
        self.put((every, every))
        self.assertEqual(self.store.items(HERE), [(every, every)])

    def test_as_a_whole(self) -> None:
        """A transaction that raises leaves nothing behind."""
        with self.assertRaises(ZeroDivisionError), self.store.transaction():
            self.store.put(HERE, [(b"a", b"1")])
            raise ZeroDivisionError
        self.assertEqual(self.store.items(HERE), [])
        self.put((b"b", b"2"))  # and the next one works
        self.assertEqual(self.store.items(HERE), [(b"b", b"2")])

    def test_yesterday(self) -> None:
        """A file that is opened again has its data."""
        self.put((b"a", b"1"))
        self.store.close()
        self.assertEqual(self.opened().items(HERE), [(b"a", b"1")])

    def test_crash(self) -> None:
        """What was put is there for the next process also when this one never closed."""
        self.put((b"a", b"1"))
        self.assertTrue(os.path.exists(f"{self.path}-wal"))
        self.assertEqual(self.opened().items(HERE), [(b"a", b"1")])

    def test_two_at_a_time(self) -> None:
        """Two users of the same file see each other's data."""
        other = self.opened()
        self.put((b"a", b"1"))
        with other.transaction():
            other.put(HERE, [(b"b", b"2")])
        self.assertEqual(self.store.items(HERE), [(b"a", b"1"), (b"b", b"2")])

    def test_memory(self) -> None:
        """A store can do without a file."""
        store = Store(":memory:")
        self.addCleanup(store.close)
        with store.transaction():
            store.put(HERE, [(b"a", b"1")])
        self.assertEqual(store.items(HERE), [(b"a", b"1")])


class UnusableFileTests(SynchronousTestCase):
    """Every error names the file."""

    def fails(self, path: str, reason: str) -> None:
        """Open a file and see the error."""
        with self.assertRaises(StoreError) as caught:
            Store(path)
        self.assertEqual(str(caught.exception), f"{path}: {reason}")

    def test_no_folder(self) -> None:
        """A file in a folder that is not there."""
        self.fails(os.path.join(self.mktemp(), "l1.sqlite"), "unable to open database file")

    def test_folder(self) -> None:
        """A folder in the file's place."""
        path = self.mktemp()
        os.mkdir(path)
        self.fails(path, "unable to open database file")

    def test_not_sqlite(self) -> None:
        """A file that is something else."""
        path = self.mktemp()
        Path(path).write_bytes(b"something else\n" * 100)
        self.fails(path, "file is not a database")

    def test_other_database(self) -> None:
        """A database that is somebody else's is left as it was."""
        path = self.mktemp()
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE theirs (x)")
        db.close()
        before = Path(path).read_bytes()
        self.fails(path, "not the data of a lond, or of a later release")
        self.assertEqual(Path(path).read_bytes(), before)

    def test_later_form(self) -> None:
        """A file of a later release is not touched."""
        path = self.mktemp()
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 2")
        db.close()
        self.fails(path, "not the data of a lond, or of a later release")

    def test_damaged(self) -> None:
        """A file that is damaged in the middle says so when that part is read."""
        path = self.mktemp()
        store = Store(path)
        with store.transaction():
            store.put(HERE, [(b"%06d" % n, b"v" * 100) for n in range(2000)])
        store.close()
        with open(path, "r+b") as file:
            file.seek(8192)
            file.write(b"\xff" * 100_000)
        store = Store(path)
        self.addCleanup(store.close)
        with self.assertRaises(StoreError) as caught, store.transaction():
            store.items(HERE)
        self.assertEqual(str(caught.exception), f"{path}: database disk image is malformed")

    def test_held_by_another(self) -> None:
        """Another process that keeps the file to itself: the wait has an end."""
        path = self.mktemp()
        store = Store(path, patience=0.0)
        self.addCleanup(store.close)
        other = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaises(StoreError) as caught, store.transaction():
            self.fail("a transaction inside another's")
        self.assertEqual(str(caught.exception), f"{path}: database is locked")

    def test_closed(self) -> None:
        """A request that comes after the end meets an error that names the file, too."""
        path = self.mktemp()
        store = Store(path)
        store.close()
        store.close()
        with self.assertRaises(StoreError) as caught, store.transaction():
            self.fail("a transaction after the end")
        self.assertIn(path, str(caught.exception))
