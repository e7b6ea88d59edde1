"""
Storing a request that must not be lost (protocol, section 6), for lonc to send it later.

Everything here blocks. A request is in the folder under its name as a whole and on the disk, or
not at all: it is written under a hidden name first, which lonc passes over.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable

import attrs

from lonc.delayed.names import SEALED_FOLDER, hidden_name
from lonc.delayed.sealing import SEALED, seal
from lonc.disk.files import (
    Stamp,
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

#: Names that are tried for a request when others have them already.
TRIES = 100


def is_being_stored(path: str, stamp: Stamp) -> bool:
    """Return whether a request still has its hidden name as well, for a moment or after a crash."""
    folder, name = os.path.split(path)
    try:
        return Stamp.of(os.lstat(os.path.join(folder, hidden_name(name)))) == stamp
    except OSError:
        return False


class NotStored(Exception):
    """A request cannot be stored; the message says why, on one line."""


def _take_back(path: str, inode: int) -> str:
    """Delete a request that was stored; return the path at which it is all the same, if it is."""
    try:
        if os.lstat(path).st_ino != inode:
            return ""  # another's
        os.unlink(path)
    except FileNotFoundError:  # a lonc that seals may have been quick
        return _sealed_form(path)
    except OSError:
        return path
    return ""


def _sealed_form(path: str) -> str:
    """Return the path at which lonc keeps a request that it has sealed; empty: there is none."""
    folder, name = os.path.split(path.removesuffix(SEALED))
    form = os.path.join(folder, SEALED_FOLDER, name + SEALED)
    return form if os.path.lexists(form) else ""


class Numbers:
    """
    Numbers the requests of a process, so that their names are in the order in which they came.

    :param now: gives the Unix time.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._last = (0, 0)

    def next(self) -> tuple[int, int]:
        """Return a Unix time that never goes back, and a number within that second, from 0."""
        with self._lock:
            second, number = self._last
            now = int(self._now())
            self._last = (now, 0) if now > second else (second, number + 1)
            return self._last

    def forked(self) -> None:
        """Go on in a child process, where a thread that had the lock does not exist."""
        self._lock = threading.Lock()


#: All clients of a process share them, as they share the process id that stands in the names.
_NUMBERS = Numbers()
os.register_at_fork(after_in_child=_NUMBERS.forked)


@attrs.define(eq=False)
class Outbox:
    """
    The folder of delayed requests, as those see it who write there.

    :param folder: is made when it is missing; the one that it is in is not.
    :param perm_log: the path of ``lonnet.perm.log``; None for no notes.
    :param read_key: gives the key to seal requests with, each time, or raises; None: they are not
        sealed here.
    :param step: called before each step on the disk with its name; a test stops there.
    """

    folder: str
    _perm_log: str | None = None
    _read_key: Callable[[], bytes | None] | None = None
    _numbers: Numbers = _NUMBERS
    _now: Callable[[], float] = time.time
    _step: StepHook = lambda _: None

    def store(self, host_id: str, request: bytes) -> str:
        """
        Store a request; return the path of its file, which is on the disk by then.

        :raise NotStored: it could not be stored, and is not there unless the message says so.
        :raise OSError: it could not be stored, and is not there; so does what ``read_key`` raises.
        """
        self._step("make folder")
        make_own_folder(self.folder, 0o770)
        sync_folder(os.path.dirname(self.folder))  # costs nothing once it is on the disk
        # Without its key nothing is stored: whoever asks for sealing wants nothing in the clear.
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
        Write into ``lonnet.perm.log`` what became of a request (protocol, section 7).

        No more than the command is told of one that is secret on its way, or sealed.

        :param letter: ``D``, it was delayed, or ``F``, it has failed.
        :raise NotStored: it cannot be written.
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
        # lonc sends in the order of the names, and `<pid>.` comes before `<pid>0`: so those of one
        # second follow each other, whatever their letters are.
        again = f"{pid}{number:06}." if number else ""
        return f"{second}.{again}{pid}.{letters}.{host_id}"

    def _store(self, name: str, content: bytes) -> str:
        """Write a file and give it its name; FileExistsError: another has it."""
        path = os.path.join(self.folder, name)
        hidden = os.path.join(self.folder, hidden_name(name))
        with new_file(hidden, "file", self._step) as file:
            self._let_lonc_read(file.fileno())
            file.write(content)
            inode = os.fstat(file.fileno()).st_ino
        try:
            try:
                self._step("name file")
                os.link(hidden, path)  # unlike a move it takes no other file's place
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(hidden)
            # At once: lonc leaves a new file alone for some seconds, and a slow disk takes longer.
            self._step("read back")
            self._check(path, content)
            self._step("sync folder")
            sync_folder(self.folder)
        except BaseException as error:
            # Or lonc would send what its program takes for lost.
            there = _take_back(path, inode)
            if there and isinstance(error, Exception):
                raise NotStored(f"{error}; {there} is there all the same") from error
            raise
        return path

    def _let_lonc_read(self, fd: int) -> None:
        """Give a file to lonc's user: its folder's owner, unless that is root for safety's sake."""
        owner = os.stat(self.folder).st_uid
        if owner not in (0, os.geteuid()):
            self._step("give file")
            os.fchown(fd, owner, -1)

    def _check(self, path: str, content: bytes) -> None:
        try:
            with open_file(path, lambda _: None) as file:
                found = file.read(len(content) + 1)
        except FileNotFoundError:
            # lonc may be quick to seal it, and has that on the disk before it deletes this.
            if not _sealed_form(path):
                raise
            return
        except Unusable as fault:
            raise NotStored(f"{path}: {fault}") from None
        if found != content:
            raise NotStored(f"{path}: it does not hold what was written")
