"""What requests take in memory, of all clients together (row F3)."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock

from lonc.local.limits import UNCOUNTED
from lonc.test.fixtures.doubles import FakeClient, some_settings
from lonc.test.fixtures.local_client import ClientTestCase
from lonc.wire.request import CON_LOST, Cause

#: Bytes that the tests allow.
LIMIT = 100_000

#: Seconds that one turn of the loop takes.
TICK = 0.001


class MemoryTests(ClientTestCase):
    """The limit, and whose requests end beyond it."""

    def begin(self, **changes: Any) -> None:
        """Start again with little memory."""
        super().begin(**{"max_line": 90_000, "max_request_memory": LIMIT, **changes})

    @property
    def used(self) -> int:
        """The number of bytes counted."""
        return self.clients.requests.used

    def begun(self, size: int) -> FakeClient:
        """Return a client with an incomplete request."""
        return self.client(b"x" * size)

    def test_usual_requests_are_not_counted(self) -> None:
        """Small requests are not counted."""
        self.host.in_flight = True
        for size in (10, UNCOUNTED - 1):
            client = self.client(b"x" * size + b"\n")
            self.assertEqual(self.used, 0)
            client.hang_up()
            self.assertEqual(self.clients.requests.sizes, {})

    def test_largest_begun(self) -> None:
        """Beyond the limit, the largest incomplete request gets con_lost; the others are served."""
        small, large, growing = self.begun(20_000), self.begun(50_000), self.begun(20_000)
        self.assertEqual(self.used, 90_000)
        growing.write(b"x" * 20_000)
        self.assertEqual((large.read, self.used), (CON_LOST, 60_000))
        self.assertEqual(self.host.lost, [Cause.MEMORY])
        self.assertIn("memory", self.notes.events[0]["what"])
        for client in (small, growing):
            client.write(b"\n")
        self.answer_all()
        self.assertEqual([len(each.read) for each in (small, growing)], [20_004, 40_004])
        self.assertEqual(self.used, 0)

    def test_largest_waits(self) -> None:
        """The largest gets con_lost also while it waits, and then no longer waits."""
        large = self.client(b"x" * 60_000 + b"\n")
        small = self.client(b"y" * 50_000 + b"\n")
        self.assertEqual((large.read, self.used), (CON_LOST, 50_001))
        self.assertEqual([len(each.line) for each in self.host.withdrawn], [60_001])
        self.assertEqual(self.host.cut, [])
        self.host.waiting.pop(0)
        self.answer_all()
        self.assertEqual((len(small.read), self.used), (50_004, 0))

    def test_largest_is_in_flight(self) -> None:
        """If it has been sent, its connection is closed, which frees its memory at once."""
        self.host.in_flight = True
        large = self.client(b"x" * 60_000 + b"\n", b"ahead" * 1000)
        small = self.client(b"y" * 50_000 + b"\n")
        self.assertEqual((large.read, self.used), (CON_LOST, 50_001))
        self.assertEqual([len(each) for each in self.host.cut], [60_001])
        self.assertEqual(self.host.lost, [Cause.MEMORY])
        late = self.host.waiting.pop(0)
        late.asker.answered(b"late\n")
        self.answer_all()
        self.assertEqual((large.read, len(small.read)), (CON_LOST, 50_004))
        self.turn()
        large.hang_up()
        small.hang_up()
        self.assert_forgotten()

    def test_abandoned_first(self) -> None:
        """Requests of clients that have disconnected end first, the largest of them first."""
        self.host.in_flight = True
        gone = [self.client(bytes([65 + n]) * n * 10_000 + b"\n") for n in (1, 2)]
        for client in gone:
            client.hang_up()
        self.assertEqual(self.used, 30_002)
        stays = [self.client(b"x" * 40_000 + b"\n") for _ in range(2)]
        self.assertEqual([each[:1] for each in self.host.cut], [b"C"])
        self.assertEqual(self.used, 90_003)
        self.assertEqual([each.read for each in stays], [b""] * 2)
        stays.append(self.client(b"x" * 19_000 + b"\n"))
        self.assertEqual([each[:1] for each in self.host.cut], [b"C", b"B"])
        self.assertEqual((self.used, self.clients.released.count), (99_003, 2))

    def test_one_host_takes_all(self) -> None:
        """Large requests for one slow host end, and small ones for others are served."""
        self.host.in_flight = True
        for _ in range(10):
            self.client(b"x" * 50_000 + b"\n")
        others = [self.client(b"y" * 9_000 + b"\n") for _ in range(5)]
        self.assertEqual([each.read for each in others], [b""] * 5)
        self.assertLessEqual(self.used, LIMIT)

    def test_sent_ahead(self) -> None:
        """Data sent ahead counts, and its client loses the outstanding request, too."""
        asks = self.client(b"ping\n", b"x" * 60_000)
        other = self.client(b"x" * 50_000)
        self.assertEqual((asks.read, other.read, self.used), (CON_LOST, b"", 50_000))
        self.assertEqual(self.host.cut, [])
        self.assertEqual(self.host.withdrawn[0].line, b"ping\n")

    def test_they_all_grow(self) -> None:
        """Of many requests that grow at the same time, the remaining ones are served."""
        clients = [self.client() for _ in range(10)]
        for _ in range(8):
            for client in clients:
                client.write(b"x" * 10_000)
                self.assertLessEqual(self.used, LIMIT)
        for client in clients:
            client.write(b"\n")
        self.answer_all()
        served = [client for client in clients if len(client.read) > 80_000]
        self.assertEqual(len(served), 1)
        self.assertEqual([each.read for each in clients if each not in served], [CON_LOST] * 9)

    def test_larger_than_all(self) -> None:
        """A request larger than the limit is served if it is the only one."""
        self.begin(max_request_memory=20_000)
        client = self.client(b"x" * 80_000 + b"\n")
        self.turn()
        self.answer_all()
        self.assertEqual((len(client.read), self.used), (80_004, 0))

    def test_answered_at_once(self) -> None:
        """Many small requests in one segment are counted until each is submitted."""
        self.host.at_once = b"ok\n"
        client = self.client(b"x\n" * 30_000)
        self.assertEqual(self.used, 60_000 - 2 * client.read.count(b"\n"))
        self.turn()
        self.assertEqual((client.read.count(b"\n"), self.used), (30_000, 0))

    def test_client_that_goes(self) -> None:
        """When a client disconnects, waiting requests no longer count; outstanding ones do."""
        for ends_with in (b"ok\n", Cause.TIMEOUT):
            waits = self.client(b"x" * 20_000 + b"\n")
            waits.hang_up()
            self.assertEqual(self.used, 0)
            self.host.waiting.clear()
            under_way = self.client(b"x" * 30_000 + b"\n", b"ahead" * 1000)
            request = self.host.waiting.pop()  # it has been sent
            under_way.hang_up()
            self.assertEqual(self.used, 30_001)
            if isinstance(ends_with, Cause):
                request.asker.lost(ends_with)
            else:
                request.asker.answered(ends_with)
            self.assert_forgotten()

    def test_new_limit(self) -> None:
        """F13: a lower limit ends no request until a client sends more."""
        client = self.begun(50_000)
        self.clients.reconfigure(some_settings(max_request_memory=20_000))
        self.advance(1)
        self.assertEqual(client.read, b"")
        self.begun(10_000)
        self.assertEqual(client.read, CON_LOST)
        self.assertEqual(self.used, 10_000)

    def test_new_limit_while_less(self) -> None:
        """F13: nor when less memory is used."""
        stays, answered = self.begun(40_000), self.client(b"x" * 30_000 + b"\n" + b"y" * 20_000)
        self.clients.reconfigure(some_settings(max_request_memory=20_000))
        self.host.answer()
        self.assertEqual((stays.read, len(answered.read), self.used), (b"", 30_004, 60_000))

    def test_ahead_of_what_is_in_flight(self) -> None:
        """An outstanding request ends even if dropping the data sent ahead would suffice."""
        self.host.in_flight = True
        self.client(b"x" * 30_000 + b"\n", b"ahead" * 8_000)
        self.begun(50_000)
        self.assertEqual([len(each) for each in self.host.cut], [30_001])
        self.assertEqual(self.used, 50_000)

    def test_balance(self) -> None:
        """After random actions, nothing is counted once all have disconnected and are answered."""
        random = Random(7)
        clients: list[FakeClient] = []
        for _ in range(3000):
            step = random.randrange(8)
            if step == 0 or not clients:
                clients.append(self.client(room=random.choice([0, 50_000, float("inf")])))
                continue
            client = random.choice(clients)
            if step < 4:
                client.write(b"x" * random.choice([0, 10, 9_000, 30_000]))
            elif step == 4:
                client.write(b"\n" * random.choice([1, 1, 20]))
            elif step == 5 and self.host.waiting:
                self.host.answer()
            elif step == 6:
                client.wire.take(random.choice([10, 50_000]))
            elif step == 7 and random.random() < 0.3:
                clients.remove(client)
                client.hang_up()
            self.turn()
            self.host.at_once = random.choice([None, None, b"ok\n"])
            self.assertLessEqual(self.used, LIMIT)
            self.assertGreaterEqual(self.used, 0)
        for client in clients:
            client.hang_up()
        self.turn()
        while self.host.waiting:
            self.host.answer()
        self.assert_forgotten()


class TurnTests(ClientTestCase):
    """How much is done for one client in one turn of the loop."""

    def setUp(self) -> None:
        later = Clock.callLater
        self.patch(Clock, "callLater", lambda clock, s, *what: later(clock, max(s, TICK), *what))
        super().setUp()

    def one_turn(self) -> None:
        """Do what is due now, but not what that postpones."""
        self.clock.advance(TICK)

    def test_empty_lines(self) -> None:
        """Of lines that are answered at once only a few are handled in each turn."""
        self.host.at_once = CON_LOST
        many = self.client(b"\n" * 1000)
        self.assertEqual(len(self.host.asked), 8)
        other = self.client(b"ping\n")
        self.assertEqual(other.read, CON_LOST)
        many.write(b"\n" * 1000)
        self.assertEqual(len(self.host.asked), 9)
        self.one_turn()
        self.assertEqual(len(self.host.asked), 17)
        self.clock.pump([TICK] * 300)
        self.assertEqual(many.read, CON_LOST * 2000)

    def test_many_such_clients(self) -> None:
        """Only so many such clients are served in each turn."""
        self.host.at_once = CON_LOST
        for _ in range(300):
            self.client(b"\n" * 100)
        asked = len(self.host.asked)
        self.one_turn()
        self.assertEqual(len(self.host.asked) - asked, 128 * 8)
        self.clock.pump([TICK] * 300)
        self.assertEqual(len(self.host.asked), 300 * 100)

    def test_end_of_input(self) -> None:
        """A half-closed client gets all its answers before it is closed."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\n" * 20)
        client.half_close()
        self.clock.pump([TICK] * 300)
        self.assertEqual((client.read, client.closed), (b"ok\n" * 20, True))
        self.assert_forgotten()

    def test_fault(self) -> None:
        """A fault in the turn of one client does not delay the others."""
        self.host.at_once = b"ok\n"
        for _ in range(3):
            self.client(b"a\n" * 20)
        self.host.at_once = RuntimeError("a fault")
        self.assertRaises(RuntimeError, self.one_turn)
        self.host.at_once = b"ok\n"
        self.clock.pump([TICK] * 300)
        self.assertEqual(len(self.host.asked), 8 + 1 + 2 * 20)

    def test_it_goes_meanwhile(self) -> None:
        """Nothing more is submitted for a client that has disconnected."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\n" * 20)
        client.hang_up()
        self.clock.pump([TICK] * 300)
        self.assertEqual(len(self.host.asked), 8)
        self.assert_forgotten()

    def test_stop_meanwhile(self) -> None:
        """A host that stops answers con_lost to each line that was not submitted."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\n" * 20)
        self.listener.finish()
        self.clock.pump([TICK] * 300)
        self.assertEqual(client.read, b"ok\n" * 8 + CON_LOST * 12)
        self.assertEqual(len(self.host.asked), 8)
        self.listener.abort()
        self.clock.pump([TICK] * 3)
        self.assert_forgotten()
