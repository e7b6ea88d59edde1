# trial's assertions and Deferreds' have no annotations:
# mypy: allow-untyped-calls
"""Host names to addresses, with a resolver that answers when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
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

from lonc.host.resolver import FAILURE_LIFETIME, LOOK_UP_LIMIT, RENEWALS, Names, look_up


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


class NamesTests(SynchronousTestCase):
    """What is kept of look-ups, and when a name is looked up again."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, Deferred[list[str]]]] = []
        self.moved: list[str] = []
        self.on_change: Callable[[str], object] = self.moved.append
        self.names = Names(self.ask, self.clock, 300.0, self.changed)

    def changed(self, name: str) -> None:
        """Be told of a change."""
        self.on_change(name)

    def ask(self, name: str) -> Deferred[list[str]]:
        """Look up as a resolver does: the test answers."""
        self.asked.append((name, Deferred()))
        return self.asked[-1][1]

    @property
    def questions(self) -> list[str]:
        """The names that were looked up so far."""
        return [name for name, _ in self.asked]

    def answer(self, *addresses: str) -> None:
        """Answer the latest look-up; without addresses it fails."""
        _, asked = self.asked[-1]
        if addresses:
            asked.callback(list(addresses))
        else:
            asked.errback(DNSLookupError("no such name"))

    def look_up(self, name: str = "a.test") -> Deferred[list[str]]:
        """Ask for a name's addresses."""
        return self.names.look_up(name)

    def known(self, *addresses: str, name: str = "a.test") -> None:
        """Let the addresses of a name be known."""
        found = self.look_up(name)
        self.answer(*addresses)
        self.assertEqual(self.successResultOf(found), list(addresses))

    def test_address(self) -> None:
        """F12: an address needs no look-up."""
        for address in ("10.0.0.1", "::1"):
            self.assertEqual(self.successResultOf(self.look_up(address)), [address])
        self.assertEqual(self.questions, [])

    def test_kept_for_its_time(self) -> None:
        """F12: an answer counts for its lifetime, and then the name is looked up anew."""
        self.known("10.0.0.1", "::1")
        self.clock.advance(299)
        self.assertEqual(self.successResultOf(self.look_up()), ["10.0.0.1", "::1"])
        self.assertEqual(self.questions, ["a.test"])
        self.clock.advance(1)
        self.assertNoResult(self.look_up())
        self.assertEqual(self.questions, ["a.test", "a.test"])

    def test_other_lifetime(self) -> None:
        """Another lifetime counts from the next answer on."""
        self.names.lifetime = 10.0
        self.known("10.0.0.1")
        self.clock.advance(10)
        self.look_up()
        self.assertEqual(len(self.asked), 2)

    def test_answers_are_their_own(self) -> None:
        """What one who asked does with the answer changes nobody else's."""
        first, second = self.look_up(), self.look_up()
        self.answer("10.0.0.1", "10.0.0.2")
        self.successResultOf(first).clear()
        self.assertEqual(len(self.successResultOf(second)), 2)
        self.successResultOf(self.look_up()).clear()
        self.assertEqual(len(self.successResultOf(self.look_up())), 2)

    def test_shared(self) -> None:
        """F12: all who ask for a name at a time share one look-up, other names have their own."""
        waiting = [self.look_up() for _ in range(3)]
        self.look_up("b.test")
        self.assertEqual(self.questions, ["a.test", "b.test"])
        self.asked[0][1].callback(["10.0.0.1"])
        self.assertEqual([self.successResultOf(each) for each in waiting], [["10.0.0.1"]] * 3)

    def test_cancelled(self) -> None:
        """One who gives up leaves the look-up to the others, and its answer to those to come."""
        first, second = self.look_up(), self.look_up()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.answer("10.0.0.1")
        self.assertEqual(self.successResultOf(second), ["10.0.0.1"])
        lonely = self.look_up("b.test").addErrback(lambda _: None)
        lonely.cancel()
        self.answer("10.0.0.2")
        self.assertEqual(self.successResultOf(self.look_up("b.test")), ["10.0.0.2"])

    def test_cancelled_by_the_answer(self) -> None:
        """One who makes another give up when the answer comes harms nobody."""
        first, second, third = self.look_up(), self.look_up(), self.look_up()
        first.addCallback(lambda _: second.cancel())
        self.answer("10.0.0.1")
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.successResultOf(third), ["10.0.0.1"])

    def test_failure(self) -> None:
        """A failure is told to all who wait, and to who asks shortly after; then there is a try."""
        waiting = [self.look_up(), self.look_up()]
        self.answer()
        self.clock.advance(FAILURE_LIFETIME / 2)
        waiting.append(self.look_up())
        for each in waiting:
            self.failureResultOf(each, DNSLookupError)
        self.clock.advance(FAILURE_LIFETIME / 2)
        again = self.look_up()
        self.assertEqual(len(self.asked), 2)
        self.answer("10.0.0.1")
        self.assertEqual(self.successResultOf(again), ["10.0.0.1"])

    def test_never_answered(self) -> None:
        """A resolver that never answers is asked anew in the end; its late word is ignored."""
        first = self.look_up()
        self.clock.advance(LOOK_UP_LIMIT - 1)
        second = self.look_up()
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(1)
        third = self.look_up()
        self.assertEqual(len(self.asked), 2)
        self.asked[0][1].callback(["10.0.0.9"])
        self.assertNoResult(third)
        self.answer("10.0.0.1")
        for each in (first, second, third):
            self.assertEqual(self.successResultOf(each), ["10.0.0.1"])

    def test_changed(self) -> None:
        """
        F12: other addresses than before are told as a change, once, and before those who wait
        hear of them; the same ones in another order are none, nor is the first answer.
        """
        self.known("10.0.0.1", "10.0.0.2")
        self.clock.advance(300)
        self.known("10.0.0.2", "10.0.0.1")
        self.assertEqual(self.moved, [])
        self.clock.advance(300)
        order: list[object] = []
        self.on_change = lambda name: order.append((name, self.successResultOf(self.look_up())))
        waiting = self.look_up().addCallback(order.append)
        self.answer("10.0.0.3")
        self.successResultOf(waiting)
        self.assertEqual(order, [("a.test", ["10.0.0.3"]), ["10.0.0.3"]])

    def test_changed_after_a_failure(self) -> None:
        """A failure in between is no change, and hides none."""
        self.known("10.0.0.1")
        for addresses, moved in ((["10.0.0.1"], []), (["10.0.0.2"], ["a.test"])):
            self.clock.advance(300)
            self.failureResultOf(self.failed())
            self.clock.advance(FAILURE_LIFETIME)
            self.known(*addresses)
            self.assertEqual(self.moved, moved)

    def failed(self) -> Deferred[list[str]]:
        """Let a look-up fail."""
        failed = self.look_up()
        self.answer()
        return failed

    def test_fault_in_who_is_told(self) -> None:
        """A fault in who is told of a change does not keep the answer from those who wait."""
        self.known("10.0.0.1")
        self.clock.advance(300)
        self.on_change = lambda name: [][1]
        waiting = self.look_up()
        self.answer("10.0.0.2")
        self.assertEqual(self.successResultOf(waiting), ["10.0.0.2"])
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)

    def test_renewed(self) -> None:
        """A name in use is looked up again when its time is over, though nobody asks."""
        self.known("10.0.0.1")
        self.clock.advance(299)
        self.names.renew({"a.test"})
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(1)
        self.names.renew({"a.test"})
        self.names.renew({"a.test"})
        self.assertEqual(len(self.asked), 2)
        self.answer("10.0.0.2")
        self.assertEqual(self.moved, ["a.test"])
        self.assertEqual(self.successResultOf(self.look_up()), ["10.0.0.2"])

    def test_renewal_fails(self) -> None:
        """A failed renewal waits for its next time; who asks before that has a look-up made."""
        self.known("10.0.0.1")
        self.clock.advance(300)
        self.names.renew({"a.test"})
        self.answer()
        self.clock.advance(299)
        self.names.renew({"a.test"})
        self.assertEqual(len(self.asked), 2)
        self.look_up()
        self.assertEqual(len(self.asked), 3)

    def test_few_renewals_at_a_time(self) -> None:
        """Only a few names are renewed at a time, so that others find a resolver that is free."""
        names = {f"{number}.test" for number in range(RENEWALS + 2)}
        for name in names:
            self.known("10.0.0.1", name=name)
        self.clock.advance(300)
        del self.asked[:]
        for _ in range(3):
            self.names.renew(names)
        self.assertEqual(len(self.asked), RENEWALS)
        first = self.asked[0]
        first[1].callback(["10.0.0.1"])
        self.names.renew(names)
        self.assertEqual(len(self.asked), RENEWALS + 1)
        self.clock.advance(LOOK_UP_LIMIT)
        self.names.renew(names)
        self.assertEqual(len(self.asked), 2 * RENEWALS + 1)

    def test_many_who_ask(self) -> None:
        """Look-ups that somebody waits for may be more than that; then nothing is renewed."""
        self.known("10.0.0.1")
        self.clock.advance(300)
        names = {"a.test", *(f"{number}.test" for number in range(RENEWALS + 2))}
        for name in names - {"a.test"}:
            self.look_up(name)
        self.names.renew(names)
        self.assertEqual(len(self.asked), 1 + RENEWALS + 2)

    def test_forgotten(self) -> None:
        """Names that no host has any more are forgotten; who still waits for one is answered."""
        self.known("10.0.0.1")
        waiting = self.look_up("b.test")
        self.names.renew(set())
        self.look_up()
        self.assertEqual(self.questions, ["a.test", "b.test", "a.test"])
        self.asked[1][1].callback(["10.0.0.2"])
        self.assertEqual(self.successResultOf(waiting), ["10.0.0.2"])
