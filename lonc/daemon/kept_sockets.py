"""
Listening sockets that the service manager stores during a restart: new clients wait meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from twisted.internet.interfaces import IListeningPort

from lonc.daemon.systemd import Manager, name_of
from lonc.local.client_socket import ClientListener
from lonc.local.protocol import ClientProtocol
from lonc.transport.listening import Port
from lonc.transport.network import Keeper
from lonc.wire.request import CON_LOST


class KeptSockets(Keeper):
    """
    The sockets that the manager stores.

    A socket's name identifies its file, so a socket whose file was replaced is not used again.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._names: dict[Port, str] = {}
        self._kept: set[Port] = set()
        self._left: set[Port] = set()
        self._resumed: set[str] = set()

    def claim(self, path: str) -> socket.socket | None:
        """Return the stored socket of a path, once; it listens. None if there is none."""
        name = _name(path)
        descriptor = None if name is None else self._manager.inherited.pop(name, None)
        if name is None or descriptor is None:
            return None
        kept = socket.socket(fileno=descriptor)
        if _listens_at(kept, path):
            self._resumed.add(name)
            return kept
        kept.close()
        self._manager.remove(name)
        return None

    @property
    def has_resumed(self) -> bool:
        """Whether any socket came from another process."""
        return bool(self._resumed)

    def store(self, path: str, port: IListeningPort) -> None:
        """Store a socket, if there is room; the manager may have it already."""
        name = _name(path)
        if not isinstance(port, Port) or name is None:
            return
        self._names[port] = name
        self.store_missing()

    def store_missing(self) -> None:
        """Send the manager the sockets that it was too busy for; called once a second."""
        if len(self._kept) == min(len(self._names), self._manager.room):
            return
        for port, name in self._names.items():
            if port not in self._kept and len(self._kept) < self._manager.room:
                if not self._manager.store(name, port.fileno()):
                    return
                self._kept.add(port)

    def release(self, port: IListeningPort) -> bool:
        """
        Make the manager drop a socket that will be closed.

        :return: True if it must not be closed, because the next lonc gets it.
        """
        if not isinstance(port, Port):
            return False
        name = self._names.pop(port, None)
        if port in self._left:
            return True
        if name is not None and port in self._kept:
            self._kept.discard(port)
            self._manager.remove(name)
        return False

    def copies(self) -> dict[str, int]:
        """
        Return duplicates of all descriptors, by name; the caller owns them.

        :raises OSError: the limit on open files is reached.
        """
        copies: dict[str, int] = {}
        try:
            for port, name in self._names.items():
                copies[name] = os.dup(port.fileno())
        except OSError:
            for each in copies.values():
                os.close(each)
            raise
        return copies

    def clients(self) -> Iterator[tuple[str, ClientProtocol]]:
        """Return all clients, each with the name of the socket that it connected to."""
        for port, name in list(self._names.items()):
            if isinstance(port.factory, ClientListener):
                for client in list(port.factory.clients):
                    yield name, client

    def serve(self, name: str, descriptor: int, data: bytes) -> None:
        """
        Serve a client that another process has accepted on the socket of this name.

        :param data: what that process has read from it.
        """
        for port, each in self._names.items():
            if each == name:
                port.serve(descriptor, data)
                return
        with socket.socket(fileno=descriptor) as client:  # the host is no longer in the table
            _refuse(client)

    def stop_accepting(self, handed_over: bool = False) -> bool:
        """
        Stop accepting clients on the sockets that the next lonc gets.

        :param handed_over: whether that lonc has all of them already.
        :return: whether there are any.
        """
        self._left = set(self._names) if handed_over else set(self._kept)
        for port in self._left:
            port.stop_accepting()
        return bool(self._left)

    def give_back(self) -> None:
        """Leave the sockets of another lonc, which continues to serve them; close all others."""
        for port, name in self._names.items():
            if name in self._resumed:
                self._left.add(port)
                port.stop_accepting()
            else:
                port.stopListening()
        while self._manager.inherited:
            os.close(self._manager.inherited.popitem()[1])

    def close_unclaimed(self) -> None:
        """Close the stored sockets that nobody claimed; clients that wait there get con_lost."""
        while self._manager.inherited:
            name, descriptor = self._manager.inherited.popitem()
            self._manager.remove(name)
            with socket.socket(fileno=descriptor) as kept:
                if kept.family == socket.AF_UNIX:
                    _dismiss(kept, name)


def _dismiss(kept: socket.socket, name: str) -> None:
    path = os.fsdecode(kept.getsockname())
    with contextlib.suppress(OSError):
        if _name(path) == name:
            os.unlink(path)
        kept.shutdown(socket.SHUT_RD)
        kept.setblocking(False)
        while True:
            with kept.accept()[0] as client:
                _refuse(client)


def _refuse(client: socket.socket) -> None:
    client.setblocking(False)
    with contextlib.suppress(OSError):
        client.send(CON_LOST)


def _listens_at(kept: socket.socket, path: str) -> bool:
    with contextlib.suppress(OSError):
        return (
            kept.family == socket.AF_UNIX
            and kept.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            and os.fsdecode(kept.getsockname()) == path
        )
    return False


def _name(path: str) -> str | None:
    """Return the name under which the socket of a path is stored, None if it has no file."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return name_of(f"{path}@{found.st_dev:x}.{found.st_ino:x}")
