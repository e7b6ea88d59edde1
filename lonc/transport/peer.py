"""
The process at the other end of a UNIX socket.
"""

from __future__ import annotations

import socket
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
    except OSError:  # closed
        return UNKNOWN
    finally:
        handle.detach()
    pid, uid, _ = _UCRED.unpack(found)
    return Peer(pid, -1 if uid == _NOBODY else uid)
