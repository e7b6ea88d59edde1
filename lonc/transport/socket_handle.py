"""
The socket behind a descriptor: its object, its addresses and its options.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import termios
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from lonc.transport.unix_socket import UNKNOWN, Peer, peer_at


class SocketHandle:
    """
    A connected socket, whose object is made when it is needed: a descriptor alone takes no memory.

    :ivar descriptor: of the socket.
    :ivar connected: whether the descriptor is open.
    """

    __slots__ = ("_socket", "connected", "descriptor")

    _socket: socket.socket | None
    connected: bool
    descriptor: int

    @property
    def unread(self) -> int:
        """The number of bytes in the kernel's receive buffer."""
        try:
            size = fcntl.ioctl(self.descriptor, termios.FIONREAD, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(size, sys.byteorder)

    @property
    def peer(self) -> Peer:
        """The process at the other end of a UNIX socket."""
        return peer_at(self.descriptor) if self.connected else UNKNOWN

    def getHandle(self) -> socket.socket:
        """Return the socket, which the transport continues to own."""
        if not self.connected:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        if self._socket is None:
            self._socket = socket.socket(fileno=self.descriptor)
        return self._socket

    def forget_handle(self) -> None:
        """Free the socket object, which must not be used any more, to save memory."""
        if self._socket is not None:
            self._socket.detach()
            self._socket = None

    def getHost(self) -> Any:
        """Return this side's address."""
        handle = self.getHandle()
        return _address(handle.family, handle.getsockname())

    def getPeer(self) -> Any:
        """Return the other side's address; ``UNIXAddress(None)`` if unnamed."""
        handle = self.getHandle()
        return _address(handle.family, handle.getpeername())

    def getTcpNoDelay(self) -> bool:
        """Return whether TCP_NODELAY is set; True for UNIX sockets."""
        handle = self.getHandle()
        if handle.family == socket.AF_UNIX:
            return True
        return bool(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set TCP_NODELAY."""
        if self.getHandle().family != socket.AF_UNIX:
            self.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Return whether TCP keepalive is enabled."""
        return bool(self.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Enable or disable TCP keepalive."""
        self.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


def _address(family: int, address: Any) -> IPv4Address | IPv6Address | UNIXAddress:
    if family == socket.AF_UNIX:
        return UNIXAddress(address or None)
    if family == socket.AF_INET6:
        return IPv6Address("TCP", *address)
    return IPv4Address("TCP", *address)
