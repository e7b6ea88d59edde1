"""When a host is DEAD, and how it comes back (rows S10, F4 and F5)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.error import ConnectError, DNSLookupError, NoRouteError
from twisted.logger import LogLevel

from lonc.test.fixtures.doubles import Attempt, ScriptedLond, echo, leave_pending
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST, Cause


def lack_files(attempt: Attempt) -> None:
    """Let an attempt to connect fail because lonc has no descriptors left."""
    attempt.fail(ConnectError(errno.EMFILE, "Too many open files"))


class HealthTests(HostTestCase):
    """Rows S10, F4 and F5."""

    def dead_stage(self, **settings: Any) -> Stage:
        """Return a stage whose host is DEAD, and whose lond refuses."""
        stage = Stage(self, **settings)
        stage.refuse()
        while stage.service.alive:
            stage.send(b"ping\n")
        stage.network.attempts.clear()
        return stage

    def test_dead(self) -> None:
        """S10: after as many failures as the setting says requests fail at once."""
        stage = Stage(self, retries=3)
        stage.refuse()
        for left in (2, 1, 0):
            stage.send(b"ping\n")
            self.assertEqual(stage.status.retries_left, left)
        self.assertEqual(stage.status.text, "l2 >> DEAD <<")
        attempts = len(stage.network.attempts)
        client = stage.client(b"ping\n")
        self.assertEqual(client.read, CON_LOST)
        self.assertEqual(stage.lost(Cause.DEAD), 2)
        self.assertEqual(len(stage.network.attempts), attempts)
        (line,) = self.notes.at(LogLevel.critical)
        self.assertIn("dead", line)

    def test_failures_fill_no_log(self) -> None:
        """A host that fails again and again has a line of each kind every 10 s at most."""
        stage = Stage(self, retries=100)
        stage.refuse()
        for _ in range(30):
            stage.send(b"ping\n")
        self.assertEqual(len(self.warnings), 1)
        stage.clock.advance(10)
        stage.send(b"ping\n")
        self.assertEqual(len(self.warnings), 2)
        self.assertTrue(self.warnings[-1].endswith(" (29 like this left out)"), self.warnings)

    def test_no_descriptors(self) -> None:
        """F5: that lonc has no descriptors left is no failure of the host's; clients are told."""
        stage = Stage(self, retries=1)
        stage.network.on_connect = lack_files
        client = stage.send(b"ping\n")
        self.assertEqual(client.read, CON_LOST)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("up", 1))
        self.assertIn("no file descriptors left", self.warnings[-1])
        stage.accept()
        stage.echoing()
        client.write(b"again\n")
        stage.turn()
        self.assertEqual(client.read, CON_LOST + echo(b"again\n"))

    def test_no_descriptors_while_others_wait(self) -> None:
        """S8: without descriptors, one attempt is made for each request, and not one for ever."""
        stage, lond = self.connected(max_connections=10)
        stage.clients_of(1)
        before = len(stage.network.attempts)

        def fail(attempt: Attempt) -> None:
            if len(stage.network.attempts) - before < 20:  # or it would go on for ever
                lack_files(attempt)

        stage.network.on_connect = fail
        waiting = stage.clients_of(3)
        self.assertEqual(len(stage.network.attempts) - before, 3)
        lond.answer = echo
        lond.reply(b"first\n")
        self.assertEqual(self.answers(waiting), [echo(b"ping\n")] * 3)

    def test_no_descriptors_while_dead(self) -> None:
        """F4: a probe that lonc has no descriptor for is followed by the next."""
        stage = self.dead_stage(retries=1)
        stage.network.on_connect = lack_files
        stage.advance(1)
        self.assertEqual(len(stage.network.attempts), 1)
        stage.accept()
        stage.advance(2)
        self.assertTrue(stage.service.alive)

    def test_break_while_others_hang(self) -> None:
        """S8: when one of several connections breaks, another is made for waiting requests."""
        stage = Stage(self, max_connections=2)
        stage.clients_of(2)
        waiting = stage.client(b"ping\n")
        stage.echoing()
        stage.londs[0].close()
        stage.turn()
        self.assertEqual(waiting.read, echo(b"ping\n"))

    def test_waiters_of_a_dead_host(self) -> None:
        """S10: requests waiting when the host becomes DEAD get con_lost at once."""
        stage = Stage(self, max_connections=2, retries=1)
        first, second = stage.clients_of(2)
        waiting = stage.clients_of(3)
        stage.londs[0].close()
        self.assertEqual(self.answers([first, second, *waiting]), [CON_LOST, b"", *[CON_LOST] * 3])
        self.assertEqual(stage.lost(Cause.DEAD), 3)

    def test_answer_from_a_dead_host(self) -> None:
        """S10: what is owed when the host dies may still come, and is a success."""
        stage = Stage(self, max_connections=2, retries=1)
        first, second = stage.clients_of(2)
        stage.londs[0].close()
        self.assertFalse(stage.service.alive)
        stage.londs[1].say(b"ok\n")
        self.assertEqual((first.read, second.read), (CON_LOST, b"ok\n"))
        self.assertTrue(stage.service.alive)
        self.assertEqual(stage.status.next_probe, -1.0)
        self.assertEqual(stage.revived, ["l2"])

    def test_idle_connections_of_a_dead_host(self) -> None:
        """S10: idle connections of a host that died are closed; the pool holds none."""
        stage = Stage(self, retries=1)
        one, two = stage.connect(2)
        stage.send(b"ping\n")
        two.close()
        self.assertTrue(one.wire.disconnecting)
        self.assertEqual(stage.state, (0, 0, 0, 0))

    def test_success_restores(self) -> None:
        """S10: an answer restores the retries, and so does a completed handshake."""
        stage = Stage(self, retries=3)
        stage.refuse()
        stage.send(b"ping\n")
        stage.accept()
        stage.connect()
        self.assertEqual(stage.status.retries_left, 3)
        stage.network.on_connect = leave_pending
        stage.clients_of(2)
        stage.network.attempts[-1].refuse()
        self.assertEqual(stage.status.retries_left, 2)
        stage.londs[0].say(b"ok\n")
        self.assertEqual(stage.status.retries_left, 3)

    def test_probes(self) -> None:
        """F4: a DEAD host is tried after 1, 2, 4 ... 60 seconds, one connection at a time."""
        stage = self.dead_stage()
        times = []
        seen = 0
        while stage.clock.seconds() < 300:
            stage.advance(0.5)
            if len(stage.network.attempts) > seen:
                seen = len(stage.network.attempts)
                times.append(stage.clock.seconds())
        self.assertEqual(times, [1, 3, 7, 15, 31, 63, 123, 183, 243])
        self.assertEqual(seen, 9)

    def test_probe_succeeds(self) -> None:
        """F4: the first completed handshake brings the host back, and its connection serves."""
        stage = self.dead_stage()
        stage.stall_at(b"ekey\n")
        stage.accept()
        stage.advance(1)
        self.assertFalse(stage.service.alive)
        self.assertEqual(stage.client(b"ping\n").read, CON_LOST)
        self.assertEqual(stage.revived, [])
        stage.londs[0].answer = echo
        stage.londs[0].say(b"ABCDEF\n")
        self.assertTrue(stage.service.alive)
        self.assertEqual(stage.revived, ["l2"])
        self.assertEqual((stage.status.retries_left, stage.state), (2, (0, 0, 1, 0)))
        stage.send(b"ping\n")
        self.assertEqual(stage.londs[0].asked, [b"ping\n"])
        stage.advance(200)
        self.assertEqual(len(stage.network.attempts), 1)

    def test_every_way_a_probe_fails(self) -> None:
        """F4: however a probe ends, another one follows."""
        stage = self.dead_stage(request_timeout=3, connect_timeout=3)
        ways: list[tuple[Callable[[Attempt], object], Callable[[ScriptedLond], object]]] = [
            (leave_pending, ScriptedLond.close),
            (lambda attempt: attempt.fail(NoRouteError()), ScriptedLond.close),
            (Attempt.accept, ScriptedLond.close),
            (Attempt.accept, lambda lond: lond.say(b"refused")),
            (Attempt.accept, lambda lond: None),
        ]
        for stage.network.on_connect, act in ways:

            def prepare(lond: ScriptedLond, act: Callable[[ScriptedLond], object] = act) -> None:
                lond.stalls_at = b"init\n"
                stage.clock.callLater(0, act, lond)

            stage.network.prepare = prepare
            before = len(stage.network.attempts)
            stage.advance(70)
            self.assertGreater(len(stage.network.attempts), before)
            self.assertFalse(stage.service.alive)

    def test_reset(self) -> None:
        """S17, S18: a DEAD host with its retries back is tried at once, and up when it answers."""
        stage = self.dead_stage()
        stage.stall_at(b"ekey\n")
        stage.accept()
        stage.service.reset_retries()
        self.assertEqual((stage.status.state, stage.status.retries_left), ("unproven", 2))
        self.assertEqual(
            stage.status.text, "l2 Connection count: 1 Retries remaining: 2 (unproven)"
        )
        self.assertEqual(stage.revived, ["l2"])
        stage.turn()
        self.assertEqual(stage.status.state, "unproven")
        stage.londs[0].say(b"ABCDEF\n")
        self.assertEqual((stage.status.state, stage.state), ("up", (0, 0, 1, 0)))

    def test_reset_again_and_again(self) -> None:
        """S17: one probe is under way at a time, and the pauses between probes go on growing."""
        stage = self.dead_stage()
        stage.advance(1 + 2 + 4)
        stage.network.on_connect = leave_pending
        for _ in range(5):
            stage.service.reset_retries()
        self.assertEqual(stage.state, (1, 0, 0, 0))
        stage.network.attempts[-1].refuse()
        stage.refuse()
        self.assertEqual((stage.status.state, stage.status.next_probe), ("unproven", 16.0))
        stage.service.reset_retries()
        self.assertEqual((stage.state, stage.status.next_probe), ((0, 0, 0, 0), 16.0))
        stage.advance(16)
        self.assertEqual((stage.status.state, stage.status.next_probe), ("unproven", 32.0))
        stage.send(b"ping\n")
        self.assertEqual((stage.status.state, stage.status.next_probe), ("DEAD", 32.0))
        stage.advance(32)
        self.assertEqual((stage.status.state, stage.status.next_probe), ("DEAD", 60.0))

    def test_connections_closed_while_unproven(self) -> None:
        """S14, S17: a host that is unproven is tried anew when its connections were closed."""
        stage = self.dead_stage()
        stage.network.on_connect = leave_pending
        stage.service.reset_retries()
        stage.service.close_connections()
        self.assertEqual((stage.status.state, stage.state), ("unproven", (1, 0, 0, 0)))
        stage.network.attempts[-1].refuse()
        self.assertGreater(stage.status.next_probe, 1)
        stage.clock.advance(1)
        stage.service.close_connections()
        self.assertEqual((stage.status.state, stage.state), ("unproven", (1, 0, 0, 0)))

    def test_reset_while_stopping(self) -> None:
        """S17: a host that stops is not tried any more."""
        stage = self.dead_stage()
        stage.stop()
        stage.service.reset_retries()
        self.assertEqual(stage.state, (0, 0, 0, 0))

    def test_probe_while_connecting(self) -> None:
        """F4: what is connecting already, or in a handshake, tells as much as a probe would."""
        for handshaking in (0, 1):
            stage = self.dead_stage()
            stage.service.reset_retries()
            stage.turn()
            stage.network.on_connect = Attempt.accept if handshaking else leave_pending
            stage.stall_at(b"init\n")
            stage.client(b"ping\n")
            before = len(stage.network.attempts)
            stage.advance(2)
            self.assertEqual(len(stage.network.attempts), before)
            self.assertEqual(stage.state, (1 - handshaking, handshaking, 0, 0))

    def test_lines_of_a_dead_host(self) -> None:
        """Its death is a line, its return another, and between them it is told once an hour."""
        stage = self.dead_stage()
        (death,) = self.notes.at(LogLevel.critical)
        self.assertRegex(death, "marked dead.*127.0.0.2 refused")
        self.assertEqual(len(self.warnings), 1)  # of the first retry
        self.notes.events.clear()
        stage.advance(3590)
        self.assertEqual(self.warnings, [])
        stage.advance(100)
        (line,) = self.warnings
        self.assertIn("refused", line)
        stage.service.reset_retries()
        stage.advance(120)
        self.assertEqual((stage.status.state, len(self.warnings)), ("DEAD", 1))
        self.assertEqual(self.notes.at(LogLevel.critical), [])
        stage.accept()
        stage.advance(60)
        self.assertEqual(self.notes.at(LogLevel.info), ["host answers again"])

    def test_each_failure_counts_once(self) -> None:
        """F5: whatever fails takes exactly one retry, and the log says which it was."""
        accept = Attempt.accept
        for on_connect, stalls_at, said, seconds, word in (
            (Attempt.refuse, b"", (), 0, "refused"),
            (leave_pending, b"", (), 5, "timed out"),
            (accept, b"init\n", (), 60, "timed out"),
            (accept, b"", (), 60, "timed out"),
            (accept, b"init\n", (b"refused",), 0, "bad handshake"),
            (accept, b"init\n", (b"no\n",), 0, "bad handshake"),
            (accept, b"", (b"",), 0, "broke"),  # it closes
            (accept, b"", (b"ok\n", b"x"), 0, "broke"),
        ):
            self.notes.events.clear()
            stage = Stage(self, retries=5)
            stage.network.on_connect = on_connect
            stage.stall_at(stalls_at)
            stage.send(b"ping\n")
            for line in said:
                stage.londs[-1].reply(line) if line else stage.londs[-1].close()
            stage.advance(seconds)
            self.assertEqual(stage.status.retries_left, 4, word)
            (warning,) = self.warnings
            self.assertIn(word, warning)
            self.assertIn("127.0.0.2", warning)

    def test_failed_look_up_counts_once(self) -> None:
        """F5: a failed look-up takes one retry, too."""
        stage = Stage(self, retries=5, look_up=lambda name: fail(DNSLookupError("none")))
        stage.send(b"ping\n")
        self.assertEqual(stage.status.retries_left, 4)
        self.assertIn("look-up failed", self.warnings[0])

    def test_ten_connections_break(self) -> None:
        """F5: a lond that ends takes ten connections with it: that is one failure, host alive."""
        stage = Stage(self)
        londs = stage.connect(10)
        stage.advance(100)
        for lond in londs:
            lond.close()
        self.assertEqual((stage.status.retries_left, stage.status.state), (1, "up"))
        self.assertEqual(stage.state, (0, 0, 0, 0))

    def test_new_connection_breaks_too(self) -> None:
        """F5: a connection that was made after that and breaks is another failure."""
        stage = Stage(self, retries=3)
        stage.advance(100)
        for lond in stage.connect(2):
            lond.close()
        stage.advance(1)
        stage.network.on_connect = leave_pending
        stage.clients_of(2)
        lond = stage.network.attempts[-2].accept()
        stage.turn()
        self.assertEqual(stage.status.retries_left, 3)  # its handshake was a success
        lond.close()
        self.assertEqual(stage.status.retries_left, 2)

    def test_ten_requests_time_out(self) -> None:
        """F5: ten requests that were sent together and have no answer are one failure."""
        stage = Stage(self, retries=2)
        clients = stage.clients_of(10)
        stage.advance(60)
        self.assertEqual(self.answers(clients), [CON_LOST] * 10)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("unproven", 1))
        clients = stage.clients_of(10)
        stage.stall_at(b"init\n")
        stage.advance(60)
        self.assertEqual(self.answers(clients), [CON_LOST] * 10)
        self.assertEqual(stage.status.state, "DEAD")
