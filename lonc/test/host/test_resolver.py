"""Host names to addresses, with a resolver that answers when the test says so."""

from __future__ import annotations

import socket
from collections.abc import Callable, Set

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.host.resolver import (
    FAILURE_LIFETIME,
    HANGS,
    RETRY,
    LookUpError,
    Names,
    NameTrouble,
    NoSuchName,
    addresses_of,
)
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

    def test_no_such_name(self) -> None:
        """A name that certainly has no IP address fails with NoSuchName, once said."""
        for found, why in (
            (socket.gaierror(socket.EAI_NONAME, "not known"), "not known"),
            (socket.gaierror(socket.EAI_NODATA, "no address"), "no address"),
            (UnicodeError("label too long"), "not a host name: label too long"),
            ((socket.AF_UNIX, "/socket"), "it has no IP address"),
        ):
            self.answers(found)
            error = self.assertRaises(NoSuchName, addresses_of, "l2.test")
            self.assertEqual(str(error), why)

    def test_nobody_knows(self) -> None:
        """What a name server in trouble says, or we are short of, says nothing of the name."""
        for found in (
            socket.gaierror(socket.EAI_AGAIN, "try again"),
            socket.gaierror(socket.EAI_FAIL, "broken"),
            OSError(24, "no more files"),
        ):
            self.answers(found)
            error = self.assertRaises(LookUpError, addresses_of, "l2.test")
            self.assertNotIsInstance(error, NoSuchName)
            self.assertEqual(str(error), found.strerror)

    def test_refused_as_in_the_table(self) -> None:
        """Addresses that the table refuses are left out, in any spelling; loopback is none."""
        four, six = socket.AF_INET, socket.AF_INET6
        bad = [(four, "0.0.0.0"), (four, "224.0.0.1"), (four, "255.255.255.255"), (six, "::")]
        bad += [(six, "ff02::1"), (six, "::ffff:0.0.0.0"), (six, "::ffff:224.0.0.1")]
        self.answers(*bad, (four, "127.0.1.1"))
        self.assertEqual(addresses_of("own.test"), ["127.0.1.1"])
        for each in bad:
            self.answers(each)
            error = self.assertRaises(NoSuchName, addresses_of, "l2.test")
            self.assertIn("is not the address of one host", str(error))


class NamesTestCase(SynchronousTestCase):
    """Names, and a resolver that answers when the test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, Deferred[list[str]]]] = []
        self.told: list[tuple[str, ...]] = []
        self.on_move: Callable[[str], object] = lambda name: None
        self.names = Names(self.ask, self.clock, some_settings(), self.moved, PLACES)

    def moved(self, name: str, gone: Set[str]) -> None:
        """Be told of other addresses."""
        self.told.append((name, *sorted(gone)))
        self.on_move(name)

    def ask(self, name: str) -> Deferred[list[str]]:
        """Look up as a resolver does: the test answers."""
        self.asked.append((name, Deferred()))
        return self.asked[-1][1]

    @property
    def questions(self) -> list[str]:
        """The names that were looked up so far."""
        return [name for name, _ in self.asked]

    def answer(self, *addresses: str, error: Exception | None = None) -> None:
        """Answer the latest look-up; without addresses there is no such name."""
        _, asked = self.asked[-1]
        if addresses:
            asked.callback(list(addresses))
        else:
            asked.errback(error or NoSuchName("no such name"))

    def look_up(self, name: str = "a.test") -> Deferred[list[str]]:
        """Ask for a name's addresses."""
        return self.names.look_up(name)

    def known(self, *addresses: str, name: str = "a.test") -> None:
        """Let the addresses of a name be known."""
        found = self.look_up(name)
        self.answer(*addresses)
        self.assertEqual(self.successResultOf(found), list(addresses))

    def renew(self, after: float = 0.0) -> int:
        """Let time pass, and names in use be renewed; return how many were looked up so far."""
        self.clock.advance(after)
        self.names.renew({"a.test"})
        return len(self.asked)

    def renewed(self, *addresses: str, after: float = 300, error: Exception | None = None) -> None:
        """Let time pass, and the name be looked up again."""
        count = len(self.asked)
        self.assertEqual(self.renew(after), count + 1)
        self.answer(*addresses, error=error)


class NamesTests(NamesTestCase):
    """What is kept of look-ups, and when a name is looked up again."""

    def test_address(self) -> None:
        """F12: an address needs no look-up."""
        for address in ("10.0.0.1", "::1"):
            self.assertEqual(self.successResultOf(self.look_up(address)), [address])
        self.assertEqual(self.questions, [])

    def test_kept_for_its_time(self) -> None:
        """F12: after its lifetime an answer serves on, and the name is looked up anew."""
        self.known("10.0.0.1", "::1")
        for seconds, count in ((299, 1), (1, 2), (1, 2)):
            self.clock.advance(seconds)
            self.assertEqual(self.successResultOf(self.look_up()), ["10.0.0.1", "::1"])
            self.assertEqual(self.questions, ["a.test"] * count)

    def test_spellings(self) -> None:
        """Capitals and a dot at the end do not make another name."""
        self.known("10.0.0.1", name="A.test.")
        self.assertEqual(self.successResultOf(self.look_up("a.TEST")), ["10.0.0.1"])
        self.names.renew({"A.TEST."})
        self.successResultOf(self.look_up())
        self.assertEqual(self.questions, ["a.test"])

    def test_answers_are_their_own(self) -> None:
        """Each caller gets a list of its own."""
        first, second = self.look_up(), self.look_up()
        self.answer("10.0.0.1", "10.0.0.2")
        self.successResultOf(first).clear()
        self.assertEqual(len(self.successResultOf(second)), 2)
        self.successResultOf(self.look_up()).clear()
        self.assertEqual(len(self.successResultOf(self.look_up())), 2)

    def test_shared(self) -> None:
        """F12: concurrent calls for one name share a look-up; other names have their own."""
        waiting = [self.look_up() for _ in range(3)]
        self.look_up("b.test")
        self.assertEqual(self.questions, ["a.test", "b.test"])
        self.asked[0][1].callback(["10.0.0.1"])
        self.assertEqual([self.successResultOf(each) for each in waiting], [["10.0.0.1"]] * 3)

    def test_cancelled(self) -> None:
        """A cancelled call does not end the look-up: others, and later calls, get its answer."""
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
        """A callback may cancel another call while answers are delivered."""
        first, second, third = self.look_up(), self.look_up(), self.look_up()
        first.addCallback(lambda _: second.cancel())
        self.answer("10.0.0.1")
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.successResultOf(third), ["10.0.0.1"])

    def test_failure(self) -> None:
        """A failure is passed to all waiting calls, and cached for a second."""
        waiting = [self.look_up(), self.look_up()]
        self.answer()
        self.clock.advance(FAILURE_LIFETIME / 2)
        waiting.append(self.look_up())
        for each in waiting:
            self.failureResultOf(each, NoSuchName)
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
        self.assertEqual(self.renew(), 1)
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
        self.look_up()
        self.assertEqual(self.questions[-1], "a.test")

    def test_other_addresses(self) -> None:
        """
        F12: a new address is told once, and before those who wait hear of it; the same ones in
        another order are none, nor is the first answer.
        """
        self.known("10.0.0.1", "10.0.0.2")
        self.renewed("10.0.0.2", "10.0.0.1")
        self.assertEqual(self.told, [])
        order: list[object] = []
        self.names.reconfigure(some_settings(name_grace=0.0))
        self.clock.advance(300)
        self.on_move = lambda name: order.append(self.successResultOf(self.look_up()))
        waiting = self.look_up().addCallback(order.append)
        self.answer("10.0.0.3", "10.0.0.1")
        self.successResultOf(waiting)
        self.assertEqual(self.told, [("a.test",)])
        self.assertEqual(order, [["10.0.0.3", "10.0.0.1"]] * 2)

    def test_gone(self) -> None:
        """
        An address is gone when it is missing from three answers running, which are had within one
        lifetime more; only the latest answer serves meanwhile.
        """
        self.known("10.0.0.1")
        self.renewed("10.0.0.2")
        self.assertEqual(self.told, [("a.test",)])
        self.assertEqual(self.successResultOf(self.look_up()), ["10.0.0.2"])
        self.renewed("10.0.0.2", after=100)
        self.assertEqual(self.told, [("a.test",)])
        self.renewed("10.0.0.2", after=100)
        self.assertEqual(self.told, [("a.test",), ("a.test", "10.0.0.1")])
        self.assertEqual(self.renew(299), 4)
        self.renewed("10.0.0.2", after=1)
        self.assertEqual(len(self.told), 2)

    def test_one_of_two_each_time(self) -> None:
        """Two good addresses of which each answer has one are no move."""
        self.known("10.0.0.1")
        for number in (2, 1, 2, 2, 1, 2):
            self.renewed(f"10.0.0.{number}")
        self.assertEqual(self.told, [("a.test",)])

    def test_failures_between_answers(self) -> None:
        """An address is missing from no answer that has none at all."""
        self.known("10.0.0.1")
        for error in (NoSuchName("none"), LookUpError("try again")):
            for _ in range(3):
                self.renewed(error=error)
        self.renewed("10.0.0.2")
        self.assertEqual(self.told, [("a.test",)])

    def test_fault_in_who_is_told(self) -> None:
        """If reporting a change raises, the waiting calls get their answer nevertheless."""
        self.names.reconfigure(some_settings(name_grace=0.0))
        self.known("10.0.0.1")
        self.clock.advance(300)
        self.on_move = lambda name: [][1]
        waiting = self.look_up()
        self.answer("10.0.0.2")
        self.assertEqual(self.successResultOf(waiting), ["10.0.0.2"])
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)

    def test_renewed(self) -> None:
        """A name in use is looked up again when it has expired, without any call for it."""
        self.known("10.0.0.1")
        self.assertEqual(self.renew(299), 1)
        self.renew(1)
        self.assertEqual(self.renew(), 2)
        self.answer("10.0.0.2")
        self.assertEqual(self.successResultOf(self.look_up()), ["10.0.0.2"])

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
        """Names without hosts are forgotten; calls that still wait for one are answered."""
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


class TroubleTests(NamesTestCase):
    """Name servers that fail or hang, and what of a name serves on meanwhile."""

    def test_try_again(self) -> None:
        """While look-ups fail the last addresses serve, an hour longer than else."""
        self.known("10.0.0.1")
        self.renewed(error=LookUpError("try again"))
        self.clock.advance(3599)
        self.assertEqual(self.successResultOf(self.look_up()), ["10.0.0.1"])
        self.clock.advance(1)
        failed = self.look_up()
        self.answer(error=LookUpError("try again"))
        self.failureResultOf(failed, LookUpError)

    def test_hang(self) -> None:
        """While a look-up hangs they serve at once, and as long; then there is a wait."""
        self.known("10.0.0.1")
        self.renew(300)
        self.clock.advance(3599)
        self.assertEqual(self.successResultOf(self.look_up()), ["10.0.0.1"])
        self.clock.advance(1)
        waiting = self.look_up()
        self.assertNoResult(waiting)
        self.assertEqual(len(self.asked), 2)
        self.answer("10.0.0.2")
        self.assertEqual(self.successResultOf(waiting), ["10.0.0.2"])

    def test_no_such_name(self) -> None:
        """A name server that knows of no such name ends the use of the addresses at once."""
        self.known("10.0.0.1")
        self.renewed()
        self.failureResultOf(self.look_up(), NoSuchName)
        self.clock.advance(FAILURE_LIFETIME)
        again = self.look_up()
        self.answer("10.0.0.1")
        self.assertEqual(self.successResultOf(again), ["10.0.0.1"])

    def test_tried_again(self) -> None:
        """A failed look-up is repeated once a minute, without any call for it."""
        self.known("10.0.0.1")
        self.renewed(error=LookUpError("try again"))
        self.assertEqual(self.renew(RETRY - 1), 2)
        self.renewed("10.0.0.1", after=1)

    def test_since_when(self) -> None:
        """It is known why and since when a name cannot be looked up, until it can be."""
        self.known("10.0.0.1")
        self.assertIs(self.names.trouble("a.test"), None)
        self.renewed(error=LookUpError("try again"))
        self.renewed(error=NoSuchName("none"))
        self.assertEqual(self.names.trouble("A.test."), NameTrouble(300.0, "none"))
        self.renewed("10.0.0.1")
        self.assertIs(self.names.trouble("a.test"), None)

    def test_hang_is_told(self) -> None:
        """A look-up without an answer for a while is reported, too."""
        self.known("10.0.0.1")
        self.renew(300)
        self.renew(HANGS - 1)
        self.assertIs(self.names.trouble("a.test"), None)
        self.renew(1)
        why = "the name server does not answer"
        self.assertEqual(self.names.trouble("a.test"), NameTrouble(310.0, why))
        self.answer("10.0.0.1")
        self.assertIs(self.names.trouble("a.test"), None)
