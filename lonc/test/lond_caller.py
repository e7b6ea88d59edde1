# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""A lond under test, and a lonc that calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lonc.cipher import SessionCipher, session_key
from lonc.lond.protocol import LondFactory


class Caller:
    """A lonc at the other end of a transport that only remembers."""

    def __init__(self, factory: LondFactory, address: str = "127.0.0.1") -> None:
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", address, 40000))
        self.lond = factory.buildProtocol(None)
        self.lond.makeConnection(self.transport)

    def heard(self) -> bytes:
        """Return what the lond said since the last time."""
        said: bytes = self.transport.value()
        self.transport.clear()
        return said

    def say(self, line: bytes) -> bytes:
        """Say a line, and return what is heard at once."""
        self.lond.dataReceived(line + b"\n")
        return self.heard()

    def enter(self) -> None:
        """Go through the handshake as far as ``ok``."""
        assert self.say(self.say(b"init")[:-1]) == b"ok\n"

    def cipher(self) -> SessionCipher:
        """Ask for a key."""
        return SessionCipher(session_key("l2", "l1", self.say(b"ekey")[:-1]))

    @property
    def hung_up(self) -> bool:
        """Whether the lond has closed the connection."""
        return bool(self.transport.disconnecting)

    def hang_up(self) -> None:
        """Let the connection be gone."""
        self.lond.connectionLost(Failure(ConnectionDone()))


class LondTestCase(SynchronousTestCase):
    """A lond ``l2`` and a clock."""

    def setUp(self) -> None:
        """Set the clock."""
        self.clock = Clock()
        self.requests: list[bytes] = []
        self.factories: list[LondFactory] = []
        self.addCleanup(self.no_calls_left)

    def lond(self, caller: str | Mapping[str, str] = "l1", **options: Any) -> LondFactory:
        """Make the lond."""
        factory = LondFactory(self.clock, "l2", caller, witness=self.requests.append, **options)
        self.factories.append(factory)
        return factory

    def no_calls_left(self) -> None:
        """See that nothing goes on once the connections are gone."""
        for factory in self.factories:
            for connection in list(factory.connections):
                connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def entered(self, **options: Any) -> Caller:
        """Give a caller of a new lond that is past the handshake."""
        caller = Caller(self.lond(**options))
        caller.enter()
        return caller
