# Twisted's delayed calls have no annotations:
# mypy: allow-untyped-calls
"""
The UNIX socket of a host, and the clients connected to it.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from lonc.local.limits import Clients
from lonc.local.protocol import ClientListener, RequestTaker
from lonc.transport.network import Network
from lonc.transport.unix_socket import Keeper, LocalSocket

#: Seconds for clients to read their last answers when a host stops.
FAREWELL: Final = 1.0


class ClientSocket(LocalSocket):
    """
    Listens for the clients of a host (rows S4 and F14).

    :param host: accepts their requests.
    :param shared: the limits on all clients.
    :param keeper: keeps the socket open across a restart.
    """

    def __init__(
        self,
        host: RequestTaker,
        shared: Clients,
        network: Network,
        keeper: Keeper,
        clock: IReactorTime,
    ) -> None:
        self._listener = ClientListener(host, shared)
        super().__init__(network, self._listener, keeper)
        self._clock = clock

    @property
    def clients(self) -> int:
        """The number of connected clients."""
        return len(self._listener.clients)

    async def dismiss(self, closed: Deferred[object]) -> None:
        """
        Let the clients read their last answers, and close their connections.

        :param closed: the result of :meth:`close`; clients may be accepted until it fires.
        """
        farewell = self._clock.callLater(FAREWELL, self._listener.abort)
        await self._listener.finish()
        await closed
        await self._listener.finish()  # also those accepted late for lack of descriptors
        if farewell.active():
            farewell.cancel()
