# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
One host of the network as a Service: its socket and its clients, its start, change and stop.

What becomes of a request is :mod:`lonc.host.dispatcher`'s.
"""

from __future__ import annotations

import time

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.dependencies import HostDependencies, Network
from lonc.host.dispatcher import Dispatcher
from lonc.local.protocol import ClientListener
from lonc.report.status import HostStatus
from lonc.transport.unix_socket import LocalSocket, SocketError

__all__ = ["FAREWELL", "HostDependencies", "HostService", "Network"]

#: Seconds that clients have to read their last answers when a host stops.
FAREWELL = 1.0


class HostService(Dispatcher, Service):
    """A host's Dispatcher with the socket that its clients find (rows S2, S4, F13 and F14)."""

    def __init__(self, host: Host, settings: Settings, around: HostDependencies) -> None:
        super().__init__(host, settings, around)
        self.setName(host.id)
        self._listener = ClientListener(self, around.clients)
        self._socket = LocalSocket(around.network, self._listener)
        self._stopped: Deferred[None] | None = None

    def startService(self) -> None:
        """
        Listen for clients.

        :raises lonc.transport.unix_socket.SocketError: naming the path.
        """
        super().startService()
        self.listen()

    def listen(self) -> None:
        """
        Listen on the socket that the settings name, if it is not there as it should be.

        :raises lonc.transport.unix_socket.SocketError: naming the path.
        """
        settings = self._settings
        if settings.socket_names == "hostname":
            self._socket.close()
            return
        path = settings.socket_path(self.host_id)
        if self.host_id in settings.reserved_names:
            raise SocketError(f"{path}: the name is taken by a file of lonc's own")
        self._socket.open(path, settings.socket_mode, settings.socket_group)

    @property
    def listening(self) -> bool:
        """Whether clients find the socket, if it shall be there: somebody may have removed it."""
        return self._settings.socket_names == "hostname" or self._socket.intact

    def reconfigure(self, host: Host, settings: Settings) -> None:
        """
        Take over a new row and new settings without disturbing an open request (row F13).

        Connections to another address, in another name or by ways in that have changed finish
        what they do and are not used again; clients notice nothing. The socket moves when its
        path, mode or group changed.

        :raises lonc.transport.unix_socket.SocketError: when it cannot.
        """
        super().reconfigure(host, settings)
        self.listen()

    def stopService(self) -> Deferred[None]:
        """
        Stop accepting, let what is in flight end, tell the rest ``con_lost``, and close.

        :return: fires when all its sockets are closed, after at most the drain timeout and a
            second; also when it stops already.
        """
        super().stopService()
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop())
        stopped: Deferred[None] = Deferred()
        self._stopped.addBoth(lambda result: stopped.callback(result))
        return stopped

    async def _stop(self) -> None:
        closed = self._socket.close()
        drained = self.drain()
        await closed
        await drained
        farewell = self._around.clock.callLater(FAREWELL, self._abort)
        await self._listener.finish()
        await self.all_closed()
        if farewell.active():
            farewell.cancel()

    def _abort(self) -> None:
        self._listener.abort()
        self.abort()

    @property
    def state(self) -> str:
        """What :meth:`status` says; these three are asked for each second."""
        return "stopping" if self.stopping else self._health.state

    @property
    def connections(self) -> int:
        """Connections to the lond, those too that are being made."""
        return len(self._pool)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return self._queue.waiting

    def status(self, delayed: int, last_log: str) -> HostStatus:
        """
        Report, but for what takes long to find out: see :attr:`times`.

        :param delayed: its delayed requests on disk.
        :param last_log: its last line in the log.
        """
        pool, queue, now = self._pool, self._queue, time.time()
        oldest = queue.oldest
        return HostStatus(
            host_id=self.host_id,
            state=self.state,
            connecting=len(pool.connecting),
            handshaking=len(pool.handshaking),
            idle=len(pool.idle),
            busy=len(pool.busy),
            clients=len(self._listener.clients),
            waiting=queue.waiting,
            oldest_waiter=self._seconds() - oldest.since if oldest else 0.0,
            retries_left=self._health.left,
            next_probe=self._health.next_probe,
            delayed=delayed,
            requests=self._requests,
            answers=self._answers,
            con_lost={cause.value: count for cause, count in self._con_lost.items()},
            lond_version=self._lond.version,
            mode=self._lond.mode,
            debug_level=self.debug_level,
            last_log=last_log,
            since=now - (self._seconds() - self._health.since),
            last_failure=self._last_failure,
            last_answer=now - (self._seconds() - self._last_answer)
            if self._last_answer >= 0.0
            else 0.0,
            handshakes={
                "ready": sum(self.times.handshaking.totals().counts),
                "failed": self._failed_handshakes,
            },
        )
