# trial's assertions and Deferreds' have no annotations:
# mypy: allow-untyped-calls
"""Host names to addresses, with a resolver that answers when the test says so."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from lonc.names import look_up


@implementer(IHostResolution)
class Resolution:
    """A look-up under way; like Twisted's own, it cannot be cancelled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        raise NotImplementedError


@implementer(IHostnameResolver)
class Resolver:
    """A resolver whose answers are the test's."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.receiver: IResolutionReceiver | None = None
        self.resolution: Resolution | None = None
        self.at_once: list[IAddress] | None = None

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.names.append(hostName)
        self.receiver = resolutionReceiver
        self.resolution = Resolution(hostName)
        resolutionReceiver.resolutionBegan(self.resolution)
        if self.at_once is not None:
            self.answer(*self.at_once)
        return self.resolution

    def answer(self, *addresses: IAddress) -> None:
        """Tell these addresses, and that there are no more."""
        assert self.receiver is not None
        for address in addresses:
            self.receiver.addressResolved(address)
        self.receiver.resolutionComplete()


def ip4(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 0)


def ip6(host: str) -> IPv6Address:
    return IPv6Address("TCP", host, 0)


class LookUpTests(SynchronousTestCase):
    """Row F12."""

    def setUp(self) -> None:
        self.resolver = Resolver()

    def test_addresses_need_no_resolver(self) -> None:
        """F12: an address is its own only address, and nobody is asked."""
        for address in ("127.0.0.1", "::1", "2001:db8::7"):
            found = look_up(self.resolver, address)
            self.assertEqual(self.successResultOf(found), [address])
        self.assertEqual(self.resolver.names, [])

    def test_name(self) -> None:
        """F12: a name's look-up waits for the resolver; its addresses come in the order told."""
        found = look_up(self.resolver, "l2.test")
        self.assertNoResult(found)
        self.assertEqual(self.resolver.names, ["l2.test"])
        self.resolver.answer(ip6("::2"), ip4("127.0.0.3"), ip4("127.0.0.2"))
        self.assertEqual(self.successResultOf(found), ["::2", "127.0.0.3", "127.0.0.2"])

    def test_answer_at_once(self) -> None:
        """A resolver that answers before it returns is understood too."""
        self.resolver.at_once = [ip4("127.0.0.3")]
        found = look_up(self.resolver, "l2.test")
        self.assertEqual(self.successResultOf(found), ["127.0.0.3"])

    def test_same_address_twice(self) -> None:
        """An address that is told for each kind of socket is tried once only."""
        found = look_up(self.resolver, "l2.test")
        self.resolver.answer(ip4("127.0.0.3"), ip4("127.0.0.2"), ip4("127.0.0.3"))
        self.assertEqual(self.successResultOf(found), ["127.0.0.3", "127.0.0.2"])

    def test_other_kinds_of_address(self) -> None:
        """What is no IP address is passed over."""
        found = look_up(self.resolver, "l2.test")
        self.resolver.answer(HostnameAddress(b"l3.test", 0), ip4("127.0.0.3"))
        self.assertEqual(self.successResultOf(found), ["127.0.0.3"])

    def test_unknown(self) -> None:
        """F5: a name without an address fails with DNSLookupError, and the message names it."""
        found = look_up(self.resolver, "l2.test")
        self.resolver.answer()
        failure = self.failureResultOf(found, DNSLookupError)
        self.assertIn("l2.test", str(failure.value))

    def test_cancel(self) -> None:
        """F12: a look-up can be given up, and what comes then is ignored."""
        found = look_up(self.resolver, "l2.test")
        found.cancel()
        self.failureResultOf(found, CancelledError)
        self.resolver.answer(ip4("127.0.0.3"))

    def test_time_limit(self) -> None:
        """F12: a look-up that is never answered ends at its caller's time limit."""
        clock = Clock()
        found = look_up(self.resolver, "l2.test").addTimeout(5, clock)
        clock.advance(4.9)
        self.assertNoResult(found)
        clock.advance(0.1)
        self.failureResultOf(found, TimeoutError)

    def test_looks_like_an_address(self) -> None:
        """What only looks like an address is a name."""
        for name in ("127.0.0.256", "1.2.3", "::g"):
            look_up(self.resolver, name)
        self.assertEqual(self.resolver.names, ["127.0.0.256", "1.2.3", "::g"])
