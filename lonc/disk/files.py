"""
Opens files without blocking and without following links, replaces them atomically, and detects
changes of files and folders, also of lonc's own code.

All functions make disk calls, which block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

import attrs

import lonc

_UNWAITED = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CAREFUL = _UNWAITED | os.O_NOFOLLOW
#: Flags for reading a file that others may have placed there.
READ = os.O_RDONLY | _CAREFUL
#: Flags for creating a file; an existing file or link is not touched.
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFUL

#: Checks of a folder without a change, a second apart, after which it counts as unchanged: changes
#: within one tick of a file system's clock are invisible, and some clocks have ticks of two
#: seconds.
REST_AFTER = 3

#: Every so many checks, it does not count as unchanged even if it seems so.
LOOK_ANYWAY = 60

#: Errors caused by the file itself. Others, such as a lack of descriptors, are temporary.
_FAULTS = {errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENXIO, errno.ENODEV}

#: Called with the name of each step on the disk before it; used by tests.
StepHook = Callable[[str], object]


@attrs.frozen
class Stamp:
    """The identity and state of a file."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, info: os.stat_result) -> Stamp:
        """Return the stamp for a result of ``stat``."""
        return cls(info.st_ino, info.st_size, info.st_mtime_ns)


#: Names of files, with their states.
Files = dict[str, Stamp]


class Unfinished(Exception):
    """The file may still be being written; ``stamp`` is its state."""

    def __init__(self, stamp: Stamp) -> None:
        super().__init__("it may still be being written")
        self.stamp = stamp


class Unusable(Exception):
    """The file has no usable content; the message is a line with the reason."""

    def __init__(self, reason: str, stamp: Stamp) -> None:
        super().__init__(reason)
        self.stamp = stamp


class Changed(Exception):
    """The file is no longer the one that was read."""


#: The reason for refusing a file with several names: another one may be in a private folder.
LINKED = "it is a hard link: the file has another name as well"


def why(error: Exception) -> str:
    """Return a readable reason for a failed call: ``PATH: No such file or directory``."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def check(path: str, stamp: Stamp) -> None:
    """
    Check that a file is still in this state.

    :raises Changed: it is not.
    :raises FileNotFoundError: it was deleted.
    """
    if stamp != Stamp.of(os.lstat(path)):
        raise Changed(f"{path} has changed since it was read")


@contextlib.contextmanager
def held_against(stamp: Stamp) -> Iterator[None]:
    """Convert read errors that the file itself causes to Unusable."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        raise Unusable(f"it cannot be read: {error.strerror}", stamp) from None


@contextlib.contextmanager
def open_file(path: str, step: StepHook = lambda _: None) -> Iterator[BinaryIO]:
    """
    Open a regular file for reading, without blocking and without following links.

    :raises Unusable: it is not a regular file, or cannot be read.
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
    Read an administrator's file, which may be a link, without blocking on a FIFO.

    :param limit: maximum size in bytes.
    :raises OSError: it cannot be read, is not a regular file, or is too long.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a file", path)
    with open(os.open(path, os.O_RDONLY | _UNWAITED), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
    return content


@contextlib.contextmanager
def new_file(path: str, what: str, step: StepHook = lambda _: None) -> Iterator[BinaryIO]:
    """
    Create a file that only its owner can read; at the end of the block it is synced to disk.

    If the block fails, the file is deleted.

    :param what: a word for it, in the names of the steps.
    :raises FileExistsError: the name is taken.
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
    Check that one of lonc's folders is not a link. Its parents may be links.

    :raises OSError: it does not exist, or is not a folder, or a link.
    """
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a symbolic link; it must be a folder itself", path)
    if not stat.S_ISDIR(mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def make_own_folder(path: str, mode: int = 0o777) -> bool:
    """
    Create one of lonc's folders if it is missing; return whether it was.

    :raises OSError: it cannot be created, or is not a folder, or a link.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        check_own_folder(path)
        return False
    return True


def check_owner(path: str) -> None:
    """
    Check that a folder belongs to lonc's user, to root, or to the owner of its parent.

    :raises OSError: it belongs to another user, who could remove files in it.
    """
    owners = {0, os.geteuid(), os.stat(os.path.dirname(path)).st_uid}
    if os.lstat(path).st_uid not in owners:
        raise OSError(errno.EPERM, "it belongs to another user", path)


def open_own(path: str, flags: int, mode: int = 0o600) -> int:
    """
    Open or create one of lonc's own files; return its descriptor.

    :param flags: those of ``os.open``, without ``O_TRUNC``, since the file might belong to others.
    :raises OSError: it cannot be opened, is a link, a FIFO or a socket, or has another name too.
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
    if (regular and info.st_nlink <= 1) or stat.S_ISCHR(
        info.st_mode
    ):  # only root can create devices
        return fd
    os.close(fd)
    if regular:
        raise OSError(errno.EMLINK, LINKED, path)
    raise OSError(errno.EINVAL, "it is not a regular file", path)


def replace_file(path: str, content: bytes, sync: bool = True) -> None:
    """
    Atomically replace a file that everybody may read.

    :param sync: whether to sync it, so that this also holds after a power failure.
    :raises OSError: it cannot be written; the previous file is left.
    """
    # A fixed name, so that a file left by a crash is removed by the next call.
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    with open(os.open(new, CREATE, 0o644), "wb") as file:
        os.fchmod(file.fileno(), 0o644)  # regardless of the umask
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    os.replace(new, path)
    if sync:
        sync_folder(os.path.dirname(path))


class RestingFolder:
    """
    Detects that a folder is unchanged, so that its files need not be checked one by one.
    """

    def __init__(self) -> None:
        self._state: list[tuple[int, int, int, int] | None] = [None]
        self._looks = 0

    def rests(self, path: str, *inner: str) -> bool:
        """
        Return whether a folder and its subfolders have been unchanged for some checks.

        A missing folder does not count as unchanged; subfolders may be missing.
        """
        state = [_folder_state(each) for each in (path, *inner)]
        self._looks = self._looks + 1 if state[0] is not None and state == self._state else 0
        self._state = state
        return self._looks >= REST_AFTER and self._looks % LOOK_ANYWAY != 0

    def disturb(self) -> None:
        """Count it as changed, because something is missing there."""
        self._state = [None]


def _folder_state(path: str) -> tuple[int, int, int, int] | None:
    """Return a state that differs after a file was added or removed; None for no folder."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def _stamp_of_code() -> Stamp | None:
    try:
        return Stamp.of(os.stat(lonc.__file__))
    except OSError:  # being replaced
        return None


_STARTED_WITH: Final = _stamp_of_code()


def is_replaced() -> bool:
    """
    Return whether lonc was reinstalled, as by an upgrade, since this process started.

    Modules that are imported on demand may not match then: pages, and commands of the management
    port.
    """
    return _stamp_of_code() != _STARTED_WITH


def sync_folder(path: str) -> None:
    """Sync a folder, so that a power failure does not undo changes in it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
