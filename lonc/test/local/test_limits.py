"""Clients that misbehave: the limits on lines, on unread answers and on their number (row F3)."""

from __future__ import annotations

import time

from lonc.local.client_socket import ClientListener
from lonc.local.limits import TURNED_AWAY
from lonc.local.protocol import MOST_AHEAD
from lonc.test.fixtures.doubles import FakeClient, some_settings
from lonc.test.fixtures.local_client import MAX_LINE, ClientTestCase, FakeHost
from lonc.wire.request import CON_LOST, Cause


class LineLimitTests(ClientTestCase):
    """Row F3: the line."""

    def test_longest_line(self) -> None:
        """F3: a request may have as many bytes as the limit, its newline not counted."""
        self.client(b"x" * MAX_LINE + b"\n")
        self.assertEqual(len(self.host.asked[0]), MAX_LINE + 1)

    def test_line_too_long(self) -> None:
        """F3: one byte more is con_lost and the end of the client; the log says so."""
        for segments in (
            [b"x" * (MAX_LINE + 1) + b"\n"],
            [b"x" * (MAX_LINE + 1)],
            [b"x" * MAX_LINE, b"x"],
            [b"x" * 10 * MAX_LINE],
        ):
            self.begin()
            self.notes.events.clear()
            client = self.client(*segments)
            self.assertEqual(client.read, CON_LOST)
            self.assertEqual((self.host.asked, self.host.lost), ([], [Cause.TOO_LONG]))
            client.half_close()
            self.assert_ended(client)
            (event,) = self.notes.events
            self.assertEqual(event["host_id"], "l2")
            self.assertIn(f"longer than {MAX_LINE} bytes", event["what"])
            self.assertNotIn("xx", str(event))

    def test_it_can_read_con_lost(self) -> None:
        """F3: a client that still writes is read on: it finds con_lost and no broken pipe."""
        client = self.client(b"x" * (MAX_LINE + 1))
        self.turn()
        self.assertTrue(client.wire.half_closed)
        self.assertFalse(client.closed)
        client.write(b"x" * 10_000_000 + b"\nping\n")
        self.turn()
        self.assertEqual(client.wire.unread, 0)
        self.assertEqual((client.read, self.host.asked), (CON_LOST, []))
        self.assertEqual(self.host.lost, [Cause.TOO_LONG])
        client.half_close()
        self.turn()
        self.assertTrue(client.closed)

    def test_it_has_said_all(self) -> None:
        """F3: one that is turned away after its last byte is closed at once, and reads it all."""
        client = self.client(b"a\n" + b"x" * (MAX_LINE + 1))
        client.half_close()
        self.host.answer()
        self.assertEqual(len(self.clients.leaving), 0)
        self.assert_ended(client, b"".join([b"re:a\n", CON_LOST]))

    def test_it_does_not_stay(self) -> None:
        """F3: one that does not go by itself is cut after the drain time."""
        self.begin(drain_timeout=5)
        client = self.client(b"x" * (MAX_LINE + 1))
        self.advance(4.75)
        self.assertFalse(client.closed)
        client.write(b"x")
        self.advance(0.25)
        self.assert_ended(client)

    def test_long_line_behind_others(self) -> None:
        """F3: requests before the long line are answered first, those behind it never."""
        client = self.client(b"a\nb\n" + b"x" * (MAX_LINE + 1) + b"\nc\n")
        self.answer_all()
        self.assertEqual(client.answers, [b"re:a\n", b"re:b\n", CON_LOST])
        self.assertEqual(self.host.asked, [b"a\n", b"b\n"])
        self.assertEqual(self.host.lost, [Cause.TOO_LONG])

    def test_long_line_behind_an_answer_at_once(self) -> None:
        """F3: so it is when those before it are answered at once."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\n" + b"x" * (MAX_LINE + 1) + b"\nc\n")
        self.assertEqual(client.answers, [b"ok\n", CON_LOST])

    def test_long_line_that_is_not_read_yet(self) -> None:
        """F3: a client whose long line waits behind a request can write it to its end, too."""
        client = self.client(b"a\n", b"x" * 1_000_000)
        self.turn()
        self.assertGreater(client.wire.unread, 800_000)
        self.host.answer()
        self.turn()
        self.assertEqual(client.answers, [b"re:a\n", CON_LOST])
        self.assertEqual(client.wire.unread, 0)
        client.half_close()
        self.turn()
        self.assertTrue(client.closed)

    def test_log_is_not_filled(self) -> None:
        """F3: a thousand such clients are a few lines in the log."""
        for _ in range(1000):
            self.client(b"x" * (MAX_LINE + 1)).hang_up()
            self.clock.advance(0.01)
        self.assertLessEqual(len(self.notes.events), 2)
        self.assertEqual(len(self.host.lost), 1000)

    def test_ahead_is_bounded(self) -> None:
        """F3: a client that sends on and on while it is answered is not read on and on."""
        client = self.client(b"x\n" * 1_000_000)
        total = client.wire.unread
        self.assertGreater(total, 1_500_000)
        for answered in range(1, 1001):
            self.host.answer(b"\n")
            self.turn()
            taken_in = 2_000_000 - client.wire.unread
            self.assertLessEqual(taken_in - 2 * answered, 2 * MOST_AHEAD + 65536)
        self.assertEqual(client.read, b"\n" * 1000)

    def test_long_line_behind_the_bound(self) -> None:
        """S5: a line longer than what is read ahead is read to its end all the same."""
        self.begin(max_line=1_000_000)
        client = self.client(b"a\n", b"b" * 900_000 + b"\n" + b"c\n")
        self.turn()
        self.assertGreater(client.wire.unread, 700_000)
        self.answer_all()
        self.assertEqual([len(line) for line in self.host.asked], [2, 900_001, 2])
        self.assertEqual(len(client.answers), 3)


class UnfinishedLineTests(ClientTestCase):
    """Row F3: a line that was begun."""

    def test_limit(self) -> None:
        """F3: a line that does not end is con_lost at its limit, counted from its first byte."""
        self.begin(write_timeout=60)
        client = self.client(b"p")
        for _ in range(59):
            self.advance(1)
            client.write(b"p")
        self.assertEqual(client.read, b"")
        self.advance(1)
        self.assertEqual(client.read, CON_LOST)
        self.advance(2)
        self.assertEqual(self.host.lost, [Cause.TIMEOUT])
        client.half_close()
        self.assert_ended(client)

    def test_ended_in_time(self) -> None:
        """F3: a line that ends in time is asked, and the client is left alone."""
        self.begin(write_timeout=60)
        client = self.client(b"pi")
        self.advance(59)
        client.write(b"ng\n")
        self.advance(200)
        self.assertEqual((self.host.asked, client.read), ([b"ping\n"], b""))
        self.assertFalse(client.closed)

    def test_silent_client(self) -> None:
        """S5: a client that has begun nothing may be silent for as long as it likes."""
        client = self.client()
        self.advance(1000)
        client.write(b"ping\n")
        self.host.answer()
        self.advance(1000)
        client.write(b"ping\n")
        self.assertEqual(len(self.host.asked), 2)

    def test_begun_while_one_is_under_way(self) -> None:
        """F3: while an answer is awaited the limit does not run: the client may be waiting."""
        self.begin(write_timeout=60)
        client = self.client(b"a\nb")
        self.advance(100)
        self.assertFalse(client.closed)
        self.host.answer()
        self.advance(59)
        self.assertEqual(client.read, b"re:a\n")
        self.advance(1)
        self.assertEqual(client.read, b"re:a\n" + CON_LOST)

    def test_each_has_its_own(self) -> None:
        """F3: several clients, each with its own limit."""
        self.begin(write_timeout=60)
        clients = []
        for _ in range(3):
            clients.append(self.client(b"x"))
            self.advance(10)
        clients[1].write(b"\n")
        self.advance(30)
        self.assertEqual([client.read for client in clients], [CON_LOST, b"", b""])
        self.advance(20)
        self.assertEqual([client.read for client in clients], [CON_LOST, b"", CON_LOST])


class UnreadAnswerTests(ClientTestCase):
    """Row F3: clients that do not read."""

    def owed(self, size: int, program: int = 0) -> FakeClient:
        """Return a client that leaves an answer of so many bytes unread."""
        client = self.client(b"ping\n", room=0, program=program)
        self.host.answer(b"x" * (size - 1) + b"\n")
        return client

    def test_no_further_request(self) -> None:
        """F3: a client that does not read its answer is not asked for until it does."""
        client = self.client(b"a\nb\n", room=2)
        self.host.answer(b"answer\n")
        self.turn()
        self.assertEqual(self.host.asked, [b"a\n"])
        self.assertEqual(self.clients.unread_bytes, 5)
        client.wire.take(3)
        self.assertEqual(self.host.asked, [b"a\n"])
        client.wire.take(3)
        self.assertEqual(self.host.asked, [b"a\n", b"b\n"])
        self.assertEqual(self.clients.unread_bytes, 0)
        self.assertEqual(client.read, b"answer\n")

    def test_answered_at_once(self) -> None:
        """F3: so it is when answers come at once: what is kept for the client is bounded."""
        self.host.at_once = b"x" * 100 + b"\n"
        client = self.client(b"a\n" * 10_000, room=1000)
        self.turn()
        self.assertLess(len(self.host.asked), 15)
        client.wire.take()
        self.turn()
        self.assertEqual(len(client.answers), 10_000)

    def test_sends_on_without_reading(self) -> None:
        """F3: a client that sends on and on and reads nothing is not read on and on."""
        client = self.client(b"a\n", room=0)
        self.host.answer()
        client.write(b"b\n" * 500_000)
        self.turn()
        self.assertGreater(client.wire.unread, 500_000)
        client.wire.take()
        self.turn()
        self.assertEqual(len(self.host.asked), 2)

    def test_limit(self) -> None:
        """F3: a client that reads nothing for too long is closed, and the log says so."""
        self.begin(write_timeout=60)
        client, other = self.client(b"a\nb\n", room=1), self.client(b"c\n")
        self.host.answer()
        self.advance(59.75)
        self.assertFalse(client.closed)
        self.advance(0.25)
        self.assertTrue(client.closed)
        self.assertEqual((self.clients.unread_bytes, self.clients.open), (0, 1))
        self.assertIn("60 s", self.notes.events[0]["what"])
        self.answer_all()
        self.assertEqual((other.read, self.host.asked), (b"re:c\n", [b"a\n", b"c\n"]))

    def test_read_in_time(self) -> None:
        """F3: once it has read, the limit begins anew with the next answer."""
        self.begin(write_timeout=60)
        client = self.client(b"a\nb\n", room=1)
        self.host.answer()
        self.advance(50)
        client.wire.take(5)
        self.advance(50)
        self.host.answer()
        self.advance(50)
        self.assertFalse(client.closed)
        self.advance(10)
        self.assert_ended(client)

    def test_slow_reader(self) -> None:
        """F3: who takes a byte now and then is waited for, however long the answer is."""
        self.begin(write_timeout=60)
        client = self.client(b"a\n", room=1)
        self.host.answer(b"x" * 9 + b"\n")
        for _ in range(8):
            self.advance(50)
            client.wire.take(1)
        self.advance(59.75)
        self.assertFalse(client.closed)
        self.advance(0.5)
        self.assertTrue(client.closed)
        self.assertEqual(client.read, b"x" * 9)
        self.assert_forgotten()

    def test_slow_reader_that_is_closed(self) -> None:
        """F3: so it is when that answer is the client's last."""
        self.begin(write_timeout=60)
        client = self.client(b"a\n", room=1)
        client.half_close()
        self.host.answer(b"xx\n")
        for _ in range(2):
            self.advance(50)
            client.wire.take(1)
        self.assert_ended(client, b"xx\n")

    def test_slow_reader_in_need(self) -> None:
        """F3: when memory is short, who reads slowly does not go for what others leave unread."""
        self.begin(max_unread=5000, max_line=5000, write_timeout=60)
        slow = self.owed(2500, program=7)
        others = []
        for _ in range(8):
            slow.wire.take(100)
            self.advance(1)
            others.append(self.owed(2000, program=8))
            self.turn()
        self.assertFalse(slow.closed)
        self.assertEqual(sum(other.closed for other in others), 7)
        self.assertEqual(self.clients.unread_bytes, 1700 + 2000)

    def test_many_small(self) -> None:
        """F3: a program that leaves a little unread on many connections is who has to go."""
        self.begin(max_unread=2500, max_line=5000)
        slow = self.owed(1000, program=7)
        many = [self.client(b"ping\n", room=0, program=8) for _ in range(20)]
        while self.host.waiting:
            self.host.answer(b"x" * 99 + b"\n")
        self.turn()
        self.assertFalse(slow.closed)
        self.assertEqual(sum(each.closed for each in many), 5)

    def test_memory_for_all(self) -> None:
        """F3: past the memory for all answers, who leaves most unread is closed."""
        self.begin(max_unread=2500, max_line=5000)
        clients = []
        for _ in range(3):
            clients.append(self.owed(1000))
            self.advance(1)
        self.assertEqual([client.closed for client in clients], [True, False, False])
        self.assertEqual(self.clients.unread_bytes, 2000)
        clients[1].wire.take()
        self.assertEqual(self.clients.unread_bytes, 1000)
        clients.append(self.owed(2000))
        self.turn()
        self.assertEqual([client.closed for client in clients], [True, False, False, True])
        self.assertEqual(self.clients.unread_bytes, 1000)

    def test_what_is_read_takes_no_memory(self) -> None:
        """F3: only what a client has not taken counts against that memory."""
        self.begin(max_unread=2500, max_line=5000)
        clients = []
        for _ in range(3):
            clients.append(self.client(b"ping\n", room=500))
            self.host.answer(b"x" * 999 + b"\n")
            self.advance(1)
        self.assertEqual(self.clients.unread_bytes, 1500)
        clients[0].wire.take(400)
        self.advance(1)
        self.assertEqual(self.clients.unread_bytes, 1100)
        clients[0].wire.take()
        self.assertEqual(self.clients.unread_bytes, 1000)
        clients.append(self.owed(1500))
        self.assertEqual([client.closed for client in clients], [False] * 4)
        for client in clients:
            client.hang_up()
        self.assert_forgotten()

    def test_one_answer_over_all(self) -> None:
        """F3: an answer that is larger than all that memory is given to its client all the same."""
        self.begin(max_unread=1000, max_line=5000)
        client = self.owed(5000)
        self.turn()
        self.assertFalse(client.closed)
        client.wire.take()
        self.assertEqual(len(client.read), 5000)
        self.assertEqual(self.clients.unread_bytes, 0)

    def test_new_limit(self) -> None:
        """F13: a lower limit closes nobody until something more is not read."""
        self.begin(max_unread=5000, max_line=5000)
        clients = []
        for _ in range(2):
            clients.append(self.owed(2000))
        self.clients.reconfigure(some_settings(max_unread=3000))
        self.advance(1)
        self.assertFalse(any(each.closed for each in clients))
        self.owed(100)
        self.turn()
        self.assertEqual(sum(each.closed for each in clients), 1)

    def test_hang_up(self) -> None:
        """F16: what a client has not read goes with it."""
        client = self.client(b"ping\n", room=0)
        self.host.answer()
        client.hang_up()
        self.assert_forgotten()

    def test_half_close_while_blocked(self) -> None:
        """A client that half-closes meanwhile gets the rest of its answers when it reads."""
        client = self.client(b"a\nb\n", room=1)
        self.host.answer()
        client.half_close()
        self.turn()
        self.assertFalse(client.closed)
        client.wire.take()
        self.answer_all()
        self.assertEqual((client.answers, client.closed), ([b"re:a\n", b"re:b\n"], True))
        self.assert_forgotten()


class ShortageTests(ClientTestCase):
    """What is told while places or memory are short."""

    def problems(self, seconds: float = 0.0) -> dict[str, str]:
        """Return kind and text of what is wrong so many seconds from now."""
        return {each.kind: each.what for each in self.clients.problems(time.time() + seconds)}

    def test_nothing(self) -> None:
        """Clients that ask and go are no problem."""
        self.client(b"a\n")
        self.answer_all()
        self.assertEqual(self.problems(), {})

    def test_places(self) -> None:
        """All places taken is a problem until one is free; so is a program that has most."""
        self.begin(max_clients=5)
        clients = [self.client(b"a\n", program=program) for program in (7, 7, 7, 8, 9)]
        self.assertEqual(
            self.problems(),
            {
                "clients-full": "5 of 5 places for clients are taken",
                "clients-one-program": "process 7 has 3 of 5 places for clients",
            },
        )
        clients.pop().hang_up()
        self.assertEqual(list(self.problems()), ["clients-one-program"])
        clients.pop(0).hang_up()
        self.assertEqual(self.problems(), {})

    def test_user(self) -> None:
        """Where the kernel tells no process, the user is named."""
        self.begin(max_clients=2)
        for _ in range(2):
            self.client(b"a\n", user=33)
        self.assertEqual(
            self.problems()["clients-one-program"], "user 33 has 2 of 2 places for clients"
        )

    def test_cut_off(self) -> None:
        """Clients that were closed are told for five minutes, and each is counted once."""
        too_long, slow = self.client(b"x" * (MAX_LINE + 1)), self.client(b"a\n", room=0)
        self.host.answer()
        self.advance(60)
        self.assertTrue(too_long.closed and slow.closed)
        self.assertEqual(
            self.problems(),
            {"clients-cut-off": "clients were closed, 2 since the start"},
        )
        self.assertEqual(self.problems(301.0), {})

    def test_memory(self) -> None:
        """So are requests that ended because others needed their memory."""
        self.begin(max_request_memory=20_000, max_line=50_000)
        for _ in range(2):
            self.client(b"x" * 15_000)
        (what,) = self.problems().values()
        self.assertIn("ended for want of memory, 1 since", what)
        self.assertEqual(self.problems(301.0), {})

    def test_counts(self) -> None:
        """A con_lost is counted for a request, once: for one that was asked, begun or not read."""
        self.begin(max_clients=3)
        self.client(b"x" * (MAX_LINE + 1))
        self.assertEqual((self.host.asked_in_vain, self.host.lost), (1, [Cause.TOO_LONG]))
        for _ in range(4):
            self.client(b"a\n")
        self.assertEqual((self.host.asked_in_vain, len(self.host.asked)), (2, 3))
        self.assertEqual(self.host.lost, [Cause.TOO_LONG, Cause.TOO_MANY_CLIENTS])
        self.begin(max_request_memory=20_000, max_line=50_000)
        for _ in range(2):
            self.client(b"x" * 15_000 + b"\n")
        self.assertEqual((self.host.asked_in_vain, len(self.host.asked)), (0, 2))
        self.assertEqual(self.host.lost, [Cause.MEMORY])


class NumberOfClientsTests(ClientTestCase):
    """Row F3: the number of clients."""

    def test_limit(self) -> None:
        """F3: past the limit a client reads con_lost and is closed; the log names the limit."""
        self.begin(max_clients=2)
        one, two = self.client(b"a\n"), self.client(b"b\n")
        three = self.client(b"ping\n")
        self.assertEqual(three.read, CON_LOST)
        self.assertEqual(self.host.asked, [b"a\n", b"b\n"])
        self.assertEqual(self.host.lost, [Cause.TOO_MANY_CLIENTS])
        self.assertIn("2 clients", self.notes.events[0]["what"])
        three.half_close()
        self.turn()
        self.assertTrue(three.closed)
        self.assertFalse(one.closed or two.closed)
        self.assertEqual(self.clients.open, 2)

    def test_room_again(self) -> None:
        """F3: when one has gone there is room for another."""
        self.begin(max_clients=2)
        one, _ = self.client(b"a\n"), self.client(b"b\n")
        self.client().hang_up()
        one.hang_up()
        self.client(b"ping\n")
        self.assertEqual(self.host.asked, [b"a\n", b"b\n", b"ping\n"])

    def test_all_hosts_together(self) -> None:
        """F3: the limit is for the clients of all hosts together."""
        self.begin(max_clients=1)
        other = FakeHost()
        FakeClient(self.clock, ClientListener(other, self.clients)).write(b"a\n")
        self.assertEqual(self.client(b"ping\n").read, CON_LOST)
        self.assertEqual((self.host.lost, other.lost), ([Cause.TOO_MANY_CLIENTS], []))

    def test_new_limit(self) -> None:
        """F13: a lower limit closes nobody who is there."""
        one, two = self.client(b"a\n"), self.client(b"ping\n")
        self.clients.reconfigure(some_settings(max_clients=1))
        three = self.client()
        self.answer_all()
        self.assertEqual((one.read, two.read), (b"re:a\n", b"re:ping\n"))
        self.assertEqual((three.read, one.closed), (CON_LOST, False))

    def test_flood(self) -> None:
        """F3: of a flood some can read their con_lost at leisure, the others are closed at once."""
        self.begin(max_clients=1)
        flood = [self.client(b"a\n")]
        flood += [self.client() for _ in range(TURNED_AWAY + 50)]
        self.turn()
        self.assertEqual(sum(client.closed for client in flood), 50)
        self.assertTrue(all(client.read == CON_LOST for client in flood[1:]))
        self.advance(self.clients.settings.drain_timeout)
        self.assertEqual([client.closed for client in flood], [False] + [True] * (TURNED_AWAY + 50))
        flood[0].hang_up()
        self.assert_forgotten()
        self.assertLessEqual(len(self.notes.events), 1)
