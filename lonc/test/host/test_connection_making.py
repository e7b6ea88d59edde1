"""How a connection to a lond is made: look-up, addresses in turn, one time limit (row F12)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
)

from lonc.host.connection_factory import LondConnectionFactory
from lonc.host.connection_states import Trouble
from lonc.test.fixtures.doubles import (
    FakeNetwork,
    leave_pending,
)
from lonc.test.fixtures.lond_connection import ConnectionTestCase


class ConnectTests(ConnectionTestCase):
    """Row F12: look-up and connect."""

    def setUp(self) -> None:
        super().setUp()
        self.network = FakeNetwork(self.clock)
        self.network.on_connect = leave_pending
        self.looked_up: list[str] = []
        self.result: Deferred[list[str]] = Deferred()

    def look_up(self, name: str) -> Deferred[list[str]]:
        self.looked_up.append(name)
        return self.result

    def connect(self, result: Deferred[list[str]] | None = None) -> None:
        """Begin, within 5 seconds; the look-up has this result."""
        if result is not None:
            self.result = result
        factory = LondConnectionFactory(
            self.connection, self.network, self.look_up, self.clock, 5663, 5.0
        )
        factory.connect("l2.test")

    @property
    def tried(self) -> list[tuple[str, int, float]]:
        """The attempts: address, port, seconds."""
        return [(each.host, each.port, each.timeout) for each in self.network.attempts]

    def test_slow_look_up(self) -> None:
        """F12: while a name is looked up nothing waits for it; what it took is not given again."""
        self.connect()
        self.assertEqual(self.tried, [])
        self.clock.advance(4)
        self.result.callback(["127.0.0.7"])
        self.assertEqual(self.tried, [("127.0.0.7", 5663, 1.0)])
        self.clock.advance(1)
        self.assert_failed(Trouble.TIMEOUT)

    def test_look_up_too_slow(self) -> None:
        """F5, F12: a look-up that takes longer than the limit is a failure of the look-up."""
        self.connect()
        self.clock.advance(4.9)
        self.assertEqual(self.owner.told, [])
        self.clock.advance(0.1)
        message = self.assert_failed(Trouble.LOOK_UP)
        self.assertEqual(message, "no address for l2.test after 5 s")
        self.result.callback(["127.0.0.7"])
        self.assertEqual(self.tried, [])
        self.assertEqual(len(self.owner.told), 1)

    def test_no_address(self) -> None:
        """F5: a name without an address is a failure of the look-up, and the message names it."""
        self.connect(fail(DNSLookupError("no such name")))
        message = self.assert_failed(Trouble.LOOK_UP)
        self.assertIn("l2.test", message)
        self.assertIn("no such name", message)

    def test_resolver_fails(self) -> None:
        """F5: any other error of a resolver is reported as a failed look-up."""
        for error in (UnicodeError("label too long"), CancelledError()):
            self.setUp()
            self.connect(fail(error))
            self.assert_failed(Trouble.LOOK_UP)

    def test_troubles(self) -> None:
        """F5: what kept a connection from being made has its own name each."""
        for error, trouble in (
            (ConnectionRefusedError(), Trouble.REFUSED),
            (NoRouteError(), Trouble.UNREACHABLE),
            (ConnectError("odd"), Trouble.UNREACHABLE),
            (DNSLookupError("odd"), Trouble.LOOK_UP),
            (OSError(24, "too many files"), Trouble.UNREACHABLE),
        ):
            self.setUp()
            self.connect(succeed(["127.0.0.7"]))
            self.network.attempts[0].fail(error)
            self.assertTrue(self.assert_failed(trouble))

    def test_timeout(self) -> None:
        """F5: an unanswered connection attempt ends at the limit, which the message names."""
        self.connect(succeed(["127.0.0.7"]))
        self.clock.advance(4.9)
        self.assertEqual(self.owner.told, [])
        self.clock.advance(0.1)
        message = self.assert_failed(Trouble.TIMEOUT)
        self.assertIn("5 s", message)

    def test_next_address(self) -> None:
        """F5, F12: the addresses of a name are tried in turn; that is one failure at the most."""
        self.connect(succeed(["::7", "127.0.0.7", "127.0.0.8"]))
        self.network.attempts[0].fail(NoRouteError())
        self.clock.advance(2)
        self.network.attempts[1].refuse()
        self.assertEqual(self.owner.told, [])
        self.assertEqual(self.tried[1:], [("127.0.0.7", 5663, 2.5), ("127.0.0.8", 5663, 3.0)])
        self.network.attempts[2].refuse()
        self.assert_failed(Trouble.REFUSED)

    def test_next_address_serves(self) -> None:
        """F12: an address that works makes good for those before it."""
        self.connect(succeed(["::7", "127.0.0.7"]))
        self.network.attempts[0].refuse()
        self.network.attempts[1].accept()
        self.assertEqual(self.owner.told, [("connected",)])

    def test_silent_address(self) -> None:
        """F12: an address that is silent leaves those behind it their part of the time."""
        self.connect(succeed(["::7", "127.0.0.7", "127.0.0.8"]))
        self.clock.advance(2)
        self.assertEqual([address for address, _, _ in self.tried], ["::7", "127.0.0.7"])
        self.network.attempts[1].accept()
        self.assertEqual(self.owner.told, [("connected",)])

    def test_time_over_between_addresses(self) -> None:
        """F12: when the time is over, late as we may be to see it, no further address is tried."""
        self.connect(succeed(["::7", "127.0.0.7"]))
        self.clock.advance(10)
        self.assertEqual(len(self.tried), 1)
        self.assert_failed(Trouble.TIMEOUT)

    def test_given_up_in_look_up(self) -> None:
        """S14: closing during the look-up ends it; an answer that comes later does nothing."""
        self.connect()
        self.connection.close()
        self.clock.advance(10)
        self.assertEqual((self.owner.told, self.tried), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_given_up_while_connecting(self) -> None:
        """S14: closing while it connects gives the attempt up at once, and tries no other."""
        for result in (succeed(["127.0.0.7", "127.0.0.8"]), None):
            self.setUp()
            self.connect(result)
            if result is None:
                self.result.callback(["127.0.0.7", "127.0.0.8"])
            self.connection.close()
            self.assertTrue(self.network.attempts[0].given_up)
            self.assertEqual((self.owner.told, len(self.tried)), ([], 1))
            self.clock.advance(10)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure_at_once(self) -> None:
        """F5: a network that fails before it returns is one failure like any other."""

        class Hasty(FakeNetwork):
            def connectTCP(self, *args: Any) -> Any:
                attempt = super().connectTCP(*args)
                attempt.refuse()
                return attempt

        self.network = Hasty(self.clock)
        self.connect(succeed(["127.0.0.7", "127.0.0.8"]))
        self.assert_failed(Trouble.REFUSED)
        self.assertEqual(len(self.tried), 2)
