"""The data of a lond: keys and values in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

#: The format of the file (SQLite's `user_version`); files of other formats are not touched.
_VERSION: Final = 1

_TABLE: Final = """
    CREATE TABLE entry (
        domain BLOB, user BLOB, namespace BLOB, key BLOB, value BLOB NOT NULL,
        PRIMARY KEY (domain, user, namespace, key)
    ) WITHOUT ROWID
"""
_HERE: Final = "domain = ? AND user = ? AND namespace = ?"

#: Whose data: domain, user and namespace, as a request names them.
Place = tuple[bytes, bytes, bytes]


class StoreError(Exception):
    """The file cannot be used. The message is a readable line that begins with its path."""


class Store:
    """
    Keys and values by place. All methods must be called in a `transaction`.

    :param path: the file, created if missing; ``:memory:`` for none.
    :param patience: seconds to wait, blocking, for another process that has locked the file.
    :raises StoreError: the file cannot be created or used, or is something else.
    """

    def __init__(self, path: str, patience: float = 1.0) -> None:
        self._path = path
        with self._errors_named():
            # Transactions are managed below instead of implicitly by the module.
            self._db = sqlite3.connect(path, timeout=patience, isolation_level=None)
        try:
            with self._errors_named():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with self.transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version == 0 and tables == 0:
                self._db.execute(_TABLE)
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise StoreError(f"{self._path}: not the data of a lond, or of a later release")
        # With FULL, data is on the disk before `ok` is sent.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """
        Execute the body as a transaction, which is rolled back on an exception.

        :raises StoreError: the file fails, or another process has locked it.
        """
        with self._errors_named(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def get(self, place: Place, keys: Iterable[bytes]) -> list[bytes]:
        """Return the values of keys in their order, empty for a missing key."""
        query = f"SELECT value FROM entry WHERE {_HERE} AND key = ?"
        rows = (self._db.execute(query, (*place, key)).fetchone() for key in keys)
        return [row[0] if row else b"" for row in rows]

    def items(self, place: Place) -> list[tuple[bytes, bytes]]:
        """Return all keys of a place with their values, in the order of the keys."""
        query = f"SELECT key, value FROM entry WHERE {_HERE} ORDER BY key"
        return self._db.execute(query, place).fetchall()

    def put(self, place: Place, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Set keys to values; if a key occurs twice, the last value counts."""
        rows = [(*place, key, value) for key, value in pairs]
        self._db.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", rows)

    def delete(self, place: Place, keys: Iterable[bytes]) -> None:
        """Remove keys; missing ones are ignored."""
        query = f"DELETE FROM entry WHERE {_HERE} AND key = ?"
        self._db.executemany(query, [(*place, key) for key in keys])

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._db.close()
