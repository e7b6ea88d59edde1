"""
The file of a UNIX socket, what may already exist at its path (row S4), and the process at the other
end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from typing import Final, NamedTuple


class Peer(NamedTuple):
    """
    The ids of a process and its user.

    :ivar pid: 0 if unknown, as for a process in another pid namespace.
    :ivar uid: -1 if unknown.
    """

    pid: int
    uid: int


UNKNOWN: Final = Peer(0, -1)
_NOBODY: Final = 2**32 - 1
_UCRED: Final = struct.Struct("iII")


def peer_of(connected: socket.socket) -> Peer:
    """Return the client, or the listening process; `UNKNOWN` if not a UNIX socket."""
    return peer_at(connected.fileno()) if connected.family == socket.AF_UNIX else UNKNOWN


def peer_at(descriptor: int) -> Peer:
    """
    Return the process at the other end of the UNIX socket with this descriptor, like `peer_of`.

    It creates no ``socket.socket`` object, since it may be called for each waiting client.
    """
    if descriptor < 0:
        return UNKNOWN
    handle = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
    try:
        found = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    finally:
        handle.detach()
    pid, uid, _ = _UCRED.unpack(found)
    return Peer(pid, -1 if uid == _NOBODY else uid)


class SocketError(Exception):
    """A socket cannot be opened; the readable message contains its path and the reason."""


class GroupError(SocketError):
    """A socket is open, but lonc's user may not change its group to the configured one."""


def listener_at(path: str) -> int | None:
    """Return the id of the process listening there, 0 if unknown, None if there is none."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            refused = probe.connect_ex(path)
        except OSError:  # the path is too long
            return None
        if refused == 0:
            return peer_of(probe).pid
        return 0 if refused == errno.EAGAIN else None


def clear_stale_socket(path: str) -> None:
    """
    Remove a socket left behind by a crash.

    :raises SocketError: a process is listening on it, or it is not a socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path}: something other than a socket is in the way")
    pid = listener_at(path)
    if pid is not None:
        who = f"process {pid}" if pid else "a process"
        raise SocketError(f"{path}: {who} is already listening there")
    try:
        os.unlink(path)
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}") from None


class SocketFile:
    """The file of a UNIX socket just created; others may remove or replace it."""

    __slots__ = ("_inode", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._inode = self._found()

    def _found(self) -> int | None:
        """Return device and inode as one number, which needs less memory than two."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return None
        return found.st_dev << 64 | found.st_ino

    @property
    def intact(self) -> bool:
        """Whether the file still exists and has not been replaced."""
        return self._inode is not None and self._found() == self._inode

    def remove(self) -> None:
        """Remove the file if it is intact, and forget it."""
        if self.intact:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.disown()

    def disown(self) -> None:
        """Forget the file, which now belongs to another process."""
        self._inode = None
