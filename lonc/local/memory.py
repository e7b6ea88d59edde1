"""
What requests take in memory, of all clients together (row F3).

A usual request is not counted, so it costs nothing here: each client may have `UNCOUNTED` bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lonc.wire.request import Cause, Nobody, Request

if TYPE_CHECKING:
    from lonc.local.protocol import ClientProtocol

#: Bytes of requests that each client may have without being counted: many times a usual request,
#: and 32 MiB for the 4,096 clients that there may be unless set otherwise.
UNCOUNTED = 8192


class RequestMemory:
    """
    Counts the bytes of requests, those begun, those sent ahead and those under way.

    :param limit: how many there may be.
    :ivar used: how many there are.
    :ivar clients: who has more than `UNCOUNTED` of them -> how many.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.clients: dict[ClientProtocol, int] = {}

    def note(self, client: ClientProtocol, size: int) -> None:
        """
        Take over how many bytes there are of a client's requests.

        Past the limit, who has sent most that is not under way yet gets ``con_lost`` and is
        closed, perhaps this client: memory is free at once, and nobody has to wait for others
        who may wait for him. A request that is larger than the limit passes when it is alone.
        """
        before = self.clients.pop(client, 0)
        if size <= UNCOUNTED:
            size = 0
        else:
            self.clients[client] = size
        self.used += size - before
        if size > before:
            while self.used > max(self.limit, size) and client in self.clients:
                max(self.clients, key=_ahead).give_up_line(
                    "the memory for requests is used up", Cause.MEMORY
                )

    def forget(self, client: ClientProtocol, request: Request | None, waited: bool) -> None:
        """
        A client takes no answer any more.

        :param request: what it had under way.
        :param waited: whether that still waited, and is gone now; else it is in memory until its
            answer has come.
        """
        size = len(request.line) if request is not None else 0
        counted = self.clients.pop(client, 0)
        if request is None:
            self.used -= counted
        elif waited or not counted:
            request.asker = _NOBODY
            self.used -= counted
        else:
            request.asker = Abandoned(self, size)
            self.used += size - counted


class Abandoned(Nobody):
    """The asker of a large request whose client has gone: it counts until it has ended."""

    def __init__(self, memory: RequestMemory, size: int) -> None:
        self._memory = memory
        self._size = size

    def answered(self, reply: bytes) -> None:
        """Throw the reply away."""
        self._memory.used -= self._size

    def lost(self, cause: Cause) -> None:
        """Count the request no more."""
        self._memory.used -= self._size


def _ahead(client: ClientProtocol) -> int:
    return client.ahead


_NOBODY = Nobody()
