"""What speaks on the UNIX sockets: how clients ask, and how they go."""

from __future__ import annotations

from lonc.local.protocol import ClientProtocol
from lonc.test.fixtures.local_client import MAX_LINE, ClientTestCase
from lonc.test.fixtures.properties import given, settings, st
from lonc.wire.request import CON_LOST, Cause, Nobody


class AskingTests(ClientTestCase):
    """Requests and answers (S5, F2)."""

    def test_one_line(self) -> None:
        """S5: a request is submitted unchanged, and its answer is sent unchanged."""
        for line in (b"ping\n", b"\n", bytes(set(range(256)) - {10}) + b"\n", b"encrypt:x\n"):
            self.begin()
            client = self.client(line)
            self.assertEqual(self.host.asked, [line])
            self.assertEqual(client.read, b"")
            self.host.answer(line[::-1].strip(b"\n") + b"\n")
            self.assertEqual(client.read, line[::-1].strip(b"\n") + b"\n")
            self.assertFalse(client.closed)

    def test_lost(self) -> None:
        """S5: without an answer the client gets con_lost, and may send another request."""
        client = self.client(b"ping\n")
        self.host.waiting.pop().asker.lost(Cause.BROKEN)
        self.assertEqual(client.read, b"con_lost\n")
        client.write(b"pong\n")
        self.assertEqual(self.host.asked, [b"ping\n", b"pong\n"])

    def test_several_clients(self) -> None:
        """F2: the lines of a client wait for its own answer only."""
        one, two = self.client(b"1a\n1b\n"), self.client(b"2a\n2b\n")
        self.assertEqual(self.host.asked, [b"1a\n", b"2a\n"])
        self.host.waiting.reverse()
        self.host.answer()
        self.assertEqual((one.read, two.read), (b"", b"re:2a\n"))

    def test_answered_at_once(self) -> None:
        """S10: 100,000 requests to a DEAD host are answered, without recursion."""
        self.host.at_once = Cause.DEAD
        client = self.client(b"x\n" * 100_000)
        self.turn()
        self.assertEqual(client.read, CON_LOST * 100_000)
        self.assertEqual(len(self.host.asked), 100_000)

    def test_answered_at_once_in_the_middle(self) -> None:
        """S10: also if the host becomes DEAD while thousands of lines are buffered."""
        client = self.client(b"x\n" * 30_000)
        self.host.at_once = Cause.DEAD
        self.host.waiting.pop().asker.lost(Cause.DEAD)
        self.turn()
        self.assertEqual(client.read, CON_LOST * 30_000)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(
        st.lists(st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"") + b"\n")),
        st.lists(st.tuples(st.integers(1, 40), st.booleans())),
    )
    def test_any_cut(self, lines: list[bytes], cuts: list[tuple[int, bool]]) -> None:
        """S5, F2: however the data is split, requests are submitted one by one, in order."""
        self.begin()
        client = self.client()
        data = b"".join(lines)
        for size, answer in cuts:
            client.write(data[:size])
            data = data[size:]
            self.assertLessEqual(len(self.host.waiting), 1)
            if answer and self.host.waiting:
                self.host.answer()
        client.write(data)
        self.answer_all()
        self.assertEqual(self.host.asked, lines)
        self.assertEqual(client.answers, [b"re:" + line for line in lines])


class LeavingTests(ClientTestCase):
    """Clients that disconnect (F16)."""

    def test_hang_up_while_asking(self) -> None:
        """F16: the request is withdrawn, and its answer is discarded."""
        client = self.client(b"ping\n")
        (request,) = self.host.waiting
        client.hang_up()
        self.assertEqual(self.host.withdrawn, [request])
        self.assertIsInstance(request.asker, Nobody)  # who keeps nothing of the client in memory
        request.asker.answered(b"l2\n")
        request.asker.lost(Cause.BROKEN)
        self.assertEqual(client.read, b"")
        self.assert_forgotten()

    def test_hang_up_with_lines_ahead(self) -> None:
        """F16: lines sent ahead are not submitted."""
        client = self.client(b"a\nb\nc\n")
        client.hang_up()
        self.host.answer()
        self.assertEqual(self.host.asked, [b"a\n"])
        self.assert_forgotten()

    def test_hang_up_while_idle(self) -> None:
        """F16: a client without a request withdraws nothing."""
        client = self.client(b"ping\n")
        self.host.answer()
        client.hang_up()
        self.assertEqual(self.host.withdrawn, [])
        self.assert_forgotten()

    def test_hang_up_in_a_line(self) -> None:
        """F16: an incomplete line is forgotten."""
        client = self.client(b"pi")
        client.hang_up()
        self.assert_forgotten()
        self.advance(120)
        self.assertEqual((self.host.asked, self.host.lost), ([], []))

    def test_others_do_not_notice(self) -> None:
        """F16: other clients are not affected."""
        one, two = self.client(b"1\n"), self.client(b"2\n")
        one.hang_up()
        self.answer_all()
        self.assertEqual(two.read, b"re:2\n")
        self.assertEqual(self.clients.open, 1)

    def test_half_close(self) -> None:
        """A client that half-closes gets its answer, and is then closed."""
        client = self.client(b"ping\n")
        client.half_close()
        self.turn()
        self.assertFalse(client.closed)
        self.host.answer()
        self.assert_ended(client, b"re:ping\n")

    def test_half_close_with_much_ahead(self) -> None:
        """Also if it has sent more than is read ahead."""
        lines = [b"%06d\n" % number for number in range(30_000)]
        client = self.client(b"".join(lines))
        client.half_close()
        self.answer_all()
        self.assertEqual(len(client.answers), 30_000)
        self.assertEqual(self.host.asked, lines)
        self.assertTrue(client.closed)

    def test_half_close_answered_at_once(self) -> None:
        """Also if the answer comes before the end of input."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\nb\n")
        client.half_close()
        self.assert_ended(client, b"ok\nok\n")

    def test_half_close_without_a_request(self) -> None:
        """A client that half-closes without a complete line is closed."""
        for data in (b"", b"pi"):
            client = self.client(data)
            client.half_close()
            self.turn()
            self.assertEqual((client.read, client.closed, self.host.asked), (b"", True, []))
        self.assert_forgotten()

    def test_half_close_unread_answer(self) -> None:
        """It is closed only after it has read its answer."""
        client = self.client(b"ping\n", room=3)
        client.half_close()
        self.host.answer()
        self.turn()
        self.assertEqual((client.read, client.closed), (b"re:", False))
        client.wire.take()
        self.assert_ended(client, b"re:ping\n")

    def test_half_closed_client_that_never_reads(self) -> None:
        """F3: a half-closed client that does not read is aborted, however little is unread."""
        self.begin(write_timeout=60)
        client = self.client(b"ping\n", room=3)
        client.wire.pause_above = 65536
        client.half_close()
        self.host.answer()
        self.advance(59.75)
        self.assertFalse(client.closed)
        self.advance(0.5)
        self.assert_ended(client)


class CloseConnectionsTests(ClientTestCase):
    """``close_connection_exit`` (S14, F11)."""

    def test_answer(self) -> None:
        """S14, F11: once the line is complete, connections are closed; the client gets ok."""
        client = self.client(b"close_connection_", b"exit")
        self.assertEqual((self.host.closings, client.read), (0, b""))
        client.write(b"\n")
        self.assertEqual((self.host.closings, client.read), (1, b"ok\n"))
        self.assertEqual(self.host.asked, [])
        self.assert_ended(client)

    def test_what_looks_like_it(self) -> None:
        """S14: similar lines are ordinary requests."""
        for line in (
            b"close_connection_exit \n",
            b" close_connection_exit\n",
            b"close_connection_exit:now\n",
            b"CLOSE_CONNECTION_EXIT\n",
            b"close_connection\n",
            b"encrypt:close_connection_exit\n",
        ):
            self.begin()
            self.client(line)
            self.assertEqual((self.host.asked, self.host.closings), ([line], 0))

    def test_behind_others(self) -> None:
        """S14: it waits for previous requests, and following lines are not submitted."""
        client = self.client(b"a\nclose_connection_exit\nb\n")
        self.assertEqual(self.host.closings, 0)
        self.host.answer()
        self.turn()
        self.assertEqual((client.answers, self.host.asked), ([b"re:a\n", b"ok\n"], [b"a\n"]))
        self.assertEqual((self.host.closings, client.closed), (1, True))

    def test_client_that_does_not_read(self) -> None:
        """S14: a client that does not read the ok is closed at the time limit."""
        self.begin(write_timeout=60)
        client = self.client(b"close_connection_exit\n", room=1)
        self.advance(30)
        self.assertFalse(client.closed)
        self.advance(30)
        self.assert_ended(client)


class FaultTests(ClientTestCase):
    """A fault inside lonc (S19)."""

    def test_host_is_marked(self) -> None:
        """S19: the host is marked for a restart, and the exception is propagated."""
        self.host.at_once = ZeroDivisionError()
        client = self.client()
        with self.assertRaises(ZeroDivisionError):
            client.write(b"ping\n")
        self.assertTrue(self.host.crashed)


class HangingUpTests(ClientTestCase):
    """Clients that have to connect to another process for their next request."""

    def hang_up(self) -> None:
        """Disconnect all clients."""
        for client in list(self.clients.everyone):
            client.hang_up()
        self.turn()

    def test_answered(self) -> None:
        """A client that has its answers is closed without ``con_lost``."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\n")
        self.hang_up()
        self.assertEqual((client.read, client.closed), (b"ok\n", True))
        self.assert_forgotten()

    def test_in_flight(self) -> None:
        """A client with requests gets all answers, and is then closed."""
        client = self.client(b"a\nb\n")
        self.hang_up()
        self.assertFalse(client.closed)
        self.answer_all()
        self.assert_ended(client, b"re:a\nre:b\n")

    def test_nothing_asked(self) -> None:
        """A client without any request yet may send one, and is closed the next time."""
        client = self.client()
        self.hang_up()
        self.assertFalse(client.closed)
        self.host.at_once = b"ok\n"
        client.write(b"a\n")
        self.hang_up()
        self.assertEqual((client.read, client.closed), (b"ok\n", True))


class TakenBackTests(ClientTestCase):
    """Clients whose connection is passed to another process."""

    def only(self, *lines: bytes) -> ClientProtocol:
        """Return the protocol of the only client, which has sent these lines."""
        self.client(*lines)
        (client,) = self.clients.everyone
        assert isinstance(client, ClientProtocol)
        return client

    def test_at_rest(self) -> None:
        """A client without a request passes its incomplete line."""
        self.host.at_once = b"ok\n"
        self.assertEqual(self.only(b"a\n", b"half").take_back(100), b"half")

    def test_waiting(self) -> None:
        """A waiting request is withdrawn, and passed with the data sent ahead, if not too much."""
        client = self.only(b"a\nb\nc")
        self.assertIsNone(client.take_back(1))
        self.assertEqual(self.host.withdrawn, [])
        self.assertEqual(client.take_back(100), b"a\nb\nc")
        self.assertEqual(len(self.host.withdrawn), 1)

    def test_not_passed(self) -> None:
        """A client is not passed if its request was sent to the lond, or if it is being closed."""
        client = self.only(b"a\n")
        self.host.in_flight = True
        self.assertIsNone(client.take_back(100))
        self.host.in_flight = False
        client.turn_away(Cause.CLOSED)
        self.assertIsNone(client.take_back(100))


class ListenerTests(ClientTestCase):
    """Closing all clients of a host."""

    def finish(self) -> list[None]:
        """Start to close; return a list with an entry for each time that it is done."""
        done: list[None] = []
        self.listener.finish().addCallback(done.append)
        return done

    def test_without_clients(self) -> None:
        """Without clients it is done at once."""
        self.assertEqual(len(self.finish()), 1)

    def test_all_are_closed(self) -> None:
        """It is done once, when the last client has disconnected."""
        clients = [self.client() for _ in range(3)]
        done = self.finish()
        for client in clients:
            self.turn()
            self.assertEqual(done, [])
            client.hang_up()
        self.turn()
        self.assertEqual(len(done), 1)
        self.assert_forgotten()

    def test_nothing_asked(self) -> None:
        """A client that has sent no request gets con_lost, once."""
        client = self.client()
        self.finish()
        self.turn()
        self.assertEqual((client.read, client.wire.half_closed), (CON_LOST, True))
        client.write(b"ping\nping\n")
        self.listener.abort()
        self.turn()
        self.assertEqual((client.read, client.closed, self.host.asked), (CON_LOST, True, []))
        self.assert_forgotten()

    def test_all_answered(self) -> None:
        """A client that has its answers gets nothing more, until it sends requests."""
        self.host.at_once = b"ok\n"
        quiet, busy = self.client(b"a\n"), self.client(b"b\n")
        self.finish()
        self.turn()
        self.assertEqual((quiet.read, busy.read), (b"ok\n", b"ok\n"))
        self.host.at_once = Cause.CLOSED
        busy.write(b"c\nd\ne")
        self.turn()
        self.assertEqual((busy.read, busy.wire.half_closed), (b"ok\n" + CON_LOST * 3, True))
        self.assertEqual(self.host.asked[2:], [b"c\n"])
        self.listener.abort()
        self.turn()
        self.assertEqual((quiet.read, quiet.closed, busy.closed), (b"ok\n", True, True))
        self.assert_forgotten()

    def test_not_yet_read(self) -> None:
        """Requests that were not read get con_lost when the client is aborted."""
        client = self.client(b"a\n")
        self.host.answer(b"ok\n")
        self.finish()
        client.wire.pauseProducing()
        client.write(b"b\n")
        self.listener.abort()
        self.assert_ended(client, b"ok\n" + CON_LOST)

    def test_newcomer(self) -> None:
        """A client accepted late gets con_lost, and delays nothing."""
        self.finish()
        client = self.client()
        done = self.finish()
        self.turn()
        self.assertEqual((client.read, client.closed, len(done)), (CON_LOST, True, 1))
        self.assert_forgotten()

    def test_under_way(self) -> None:
        """Each request, outstanding or sent ahead, gets con_lost; its answer is discarded."""
        client = self.client(b"a\nb\nc")
        (request,) = self.host.waiting
        self.finish()
        request.asker.answered(b"late\n")
        self.turn()
        self.assertEqual((client.read, client.wire.half_closed), (CON_LOST * 3, True))
        self.listener.abort()
        self.turn()
        self.assert_forgotten()

    def test_who_reads_slowly(self) -> None:
        """A client can read its answer until it is aborted."""
        slow = self.client(b"ping\n", room=2)
        self.host.answer()
        done = self.finish()
        self.turn()
        self.assertEqual((slow.read, slow.closed, done), (b"re", False, []))
        slow.wire.take()
        self.turn()
        self.assertEqual((slow.read, slow.closed, done), (b"re:ping\n", False, []))
        self.listener.abort()
        self.turn()
        self.assertEqual((slow.read, slow.closed, len(done)), (b"re:ping\n", True, 1))
        self.assert_forgotten()

    def test_abort(self) -> None:
        """In the end clients are aborted."""
        client = self.client(b"ping\n", room=2)
        self.host.answer()
        done = self.finish()
        self.listener.abort()
        self.turn()
        self.assertEqual((client.closed, client.wire.aborted, len(done)), (True, True, 1))
        self.assert_forgotten()

    def test_who_is_being_turned_away(self) -> None:
        """Rejected clients are closed with the others."""
        client = self.client(b"x" * (MAX_LINE + 1))
        done = self.finish()
        self.turn()
        self.assertEqual((client.read, client.closed, len(done)), (CON_LOST, False, 0))
        self.listener.abort()
        self.turn()
        self.assertEqual((client.read, client.closed, len(done)), (CON_LOST, True, 1))
        self.assert_forgotten()
