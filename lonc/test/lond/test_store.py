"""The data of a lond on disk; what can be done with them is shown in `test_commands`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lonc.lond.store import Store, StoreError

HERE = (b"msu", b"alice", b"roles")


class StoreTests(SynchronousTestCase):
    """Keys and values."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.store = self.opened()

    def opened(self) -> Store:
        """Open the file once more."""
        store = Store(self.path)
        self.addCleanup(store.close)
        return store

    def put(self, store: Store, *pairs: tuple[bytes, bytes]) -> None:
        """Put pairs in one transaction."""
        with store.transaction():
            store.put(HERE, pairs)

    def test_any_bytes(self) -> None:
        """Keys and values may contain any bytes."""
        every = bytes(range(256))
        self.put(self.store, (every, every))
        self.assertEqual(self.store.items(HERE), [(every, every)])

    def test_crash(self) -> None:
        """Committed data survives a process that has not closed the file."""
        self.put(self.store, (b"a", b"1"))
        self.assertTrue(os.path.exists(f"{self.path}-wal"))
        self.assertEqual(self.opened().items(HERE), [(b"a", b"1")])

    def test_two_at_a_time(self) -> None:
        """Two users of the same file see each other's data."""
        self.put(self.store, (b"a", b"1"))
        self.put(self.opened(), (b"b", b"2"))
        self.assertEqual(self.store.items(HERE), [(b"a", b"1"), (b"b", b"2")])


def database(statement: str) -> Callable[[str], None]:
    """Return a function that makes a database at a path with this statement."""

    def make(path: str) -> None:
        db = sqlite3.connect(path)
        db.execute(statement)
        db.close()

    return make


class UnusableFileTests(SynchronousTestCase):
    """Every error has the path."""

    def test_cannot_be_opened(self) -> None:
        """Other files, and those of later releases, are left unchanged."""
        other = "not the data of a lond, or of a later release"
        for make, reason in (
            (os.mkdir, "unable to open database file"),
            (lambda path: Path(path).write_bytes(b"a text\n" * 200), "file is not a database"),
            (database("CREATE TABLE theirs (x)"), other),
            (database("PRAGMA user_version = 2"), other),
        ):
            path = self.mktemp()
            make(path)
            before = os.path.isdir(path) or Path(path).read_bytes()
            error = self.assertRaises(StoreError, Store, path)
            self.assertEqual(str(error), f"{path}: {reason}")
            self.assertEqual(os.path.isdir(path) or Path(path).read_bytes(), before)
        path = os.path.join(self.mktemp(), "l1.sqlite")
        error = self.assertRaises(StoreError, Store, path)
        self.assertEqual(str(error), f"{path}: unable to open database file")

    def test_damaged(self) -> None:
        """A damaged part is an error when it is read."""
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
        """The wait for another process that has locked the file is limited."""
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
        """A transaction on a closed file is an error."""
        path = self.mktemp()
        store = Store(path)
        store.close()
        store.close()
        with self.assertRaises(StoreError) as caught, store.transaction():
            self.fail("a transaction after the end")
        self.assertIn(path, str(caught.exception))
