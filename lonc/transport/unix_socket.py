"""
A host's UNIX socket, and what may already exist at its path (rows S4 and F14).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from lonc.transport.listening import SocketFile
from lonc.transport.network import Network
from lonc.transport.peer import peer_of

#: Clients that may wait to be accepted; the kernel limits it to net.core.somaxconn.
BACKLOG = 1024


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


class Keeper(Protocol):
    """Keeps listening sockets open across a restart."""

    def claim(self, path: str) -> socket.socket | None:
        """Return the kept listening socket of this path, if any; only once."""

    def store(self, path: str, port: IListeningPort) -> None:
        """Keep a socket from now on."""

    def release(self, port: IListeningPort) -> bool:
        """Stop keeping it; return whether it has to be left open instead of closed."""


class NoKeeper:
    """A keeper that does nothing: sockets end with the process."""

    def claim(self, path: str) -> None:
        """Return None: no socket was kept."""

    def store(self, path: str, port: IListeningPort) -> None:
        """Do nothing: the socket ends with the process."""

    def release(self, port: IListeningPort) -> bool:
        """Return False: the socket is to be closed."""
        return False


def listen(
    network: Network, keeper: Keeper, path: str, factory: Factory, backlog: int, mode: int
) -> IListeningPort:
    """
    Listen on the kept socket, or on a new one, which is kept from now on.

    :raises SocketError: another process is listening there, or something else exists at the path.
    :raises CannotListenError: listening failed.
    """
    kept = keeper.claim(path)
    if kept is None:
        clear_stale_socket(path)
        port = network.listenUNIX(path, factory, backlog, mode)
    else:
        port = network.resumeUNIX(kept, path, factory, backlog, mode)
    keeper.store(path, port)
    return port


class LocalSocket:
    """
    A listening UNIX socket that can be moved while its clients stay connected.

    :param keeper: may hold a socket from before a restart, and keeps this one.
    """

    def __init__(self, network: Network, factory: Factory, keeper: Keeper) -> None:
        self._network = network
        self._factory = factory
        self._keeper = keeper
        self._port: IListeningPort | None = None
        self._file = SocketFile("")

    def open(self, path: str, mode: int, group: int | None) -> None:
        """
        Listen at a path; a socket open at another path is closed.

        :param group: a group id, None to leave the group unchanged.
        :raises SocketError: the message contains the path.
        """
        try:
            if path != self._file.path or not self.intact:
                self.close()
                self._port = listen(self._network, self._keeper, path, self._factory, BACKLOG, mode)
                self._file = SocketFile(path)
            if self.intact:  # not a file that replaced it meanwhile
                os.chmod(path, mode)
        except CannotListenError as error:
            raise SocketError(f"{path}: {error.socketError}") from None
        except OSError as error:
            raise SocketError(f"{path}: {error.strerror}") from None
        try:
            if group is not None and self.intact:
                os.chown(path, -1, group)
        except OSError as error:
            raise GroupError(f"{path}: not for group {group}: {error.strerror}") from None

    @property
    def intact(self) -> bool:
        """Whether clients can reach it: the file may have been removed or replaced."""
        return self._port is not None and self._file.intact

    def close(self) -> Deferred[object]:
        """
        Stop listening and remove the file, unless the next lonc process takes over both.

        :return: fires when done.
        """
        port, self._port = self._port, None
        if port is None or self._keeper.release(port):
            return succeed(None)
        # Immediately: the port may take a while, and another may be opened there meanwhile.
        self._file.remove()
        return maybeDeferred(port.stopListening).addErrback(lambda _: None)
