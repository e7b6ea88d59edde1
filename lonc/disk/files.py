"""
What is told of a file between two looks at it, and how it is opened so that nothing is waited for.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

import attrs

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: What tells that the file itself is at fault. Other errors (no descriptors left) pass.
_FAULTS = {errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENXIO, errno.ENODEV}

#: Called before each step on the disk with its name; a test stops there.
Step = Callable[[str], object]


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


#: Names of files, each with the state in which it was looked at.
Files = dict[str, Stamp]


class Unfinished(Exception):
    """The file may still be being written; ``stamp`` is its state."""

    def __init__(self, stamp: Stamp) -> None:
        super().__init__("it may still be being written")
        self.stamp = stamp


class Unusable(Exception):
    """The files hold no request that can be sent; the message says why, on one line."""

    def __init__(self, reason: str, files: Files) -> None:
        super().__init__(reason)
        self.files = files


class Changed(Exception):
    """The file is no longer the one that was read."""


def check(path: str, stamp: Stamp) -> None:
    """
    See whether a file is still in this state.

    :raise Changed: it is not.
    :raise FileNotFoundError: it has gone.
    """
    if stamp != Stamp.of(os.lstat(path)):
        raise Changed(f"{path} has changed since it was read")


@contextlib.contextmanager
def held_against(path: str, stamp: Stamp) -> Iterator[None]:
    """Make an error while a file is read into Unusable, when the file itself is at fault."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        name = os.path.basename(path)
        raise Unusable(f"it cannot be read: {error.strerror}", {name: stamp}) from None


@contextlib.contextmanager
def open_file(path: str, step: Step) -> Iterator[BinaryIO]:
    """
    Open a regular file to read it; it is not waited for, and links are not followed.

    :raise Unusable: it is none, or may not be read.
    """
    info = os.lstat(path)
    if stat.S_ISREG(info.st_mode):
        with held_against(path, Stamp.of(info)):
            step("open request")
            fd = os.open(path, _READ)
        with open(fd, "rb") as file:
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode):
                yield file
                return
    raise Unusable("it is not a regular file", {os.path.basename(path): Stamp.of(info)})


@contextlib.contextmanager
def new_file(path: str, what: str, step: Step) -> Iterator[BinaryIO]:
    """
    Make a file that only its owner can read; at the end of the block it is on the disk.

    When something fails it goes again.

    :param what: what it is, in the names of the steps.
    :raise FileExistsError: there is something of that name.
    """
    step(f"make {what}")
    fd = os.open(path, _WRITE, 0o600)
    try:
        with open(fd, "wb") as file:
            step(f"write {what}")
            yield file
            file.flush()
            step(f"sync {what}")
            os.fsync(fd)
    except Exception:
        os.unlink(path)
        raise


def sync_folder(path: str) -> None:
    """Let a power failure no longer undo what was made, moved or deleted in a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
