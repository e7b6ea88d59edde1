# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
Where the management port listens.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from lonc.transport.unix_socket import clear_stale_socket

if TYPE_CHECKING:
    from lonc.management.server import Daemon, ManagementFactory, ManagementProtocol

#: The path in an endpoint's description, where colons and backslashes are escaped.
_UNIX = re.compile(r"unix:(?:address=)?((?:[^:\\]|\\.)+)")


class ManagementPortError(Exception):
    """The management port cannot be had; the message names its description, for a person."""


class _OnDemand(Factory):
    """Imports AMP when somebody comes: most of the time nobody does, and it takes two megabytes."""

    noisy = False

    def __init__(self, daemon: Daemon, reactor: Any) -> None:
        self._daemon = daemon
        self._reactor = reactor
        self._made: ManagementFactory | None = None

    def buildProtocol(self, addr: IAddress | None) -> ManagementProtocol | None:
        from lonc.management.server import ManagementFactory

        if self._made is None:
            self._made = ManagementFactory(self._daemon, self._reactor)
        return self._made.buildProtocol(addr)

    async def disconnect(self) -> None:
        if self._made is not None:
            await self._made.disconnect()


class ManagementPort(Service):
    """
    Listens for management connections on a Twisted endpoint.

    :param description: a server endpoint description.
    """

    def __init__(self, reactor: Any, daemon: Daemon, description: str) -> None:
        self.setName("management")
        self.description = description
        self._reactor = reactor
        self._factory = _OnDemand(daemon, reactor)
        self._port: IListeningPort | None = None
        self._moving = DeferredLock()

    def startService(self) -> None:
        """
        Listen.

        :raises ManagementPortError: when that cannot be.
        """
        super().startService()
        self._listen(self.description)

    async def move(self, description: str) -> None:
        """
        Listen elsewhere; connections that are open are closed.

        :raises ManagementPortError: when that cannot be, and it listens where it did.
        """
        async with self._moving:
            before = self.description
            if description == before and self._port is not None:
                return
            await self._close()
            try:
                self._listen(description)
            except ManagementPortError:
                self._listen(before)
                raise

    def _listen(self, description: str) -> None:
        try:
            unix = _UNIX.match(description)
            if unix is not None:
                path = re.sub(r"\\(.)", r"\1", unix[1])
                clear_stale_socket(path)
                # Twisted's lock holds a process id, which another process may have by now.
                with contextlib.suppress(OSError):
                    os.unlink(f"{path}.lock")
            endpoint = serverFromString(self._reactor, description)
            listening = endpoint.listen(self._factory)
        except Exception as error:  # endpoints raise whatever they like
            raise ManagementPortError(f"management port {description}: {error}") from None
        failures: list[Failure] = []
        listening.addCallbacks(self._listens, failures.append)
        for failure in failures:
            reason = failure.value
            told = reason.socketError if isinstance(reason, CannotListenError) else reason
            raise ManagementPortError(f"management port {description}: {told}")
        self.description = description

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None]:
        """Listen no more and close every connection; fires when all is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await self._factory.disconnect()
