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
    """The maximum length of a line (F3)."""

    def test_longest_line(self) -> None:
        """F3: a request may be as long as the limit, not counting its newline."""
        self.client(b"x" * MAX_LINE + b"\n")
        self.assertEqual(len(self.host.asked[0]), MAX_LINE + 1)

    def test_line_too_long(self) -> None:
        """F3: with one byte more, the client gets con_lost and is closed; it is logged."""
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
        """F3: the rest of the line is read, so that the client gets con_lost and no EPIPE."""
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
        """F3: a client that has closed its writing side is closed at once, with all answers."""
        client = self.client(b"a\n" + b"x" * (MAX_LINE + 1))
        client.half_close()
        self.host.answer()
        self.assertEqual(len(self.clients.leaving), 0)
        self.assert_ended(client, b"".join([b"re:a\n", CON_LOST]))

    def test_it_does_not_stay(self) -> None:
        """F3: a client that does not disconnect is aborted after the drain time."""
        self.begin(drain_timeout=5)
        client = self.client(b"x" * (MAX_LINE + 1))
        self.advance(4.75)
        self.assertFalse(client.closed)
        client.write(b"x")
        self.advance(0.25)
        self.assert_ended(client)

    def test_long_line_behind_others(self) -> None:
        """F3: requests before the long line are answered first, those after it never."""
        client = self.client(b"a\nb\n" + b"x" * (MAX_LINE + 1) + b"\nc\n")
        self.answer_all()
        self.assertEqual(client.answers, [b"re:a\n", b"re:b\n", CON_LOST])
        self.assertEqual(self.host.asked, [b"a\n", b"b\n"])
        self.assertEqual(self.host.lost, [Cause.TOO_LONG])

    def test_long_line_behind_an_answer_at_once(self) -> None:
        """F3: also if the requests before it are answered at once."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\n" + b"x" * (MAX_LINE + 1) + b"\nc\n")
        self.assertEqual(client.answers, [b"ok\n", CON_LOST])

    def test_long_line_that_is_not_read_yet(self) -> None:
        """F3: a long line after an outstanding request is read to its end."""
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
        """F3: a thousand such clients cause only a few log lines."""
        for _ in range(1000):
            self.client(b"x" * (MAX_LINE + 1)).hang_up()
            self.clock.advance(0.01)
        self.assertLessEqual(len(self.notes.events), 2)
        self.assertEqual(len(self.host.lost), 1000)

    def test_ahead_is_bounded(self) -> None:
        """F3: only a bounded amount is read ahead of a client that sends continuously."""
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
        """S5: a line longer than the read-ahead limit is read completely."""
        self.begin(max_line=1_000_000)
        client = self.client(b"a\n", b"b" * 900_000 + b"\n" + b"c\n")
        self.turn()
        self.assertGreater(client.wire.unread, 700_000)
        self.answer_all()
        self.assertEqual([len(line) for line in self.host.asked], [2, 900_001, 2])
        self.assertEqual(len(client.answers), 3)


class UnfinishedLineTests(ClientTestCase):
    """The time limit on an incomplete line (F3)."""

    def test_limit(self) -> None:
        """F3: an incomplete line gets con_lost at the time limit since its first byte."""
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
        """F3: a line completed in time is a request, and the time limit ends."""
        self.begin(write_timeout=60)
        client = self.client(b"pi")
        self.advance(59)
        client.write(b"ng\n")
        self.advance(200)
        self.assertEqual((self.host.asked, client.read), ([b"ping\n"], b""))
        self.assertFalse(client.closed)

    def test_silent_client(self) -> None:
        """S5: a client without an incomplete line may be silent forever."""
        client = self.client()
        self.advance(1000)
        client.write(b"ping\n")
        self.host.answer()
        self.advance(1000)
        client.write(b"ping\n")
        self.assertEqual(len(self.host.asked), 2)

    def test_begun_while_one_is_under_way(self) -> None:
        """F3: the time limit does not run while a request is outstanding."""
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
        """F3: each client has its own time limit."""
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
    """Clients that do not read (F3)."""

    def owed(self, size: int, program: int = 0) -> FakeClient:
        """Return a client that leaves an answer of so many bytes unread."""
        client = self.client(b"ping\n", room=0, program=program)
        self.host.answer(b"x" * (size - 1) + b"\n")
        return client

    def test_no_further_request(self) -> None:
        """F3: the next request is not submitted until the client has read its answer."""
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
        """F3: also if answers come at once; the amount buffered for a client is bounded."""
        self.host.at_once = b"x" * 100 + b"\n"
        client = self.client(b"a\n" * 10_000, room=1000)
        self.turn()
        self.assertLess(len(self.host.asked), 15)
        client.wire.take()
        self.turn()
        self.assertEqual(len(client.answers), 10_000)

    def test_sends_on_without_reading(self) -> None:
        """F3: a client that sends but does not read is not read from."""
        client = self.client(b"a\n", room=0)
        self.host.answer()
        client.write(b"b\n" * 500_000)
        self.turn()
        self.assertGreater(client.wire.unread, 500_000)
        client.wire.take()
        self.turn()
        self.assertEqual(len(self.host.asked), 2)

    def test_limit(self) -> None:
        """F3: a client that reads nothing until the time limit is closed; it is logged."""
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
        """F3: once it has read, the time limit starts anew with the next answer."""
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
        """F3: a client that reads a byte now and then is not closed."""
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
        """F3: also if that answer is its last."""
        self.begin(write_timeout=60)
        client = self.client(b"a\n", room=1)
        client.half_close()
        self.host.answer(b"xx\n")
        for _ in range(2):
            self.advance(50)
            client.wire.take(1)
        self.assert_ended(client, b"xx\n")

    def test_slow_reader_in_need(self) -> None:
        """F3: a slow reader is not closed for memory that another program uses."""
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
        """F3: connections of a program that leaves little unread on each of many are closed."""
        self.begin(max_unread=2500, max_line=5000)
        slow = self.owed(1000, program=7)
        many = [self.client(b"ping\n", room=0, program=8) for _ in range(20)]
        while self.host.waiting:
            self.host.answer(b"x" * 99 + b"\n")
        self.turn()
        self.assertFalse(slow.closed)
        self.assertEqual(sum(each.closed for each in many), 5)

    def test_memory_for_all(self) -> None:
        """F3: beyond the limit for all answers, the client with most unread is closed."""
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
        """F3: only unread bytes count."""
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
        """F3: a single answer larger than that limit is delivered all the same."""
        self.begin(max_unread=1000, max_line=5000)
        client = self.owed(5000)
        self.turn()
        self.assertFalse(client.closed)
        client.wire.take()
        self.assertEqual(len(client.read), 5000)
        self.assertEqual(self.clients.unread_bytes, 0)

    def test_new_limit(self) -> None:
        """F13: a lower limit closes nobody until more is left unread."""
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
        """F16: the unread bytes of a client that disconnects no longer count."""
        client = self.client(b"ping\n", room=0)
        self.host.answer()
        client.hang_up()
        self.assert_forgotten()

    def test_half_close_while_blocked(self) -> None:
        """A half-closed client gets the rest of its answers when it reads."""
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
    """What is reported while places or memory are short."""

    def problems(self, seconds: float = 0.0) -> dict[str, str]:
        """Return the kind and the text of each problem so many seconds from now."""
        return {each.kind: each.what for each in self.clients.problems(time.time() + seconds)}

    def test_nothing(self) -> None:
        """Usual clients are no problem."""
        self.client(b"a\n")
        self.answer_all()
        self.assertEqual(self.problems(), {})

    def test_places(self) -> None:
        """It is a problem if no place is free, or if one program has most of them."""
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
        """Where the process is unknown, the user is named."""
        self.begin(max_clients=2)
        for _ in range(2):
            self.client(b"a\n", user=33)
        self.assertEqual(
            self.problems()["clients-one-program"], "user 33 has 2 of 2 places for clients"
        )

    def test_cut_off(self) -> None:
        """Closed clients are reported for five minutes, each counted once."""
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
        """Requests that ended for lack of memory are reported, too."""
        self.begin(max_request_memory=20_000, max_line=50_000)
        for _ in range(2):
            self.client(b"x" * 15_000)
        (what,) = self.problems().values()
        self.assertIn("ended for want of memory, 1 since", what)
        self.assertEqual(self.problems(301.0), {})

    def test_counts(self) -> None:
        """Each con_lost counts one request: submitted, incomplete, or not accepted."""
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
    """The maximum number of clients (F3)."""

    def test_limit(self) -> None:
        """F3: a client over the limit gets con_lost and is closed; the log has the limit."""
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
        """F3: when a client disconnects, another is accepted."""
        self.begin(max_clients=2)
        one, _ = self.client(b"a\n"), self.client(b"b\n")
        self.client().hang_up()
        one.hang_up()
        self.client(b"ping\n")
        self.assertEqual(self.host.asked, [b"a\n", b"b\n", b"ping\n"])

    def test_all_hosts_together(self) -> None:
        """F3: the limit applies to the clients of all hosts together."""
        self.begin(max_clients=1)
        other = FakeHost()
        FakeClient(self.clock, ClientListener(other, self.clients)).write(b"a\n")
        self.assertEqual(self.client(b"ping\n").read, CON_LOST)
        self.assertEqual((self.host.lost, other.lost), ([Cause.TOO_MANY_CLIENTS], []))

    def test_new_limit(self) -> None:
        """F13: a lower limit closes no existing client."""
        one, two = self.client(b"a\n"), self.client(b"ping\n")
        self.clients.reconfigure(some_settings(max_clients=1))
        three = self.client()
        self.answer_all()
        self.assertEqual((one.read, two.read), (b"re:a\n", b"re:ping\n"))
        self.assertEqual((three.read, one.closed), (CON_LOST, False))

    def test_flood(self) -> None:
        """F3: of many rejected clients, some have time to read con_lost; the others have none."""
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
