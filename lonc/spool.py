"""
The folder of delayed requests (protocol section 6; rows F7 and F8): find, read, remove, set aside.

Everything here blocks, and is called in a thread; nothing here knows a reactor. Whatever step the
machine stops at, a request is in the folder or among those set aside, perhaps in both.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable
from itertools import count

import attrs

#: ``<time>.<pid>.<letters>.<host id>``. Older writers leave the pid out, later ones put a count
#: before it. The letters are never digits alone, so a name can be read in one way only.
_NAME = re.compile(r"(?:\d+\.){1,3}(?!\d+\.)\w*\.([\w.-]+)", re.ASCII)

#: What tells that the file itself is at fault. Other errors (no descriptors left) pass.
_FAULTS = {errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENXIO, errno.ENODEV}

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: Beside a request that was set aside: the lond's answer, or why it was not sent.
ANSWER = ".answer"
REASON = ".reason"


@attrs.frozen
class Stamp:
    """Which file it is, and in which state."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, info: os.stat_result) -> Stamp:
        """Take it from what ``stat`` says."""
        return cls(info.st_ino, info.st_size, info.st_mtime_ns)


@attrs.frozen
class Taken:
    """A whole request: its line, with one newline, and the state of its file."""

    line: bytes
    stamp: Stamp


class Unfinished(Exception):
    """The file may still be being written; ``stamp`` is its state."""

    def __init__(self, stamp: Stamp) -> None:
        super().__init__("it may still be being written")
        self.stamp = stamp


class Unusable(Exception):
    """
    The file holds no request that can be sent; the message says why, on one line.

    :ivar stamp: the state in which it was read, if it was.
    """

    def __init__(self, reason: str, stamp: Stamp | None = None) -> None:
        super().__init__(reason)
        self.stamp = stamp


class Changed(Exception):
    """The file is no longer the one that was read."""


def host_of(name: str) -> str | None:
    """Return the host id that a file's name ends in; None when it is no delayed request."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


class Spool:
    """
    A folder of delayed requests.

    :ivar folder: where they are.
    :ivar kept: where those go that are set aside; inside ``folder``, and made when needed.
    :param step: called before each step on the disk with its name; a test stops there.
    """

    def __init__(
        self, folder: str, kept: str, step: Callable[[str], None] = lambda _: None
    ) -> None:
        self.folder = folder
        self.kept = kept
        self._step = step

    def path(self, name: str) -> str:
        """Return where a request of this name is."""
        return os.path.join(self.folder, name)

    def scan(self) -> dict[str, list[str]]:
        """
        Return the names of the requests for each host id, in order of name.

        No file is opened or looked at. A missing folder is made, for its owner and group as far as
        the umask allows: lonnet, which writes here, runs as the same user.

        :raise OSError: the folder can neither be read nor made.
        """
        self._step("scan")
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            names = []
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder, 0o770)
        found: dict[str, list[str]] = {}
        for name in sorted(names):  # what has the form is ASCII: the order is that of the bytes
            host_id = host_of(name)
            if host_id is not None:
                found.setdefault(host_id, []).append(name)
        return found

    def take(self, name: str, max_line: int, still: Stamp | None = None) -> Taken:
        """
        Read a request (row F7).

        :param max_line: bytes that its line may have, the newline not counted.
        :param still: a state in which the file has been long enough to be whole as it is.
        :raise Unfinished: it has no newline at its end yet, or nothing in it.
        :raise Unusable: it cannot be read, or holds no request that can be sent.
        :raise FileNotFoundError: it has gone.
        :raise OSError: something else that passes.
        """
        try:
            data, stamp = self._content(self.path(name), max_line + 1)
        except OSError as error:
            if error.errno in _FAULTS:
                raise Unusable(f"it cannot be read: {error.strerror}") from None
            raise
        blank = not data.strip()
        if stamp != still and (blank or not data.endswith(b"\n")):
            raise Unfinished(stamp)
        if blank:
            raise Unusable("it is empty", stamp)
        line, _, rest = data.lstrip(b"\n").partition(b"\n")
        if rest.strip():
            # Sending the first and deleting the file would lose the others.
            raise Unusable("it holds more than one line", stamp)
        return Taken(line + b"\n", stamp)

    def _content(self, path: str, limit: int) -> tuple[bytes, Stamp]:
        """Read a file as a whole; it is not waited for, and links are not followed."""
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise Unusable("it is not a regular file")
        self._step("open request")
        fd = os.open(path, _READ)
        with open(fd, "rb") as file:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise Unusable("it is not a regular file")
            data = file.read(limit + 1)
            self._step("look again")
            stamp = Stamp.of(os.fstat(fd))
        if len(data) > limit:
            raise Unusable(f"it is longer than the limit of {limit - 1} bytes", stamp)
        if stamp != Stamp.of(before):
            raise Unfinished(stamp)
        return data, stamp

    def remove(self, name: str, stamp: Stamp) -> None:
        """
        Delete a request that is done with.

        :raise Changed: what was written meanwhile has not been sent.
        :raise OSError: it cannot be deleted, or has gone.
        """
        self._check(name, stamp)
        self._step("remove request")
        os.unlink(self.path(name))

    def keep(self, name: str, stamp: Stamp | None, ending: str, note: bytes) -> str:
        """
        Set a request aside with a note beside it (row F8); return its new path.

        What bears the name there already stays: the new one gets ``~1``, ``~2`` and so on.

        :param stamp: the state in which it was read, if it was.
        :param ending: :data:`ANSWER` or :data:`REASON`, what the note's name ends in.
        :raise Changed: it is not in that state any more.
        :raise OSError: it cannot be moved, or has gone, or a power failure may still undo the move.
        """
        self._check(name, stamp)
        self._step("make kept")
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.kept, 0o700)
            _sync(self.folder)
        target = self._write_note(name, ending, note)
        try:
            self._step("move request")
            os.rename(self.path(name), target)
        except OSError:
            os.unlink(target + ending)
            raise
        self._step("close request to others")
        # Not sooner: nobody else can put a link in its place here.
        if stat.S_ISREG(os.lstat(target).st_mode):
            with contextlib.suppress(PermissionError):  # it is another user's
                os.chmod(target, 0o600)
        self._step("sync kept")
        _sync(self.kept)
        self._step("sync folder")
        _sync(self.folder)
        return target

    def _check(self, name: str, stamp: Stamp | None) -> None:
        info = os.lstat(self.path(name))
        if stamp is not None and stamp != Stamp.of(info):
            raise Changed(f"{self.path(name)} has changed since it was read")

    def _write_note(self, name: str, ending: str, note: bytes) -> str:
        """Write the note under the first free name; return the path for the request."""
        for number in count():
            target = os.path.join(self.kept, f"{name}~{number}" if number else name)
            if os.path.lexists(target):
                continue
            self._step("make note")
            try:
                fd = os.open(target + ending, _WRITE, 0o600)
            except FileExistsError:
                continue
            break
        try:
            with open(fd, "wb") as file:
                self._step("write note")
                file.write(note)
                file.flush()
                self._step("sync note")
                os.fsync(fd)
        except OSError:
            os.unlink(target + ending)
            raise
        return target


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
