"""
The pid file ``lonc.pid``, which is also the daemon's lock (row S3), and who uses the sockets.

The kernel releases the lock when the process ends, so a file left behind by a crash never
prevents a start, whatever process has the old process id by then. loncnew does not lock the file: a
lonc started beside it would overwrite it, delete it at its end, and get none of the sockets.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from itertools import islice
from time import monotonic, sleep

from lonc.config.hosts import HostTable
from lonc.config.settings import Settings
from lonc.disk.files import open_own
from lonc.transport.unix_socket import listener_at


class PidFileError(Exception):
    """Another lonc holds the pid file, or it cannot be written."""


def holder_of(path: str) -> str:
    """Return the process id of the lonc that holds a pid file, empty if none does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _number_in(descriptor)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return ""


def _number_in(descriptor: int) -> str:
    return os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"


class PidFile:
    """
    The pid file, locked by one process for a set of folders.

    :ivar path: the path of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._was_there = False

    def acquire(self, patience: float = 0.0) -> None:
        """
        Lock the file; the lock survives a fork.

        :param patience: seconds to wait for another holder.
        :raises PidFileError: another process holds it, or another reason.
        """
        until = monotonic() + patience
        self._was_there = os.path.lexists(self.path)
        while True:
            descriptor = self._opened(os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = _number_in(descriptor)
                os.close(descriptor)
                if monotonic() < until:
                    sleep(0.02)
                    continue
                raise PidFileError(
                    f"another lonc is already running in these folders: process {pid} ({self.path})"
                ) from None
            except OSError as error:
                os.close(descriptor)
                raise PidFileError(f"{self.path}: {error.strerror}") from None
            if self._is_current(descriptor):
                self._descriptor = descriptor
                return
            # Its previous holder deleted the file after it was opened here.
            os.close(descriptor)

    def _opened(self, flags: int) -> int:
        try:
            return open_own(self.path, os.O_RDWR | flags, 0o644)
        except OSError as error:
            raise PidFileError(f"{self.path}: {error.strerror}") from None

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def adopt(self, descriptor: int) -> None:
        """Use the locked descriptor that another process has handed over."""
        self._descriptor = descriptor

    def duplicate(self) -> int:
        """Return another descriptor of the lock, which is held until the last one is closed."""
        assert self._descriptor is not None
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Leave the file and the lock to the process that has another descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def abandon(self) -> None:
        """Release the lock, and leave the file as it was before: it may be loncnew's."""
        if self._was_there:
            self.close()
        else:
            self.release()

    def write(self) -> None:
        """
        Write this process's id, after the fork into the background.

        :raises PidFileError: the lock is not held, or the file cannot be written.
        """
        if self._descriptor is None:
            raise PidFileError(
                f"{self.path}: released; a service that has stopped cannot be started again"
            )
        content = self._content
        try:
            os.pwrite(self._descriptor, content, 0)  # never empty, even on a full disk
            os.ftruncate(self._descriptor, len(content))
        except OSError as error:
            raise PidFileError(f"{self.path}: {error.strerror}") from None

    @property
    def _content(self) -> bytes:
        return b"%d\n" % os.getpid()

    def restore(self) -> bool:
        """
        Write the file again if it was deleted or names another process.

        :return: whether that was needed.
        :raises PidFileError: another file is there, or it cannot be written.
        """
        if self._descriptor is None:
            return False
        if self._is_current(self._descriptor):
            if os.pread(self._descriptor, 32, 0) == self._content:
                return False
            self.write()
            return True
        if os.path.lexists(self.path):
            raise PidFileError(f"{self.path}: another file has replaced it")
        descriptor = self._opened(os.O_CREAT | os.O_EXCL)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # another lonc was faster
            os.close(descriptor)
            raise PidFileError(f"{self.path}: {error.strerror}") from None
        os.close(self._descriptor)
        self._descriptor = descriptor
        self.write()
        return True

    def release(self) -> None:
        """
        Delete the file, unless it was replaced, and release the lock.

        A file that cannot be deleted prevents no start.
        """
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        with contextlib.suppress(OSError):
            if self._is_current(descriptor):
                os.unlink(self.path)
        os.close(descriptor)


#: Number of sockets that are checked: a lonc serves all hosts of its table.
LOOKED_AT = 20


def who_serves(settings: Settings, table: HostTable) -> str:
    """
    Return a sentence about who listens on the hosts' sockets; empty if nobody does.

    More than half of the sockets must be in use: a program on the socket of a single host is not a
    lonc, and does not prevent serving the other hosts.
    """
    hosts = list(islice(table.hosts.values(), LOOKED_AT))
    by_name = settings.socket_names == "hostname"
    paths = [settings.socket_path(host.hostname if by_name else host.id) for host in hosts]
    found = [(path, pid) for path in paths if (pid := listener_at(path)) is not None]
    if 2 * len(found) <= len(paths):
        return ""
    path, pid = found[0]
    who = f"process {pid}" if pid else "a process"
    return f"loncnew or another lonc serves the sockets in {settings.sock_dir}: {who} has {path}"
