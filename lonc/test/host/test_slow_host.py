"""A slow answer is no dead host (rows F1, S10 and S12), and what a long rest does."""

from __future__ import annotations

import attrs

from lonc.test.fixtures.doubles import a_host, echo, leave_pending
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST


class SlowHostTests(HostTestCase):
    """Which time-outs count against a host."""

    def test_one_after_the_other(self) -> None:
        """F5: a request that was sent after a failure, and times out, is a failure again."""
        stage = Stage(self, request_timeout=10, connect_timeout=99, retries=2, max_connections=2)
        stage.connect(2)
        stage.network.on_connect = leave_pending
        stage.clients_of(1)
        stage.advance(10)
        self.assertEqual(stage.status.retries_left, 1)
        stage.clients_of(1)
        stage.advance(10)
        self.assertEqual(stage.status.state, "DEAD")

    def test_sent_before_another_failure(self) -> None:
        """F5: what was sent before a connection broke, and times out, says nothing new."""
        stage = Stage(self, request_timeout=10, retries=2)
        first, _ = stage.connect(2)
        stage.clients_of(2)
        stage.advance(1)
        first.close()
        self.assertEqual(stage.status.retries_left, 1)
        stage.advance(10)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("up", 1))

    def test_last_connection(self) -> None:
        """S12: requests wait on for the last connection if a time-out is no new failure."""
        stage = Stage(self, request_timeout=10, retries=3, max_connections=2)
        stage.connect(2)
        stage.advance(1)
        slow = stage.send(b"slow\n", seconds=1)
        idle = next(lond for lond in stage.londs if not lond.asked)
        idle.close()
        stage.service.reconfigure(a_host(), attrs.evolve(stage.settings, max_connections=1))
        waiting = stage.clients_of(2)
        stage.echoing()
        stage.advance(9)
        self.assertEqual(slow.read, CON_LOST)
        self.assertEqual(self.answers(waiting), [echo(b"ping\n")] * 2)

    def test_no_connection_while_others_answer(self) -> None:
        """F5: the same holds for a connection attempt that hangs while another one succeeds."""
        stage = Stage(self, retries=1, connect_timeout=5)
        stage.network.on_connect = leave_pending
        stage.clients_of(2)
        stage.advance(1)
        stage.network.attempts[0].accept()
        stage.advance(4)
        self.assertEqual((stage.status.state, stage.status.retries_left), ("up", 1))


class LongRestTests(HostTestCase):
    """What a firewall forgets."""

    def test_others_that_rested(self) -> None:
        """S9: when a connection proves dead after a long rest, others with such a rest close."""
        stage = Stage(self, request_timeout=10)
        londs = stage.connect(3)
        stage.advance(600)
        stage.send(b"ping\n", seconds=10)
        self.assertEqual(stage.state, (0, 0, 0, 0))
        self.assertTrue(all(lond.wire.disconnecting for lond in londs[:2]))
        self.assertEqual(stage.status.retries_left, 1)

    def test_others_in_use(self) -> None:
        """S9: those used since stay; and a short rest says nothing of others."""
        stage = Stage(self, request_timeout=10)
        for pause in (1, 600):
            one, two = stage.connect(2)[-2:]
            stage.advance(pause)
            stage.send(b"slow\n", seconds=1)
            other, slow = (one, two) if two.asked else (two, one)
            stage.send(b"quick\n")
            other.say(b"quick\n")
            stage.advance(10)
            self.assertEqual(stage.state, (0, 0, 1, 0))
            self.assertTrue(slow.wire.closed)
            stage.service.close_connections()
