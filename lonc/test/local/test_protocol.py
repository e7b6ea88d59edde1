"""What speaks on the UNIX sockets: how clients ask, and how they go."""

from __future__ import annotations

from lonc.local.protocol import ClientProtocol
from lonc.test.fixtures.local_client import MAX_LINE, ClientTestCase
from lonc.test.fixtures.properties import given, settings, st
from lonc.wire.request import CON_LOST, Cause, Nobody


class AskingTests(ClientTestCase):
    """Rows S5 and F2: lines in, lines out."""

    def test_one_line(self) -> None:
        """S5: a request goes to the host as it is, and its answer comes back as it is."""
        for line in (b"ping\n", b"\n", bytes(set(range(256)) - {10}) + b"\n", b"encrypt:x\n"):
            self.begin()
            client = self.client(line)
            self.assertEqual(self.host.asked, [line])
            self.assertEqual(client.read, b"")
            self.host.answer(line[::-1].strip(b"\n") + b"\n")
            self.assertEqual(client.read, line[::-1].strip(b"\n") + b"\n")
            self.assertFalse(client.closed)

    def test_lost(self) -> None:
        """S5: without an answer the client reads con_lost, and may ask again."""
        client = self.client(b"ping\n")
        self.host.waiting.pop().asker.lost(Cause.BROKEN)
        self.assertEqual(client.read, b"con_lost\n")
        client.write(b"pong\n")
        self.assertEqual(self.host.asked, [b"ping\n", b"pong\n"])

    def test_several_clients(self) -> None:
        """F2: one client's lines wait for its own answer, not for another's."""
        one, two = self.client(b"1a\n1b\n"), self.client(b"2a\n2b\n")
        self.assertEqual(self.host.asked, [b"1a\n", b"2a\n"])
        self.host.waiting.reverse()
        self.host.answer()
        self.assertEqual((one.read, two.read), (b"", b"re:2a\n"))

    def test_answered_at_once(self) -> None:
        """S10: 100,000 lines to a host that is DEAD are answered, none within another."""
        self.host.at_once = Cause.DEAD
        client = self.client(b"x\n" * 100_000)
        self.turn()
        self.assertEqual(client.read, CON_LOST * 100_000)
        self.assertEqual(len(self.host.asked), 100_000)

    def test_answered_at_once_in_the_middle(self) -> None:
        """S10: the same when the host dies while thousands of lines wait in the buffer."""
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
        """S5, F2: however its bytes are cut up, a client's lines are asked one by one, in order."""
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
    """How clients go (row F16)."""

    def test_hang_up_while_asking(self) -> None:
        """F16: the host is told, and the answer to who has gone is thrown away."""
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
        """F16: what it had sent ahead is never asked."""
        client = self.client(b"a\nb\nc\n")
        client.hang_up()
        self.host.answer()
        self.assertEqual(self.host.asked, [b"a\n"])
        self.assert_forgotten()

    def test_hang_up_while_idle(self) -> None:
        """F16: a client that goes between two requests concerns nobody."""
        client = self.client(b"ping\n")
        self.host.answer()
        client.hang_up()
        self.assertEqual(self.host.withdrawn, [])
        self.assert_forgotten()

    def test_hang_up_in_a_line(self) -> None:
        """F16: half a request of a client that has gone is forgotten."""
        client = self.client(b"pi")
        client.hang_up()
        self.assert_forgotten()
        self.advance(120)
        self.assertEqual((self.host.asked, self.host.lost), ([], []))

    def test_others_do_not_notice(self) -> None:
        """F16: other clients are answered as if nothing had happened."""
        one, two = self.client(b"1\n"), self.client(b"2\n")
        one.hang_up()
        self.answer_all()
        self.assertEqual(two.read, b"re:2\n")
        self.assertEqual(self.clients.open, 1)

    def test_half_close(self) -> None:
        """A client that half-closes after its request gets its answer, and is then closed."""
        client = self.client(b"ping\n")
        client.half_close()
        self.turn()
        self.assertFalse(client.closed)
        self.host.answer()
        self.assert_ended(client, b"re:ping\n")

    def test_half_close_with_much_ahead(self) -> None:
        """So it is when that is more than is read ahead."""
        lines = [b"%06d\n" % number for number in range(30_000)]
        client = self.client(b"".join(lines))
        client.half_close()
        self.answer_all()
        self.assertEqual(len(client.answers), 30_000)
        self.assertEqual(self.host.asked, lines)
        self.assertTrue(client.closed)

    def test_half_close_answered_at_once(self) -> None:
        """So it is when the answer is there before the end of input is."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\nb\n")
        client.half_close()
        self.assert_ended(client, b"ok\nok\n")

    def test_half_close_without_a_request(self) -> None:
        """A client that says nothing, or ends within a line, is closed."""
        for data in (b"", b"pi"):
            client = self.client(data)
            client.half_close()
            self.turn()
            self.assertEqual((client.read, client.closed, self.host.asked), (b"", True, []))
        self.assert_forgotten()

    def test_half_close_unread_answer(self) -> None:
        """The answer is not cut off by our closing: it waits until the client has read it."""
        client = self.client(b"ping\n", room=3)
        client.half_close()
        self.host.answer()
        self.turn()
        self.assertEqual((client.read, client.closed), (b"re:", False))
        client.wire.take()
        self.assert_ended(client, b"re:ping\n")

    def test_half_closed_client_that_never_reads(self) -> None:
        """F3: a client that half-closed and never reads is cut, be it little that waits."""
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
    """Rows S14 and F11, as a client sees them."""

    def test_answer(self) -> None:
        """S14, F11: the host is told, the client reads ok and is closed."""
        client = self.client(b"close_connection_exit\n")
        self.assertEqual((self.host.closings, client.read), (1, b"ok\n"))
        self.assertEqual(self.host.asked, [])
        self.assert_ended(client)

    def test_split(self) -> None:
        """S14: it counts when it is whole."""
        client = self.client(b"close_connection_", b"exit")
        self.assertEqual(self.host.closings, 0)
        client.write(b"\n")
        self.assertEqual(self.host.closings, 1)

    def test_what_looks_like_it(self) -> None:
        """S14: nothing but this very line does it."""
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
        """S14: it waits its turn, and what follows it is not asked."""
        client = self.client(b"a\nclose_connection_exit\nb\n")
        self.assertEqual(self.host.closings, 0)
        self.host.answer()
        self.turn()
        self.assertEqual((client.answers, self.host.asked), ([b"re:a\n", b"ok\n"], [b"a\n"]))
        self.assertEqual((self.host.closings, client.closed), (1, True))

    def test_client_that_does_not_read(self) -> None:
        """S14: its client is closed when it has read the ok, or when its time is over."""
        self.begin(write_timeout=60)
        client = self.client(b"close_connection_exit\n", room=1)
        self.advance(30)
        self.assertFalse(client.closed)
        self.advance(30)
        self.assert_ended(client)


class FaultTests(ClientTestCase):
    """Row S19: a fault inside lonc."""

    def test_host_is_marked(self) -> None:
        """S19: the host is marked for a restart, and the fault is not hidden."""
        self.host.at_once = ZeroDivisionError()
        client = self.client()
        with self.assertRaises(ZeroDivisionError):
            client.write(b"ping\n")
        self.assertTrue(self.host.crashed)


class HangingUpTests(ClientTestCase):
    """Clients that shall connect to another process when they ask again."""

    def hang_up(self) -> None:
        """Hang up on all."""
        for client in list(self.clients.everyone):
            client.hang_up()
        self.turn()

    def test_answered(self) -> None:
        """Who has had his answers is closed without a word, so he has no ``con_lost``."""
        self.host.at_once = b"ok\n"
        client = self.client(b"a\n")
        self.hang_up()
        self.assertEqual((client.read, client.closed), (b"ok\n", True))
        self.assert_forgotten()

    def test_in_flight(self) -> None:
        """Who waits for an answer gets it, and those to what he sent ahead, and is closed then."""
        client = self.client(b"a\nb\n")
        self.hang_up()
        self.assertFalse(client.closed)
        self.answer_all()
        self.assert_ended(client, b"re:a\nre:b\n")

    def test_nothing_asked(self) -> None:
        """Who has asked nothing yet may ask, and is closed the next time."""
        client = self.client()
        self.hang_up()
        self.assertFalse(client.closed)
        self.host.at_once = b"ok\n"
        client.write(b"a\n")
        self.hang_up()
        self.assertEqual((client.read, client.closed), (b"ok\n", True))


class TakenBackTests(ClientTestCase):
    """Clients whose connection another process gets."""

    def only(self) -> ClientProtocol:
        """Return the one client's protocol."""
        (client,) = self.clients.everyone
        assert isinstance(client, ClientProtocol)
        return client

    def taken_back(self, *lines: bytes, most: int = 100) -> bytes | None:
        """Return what is taken back of a client that has sent these lines."""
        self.client(*lines)
        return self.only().take_back(most)

    def test_at_rest(self) -> None:
        """Who has been answered, or has begun a line, loses nothing."""
        self.host.at_once = b"ok\n"
        self.assertEqual(self.taken_back(b"a\n", b"half"), b"half")

    def test_waiting(self) -> None:
        """A request that waits is no longer the host's, and what was sent ahead goes with it."""
        self.client(b"a\nb\nc")
        client = self.only()
        self.assertEqual(client.take_back(100), b"a\nb\nc")
        self.assertEqual(len(self.host.withdrawn), 1)

    def test_in_flight(self) -> None:
        """A lond has the request: the answer comes here."""
        self.client(b"a\n")
        self.host.waiting.clear()
        client = self.only()
        self.assertIsNone(client.take_back(100))

    def test_much(self) -> None:
        """Who has sent more than a message takes stays, and its request waits on."""
        self.assertIsNone(self.taken_back(b"a\n", most=1))
        self.assertEqual(self.host.withdrawn, [])

    def test_leaving(self) -> None:
        """Who has had its last answer gets no other."""
        self.client(b"a\n")
        client = self.only()
        client.turn_away(Cause.CLOSED)
        self.assertIsNone(client.take_back(100))


class ListenerTests(ClientTestCase):
    """Closing all clients of a host."""

    def finish(self) -> list[None]:
        """Begin; return the list that will hold one entry for each time it is done."""
        done: list[None] = []
        self.listener.finish().addCallback(done.append)
        return done

    def test_without_clients(self) -> None:
        """With no clients it is done at once."""
        self.assertEqual(len(self.finish()), 1)

    def test_all_are_closed(self) -> None:
        """It is done when the last client has gone, once."""
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
        """Who has asked nothing hears con_lost, once, whatever he writes now."""
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
        """Who has had his answers hears nothing more, until he asks again."""
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
        """What has come to the socket and was not read gets con_lost when the client is cut."""
        client = self.client(b"a\n")
        self.host.answer(b"ok\n")
        self.finish()
        client.wire.pauseProducing()
        client.write(b"b\n")
        self.listener.abort()
        self.assert_ended(client, b"ok\n" + CON_LOST)

    def test_newcomer(self) -> None:
        """Who could not be accepted sooner hears con_lost, and keeps nobody waiting."""
        self.finish()
        client = self.client()
        done = self.finish()
        self.turn()
        self.assertEqual((client.read, client.closed, len(done)), (CON_LOST, True, 1))
        self.assert_forgotten()

    def test_under_way(self) -> None:
        """Requests under way and sent ahead get con_lost each, and their answers go nowhere."""
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
        """A client that has not read its answer yet can do so until it is cut."""
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
        """At the end of all patience they are cut."""
        client = self.client(b"ping\n", room=2)
        self.host.answer()
        done = self.finish()
        self.listener.abort()
        self.turn()
        self.assertEqual((client.closed, client.wire.aborted, len(done)), (True, True, 1))
        self.assert_forgotten()

    def test_who_is_being_turned_away(self) -> None:
        """Clients that were turned away are closed with the others."""
        client = self.client(b"x" * (MAX_LINE + 1))
        done = self.finish()
        self.turn()
        self.assertEqual((client.read, client.closed, len(done)), (CON_LOST, False, 0))
        self.listener.abort()
        self.turn()
        self.assertEqual((client.read, client.closed, len(done)), (CON_LOST, True, 1))
        self.assert_forgotten()
