"""
A host's UNIX socket, and what may be in its place in the file system (rows S4 and F14).
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

#: Clients that may wait to be accepted; the kernel cuts it to net.core.somaxconn.
BACKLOG = 1024


class SocketError(Exception):
    """A socket cannot be had; the message names its path and the reason, for a person."""


class GroupError(SocketError):
    """A socket is there, and lonc's user may not give it to the group that it is for."""


def listener_at(path: str) -> int | None:
    """Return the process that listens there, 0 for one that is not told, None for nobody."""
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
    Remove the socket that a crash left behind.

    :raises SocketError: when somebody listens on it, or it is no socket.
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
    """Who has listening sockets kept open over a restart."""

    def claim(self, path: str) -> socket.socket | None:
        """Return the socket of this path that was kept, once, if there is one: it listens."""

    def store(self, path: str, port: IListeningPort) -> None:
        """Have a socket kept from now on."""

    def release(self, port: IListeningPort) -> bool:
        """Have it kept no longer; return whether it has to be left as it is instead."""


class NoKeeper:
    """Stands in for a keeper where sockets end with the process."""

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
    Listen on the socket that was kept, or on a new one; it is kept from now on.

    :raises SocketError: when somebody listens there, or what is in the way is no socket.
    :raises CannotListenError: when it cannot be had.
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

    :param keeper: may have one from before, and keeps this.
    """

    def __init__(self, network: Network, factory: Factory, keeper: Keeper) -> None:
        self._network = network
        self._factory = factory
        self._keeper = keeper
        self._port: IListeningPort | None = None
        self._file = SocketFile("")

    def open(self, path: str, mode: int, group: int | None) -> None:
        """
        Listen there; what was open at another path is closed.

        :param group: a group id, None to leave it.
        :raises SocketError: naming the path.
        """
        try:
            if path != self._file.path or not self.intact:
                self.close()
                self._port = listen(self._network, self._keeper, path, self._factory, BACKLOG, mode)
                self._file = SocketFile(path)
            if self.intact:  # not what somebody has put there meanwhile
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
        """Whether clients find it: somebody may have removed or replaced the file."""
        return self._port is not None and self._file.intact

    def close(self) -> Deferred[object]:
        """
        Listen no more and take the file away, unless the next lonc has both.

        :return: fires when that is done.
        """
        port, self._port = self._port, None
        if port is None or self._keeper.release(port):
            return succeed(None)
        # At once, for the port may take its time, and another may be opened there meanwhile.
        self._file.remove()
        return maybeDeferred(port.stopListening).addErrback(lambda _: None)
