# trial's assertions and Deferreds' have no annotations:
# mypy: allow-untyped-calls
"""Host names to addresses, with a resolver that answers when the test says so."""

from __future__ import annotations

import socket
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.host.resolver import FAILURE_LIFETIME, Names, addresses_of
from lonc.test.fixtures.doubles import some_settings

#: Names that are looked up at a time.
PLACES = 6


class AddressesTests(SynchronousTestCase):
    """Row F12: the system's resolver."""

    def answers(self, *found: tuple[int, str] | Exception) -> None:
        """Let the system's resolver give these families and addresses, or raise."""

        def getaddrinfo(name: str, port: None, type: int) -> list[object]:
            self.asked = name
            answer: list[object] = []
            for each in found:
                if isinstance(each, Exception):
                    raise each
                answer.append((each[0], type, 6, "", (each[1], 0)))
            return answer

        self.patch(socket, "getaddrinfo", getaddrinfo)

    def test_addresses(self) -> None:
        """F12: all addresses of both families, each once, in the system's order."""
        six, four = (socket.AF_INET6, "::2"), (socket.AF_INET, "127.0.0.3")
        self.answers(six, four, six, (socket.AF_INET, "127.0.0.2"))
        self.assertEqual(addresses_of("l2.test"), ["::2", "127.0.0.3", "127.0.0.2"])
        self.assertEqual(self.asked, "l2.test")

    def test_unknown(self) -> None:
        """F5: a name without an IP address fails with DNSLookupError, and the message names it."""
        for found in (
            socket.gaierror(-2, "not known"),
            OSError(24, "no more files"),
            UnicodeError("label too long"),
            (socket.AF_UNIX, "/socket"),
        ):
            self.answers(found)
            error = self.assertRaises(DNSLookupError, addresses_of, "l2.test")
            self.assertIn("l2.test", str(error))


class NamesTests(SynchronousTestCase):
    """What is kept of look-ups, and when a name is looked up again."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, Deferred[list[str]]]] = []
        self.moved: list[str] = []
        self.on_change: Callable[[str], object] = self.moved.append
        self.names = Names(self.ask, self.clock, 300.0, self.changed, PLACES)

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
        self.names.reconfigure(some_settings(name_lifetime=10.0))
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
        """
        A name is looked up once at a time, however long that takes: it keeps a thread. All who
        still wait then have the answer.
        """
        first = self.look_up()
        self.clock.advance(100_000)
        second = self.look_up()
        self.names.renew({"a.test"})
        self.assertEqual(len(self.asked), 1)
        self.answer("10.0.0.1")
        for each in (first, second):
            self.assertEqual(self.successResultOf(each), ["10.0.0.1"])

    def test_all_places_taken(self) -> None:
        """
        Where as many names hang as are looked up at a time, what was known of another serves, and
        it is looked up anew once a place is free; one that is not known waits.
        """
        self.known("10.0.0.1")
        self.clock.advance(300)
        for number in range(PLACES):
            self.look_up(f"{number}.test")
        del self.asked[1:2]
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.look_up()), ["10.0.0.1"])
        self.assertEqual(len(self.asked), PLACES)
        self.assertNoResult(self.look_up("new.test"))
        for _, asked in self.asked[1:]:
            asked.callback(["10.0.0.2"])
        self.assertNoResult(self.look_up())

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
        """Half of the places are left to names that somebody asks for."""
        names = {f"{number}.test" for number in range(PLACES)}
        for name in names:
            self.known("10.0.0.1", name=name)
        self.clock.advance(300)
        del self.asked[:]
        for _ in range(3):
            self.names.renew(names)
        self.assertEqual(len(self.asked), PLACES // 2)
        self.asked[0][1].callback(["10.0.0.1"])
        self.names.renew(names)
        self.assertEqual(len(self.asked), PLACES // 2 + 1)

    def test_many_who_ask(self) -> None:
        """Look-ups that somebody waits for may be more than that; then nothing is renewed."""
        self.known("10.0.0.1")
        self.clock.advance(300)
        names = {"a.test", *(f"{number}.test" for number in range(PLACES))}
        for name in names - {"a.test"}:
            self.look_up(name)
        self.names.renew(names)
        self.assertEqual(len(self.asked), 1 + PLACES)

    def test_forgotten(self) -> None:
        """Names that no host has any more are forgotten; who still waits for one is answered."""
        self.known("10.0.0.1")
        waiting = self.look_up("b.test")
        self.names.renew(set())
        self.look_up()
        self.assertEqual(self.questions, ["a.test", "b.test", "a.test"])
        again = self.look_up("b.test")
        self.assertEqual(len(self.asked), 3)  # not twice at a time
        self.asked[1][1].callback(["10.0.0.2"])
        for each in (waiting, again):
            self.assertEqual(self.successResultOf(each), ["10.0.0.2"])
