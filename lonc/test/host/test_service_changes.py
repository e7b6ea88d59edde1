"""A host that starts afresh, is given another row or other settings, or stops."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.logger import LogLevel

from lonc.local.client_socket import FAREWELL
from lonc.test.fixtures.doubles import FakeClient, NotedReceiver, a_host, leave_pending
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST, Cause, Request


class StartAfreshTests(HostTestCase):
    """Rows S14 and F11: ``close_connection_exit``."""

    def test_log_is_not_filled(self) -> None:
        """F11: a client that asks for it again and again is a line every ten seconds."""
        stage = Stage(self)
        for _ in range(100):
            self.assertEqual(stage.client(b"close_connection_exit\n").read, b"ok\n")
        stage.advance(10)
        stage.client(b"close_connection_exit\n")
        line = "closing every connection on request"
        self.assertEqual(
            self.notes.at(LogLevel.critical), [line, f"{line} (99 like this left out)"]
        )

    def test_log_of_new_connections(self) -> None:
        """F11: the connections made each time do not fill the log either."""
        stage = Stage(self)
        for _ in range(100):
            for _ in range(2):
                stage.send(b"ping\n")
            stage.client(b"close_connection_exit\n")
            stage.clock.advance(1)
        lines = self.notes.at(LogLevel.info)
        self.assertEqual(lines, ["connection 1 is ready", "connection 2 is ready"] * 10)

    def test_again_and_again(self) -> None:
        """S14: it takes effect once a second, so that others on the machine have connections."""
        stage = Stage(self)
        stage.send(b"ping\n")
        for _ in range(60):
            stage.client(b"close_connection_exit\n")
            stage.send(b"ping\n")
        self.assertEqual((len(stage.londs), stage.lost(Cause.CLOSED)), (11, 1))
        stage.clock.advance(1)
        stage.client(b"close_connection_exit\n")
        self.assertEqual((stage.status.waiting, stage.lost(Cause.CLOSED)), (0, 61))

    def test_every_connection_is_closed(self) -> None:
        """S14, F11: idle and busy ones are closed, those being made continue; the answer is ok."""
        stage = Stage(self)
        stage.connect(2)
        asker = stage.send(b"ping\n")
        stage.stall_at(b"ekey\n")
        stage.clients_of(2)
        stage.network.on_connect = leave_pending
        stage.clients_of(2)
        self.assertEqual(stage.state, (2, 1, 0, 2))
        client = stage.client(b"close_connection_exit\n")
        self.assertEqual(client.read, b"ok\n")
        self.assertEqual(stage.state, (2, 1, 0, 0))
        self.assertEqual(asker.read, CON_LOST)
        self.assertEqual(len(stage.network.open_londs), 1)
        self.assertFalse(any(each.given_up for each in stage.network.attempts))
        stage.turn()
        self.assertTrue(client.closed)

    def test_who_waits_is_told(self) -> None:
        """S14: requests that wait are lost with the connections, and counted as closed."""
        stage, first = self.busy_stage()
        clients = stage.clients_of(3)
        stage.service.close_connections()
        self.assertEqual(self.answers([first, *clients]), [CON_LOST] * 4)
        self.assertEqual(stage.lost(Cause.CLOSED), 4)
        self.assertEqual(stage.status.waiting, 0)

    def test_dead_host(self) -> None:
        """S14: a DEAD host starts afresh too: it has its retries again, and takes requests."""
        stage = Stage(self, retries=1)
        stage.refuse()
        stage.send(b"ping\n")
        self.assertFalse(stage.service.alive)
        stage.accept()
        stage.client(b"close_connection_exit\n")
        self.assertEqual((stage.status.state, stage.status.retries_left), ("unproven", 1))
        stage.send(b"ping\n")
        self.assertEqual((stage.status.state, stage.status.busy), ("up", 1))

    def test_late_answer(self) -> None:
        """F2: an answer that was on its way is discarded; the next request gets its own."""
        stage, first = self.busy_stage()
        stage.client(b"close_connection_exit\n")
        second = stage.send(b"second\n")
        stage.londs[0].say(b"answer to first\n")
        self.assertEqual((first.read, second.read), (CON_LOST, b""))
        self.assertEqual([lond.asked for lond in stage.londs], [[b"first\n"], [b"second\n"]])
        stage.londs[1].say(b"l2\n")
        self.assertEqual((second.read, stage.status.retries_left), (b"l2\n", 2))

    def test_sent_ahead(self) -> None:
        """S14: what a client sent ahead is asked afresh; only what was open is lost."""
        stage = Stage(self, max_connections=1)
        flying = stage.send(b"a1\na2\na3\n")
        waiting = stage.client(b"b1\nb2\n")
        stage.service.close_connections()
        self.assertEqual((flying.read, waiting.read), (CON_LOST, CON_LOST))
        stage.echoing()
        stage.turn()
        self.assertEqual(flying.answers, [CON_LOST, b"re:a2\n", b"re:a3\n"])
        self.assertEqual(waiting.answers, [CON_LOST, b"re:b2\n"])

    def test_many_at_once(self) -> None:
        """S14: hundreds of clients that each ask for it next do not pile up on the stack."""
        stage = Stage(self, max_connections=300, queue_limit=300)
        clients = [stage.client(b"ping\nclose_connection_exit\n") for _ in range(600)]
        stage.turn()
        stage.clock.advance(1)
        stage.service.close_connections()
        stage.turn()
        for client in clients:
            self.assertEqual(client.answers, [CON_LOST, b"ok\n"])


class ReconfigureTests(HostTestCase):
    """Row F13: another row of the table, other settings."""

    def move_away(self, stage: Stage, address: str = "127.0.0.9") -> None:
        """Give the host another address."""
        stage.service.reconfigure(a_host(address=address), stage.settings)

    def change(self, stage: Stage, **changes: Any) -> None:
        """Change settings."""
        settings = attrs.evolve(stage.settings, **changes)
        stage.clients.settings = settings
        stage.service.reconfigure(stage.service.host, settings)

    def test_nothing_changed(self) -> None:
        """F13: the same row and settings touch nothing."""
        stage, lond = self.connected()
        client = stage.client()
        stage.service.reconfigure(a_host(), stage.settings)
        stage.turn()
        self.assertFalse(lond.wire.disconnecting)
        self.assertFalse(client.closed)
        self.assertEqual(len(stage.network.ports), 1)
        self.assertEqual(stage.revived, [])

    def test_another_address(self) -> None:
        """F13: what is idle is closed; what owes an answer gives it and is not used again."""
        stage = Stage(self)
        idle, busy = stage.connect(2)
        flying = stage.send(b"flying\n")
        self.move_away(stage)
        self.assertTrue(idle.wire.disconnecting)
        self.assertFalse(busy.wire.disconnecting)
        self.assertEqual(stage.state, (0, 0, 0, 0))  # none leads to where the host is now
        busy.say(b"answer\n")
        self.assertEqual(flying.read, b"answer\n")
        self.assertTrue(busy.wire.disconnecting)
        self.assertFalse(flying.closed)
        flying.write(b"again\n")
        self.assertEqual(stage.network.attempts[-1].host, "127.0.0.9")
        stage.turn()
        stage.londs[-1].say(b"there\n")
        self.assertEqual(flying.answers, [b"answer\n", b"there\n"])
        self.assertEqual(stage.status.retries_left, 2)

    def test_who_waits_goes_to_the_new_address(self) -> None:
        """F13: requests that wait are sent to the new address, none is lost."""
        stage = Stage(self, max_connections=2)
        stage.echoing()
        stage.network.on_connect = leave_pending
        clients = [stage.client(b"%d\n" % number) for number in range(5)]
        stage.turn()
        stage.accept()
        self.move_away(stage)
        self.assertTrue(all(each.given_up for each in stage.network.attempts[:2]))
        stage.turn()
        self.assertEqual(self.answers(clients), [b"re:%d\n" % number for number in range(5)])
        addresses = {each.host for each in stage.network.attempts[2:]}
        self.assertEqual(addresses, {"127.0.0.9"})
        self.assertEqual(stage.status.retries_left, 2)

    def test_dead_host(self) -> None:
        """F13: a DEAD host that gets another address is tried afresh."""
        stage = Stage(self, retries=1)
        stage.refuse()
        stage.send(b"ping\n")
        stage.accept()
        self.move_away(stage)
        self.assertEqual((stage.status.state, stage.status.next_probe), ("up", -1.0))
        self.assertEqual(stage.revived, ["l2"])

    def test_own_id_and_port(self) -> None:
        """F13: connections in another name or to another port are retired as well."""
        for changes in ({"host_id": "l9"}, {"lond_port": 1234}):
            stage, lond = self.connected()
            self.change(stage, **changes)
            self.assertTrue(lond.wire.disconnecting)
            stage.client(b"ping\n")
            self.assertEqual(stage.network.attempts[-1].port, changes.get("lond_port", 5663))

    def test_limits(self) -> None:
        """F13: new limits apply from the next request on, and end none."""
        stage, _ = self.busy_stage(waiting=2)
        self.change(stage, queue_limit=3, max_connections=2, request_timeout=5)
        stage.clients_of(2)
        self.assertEqual((stage.status.waiting, stage.lost(Cause.QUEUE_FULL)), (2, 1))
        self.assertEqual(stage.state, (0, 0, 0, 2))
        stage.advance(5)
        self.assertGreater(stage.lost(Cause.TIMEOUT), 0)

    def test_lower_limit(self) -> None:
        """F13: requests that wait already are answered, even if they exceed the new limit."""
        stage, first = self.busy_stage(queue_limit=10)
        clients = [first, *stage.clients_of(5)]
        self.change(stage, queue_limit=2)
        stage.advance(1)
        self.assertEqual(stage.status.waiting, 5)
        for _ in clients:
            stage.londs[0].reply(b"ok\n")
        self.assertEqual(self.answers(clients), [b"ok\n"] * 6)

    def test_retries(self) -> None:
        """F13: a new number of retries counts at once, where none was lost."""
        stage = Stage(self, retries=2)
        self.change(stage, retries=5)
        self.assertEqual(stage.status.retries_left, 5)
        self.change(stage, retries=1)
        self.assertEqual(stage.status.retries_left, 1)

    def test_folder(self) -> None:
        """F13: the socket moves to another folder; clients of the old one stay and are served."""
        stage = Stage(self)
        stage.echoing()
        client = stage.client()
        folder = os.path.join(stage.folder, "other")
        os.mkdir(folder)
        self.change(stage, sock_dir=folder)
        stage.turn()
        self.assertFalse(os.path.exists(stage.path))
        self.assertTrue(os.path.exists(os.path.join(folder, "l2")))
        self.assertTrue(stage.service.listening)
        client.write(b"ping\n")
        stage.turn()
        self.assertEqual(client.read, b"re:ping\n")
        stage.client(b"pong\n")
        self.assertEqual(stage.status.clients, 2)


class StopTests(HostTestCase):
    """INT and TERM, and a host that leaves the table."""

    def assert_stops(self, stage: Stage, done: list[bool]) -> None:
        """Within the second for last answers it stops; all is closed, and no timer is left."""
        stage.turn()
        stage.clock.advance(FAREWELL)
        stage.turn()
        self.assertEqual((done, stage.clock.getDelayedCalls()), ([True], []))

    def test_nothing_to_do(self) -> None:
        """A host without clients stops at once, takes its socket away and leaves no timer."""
        stage = Stage(self)
        londs = stage.connect(3)
        self.assertEqual((stage.stop(), stage.clock.getDelayedCalls()), ([True], []))
        self.assertFalse(os.path.exists(stage.path))
        self.assertEqual([lond.wire.closed for lond in londs], [True] * 3)

    def test_stopped_twice(self) -> None:
        """S19: whoever stops it while it stops already is told of the same end."""
        stage, client = self.busy_stage()
        first, second = stage.stop(), stage.stop()
        self.assertEqual((first, second), ([], []))
        stage.londs[0].reply(b"answer\n")
        self.assert_stops(stage, first)
        self.assertEqual((client.read, second), (b"answer\n", [True]))

    def test_in_flight(self) -> None:
        """What is in flight has its time; its client reads the answer, and has a second more."""
        stage, client = self.busy_stage()
        done = stage.stop()
        stage.advance(4)
        self.assertEqual((done, client.read), ([], b""))
        stage.londs[0].say(b"ok\n")
        self.assert_stops(stage, done)
        self.assertEqual((client.read, stage.state), (b"ok\n", (0, 0, 0, 0)))

    def test_in_flight_for_too_long(self) -> None:
        """At the end of that time it is con_lost; without such a time at once."""
        for seconds in (5, 0):
            stage, client = self.busy_stage(drain_timeout=seconds)
            done = stage.stop()
            if seconds:
                stage.clock.advance(seconds - 0.1)
                self.assertEqual((done, client.read), ([], b""))
                stage.clock.advance(0.1)
            self.assert_stops(stage, done)
            self.assertEqual((client.read, stage.lost(Cause.CLOSED)), (CON_LOST, 1))

    def test_new_requests(self) -> None:
        """A request that comes while it stops gets con_lost, also where a connection is idle."""
        stage = Stage(self)
        flying = stage.client(b"flying\n")
        old = stage.client()
        stage.turn()
        stage.connect(2)
        done = stage.stop()
        for _ in range(3):
            old.write(b"new\n")
            self.assertEqual(old.read, CON_LOST)
            old.wire.clear()
            stage.turn()
        stage.londs[0].say(b"ok\n")
        self.assert_stops(stage, done)
        self.assertEqual(flying.read, b"ok\n")
        self.assertEqual([lond.asked for lond in stage.londs], [[b"flying\n"], [], []])

    def test_close_connections(self) -> None:
        """A client that asks it to close its connections costs what is in flight nothing more."""
        stage = Stage(self)
        flying, old = stage.client(b"flying\n"), stage.client()
        stage.turn()
        stage.stop()
        old.write(b"close_connection_exit\n")
        stage.londs[0].reply(b"ok\n")
        self.assertEqual((old.read, flying.read), (b"ok\n", b"ok\n"))

    def test_sent_ahead(self) -> None:
        """What a client sent ahead is not begun any more: only what is in flight is answered."""
        stage = Stage(self)
        stage.echoing()
        client = stage.client(b"one\ntwo\nthree\n")
        done = stage.stop()
        self.assertEqual(client.answers, [CON_LOST] * 3)
        stage = Stage(self)
        client = stage.send(b"one\ntwo\nthree\n")
        done = stage.stop()
        stage.londs[0].reply(b"1\n")
        self.assertEqual(client.answers, [b"1\n", CON_LOST, CON_LOST])
        self.assertEqual(stage.londs[0].asked, [b"one\n"])
        self.assert_stops(stage, done)

    def test_connections_under_way(self) -> None:
        """Connections that are being made are given up."""
        stage = Stage(self)
        stage.stall_at(b"init\n")
        one = stage.send(b"ping\n")
        stage.network.on_connect = leave_pending
        two = stage.client(b"ping\n")
        done = stage.stop()
        self.assertEqual(self.answers([one, two]), [CON_LOST] * 2)
        self.assertTrue(stage.network.attempts[1].given_up)
        self.assertTrue(stage.londs[0].wire.closed)
        self.assert_stops(stage, done)

    def test_client_that_reads_slowly(self) -> None:
        """A client that reads within that second reads all."""
        stage = Stage(self)
        client = stage.client(b"ping\n", room=1)
        done = stage.stop()
        stage.clock.advance(0.9)
        client.wire.take()
        self.assert_stops(stage, done)
        self.assertEqual(client.read, CON_LOST)

    def test_lond_that_does_not_read(self) -> None:
        """A connection that cannot be closed in good order is cut after a second."""
        stage, lond = self.connected()
        lond.wire.room = 10
        stage.client(b"x" * 100 + b"\n")
        lond.say(b"too long\n")
        self.assertEqual(stage.state, (0, 0, 1, 0))
        done = stage.stop()
        stage.clock.advance(0.9)
        self.assertEqual((done, lond.wire.closed), ([], False))
        stage.clock.advance(0.1)
        stage.turn()
        self.assertEqual((done, stage.clock.getDelayedCalls()), ([True], []))

    def test_break_while_stopping(self) -> None:
        """A connection that breaks meanwhile ends its request, and no probe follows."""
        stage = Stage(self, retries=1)
        one, two = stage.clients_of(2)
        done = stage.stop()
        stage.londs[0].close()
        self.assertEqual(self.answers([one, two]), [CON_LOST, b""])
        stage.londs[1].close()
        stage.turn()
        self.assertEqual(self.answers([one, two]), [CON_LOST, CON_LOST])
        self.assert_stops(stage, done)

    def test_more_than_the_answer_while_stopping(self) -> None:
        """An answer with something behind it reaches its client before that is closed."""
        stage, client = self.busy_stage()
        done = stage.stop()
        stage.londs[0].say(b"ok\nmore\n")
        self.assert_stops(stage, done)
        self.assertEqual(client.read, b"ok\n")

    def test_dead_host(self) -> None:
        """A DEAD host stops without a further probe."""
        stage = Stage(self, retries=1)
        stage.refuse()
        stage.send(b"ping\n")
        done = stage.stop()
        self.assert_stops(stage, done)

    def test_others_who_ask(self) -> None:
        """A delayed request that comes too late fails; it is not lost, its file stays."""
        stage = Stage(self)
        stage.stop()
        asker = NotedReceiver()
        stage.service.submit(Request(b"put:x\n", asker))
        self.assertEqual(asker.outcomes, [Cause.CLOSED])

    def test_fires_once(self) -> None:
        """However the last ones end, the end is told once, within the drain time and a second."""
        stage = Stage(self, drain_timeout=5)
        clients: list[FakeClient] = [stage.client(b"x%d\n" % n, room=n) for n in range(12)]
        stage.turn()
        done = stage.stop()
        stage.londs[0].say(b"ok\n")
        stage.londs[1].close()
        clients[2].hang_up()
        for _ in range(24):
            stage.clock.advance(0.25)
        stage.turn()
        self.assertEqual(done, [True])
        self.assertTrue(all(client.closed for client in clients))
        self.assertTrue(all(lond.wire.closed for lond in stage.londs))
        self.assertEqual(stage.clock.getDelayedCalls(), [])
