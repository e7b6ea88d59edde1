"""What ends a request on its way through a host: an answer, or ``con_lost`` at its time."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import DNSLookupError
from twisted.logger import formatEvent

from lonc.host.connection import PING
from lonc.test.fixtures.doubles import NotedReceiver, a_host
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST, Cause, Request


class EndingTests(HostTestCase):
    """Every request ends (rows F1, F3, S11 and S12)."""

    def test_connection_breaks(self) -> None:
        """S12: the request on a connection that breaks gets con_lost; others go on."""
        stage = Stage(self, max_connections=2)
        one, two = stage.clients_of(2)
        three = stage.client(b"ping\n")
        stage.londs[0].close()
        self.assertEqual(self.answers([one, two, three]), [CON_LOST, b"", b""])
        self.assertEqual(stage.lost(Cause.BROKEN), 1)
        stage.londs[1].reply(b"2\n")
        stage.londs[1].say(b"3\n")
        self.assertEqual(self.answers([one, two, three]), [CON_LOST, b"2\n", b"3\n"])

    def test_last_connection_breaks(self) -> None:
        """S12: when the last connection breaks, all waiting requests get con_lost at once."""
        stage, first = self.busy_stage(waiting=5)
        clients = stage.clients_of(3)
        stage.londs[0].close()
        self.assertEqual(self.answers([first, *clients]), [CON_LOST] * 4)
        self.assertEqual(stage.lost(Cause.UNREACHABLE), 8)
        self.assertEqual(stage.status.waiting, 0)
        self.assertEqual(stage.state, (0, 0, 0, 0))

    def test_no_connection_can_be_made(self) -> None:
        """S12: when no connection can be made, waiting requests get con_lost."""
        stage = Stage(self)
        stage.refuse()
        client = stage.client(b"ping\n")
        self.assertEqual(client.read, b"")
        stage.turn()
        self.assertEqual(client.read, CON_LOST)
        self.assertFalse(client.closed)

    def test_request_timeout(self) -> None:
        """F1, S11: at the deadline, counted from sending, the client is told."""
        stage = Stage(self, max_connections=1, request_timeout=60, queue_timeout=100)
        first, second = stage.clients_of(2)
        (lond,) = stage.londs
        stage.advance(50)
        lond.reply(b"ok\n")
        stage.advance(59.5)
        self.assertEqual((first.read, second.read), (b"ok\n", b""))
        stage.advance(0.5)
        self.assertEqual(second.read, CON_LOST)
        self.assertTrue(lond.wire.aborted)
        self.assertEqual(stage.lost(Cause.TIMEOUT), 1)
        self.assertEqual(stage.state, (0, 0, 0, 0))

    def test_several_timeouts(self) -> None:
        """F1: each request has its own deadline."""
        stage = Stage(self, request_timeout=10, retries=50)
        clients = []
        for _ in range(5):
            clients.append(stage.client(b"ping\n"))
            stage.advance(1)
        stage.advance(5.5)
        self.assertEqual(self.answers(clients), [CON_LOST, b"", b"", b"", b""])
        stage.advance(2)
        self.assertEqual(self.answers(clients), [CON_LOST] * 3 + [b"", b""])
        stage.advance(2)
        self.assertEqual(self.answers(clients), [CON_LOST] * 5)

    def test_dripping_answer(self) -> None:
        """F1: an answer that drips in does not stretch its deadline: its last byte counts."""
        stage = Stage(self, request_timeout=10)
        client = stage.send(b"ping\n")
        for _ in range(9):
            stage.advance(1)
            stage.londs[0].say(b"x")
        self.assertEqual(client.read, b"")
        stage.advance(1)
        self.assertEqual(client.read, CON_LOST)

    def test_late_reply(self) -> None:
        """F2: the late reply on a connection that timed out is discarded."""
        stage = Stage(self, max_connections=1, request_timeout=10)
        one = stage.send(b"one\n")
        (late,) = stage.londs
        stage.advance(10)
        two = stage.send(b"two\n")
        late.reply(b"answer to one\n")
        self.assertEqual((one.read, two.read), (CON_LOST, b""))
        stage.londs[1].reply(b"l2\n")
        self.assertEqual(stage.londs[1].asked, [PING, b"two\n"])
        stage.londs[1].say(b"answer to two\n")
        self.assertEqual(two.read, b"answer to two\n")

    def test_queue_timeout(self) -> None:
        """F3: a request that waits too long for a connection gets con_lost; later ones wait on."""
        stage, first = self.busy_stage(queue_timeout=20, request_timeout=100)
        one = stage.send(b"ping\n", seconds=10)
        two = stage.send(b"ping\n", seconds=9.5)
        self.assertEqual(one.read, b"")
        stage.advance(0.5)
        self.assertEqual(self.answers([first, one, two]), [b"", CON_LOST, b""])
        self.assertEqual(stage.lost(Cause.QUEUE_TIMEOUT), 1)
        stage.londs[0].reply(b"1\n")
        stage.londs[0].say(b"2\n")
        self.assertEqual(self.answers([first, one, two]), [b"1\n", CON_LOST, b"2\n"])

    def test_queue_timeout_of_the_next(self) -> None:
        """F3: a client's next request has all of its time to wait, however long the last waited."""
        stage, _ = self.busy_stage(queue_timeout=20, request_timeout=100)
        stage.advance(1)  # the clock's 0 is no time
        client, other = stage.clients_of(2)
        stage.advance(15)
        for _ in range(2):
            stage.londs[0].reply(b"1\n")
        client.write(b"ping\n")
        stage.advance(15)
        self.assertEqual(client.read, b"1\n")
        stage.advance(5)
        self.assertEqual((client.answers, other.read), ([b"1\n", CON_LOST], b""))

    def test_queue_full(self) -> None:
        """F3: past the queue's limit a request gets con_lost at once, and the log says so once."""
        stage, _ = self.busy_stage(waiting=3, queue_limit=3)
        late = [stage.client(b"ping\n") for _ in range(1000)]
        self.assertEqual(self.answers(late), [CON_LOST] * 1000)
        self.assertFalse(late[0].closed)
        self.assertEqual((stage.status.waiting, stage.lost(Cause.QUEUE_FULL)), (3, 1000))
        (warning,) = self.warnings
        self.assertIn("3 requests are already waiting", warning)
        stage.londs[0].say(b"ok\n")
        late[0].write(b"ping\n")
        self.assertEqual((stage.status.waiting, late[0].read), (3, CON_LOST))

    def test_handshake_timeout(self) -> None:
        """F1: a handshake has its limit as a whole, however it drips."""
        stage = Stage(self, request_timeout=30, queue_timeout=100)
        stage.stall_at(b"init\n")
        client = stage.send(b"ping\n")
        for _ in range(29):
            stage.advance(1)
            stage.londs[0].say(b"1")
        self.assertEqual((client.read, stage.state), (b"", (0, 1, 0, 0)))
        stage.advance(1)
        self.assertEqual((client.read, stage.state), (CON_LOST, (0, 0, 0, 0)))
        self.assertIn("Initialized", self.warnings[0])

    def test_look_up_that_never_ends(self) -> None:
        """F12: a look-up that never ends costs its request con_lost at the time limit."""
        pending: Deferred[list[str]] = Deferred()
        stage = Stage(self, a_host(address=None), look_up=lambda name: pending)
        client = stage.client(b"ping\n")
        self.assertEqual(stage.targets, ["l2.test"])
        stage.advance(5)
        self.assertEqual(client.read, CON_LOST)
        self.assertIn("look-up failed", self.warnings[0])

    def test_failure_within_submit(self) -> None:
        """A request may end before `submit` returns; it still ends once."""
        stage = Stage(self, look_up=lambda name: fail(DNSLookupError("none")))
        asker = NotedReceiver()
        stage.service.submit(Request(b"ping\n", asker))
        self.assertEqual(asker.outcomes, [Cause.UNREACHABLE])
        self.assertEqual(stage.state, (0, 0, 0, 0))


class OutOfTurnTests(HostTestCase):
    """Rows F2 and S11: connections that cannot be trusted any more."""

    def test_more_than_the_answer(self) -> None:
        """F2: the first line is the answer; the rest is discarded, and the connection is closed."""
        stage = Stage(self, max_connections=1)
        one = stage.send(b"one\n")
        two = stage.client(b"two\n")
        stage.londs[0].say(b"1\n2\n")
        self.assertEqual(one.read, b"1\n")
        self.assertTrue(stage.londs[0].wire.disconnecting)
        stage.turn()
        self.assertNotEqual(two.read, b"2\n")
        self.assertIn("more than its answer", self.warnings[0])
        three = stage.send(b"three\n")
        stage.londs[-1].say(b"3\n")
        self.assertEqual(three.read, b"3\n")

    def test_answer_of_a_client_that_left(self) -> None:
        """F2, F16: the answer to a client that has gone is thrown away, not given to the next."""
        stage, first = self.busy_stage()
        second = stage.client(b"second\n")
        first.hang_up()
        self.assertEqual(second.read, b"")
        (lond,) = stage.londs
        lond.reply(b"answer to first\n")
        self.assertEqual((first.read, second.read), (b"", b""))
        lond.say(b"answer to second\n")
        self.assertEqual(second.read, b"answer to second\n")

    def test_waiting_client_that_left(self) -> None:
        """F16: the request of a client that went while waiting is never sent."""
        stage, _ = self.busy_stage()
        gone = stage.client(b"gone\n")
        stays = stage.client(b"stays\n")
        gone.hang_up()
        self.assertEqual(stage.status.waiting, 1)
        stage.londs[0].reply(b"ok\n")
        self.assertEqual(stage.londs[0].asked, [b"first\n", b"stays\n"])
        self.assertEqual(stays.read, b"")

    def test_control_byte(self) -> None:
        """A command that a lond might read in another way is not sent."""
        stage, lond = self.connected()
        for line in (b"e\0key\n", b"encrypt:\x1bekey\n", b"sethost:l2:set\x7fhost:l1\n"):
            self.assertEqual(stage.client(line).read, CON_LOST)
        stage.send(b"ping\r\n")
        self.assertEqual(lond.asked, [b"ping\r\n"])
        self.assertEqual(stage.lost(Cause.CONTROL_BYTE), 3)
        self.assertEqual(len(self.warnings), 1)

    def test_log_of_a_secret(self) -> None:
        """At no level does the log hold more of a secret request, or its answer, than a command."""
        stage, lond = self.connected()
        stage.service.debug_level = 9
        for prefix in (b"encrypt:", b"sethost:l2:encrypt:"):
            for request in (b"auth:hunter2", b"hunter2", b"hunter2\r", b"hun\0ter2", b"\0:hunter2"):
                stage.send(prefix + request + b"\n")
                lond.reply(lond.cipher.encrypt(b"hunter2") + b"\n")
        texts = [formatEvent(each) + repr(each) for each in self.notes.events]
        self.assertEqual([text for text in texts if "ter2" in text], [])
        self.assertTrue(any("encrypt:auth" in text for text in texts))
