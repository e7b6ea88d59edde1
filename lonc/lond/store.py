"""The data of a lond: keys and values in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

#: The form of the file, as SQLite's `user_version`: a file of any other form is left alone.
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
    """The file cannot be used. The message is one line for a person and begins with its path."""


class Store:
    """
    Keys and values by place. Everything happens in a `transaction`.

    :param path: the file, which is made when it is not there; ``:memory:`` for none.
    :param patience: seconds to wait for another process that has the file to itself, during which
        nothing else runs.
    :raise StoreError: when it can be neither made nor used, or is something else.
    """

    def __init__(self, path: str, patience: float = 1.0) -> None:
        self._path = path
        with self._errors_named():
            # Transactions are begun and ended below, not by the module's own guesses.
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
        # An `ok` is a promise: with FULL it is on the disk by then.
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
        Make everything inside happen as a whole, or not at all when it raises.

        :raise StoreError: when the file fails, or another process keeps it.
        """
        with self._errors_named(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def get(self, place: Place, keys: Iterable[bytes]) -> list[bytes]:
        """Return the values of keys in their order, empty for a key that is not there."""
        query = f"SELECT value FROM entry WHERE {_HERE} AND key = ?"
        rows = (self._db.execute(query, (*place, key)).fetchone() for key in keys)
        return [row[0] if row else b"" for row in rows]

    def items(self, place: Place) -> list[tuple[bytes, bytes]]:
        """Return all keys of a place with their values, in the order of the keys."""
        query = f"SELECT key, value FROM entry WHERE {_HERE} ORDER BY key"
        return self._db.execute(query, place).fetchall()

    def put(self, place: Place, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Set keys to values; the last one counts where a key comes twice."""
        rows = [(*place, key, value) for key, value in pairs]
        self._db.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", rows)

    def delete(self, place: Place, keys: Iterable[bytes]) -> None:
        """Remove keys; one that is not there is no error."""
        query = f"DELETE FROM entry WHERE {_HERE} AND key = ?"
        self._db.executemany(query, [(*place, key) for key in keys])

    def close(self) -> None:
        """Close the file; doing so twice is no error."""
        self._db.close()
