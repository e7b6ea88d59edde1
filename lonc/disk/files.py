"""
Opens files without blocking and without following links, replaces them as a whole, and tells
whether a file or a folder has changed.

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

_UNWAITED = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CAREFUL = _UNWAITED | os.O_NOFOLLOW
#: How a file is read that somebody else may have put there.
READ = os.O_RDONLY | _CAREFUL
#: How a file is made; what is there, were it a link, is left.
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFUL

#: Looks at a folder without a change after which it rests, a second apart: a change within the same
#: tick of a file system's clock leaves no trace, and some have one of two seconds.
REST_AFTER = 3

#: After so many looks it does not, though nothing seems to have changed.
LOOK_ANYWAY = 60

#: What tells that the file itself is at fault. Other errors (no descriptors left) pass.
_FAULTS = {errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENXIO, errno.ENODEV}

#: Called before each step on the disk with its name; a test stops there.
StepHook = Callable[[str], object]


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
    """The file holds nothing that can be used; the message says why, on one line."""

    def __init__(self, reason: str, stamp: Stamp) -> None:
        super().__init__(reason)
        self.stamp = stamp


class Changed(Exception):
    """The file is no longer the one that was read."""


#: Said of a file with several names: one may be in a folder where others cannot read it.
LINKED = "it is a hard link: the file has another name as well"


def why(error: Exception) -> str:
    """Say for a person why a call failed: ``PATH: No such file or directory``."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def check(path: str, stamp: Stamp) -> None:
    """
    See whether a file is still in this state.

    :raise Changed: it is not.
    :raise FileNotFoundError: it has gone.
    """
    if stamp != Stamp.of(os.lstat(path)):
        raise Changed(f"{path} has changed since it was read")


@contextlib.contextmanager
def held_against(stamp: Stamp) -> Iterator[None]:
    """Make an error while a file is read into Unusable, when the file itself is at fault."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        raise Unusable(f"it cannot be read: {error.strerror}", stamp) from None


@contextlib.contextmanager
def open_file(path: str, step: StepHook) -> Iterator[BinaryIO]:
    """
    Open a regular file to read it; it is not waited for, and links are not followed.

    :raise Unusable: it is none, or may not be read.
    """
    info = os.lstat(path)
    if stat.S_ISREG(info.st_mode):
        with held_against(Stamp.of(info)):
            step("open request")
            fd = os.open(path, READ)
        with open(fd, "rb") as file:
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode):
                yield file
                return
    raise Unusable("it is not a regular file", Stamp.of(info))


def read_file(path: str, limit: int) -> bytes:
    """
    Read an administrator's file, which may be a link; a FIFO is not waited for.

    :raises OSError: it cannot be read, is something else than a file, or has more bytes than that.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a file", path)
    with open(os.open(path, os.O_RDONLY | _UNWAITED), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
    return content


@contextlib.contextmanager
def new_file(path: str, what: str, step: StepHook) -> Iterator[BinaryIO]:
    """
    Make a file that only its owner can read; at the end of the block it is on the disk.

    When something fails it goes again.

    :param what: what it is, in the names of the steps.
    :raise FileExistsError: there is something of that name.
    """
    step(f"make {what}")
    fd = os.open(path, CREATE, 0o600)
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


def check_own_folder(path: str) -> None:
    """
    See that a folder of ours is one itself. Those above it may be links, as an administrator makes.

    :raise OSError: it is not there, or something else, or a link to a folder.
    """
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a symbolic link; it must be a folder itself", path)
    if not stat.S_ISDIR(mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def make_own_folder(path: str, mode: int = 0o777) -> bool:
    """
    Make a folder of ours where it is missing; return whether it was.

    :raise OSError: it cannot be made, or something else is there, or a link to a folder.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        check_own_folder(path)
        return False
    return True


def check_owner(path: str) -> None:
    """
    See that a folder is ours, root's, or of who owns the folder that it is in.

    :raise OSError: it is another's, who could take away what is put there.
    """
    owners = {0, os.geteuid(), os.stat(os.path.dirname(path)).st_uid}
    if os.lstat(path).st_uid not in owners:
        raise OSError(errno.EPERM, "it belongs to another user", path)


def open_own(path: str, flags: int, mode: int = 0o600) -> int:
    """
    Open a file of ours to write it, or make it; return its descriptor.

    :param flags: those of ``os.open``, without ``O_TRUNC``: it might be another's file yet.
    :raise OSError: it cannot be had, is a link, a FIFO or a socket, or has another name as well.
    """
    try:
        fd = os.open(path, flags | _CAREFUL, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(
                errno.ELOOP, "it is a symbolic link, which is not followed", path
            ) from None
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads, or a socket
            raise OSError(errno.ENXIO, "it is not a regular file", path) from None
        raise
    info = os.fstat(fd)
    regular = stat.S_ISREG(info.st_mode)
    if (regular and info.st_nlink <= 1) or stat.S_ISCHR(info.st_mode):  # root alone makes devices
        return fd
    os.close(fd)
    if regular:
        raise OSError(errno.EMLINK, LINKED, path)
    raise OSError(errno.EINVAL, "it is not a regular file", path)


def replace_file(path: str, content: bytes, sync: bool = True) -> None:
    """
    Put a file that everybody may read in place as a whole, so that nobody reads half of it.

    :param sync: so it is after a power failure too.
    :raise OSError: it cannot be written; the file that was there stays.
    """
    # One name, not a random one: what a crash leaves behind is removed by the next.
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    with open(os.open(new, CREATE, 0o644), "wb") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the umask says
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    os.replace(new, path)
    if sync:
        sync_folder(os.path.dirname(path))


class RestingFolder:
    """
    Tells when the files in a folder need not be looked at one by one, since none has come or gone.
    """

    def __init__(self) -> None:
        self._state: list[tuple[int, int, int, int] | None] = [None]
        self._looks = 0

    def rests(self, path: str, *inner: str) -> bool:
        """
        Return whether it has been the same for some looks, and so have folders inside of it.

        One that cannot be seen never is; those inside may be missing.
        """
        state = [_folder_state(each) for each in (path, *inner)]
        self._looks = self._looks + 1 if state[0] is not None and state == self._state else 0
        self._state = state
        return self._looks >= REST_AFTER and self._looks % LOOK_ANYWAY != 0

    def disturb(self) -> None:
        """Let it rest no more: something is missing there."""
        self._state = [None]


def _folder_state(path: str) -> tuple[int, int, int, int] | None:
    """Return what is different once a name has come or gone; None for no such folder."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def sync_folder(path: str) -> None:
    """Let a power failure no longer undo what was made, moved or deleted in a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
