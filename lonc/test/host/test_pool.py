"""Connections by state, and requests that wait (rows S8 and F3)."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from lonc.host.connection import LondConnection
from lonc.host.connection_states import ConnectionState
from lonc.host.pool import ConnectionPool
from lonc.host.request_queue import ROUND_ROBIN_AFTER, FairQueue, RequestQueue
from lonc.test.fixtures.doubles import NotedReceiver
from lonc.test.fixtures.lond_connection import NotedOwner
from lonc.wire.handshake import Handshake
from lonc.wire.request import Request, RequestHost

#: The states in which a connection owes the answer to a request.
OWING = (ConnectionState.INTRODUCING, ConnectionState.BUSY, ConnectionState.RETIRING)


def a_connection() -> LondConnection:
    return LondConnection(NotedOwner(), Handshake("l2", "l1"), 100)


def a_request(since: float = 0.0, program: int = 1) -> Request:
    request = Request(b"ping\n", NotedReceiver(program))
    request.since = since
    return request


class ConnectionPoolTests(SynchronousTestCase):
    """Which connection is where, and which takes a request (row S8)."""

    def setUp(self) -> None:
        self.pool = ConnectionPool()

    def test_in_one_place(self) -> None:
        """S8: whatever the order of moves, each connection is in one collection, or in none."""
        pool, random = self.pool, Random(8)
        gone: set[LondConnection] = set()
        connections = [self.added() for _ in range(12)]
        for _ in range(3000):
            connection, state = random.choice(connections), random.choice(list(ConnectionState))
            if connection in gone:
                connections.remove(connection)
                connections.append(self.added())
                continue
            pool.move(connection, state)
            self.assertIs(connection.state, state)
            if state is ConnectionState.CLOSED:
                gone.add(connection)
            inside = [each for each in connections if each not in gone]
            self.assertEqual(len(pool), len(inside))
            self.assertEqual(sorted(map(id, pool.all())), sorted(map(id, inside)))
            for state, place in (
                (ConnectionState.CONNECTING, pool.connecting),
                (ConnectionState.HANDSHAKING, pool.handshaking),
                (ConnectionState.IDLE, pool.idle),
                (ConnectionState.PROVING, pool.proving),
            ):
                self.assertEqual(set(place), {each for each in inside if each.state is state})
            owing = {each for each in inside if each.state in OWING}
            self.assertEqual(set(pool.owing), owing)

    def added(self, state: ConnectionState = ConnectionState.CONNECTING) -> LondConnection:
        """Return a connection that is in the pool, in a state."""
        connection = a_connection()
        self.pool.add(connection)
        self.pool.move(connection, state)
        return connection

    def test_last_used(self) -> None:
        """S8: the idle connection used last is the one to use, so the others can grow old."""
        one, two = (self.added(ConnectionState.IDLE) for _ in range(2))
        self.assertIs(self.pool.idle[-1], two)
        self.pool.move(one, ConnectionState.BUSY)
        self.pool.move(one, ConnectionState.IDLE)
        self.assertIs(self.pool.idle[-1], one)


class RequestQueueTests(SynchronousTestCase):
    """Rows S8 and F3."""

    def test_new_limit(self) -> None:
        """F3: a lower limit drops no waiting request, and admits no further one."""
        queue = RequestQueue(size=3)
        for _ in range(3):
            queue.put(a_request())
        queue.size = 1
        self.assertEqual(queue.waiting, 3)
        surplus = a_request()
        self.assertIs(queue.put(surplus), surplus)

    def test_programs_take_turns(self) -> None:
        """A newcomer waits for one request of each program, not for all that one has sent."""
        queue = RequestQueue(size=1000)
        many = [a_request(program=7) for _ in range(300)]
        few = [a_request(program=8) for _ in range(2)]
        for each in [*many, *few]:
            queue.put(each)
        order = [queue.take() for _ in range(302)]
        self.assertEqual(order[:5], [many[0], few[0], many[1], few[1], many[2]])
        self.assertEqual([each for each in order if each.asker.program == 7], many)
        self.assertEqual(queue.waiting, 0)

    def test_full(self) -> None:
        """F3: if the queue is full, the last request of the program with the most is dropped."""
        queue = RequestQueue(size=3)
        few, *many = a_request(program=8), a_request(program=7), a_request(program=7)
        for each in (few, *many):
            self.assertIsNone(queue.put(each))
        self.assertIs(queue.put(a_request(program=9)), many[1])
        self.assertIs(queue.put(last := a_request(program=9)), last)
        self.assertEqual(queue.waiting, 3)

    def test_order_of_the_overdue(self) -> None:
        """Whoever has waited longest is told first, whatever the program."""
        queue = RequestQueue(size=10)
        requests = [a_request(float(since), program=since % 2) for since in range(6)]
        for each in requests:
            queue.put(each)
        queue.take()
        self.assertIs(queue.oldest, requests[1])
        self.assertEqual(queue.overdue(3.0), requests[1:4])
        self.assertEqual((queue.drain(), queue.waiting), (requests[4:], 0))

    def test_drop_of_the_last(self) -> None:
        """A program whose only request is taken out has no turn."""
        queue = RequestQueue(size=10)
        first, second = a_request(program=7), a_request(program=8)
        queue.put(first)
        queue.put(second)
        self.assertTrue(queue.drop(first))
        self.assertIs(queue.take(), second)


class FairQueueTests(SynchronousTestCase):
    """Rows S8 and F3."""

    def setUp(self) -> None:
        self.queue = FairQueue()
        self.queue.resize(6)

    def put(self, since: float, program: int = 7, host_id: str = "l1") -> Request:
        """Let a request wait."""
        request = a_request(since, program)
        request.host = cast(RequestHost, SimpleNamespace(host_id=host_id))
        self.assertIsNone(self.queue.put(request))
        return request

    def taken(self) -> list[Request]:
        """Take all that waits."""
        return [self.queue.take() for _ in range(self.queue.waiting)]

    def test_first_come_first_served(self) -> None:
        """As long as none has waited long, requests leave in order of arrival."""
        requests = [self.put(0.0), self.put(0.0), self.put(0.0, 8), self.put(0.0, 9, "l2")]
        self.queue.review(ROUND_ROBIN_AFTER)
        self.assertEqual(self.taken(), requests)
        self.assertTrue(self.queue.empty)

    def test_turns(self) -> None:
        """Once one has waited longer, the hosts take turns, and for each the programs."""
        first, second = self.put(0.0), self.put(0.0)
        other, elsewhere = self.put(0.0, 8), self.put(0.0, 9, "l2")
        self.queue.review(2 * ROUND_ROBIN_AFTER)
        self.assertEqual(self.taken(), [first, elsewhere, other, second])

    def test_turns_end(self) -> None:
        """Turns end where all that wait have come a moment ago, and not before."""
        first, second, other = self.put(0.0), self.put(1.0), self.put(1.001, 8)
        self.queue.review(1.0)
        self.assertIs(self.queue.take(), first)
        third = self.put(1.002, 9)
        self.queue.review(1.0 + 2 * ROUND_ROBIN_AFTER)
        self.assertEqual((self.queue.room, len(self.queue.arrivals)), (0, 0))
        self.queue.review(1.0 + ROUND_ROBIN_AFTER)
        self.assertEqual(list(self.queue.arrivals), [second, other, third])
        self.assertEqual(self.taken(), [second, other, third])

    def test_no_end_while_a_host_is_held(self) -> None:
        """Requests of a held host do not leave, neither in turn nor in order of arrival."""
        held, other = self.put(0.0), self.put(0.0, 8, "l2")
        self.queue.hold("l1", True)
        self.queue.review(0.0)
        more = self.put(0.0)
        self.assertEqual((self.taken(), self.queue.empty), ([other], False))
        self.queue.hold("l1", False)
        self.assertEqual(self.taken(), [held, more])

    def test_full(self) -> None:
        """F3: a full queue drops the last request of the program with the most."""
        many = [self.put(0.0) for _ in range(6)]
        newcomer = a_request(0.0, 8)
        newcomer.host = many[0].host
        self.assertIs(self.queue.put(newcomer), many[-1])
        self.assertEqual(self.taken(), [many[0], newcomer, *many[1:5]])

    def test_drop(self) -> None:
        """A request whose client has gone is taken out, in turn or not."""
        first, second = self.put(0.0), self.put(0.0)
        self.assertTrue(self.queue.drop(second))
        self.assertFalse(self.queue.drop(second))
        self.queue.take_turns()
        self.assertTrue(self.queue.drop(first))
        self.assertTrue(self.queue.empty)

    def test_since(self) -> None:
        """It is told how long each request of a host has waited, in turn or not."""
        self.put(1.0), self.put(2.0), self.put(3.0, 7, "l2")
        for _ in range(2):
            self.assertEqual((self.queue.since("l1"), self.queue.since("l2")), ([1.0, 2.0], [3.0]))
            self.queue.take_turns()

    def test_overdue(self) -> None:
        """Requests that have waited too long leave it, the first one first."""
        first, second, third = self.put(1.0), self.put(2.0, 8), self.put(3.0)
        self.assertEqual(self.queue.overdue(0.5), [])
        self.assertEqual(self.queue.overdue(2.0), [first, second])
        self.assertEqual(self.taken(), [third])
