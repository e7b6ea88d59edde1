"""
Stores a request for lonc to send it later (protocol, section 6).

All functions block. A request appears under its name completely and synced, or not at all: it is
first written under a hidden name, which lonc ignores.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable

import attrs

from lonc.delayed.names import SEALED, SEALED_FOLDER, hidden_name
from lonc.delayed.sealing import seal
from lonc.disk.files import (
    StepHook,
    Unusable,
    make_own_folder,
    new_file,
    open_file,
    sync_folder,
)
from lonc.report.logs import PermLog
from lonc.wire.escaping import to_text
from lonc.wire.request import command_word, is_secret

#: Number of names that are tried if they are taken.
TRIES = 100


class NotStored(Exception):
    """A request cannot be stored; the message is a readable line with the reason."""


def _take_back(path: str, inode: int) -> str:
    """Delete a stored request; return its path if it still exists, otherwise an empty text."""
    try:
        if os.lstat(path).st_ino != inode:
            return ""  # a different file
        os.unlink(path)
    except FileNotFoundError:  # lonc may have sealed it already
        return _sealed_form(path)
    except OSError:
        return path
    return ""


def _sealed_form(path: str) -> str:
    """Return the path of the sealed form of a request; empty if there is none."""
    folder, name = os.path.split(path.removesuffix(SEALED))
    form = os.path.join(folder, SEALED_FOLDER, name + SEALED)
    return form if os.path.lexists(form) else ""


class Numbers:
    """
    Numbers the requests of a process, so that their names sort in the order of storing.

    :param now: returns the Unix time.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._last = (0, 0)

    def next(self) -> tuple[int, int]:
        """Return a Unix time that never decreases, and a number within that second, from 0."""
        with self._lock:
            second, number = self._last
            now = int(self._now())
            self._last = (now, 0) if now > second else (second, number + 1)
            return self._last

    def forked(self) -> None:
        """Replace the lock in a child process, where the thread holding it does not exist."""
        self._lock = threading.Lock()


#: Shared by all clients of a process, like the process id in the names.
_NUMBERS = Numbers()
os.register_at_fork(after_in_child=_NUMBERS.forked)


@attrs.define(eq=False)
class Outbox:
    """
    The folder of delayed requests, for programs that store them.

    :param folder: created if it is missing; its parent must exist.
    :param perm_log: the path of ``lonnet.perm.log``; None to write no lines.
    :param read_key: returns the key, called for each request, or raises; None if requests are not
        sealed.
    :param step: called with the name of each step on the disk before it; used by tests.
    """

    folder: str
    _perm_log: str | None = None
    _read_key: Callable[[], bytes | None] | None = None
    _numbers: Numbers = _NUMBERS
    _now: Callable[[], float] = time.time
    _step: StepHook = lambda _: None

    def store(self, host_id: str, request: bytes) -> str:
        """
        Store a request; return the path of its file once it is synced to disk.

        :raises NotStored: it could not be stored; its file only exists if the message says so.
        :raises OSError: it could not be stored, and its file does not exist. The same applies to
            exceptions of ``read_key``.
        """
        self._step("make folder")
        make_own_folder(self.folder, 0o770)
        sync_folder(os.path.dirname(self.folder))  # costs nothing if it is already on disk
        # If the key cannot be read, nothing is stored, rather than storing it in the clear.
        key = self._read_key() if self._read_key else None
        content = request + b"\n"
        for _ in range(TRIES):
            name = self._name(host_id, request)
            with contextlib.suppress(FileExistsError):
                if key is None:
                    return self._store(name, content)
                return self._store(name + SEALED, seal(key, name, content))
        raise NotStored(f"{self.folder}: no free name in {TRIES} tries")

    def note(self, letter: str, host_id: str, request: bytes) -> None:
        """
        Write a line about a request to ``lonnet.perm.log`` (protocol, section 7).

        It has only the command of an encrypted or sealed request.

        :param letter: ``D`` for delayed, or ``F`` for failed.
        :raises NotStored: it cannot be written.
        """
        if self._perm_log is None:
            return
        secret = self._read_key is not None or is_secret(request)
        shown = command_word(request) if secret else to_text(request)
        problems: list[str] = []
        PermLog(self._perm_log, self._now, problems.append).write(f"{letter}:{host_id}:{shown}")
        if problems:
            raise NotStored(problems[0])

    def _name(self, host_id: str, request: bytes) -> str:
        second, number = self._numbers.next()
        pid = os.getpid()
        letters = re.sub(r"\W|^\d+$", "", command_word(request))
        # lonc sends in the order of the names. The number makes those of one second sort in the
        # order in which they were stored, whatever their letters are.
        again = f"{pid}{number:06}." if number else ""
        return f"{second}.{again}{pid}.{letters}.{host_id}"

    def _store(self, name: str, content: bytes) -> str:
        """Write a file and give it its name; raises FileExistsError if that is taken."""
        path = os.path.join(self.folder, name)
        hidden = os.path.join(self.folder, hidden_name(name))
        with new_file(hidden, "file", self._step) as file:
            self._let_lonc_read(file.fileno())
            file.write(content)
            inode = os.fstat(file.fileno()).st_ino
        try:
            try:
                self._step("name file")
                os.link(hidden, path)  # unlike rename, this never replaces a file
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(hidden)
            # Checked before the sync, which may take longer than lonc leaves a new file alone.
            self._step("read back")
            self._check(path, content)
            self._step("sync folder")
            sync_folder(self.folder)
        except BaseException as error:
            # Otherwise lonc would send a request that the program considers failed.
            there = _take_back(path, inode)
            if there and isinstance(error, Exception):
                raise NotStored(f"{error}; {there} exists nevertheless") from error
            raise
        return path

    def _let_lonc_read(self, fd: int) -> None:
        """Give a file to lonc's user, the owner of its folder, unless that is root."""
        owner = os.stat(self.folder).st_uid
        if owner not in (0, os.geteuid()):
            self._step("give file")
            os.fchown(fd, owner, -1)

    def _check(self, path: str, content: bytes) -> None:
        try:
            with open_file(path) as file:
                found = file.read(len(content) + 1)
        except FileNotFoundError:
            # lonc may have sealed it already; it syncs the sealed form before it deletes this file.
            if not _sealed_form(path):
                raise
            return
        except Unusable as fault:
            raise NotStored(f"{path}: {fault}") from None
        if found != content:
            raise NotStored(f"{path}: it does not hold what was written")
