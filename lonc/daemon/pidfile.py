"""
``lonc.pid``, which is the daemon's lock as well (row S3).

The lock is the kernel's, so what a crash leaves behind never stops the next start, whichever
process has the old number by then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from time import monotonic, sleep

from lonc.disk.files import open_own


class PidFileError(Exception):
    """The pid file cannot be had: another lonc runs, or the file cannot be written."""


def holder_of(path: str) -> str:
    """Return the number of the lonc that has a pid file, empty where none has."""
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
    One process's claim to a set of folders.

    :ivar path: of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, patience: float = 0.0) -> None:
        """
        Claim it; the claim survives a fork.

        :param patience: seconds in which who has it may go.
        :raises PidFileError: naming the process that has it, or why it cannot be written.
        """
        until = monotonic() + patience
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
                    f"another lonc runs on these folders: process {pid} ({self.path})"
                ) from None
            except OSError as error:
                os.close(descriptor)
                raise PidFileError(f"{self.path}: {error.strerror}") from None
            if self._is_current(descriptor):
                self._descriptor = descriptor
                return
            # The one before us removed the file after we opened it.
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
        """Have the claim that another process has passed on."""
        self._descriptor = descriptor

    def duplicate(self) -> int:
        """Return another descriptor of the claim; it lasts until the last one is closed."""
        assert self._descriptor is not None
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Leave file and claim to the process that has another descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def write(self) -> None:
        """
        Note this process's id; after the fork that makes a daemon.

        :raises PidFileError: it is not claimed, or no more; or it cannot be written.
        """
        if self._descriptor is None:
            raise PidFileError(f"{self.path}: it is free for others; what has stopped stays so")
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
        Write the file again where somebody has deleted it, or it names another process.

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
            raise PidFileError(f"{self.path}: somebody has put another file in its place")
        descriptor = self._opened(os.O_CREAT | os.O_EXCL)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # another lonc has been quicker
            os.close(descriptor)
            raise PidFileError(f"{self.path}: {error.strerror}") from None
        os.close(self._descriptor)
        self._descriptor = descriptor
        self.write()
        return True

    def release(self) -> None:
        """
        Remove the file, unless somebody has put another in its place.

        One that cannot be removed is left there: no start is stopped by it.
        """
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        with contextlib.suppress(OSError):
            if self._is_current(descriptor):
                os.unlink(self.path)
        os.close(descriptor)
