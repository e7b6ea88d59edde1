"""
Who is at the other end of a UNIX socket.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple


class Peer(NamedTuple):
    """
    A process and its user, by their numbers.

    :ivar pid: 0 where the kernel does not tell, as for a process of another pid namespace.
    :ivar uid: -1 where it does not tell.
    """

    pid: int
    uid: int


UNKNOWN: Final = Peer(0, -1)
_NOBODY: Final = 2**32 - 1
_UCRED: Final = struct.Struct("iII")


def peer_of(connected: socket.socket) -> Peer:
    """Return who has connected, or who listens if this end has; `UNKNOWN` for no UNIX socket."""
    return peer_at(connected.fileno()) if connected.family == socket.AF_UNIX else UNKNOWN


def peer_at(descriptor: int) -> Peer:
    """
    Return who is at the other end of the UNIX socket with this descriptor, as `peer_of`.

    It makes no ``socket.socket``, for each client that waits may be asked for it.
    """
    if descriptor < 0:
        return UNKNOWN
    handle = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
    try:
        found = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:  # it is closed
        return UNKNOWN
    finally:
        handle.detach()
    pid, uid, _ = _UCRED.unpack(found)
    return Peer(pid, -1 if uid == _NOBODY else uid)
