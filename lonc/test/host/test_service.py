"""A request's way through a host: to an idle connection, or into the queue, and back."""

from __future__ import annotations

from twisted.logger import LogLevel

from lonc.host.machine import MANY
from lonc.host.request_queue import ROUND_ROBIN_AFTER
from lonc.test.fixtures.doubles import echo, leave_pending
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.transport.unix_socket import Peer
from lonc.wire.request import Cause, ConLost


class ConnectionsTests(HostTestCase):
    """Row S8: which connection takes a request."""

    def test_first_request_makes_a_connection(self) -> None:
        """S8: no connection is made before a request comes; it is made for the first."""
        stage = Stage(self)
        stage.advance(5)
        self.assertEqual(stage.network.attempts, [])
        client = stage.client(b"ping\n")
        self.assertEqual(stage.state, (1, 0, 0, 0))
        stage.turn()
        self.assertEqual(stage.state, (0, 0, 0, 1))
        (attempt,) = stage.network.attempts
        self.assertEqual((attempt.host, attempt.port), ("127.0.0.2", 5663))
        self.assertEqual(stage.londs[0].asked, [b"ping\n"])
        self.assertEqual(client.read, b"")
        stage.londs[0].say(b"l2\n")
        self.assertEqual(client.read, b"l2\n")
        self.assertEqual(stage.state, (0, 0, 1, 0))

    def test_order_of_use(self) -> None:
        """S8: connections that were answered come back as last used in the order of answers."""
        stage = Stage(self)
        one, two, three = stage.connect(3)
        stage.clients_of(3)
        for lond in (two, three, one):
            lond.say(b"ok\n")
        stage.send(b"again\n")
        self.assertEqual(one.asked, [b"ping\n", b"again\n"])
        stage.send(b"again\n")
        self.assertEqual(three.asked, [b"ping\n", b"again\n"])

    def test_one_connection_a_waiter(self) -> None:
        """S8: each request that finds no idle connection starts one, up to the limit."""
        stage = Stage(self, max_connections=3)
        stage.clients_of(2)
        self.assertEqual(stage.state, (0, 0, 0, 2))
        stage.clients_of(5)
        self.assertEqual(stage.state, (0, 0, 0, 3))
        self.assertEqual(stage.status.waiting, 4)
        self.assertEqual(len(stage.network.attempts), 3)

    def test_connections_under_way_count(self) -> None:
        """S8: connections that are not ready yet count as well."""
        stage = Stage(self, max_connections=3)
        stage.network.on_connect = leave_pending
        stage.clients_of(9)
        self.assertEqual(stage.state, (3, 0, 0, 0))

    def test_queue_in_order(self) -> None:
        """S8: the longest waiting request is sent first, as soon as any connection is free."""
        stage = Stage(self, max_connections=2)
        clients = [stage.client(b"%d\n" % number) for number in range(8)]
        stage.turn()
        one, two = stage.londs
        one.answer = two.answer = echo
        self.assertEqual((one.asked, two.asked), ([b"0\n"], [b"1\n"]))
        two.reply(b"re:1\n")
        self.assertEqual(two.asked, [b"%d\n" % number for number in range(1, 8)])
        one.reply(b"re:0\n")
        self.assertEqual(self.answers(clients), [b"re:%d\n" % number for number in range(8)])

    def test_next_is_sent_before_the_answer_is_passed_on(self) -> None:
        """S8: a client that asks again at once does not overtake waiting requests."""
        stage = Stage(self, max_connections=1)
        eager = stage.client(b"a1\na2\n")
        patient = stage.send(b"b\n")
        (lond,) = stage.londs
        for number in range(3):
            lond.reply(b"%d\n" % number)
        self.assertEqual(lond.asked, [b"a1\n", b"b\n", b"a2\n"])
        self.assertEqual((eager.read, patient.read), (b"0\n2\n", b"1\n"))

    def test_requests_wait_through_the_handshake(self) -> None:
        """S6: no request is sent before the handshake is complete."""
        stage = Stage(self)
        stage.stall_at(b"ekey\n")
        client = stage.send(b"ping\n")
        self.assertEqual(stage.state, (0, 1, 0, 0))
        self.assertEqual(stage.londs[0].raw[-1], b"ekey\n")
        stage.londs[0].reply(b"ABCDEF\n")
        self.assertEqual(stage.londs[0].asked, [b"ping\n"])
        stage.londs[0].say(b"l2\n")
        self.assertEqual(client.read, b"l2\n")

    def test_connection_of_a_client_that_left(self) -> None:
        """S8: a connection whose client has gone is kept for the next."""
        stage = Stage(self)
        stage.client(b"ping\n").hang_up()
        stage.turn()
        self.assertEqual(stage.state, (0, 0, 1, 0))
        self.assertEqual(stage.londs[0].asked, [])


class OtherAskerTests(HostTestCase):
    """Requests without a client."""

    def test_answer(self) -> None:
        """S13: a Deferred fires with the answer."""
        stage = Stage(self)
        stage.echoing()
        outcome = stage.service.ask(b"put:x\n")
        self.assertNoResult(outcome)
        stage.turn()
        self.assertEqual(self.successResultOf(outcome), b"re:put:x\n")

    def test_no_answer(self) -> None:
        """S13: a Deferred fails with the cause, and nothing is logged as a fault."""
        stage = Stage(self)
        stage.refuse()
        outcome = stage.service.ask(b"put:x\n")
        stage.turn()
        failure = self.failureResultOf(outcome, ConLost)
        self.assertIs(failure.value.cause, Cause.UNREACHABLE)


class CountingTests(HostTestCase):
    """What the status tells."""

    def test_totals(self) -> None:
        """Requests, answers and con_lost by cause add up."""
        stage = Stage(self, max_connections=1, queue_limit=2, retries=5)
        stage.connect()
        stage.clients_of(5)
        stage.londs[0].reply(b"ok\n")
        stage.londs[0].close()
        stage.turn()
        status = stage.status
        lost = {cause: count for cause, count in status.con_lost.items() if count}
        self.assertEqual((status.requests, status.answers), (6, 2))
        self.assertEqual(lost, {"queue_full": 2, "broken": 1, "unreachable": 1})

    def test_waiting(self) -> None:
        """The age of the oldest waiter is told, 0 when none waits."""
        stage, _ = self.busy_stage()
        self.assertEqual(stage.status.oldest_waiter, 0.0)
        stage.send(b"ping\n", seconds=3)
        stage.send(b"ping\n", seconds=4)
        self.assertEqual((stage.status.waiting, stage.status.oldest_waiter), (2, 7.0))

    def test_owed(self) -> None:
        """The age of the oldest request that was sent is reported; waiting ones do not count."""
        stage, _ = self.busy_stage()
        stage.send(b"ping\n", seconds=3)
        self.assertEqual(stage.status.oldest_owed, 3.0)
        for answer in (b"1\n", b"2\n"):
            stage.londs[0].reply(answer)
        self.assertEqual(stage.status.oldest_owed, 0.0)

    def test_many_between_sweeps(self) -> None:
        """Durations of many answers are not kept until the sweep."""
        stage = Stage(self, max_connections=1)
        (lond,) = stage.connect()
        lond.answer = echo
        times, kept = stage.service.times, {"waited": [0], "direct": [0]}
        for count, list_of_times in ((2, "waited"), (1, "direct")):
            for _ in range(10 * MANY):
                stage.clients_of(count)
                kept[list_of_times].append(len(getattr(times, list_of_times)))
        self.assertLess(max(kept["waited"]), 2 * MANY)
        self.assertLess(max(kept["direct"]), 2 * MANY)
        self.assertEqual(times.answers, 30 * MANY + 1)  # and that of connect()

    def test_out_of_time(self) -> None:
        """A request that ran out of time counts among the times, and is no answer."""
        stage = Stage(self, max_connections=1, queue_timeout=20, request_timeout=30)
        stage.advance(1)  # the clock's 0 is no time
        stage.clients_of(2)
        stage.advance(31)
        late = stage.service.times.of_late()
        self.assertEqual([late[name]["max"] for name in ("queue", "lond", "total")], [20, 30, 30])
        self.assertEqual(stage.status.answers, 0)

    def test_state(self) -> None:
        """S16: up, DEAD and stopping, the retries that are left, and the next probe."""
        stage = Stage(self)
        status = stage.status
        self.assertEqual((status.state, status.retries_left, status.next_probe), ("up", 2, -1.0))
        stage.refuse()
        for _ in range(2):
            stage.send(b"ping\n")
        status = stage.status
        self.assertEqual((status.state, status.retries_left, status.next_probe), ("DEAD", 0, 1.0))
        stage.stop()
        self.assertEqual(stage.status.state, "stopping")
        self.assertFalse(stage.service.alive)

    def test_debug(self) -> None:
        """S20: with a debug level requests and answers are logged, by their command word only."""
        stage = Stage(self)
        stage.echoing()
        stage.send(b"put:msu:secret\n")
        self.assertEqual(self.notes.at(LogLevel.debug), [])
        stage.service.debug_level = 9
        stage.send(b"put:msu:secret\n")
        lines = self.notes.at(LogLevel.debug)
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertIn("put", line)
        self.assertNotIn("secret", str(self.notes.events))


class FairShareTests(HostTestCase):
    """Row S8: programs that ask the same host."""

    def test_newcomer(self) -> None:
        """One program with 300 connections delays another's request by two answers."""
        stage = Stage(self, max_connections=1)
        for number in range(300):
            client = stage.client()
            client.wire.peer = Peer(7, 0)
            client.write(b"many:%d\n" % number)
        newcomer = stage.client()
        newcomer.wire.peer = Peer(8, 0)
        newcomer.write(b"few\n")
        stage.advance(2 * ROUND_ROBIN_AFTER)
        stage.turn()
        (lond,) = stage.londs
        for _ in range(3):
            lond.reply(b"ok\n")
        self.assertEqual(lond.asked[:3], [b"many:0\n", b"many:1\n", b"few\n"])
        self.assertEqual(newcomer.read, b"ok\n")

    def test_nobody_is_asked_who_it_is(self) -> None:
        """As long as no request waits long, they are served in order of arrival."""
        stage = Stage(self, max_connections=1)
        stage.dependencies.request_log.threshold = 1.0  # none is noted as slow
        stage.connect()
        for number in range(3):
            stage.client(b"many:%d\n" % number)
        other = stage.client()
        other.wire.peer = Peer(8, 0)
        other.write(b"few\n")
        stage.turn()
        (lond,) = stage.londs
        for _ in range(4):
            lond.reply(b"ok\n")
        self.assertEqual(lond.asked, [b"many:0\n", b"many:1\n", b"many:2\n", b"few\n"])
        known = [getattr(each, "known_program", None) for each in stage.clients.everyone]
        self.assertEqual(known, [0] * 4)


class IdleTests(HostTestCase):
    """Idle connections are closed after a while (row S9)."""

    def test_one_a_second(self) -> None:
        """S9: after the idle timeout one connection is closed each second, until none is left."""
        stage = Stage(self, idle_timeout=3600)
        londs = stage.connect(4)
        stage.advance(3600)
        self.assertEqual(stage.state[2], 4)
        left = []
        for _ in range(4):
            stage.advance(1)
            left.append(stage.state[2])
        self.assertEqual(left, [3, 2, 1, 0])
        self.assertEqual([lond.wire.closed for lond in londs], [True] * 4)
        self.assertEqual(stage.status.retries_left, 2)
        self.assertEqual(stage.status.state, "up")

    def test_least_used_first(self) -> None:
        """S9: the connection that was used least lately is closed; one in use stays."""
        stage = Stage(self, idle_timeout=100)
        for lond in stage.connect(3):
            lond.answer = echo
        for _ in range(12):
            stage.advance(10)
            stage.send(b"ping\n")
        open_londs = stage.network.open_londs
        self.assertEqual(len(open_londs), 1)
        self.assertEqual(len(open_londs[0].asked), 12)

    def test_waiting_holds_it_back(self) -> None:
        """S9: while requests had to wait within that time, all connections stay."""
        stage = Stage(self, max_connections=2, idle_timeout=100)
        for lond in stage.connect(2):
            lond.answer = echo
        stage.advance(90)
        stage.clients_of(3)
        stage.advance(90)
        self.assertEqual(stage.state[2], 2)
        stage.advance(20)
        self.assertEqual(stage.state[2], 0)

    def test_since_the_last_wait(self) -> None:
        """S9: the time counts from when a request had to wait last, not only from the last use."""
        stage = Stage(self, max_connections=1, idle_timeout=100, request_timeout=1000)
        stage.send(b"long\n", seconds=90)
        waiting = stage.client(b"ping\n")
        waiting.hang_up()
        stage.londs[0].say(b"ok\n")
        stage.advance(100)
        self.assertEqual(stage.state, (0, 0, 1, 0))
        stage.advance(1)
        self.assertEqual(stage.state, (0, 0, 0, 0))

    def test_busy_stays(self) -> None:
        """S9: a connection that owes an answer is not idle, however long it takes."""
        stage = Stage(self, idle_timeout=10, request_timeout=1000)
        stage.send(b"ping\n", seconds=500)
        self.assertEqual(stage.state, (0, 0, 0, 1))
        stage.londs[0].say(b"ok\n")
        self.assertEqual(stage.state, (0, 0, 1, 0))
