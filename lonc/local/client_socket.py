# Twisted's delayed calls have no annotations:
# mypy: allow-untyped-calls
"""
The UNIX socket of a host, and the clients connected to it.
"""

from __future__ import annotations

import os
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime
from twisted.internet.protocol import Factory

from lonc.local.limits import Clients
from lonc.local.protocol import ClientProtocol, RequestTaker
from lonc.transport.network import Keeper, Network, listen
from lonc.transport.unix_socket import GroupError, SocketError, SocketFile

#: Clients that may wait to be accepted; the kernel limits it to net.core.somaxconn.
BACKLOG: Final = 1024

#: Seconds for clients to read their last answers when a host stops.
FAREWELL: Final = 1.0


class ClientListener(Factory):
    """
    The factory of the clients of one host.

    :ivar clients: the connected clients.
    :ivar finished: whether clients are no longer served.
    """

    noisy = False

    def __init__(self, host: RequestTaker, shared: Clients) -> None:
        self._host = host
        self._shared = shared
        self._empty: Deferred[None] | None = None
        self.clients: dict[ClientProtocol, None] = {}  # needs less memory than a set
        self.finished = False

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:  # type: ignore[override]
        """Return the protocol of a new client."""
        return ClientProtocol(self._host, self._shared, self)

    def forget(self, client: ClientProtocol) -> None:
        """Remove a disconnected client."""
        self.clients.pop(client, None)
        if self._empty is not None and not self.clients:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def finish(self) -> Deferred[None]:
        """
        Dismiss all clients; fires when they have disconnected, at the latest after `abort`.
        """
        self.finished = True
        if not self.clients:
            return succeed(None)
        self._empty = empty = Deferred[None]()
        for client in list(self.clients):
            client.dismiss()
        return empty

    def abort(self) -> None:
        """Close all clients immediately."""
        for client in list(self.clients):
            client.close_now()


class ClientSocket:
    """
    Listens for the clients of a host; it can be moved while they stay connected (rows S4 and F14).

    :param host: accepts their requests.
    :param shared: the limits on all clients.
    :param keeper: may hold a socket from before a restart, and keeps this one.
    """

    __slots__ = ("_clock", "_file", "_keeper", "_listener", "_network", "_port")

    def __init__(
        self,
        host: RequestTaker,
        shared: Clients,
        network: Network,
        keeper: Keeper,
        clock: IReactorTime,
    ) -> None:
        self._listener = ClientListener(host, shared)
        self._network = network
        self._keeper = keeper
        self._clock = clock
        self._port: IListeningPort | None = None
        self._file = SocketFile("")

    @property
    def clients(self) -> int:
        """The number of connected clients."""
        return len(self._listener.clients)

    def open(self, path: str, mode: int, group: int | None) -> None:
        """
        Listen at a path; a socket open at another path is closed.

        :param group: a group id, None to leave the group unchanged.
        :raises SocketError: the message contains the path.
        """
        try:
            if path != self._file.path or not self.intact:
                self.close()
                self._port = listen(
                    self._network, self._keeper, path, self._listener, BACKLOG, mode
                )
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
