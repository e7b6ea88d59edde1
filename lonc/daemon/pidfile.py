"""
``lonc.pid``, which is the daemon's lock as well (row S3).

The lock is the kernel's, so what a crash leaves behind never stops the next start, whichever
process has the old number by then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from lonc.disk.files import open_own


class PidFileError(Exception):
    """The pid file cannot be had: another lonc runs, or the file cannot be written."""


class PidFile:
    """One process's claim to a set of folders."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._is_anothers = False

    def acquire(self) -> None:
        """
        Claim it; the claim survives a fork.

        :raises PidFileError: naming the process that has it, or why it cannot be written.
        """
        while True:
            try:
                descriptor = open_own(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise PidFileError(f"{self._path}: {error.strerror}") from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
                os.close(descriptor)
                raise PidFileError(
                    f"another lonc runs on these folders: process {pid} ({self._path})"
                ) from None
            except OSError as error:
                os.close(descriptor)
                raise PidFileError(f"{self._path}: {error.strerror}") from None
            if self._is_current(descriptor):
                self._descriptor = descriptor
                return
            # The one before us removed the file after we opened it.
            os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def adopt(self, descriptor: int) -> None:
        """Have the claim that another process has passed on; it is its own until `write`."""
        self._descriptor = descriptor
        self._is_anothers = True

    def share(self) -> int:
        """Return another descriptor of the claim; it lasts until the last one is closed."""
        assert self._descriptor is not None
        return os.dup(self._descriptor)

    def leave(self) -> None:
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
            raise PidFileError(f"{self._path}: it is free for others; what has stopped stays so")
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            raise PidFileError(f"{self._path}: {error.strerror}") from None
        self._is_anothers = False

    def release(self) -> None:
        """
        Remove the file, unless it is another process's, or somebody has put another in its place.

        One that cannot be removed is left there: no start is stopped by it.
        """
        if self._is_anothers:
            self.leave()
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        with contextlib.suppress(OSError):
            if self._is_current(descriptor):
                os.unlink(self._path)
        os.close(descriptor)
