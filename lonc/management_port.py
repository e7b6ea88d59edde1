# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
Where the management port listens.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from lonc.management import Daemon, ManagementFactory
from lonc.sockets import SocketError, clear_stale_socket

#: The path in an endpoint's description, where colons and backslashes are escaped.
_UNIX = re.compile(r"unix:(?:address=)?((?:[^:\\]|\\.)+)")


class ManagementPortError(Exception):
    """The management port cannot be had; the message names its description, for a person."""


class ManagementPort(Service):
    """
    Listens for management connections on a Twisted endpoint.

    :param description: a server endpoint description.
    """

    def __init__(self, reactor: Any, daemon: Daemon, description: str) -> None:
        self.setName("management")
        self.description = description
        self._reactor = reactor
        self._factory = ManagementFactory(daemon, reactor)
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """
        Listen.

        :raises ManagementPortError: when that cannot be.
        """
        super().startService()
        try:
            unix = _UNIX.match(self.description)
            if unix is not None:
                path = re.sub(r"\\(.)", r"\1", unix[1])
                clear_stale_socket(path)
                # Twisted's lock holds a process id, which another process may have by now.
                with contextlib.suppress(OSError):
                    os.unlink(f"{path}.lock")
            endpoint = serverFromString(self._reactor, self.description)
            listening = endpoint.listen(self._factory)
        except (SocketError, ValueError, TypeError, KeyError, LookupError) as error:
            raise ManagementPortError(f"management port {self.description}: {error}") from None
        failures: list[Failure] = []
        listening.addCallbacks(self._listens, failures.append)
        for failure in failures:
            reason = failure.value
            told = reason.socketError if isinstance(reason, CannotListenError) else reason
            raise ManagementPortError(f"management port {self.description}: {told}")

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    @inlineCallbacks
    def stopService(self):  # type: ignore[no-untyped-def]
        """Listen no more and close every connection; fires when all is closed."""
        super().stopService()
        port, self._port = self._port, None
        if port is not None:
            yield port.stopListening()
        closed: Deferred[None] = self._factory.disconnect()
        yield closed
