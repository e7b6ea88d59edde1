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


def peer_of(connected: socket.socket) -> Peer:
    """Return who has connected, or who listens if this end has; `UNKNOWN` for no UNIX socket."""
    if connected.family != socket.AF_UNIX:
        return UNKNOWN
    try:
        found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError:  # it is closed
        return UNKNOWN
    pid, uid, _ = struct.unpack("iII", found)
    return Peer(pid, -1 if uid == _NOBODY else uid)
