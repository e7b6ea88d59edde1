"""
The file of a UNIX socket: whether it is still there, and the same.
"""

from __future__ import annotations

import contextlib
import os


class SocketFile:
    """The file of a UNIX socket that has just been made: others may remove or replace it."""

    __slots__ = ("_inode", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._inode = self._found()

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @property
    def intact(self) -> bool:
        """Whether it is there, and no other in its place."""
        return self._inode is not None and self._found() == self._inode

    def remove(self) -> None:
        """Remove it if it is there; it is no longer ours."""
        if self.intact:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.disown()

    def disown(self) -> None:
        """Forget the file, which belongs to another process now."""
        self._inode = None
