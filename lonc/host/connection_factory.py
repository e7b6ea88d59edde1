# Twisted's Failure has no annotations:
# mypy: allow-untyped-calls
"""
Connecting to a lond: looking up its name and trying its addresses in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from lonc.host.connection import LondConnection
from lonc.host.connection_states import Trouble
from lonc.transport.listening import NO_DESCRIPTORS
from lonc.transport.network import Network


class LondConnectionFactory(ClientFactory):
    """
    Makes one :class:`LondConnection`: looks up the name if there is no address, and tries the
    addresses in turn, all within one time limit (row F12).

    :param port: of the lond.
    :param timeout: seconds for look-up and connecting together, from now on.
    """

    noisy = False

    def __init__(
        self,
        connection: LondConnection,
        network: Network,
        look_up: Callable[[str], Deferred[list[str]]],
        clock: IReactorTime,
        port: int,
        timeout: float,
    ) -> None:
        self._connection = connection
        self._network = network
        self._look_up = look_up
        self.clock = clock
        self._port = port
        self._timeout = timeout
        self._deadline = clock.seconds() + timeout
        self._addresses: Sequence[str] = ()
        self._pending: Deferred[list[str]] | None = None
        self._connector: IConnector | None = None
        assert connection.beginning is not None
        connection.beginning.attempt = self

    def connect(self, target: str) -> None:
        """
        Look up the target if it is a name, and connect.

        :param target: an address, or a name to look up.
        """
        self._pending = looking = self._look_up(target)
        if not looking.called:
            looking.addTimeout(self._timeout, self.clock)
        looking.addCallbacks(self._try, self._unknown, errbackArgs=(target,))

    def _unknown(self, failure: Failure, name: str) -> None:
        self._pending = None
        if failure.check(TimeoutError):
            message = f"no address for {name} after {self._timeout:g} s"
        else:
            message = f"no address for {name}: {failure.getErrorMessage()}"
        self._connection.not_made(Trouble.LOOK_UP, message)

    def _try(self, addresses: Sequence[str]) -> None:
        self._pending = None
        self._addresses = addresses[1:] or ()
        self._connection.address = addresses[0]
        # An unresponsive address must leave time for the others.
        share = (self._deadline - self.clock.seconds()) / len(addresses)
        self._connector = self._network.connectTCP(
            addresses[0], self._port, self, max(share, 0.001)
        )

    def buildProtocol(self, addr: IAddress | None) -> LondConnection:  # type: ignore[override]
        """Return the connection."""
        self._connector = None  # it refers to us: avoids a reference cycle
        return self._connection

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Try the next address, or report the failure to the connection."""
        if self._addresses and self.clock.seconds() < self._deadline:
            self._try(self._addresses)
            return
        if reason.check(ConnectTimeout):
            trouble, message = Trouble.TIMEOUT, f"no connection after {self._timeout:g} s"
        elif reason.check(ConnectionRefusedError):
            trouble, message = Trouble.REFUSED, "nobody listens there"
        elif getattr(reason.value, "osError", None) in NO_DESCRIPTORS:
            trouble, message = Trouble.NO_FILES, "lonc has no file descriptors left"
        elif reason.check(DNSLookupError):
            trouble, message = Trouble.LOOK_UP, reason.getErrorMessage()
        elif reason.check(ConnectError):
            trouble, message = Trouble.UNREACHABLE, reason.getErrorMessage()
        else:
            trouble, message = Trouble.UNREACHABLE, repr(reason.value)
        self._connection.not_made(trouble, message)

    def give_up(self) -> None:
        """Stop trying, without reporting anything to the connection."""
        self._addresses = ()
        if self._pending is not None:
            self._pending.cancel()
        elif self._connector is not None:
            self._connector.disconnect()
