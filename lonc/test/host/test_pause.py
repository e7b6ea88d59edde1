"""A host that is paused, alone on its machine or beside others."""

from __future__ import annotations

from lonc.host.pause import Pause
from lonc.host.service import HostService
from lonc.local.client_socket import FAREWELL
from lonc.test.fixtures.doubles import echo, leave_pending
from lonc.test.fixtures.stage import HostTestCase, Stage, Together
from lonc.wire.request import CON_LOST, Cause


class PauseTests(HostTestCase):
    """Nothing is sent to a host for a while."""

    def pause(
        self, stage: Stage, host: HostService, fail: bool = False, seconds: float = 0.0
    ) -> list[None]:
        """Pause a host; return a list that has an entry once nothing is in flight."""

        done: list[None] = []
        pause = Pause(by="root", reason="disk", since=1.0, until=0.0, fail=fail)
        host.pause(pause, seconds).addCallback(done.append)
        return done

    def test_in_flight(self) -> None:
        """It is done when what is in flight has ended; what comes then waits, and is served."""
        stage, lond = self.connected()
        flying = stage.send(b"flying\n")
        done = self.pause(stage, stage.service)
        self.assertEqual(done, [])
        waiting = stage.client(b"waiting\n")
        lond.say(b"answer\n")
        self.assertEqual((flying.read, done), (b"answer\n", [None]))
        stage.turn()
        self.assertEqual((waiting.read, stage.status.waiting), (b"", 1))
        self.assertEqual(stage.status.paused["reason"], "disk")
        self.assertFalse(stage.service.alive)  # delayed requests wait too
        lond.answer = echo
        stage.service.resume()
        stage.turn()
        self.assertEqual((waiting.read, stage.status.paused), (b"re:waiting\n", {}))
        self.assertEqual(stage.revived, ["l2"])

    def test_not_sent_yet(self) -> None:
        """It is done, too, when the request that was to be sent next waits like the others."""
        stage = Together(self, max_connections=1).knowing()
        stage.send_to("l2", b"warm\n")
        (lond,) = stage.londs
        lond.stalls_at = b"sethost:l3\n"
        lond.say(b"done\n")
        client = stage.send_to("l3", b"get\n")
        host = stage.hosts["l3"]
        done = self.pause(stage, host)
        self.assertEqual(done, [])
        stage.send_to("l4", b"close_connection_exit\n")
        self.assertEqual((done, host.waiting, client.read), ([None], 1, b""))

    def test_fail(self) -> None:
        """Where it says so, requests get con_lost at once, those too that wait already."""
        stage, _ = self.busy_stage(waiting=2)
        self.pause(stage, stage.service, fail=True)
        self.assertEqual(stage.lost(Cause.PAUSED), 2)
        self.assertEqual(stage.client(b"get\n").read, CON_LOST)

    def test_end(self) -> None:
        """It ends by itself; the queue timeout goes on meanwhile."""
        stage = Stage(self, queue_timeout=5)
        stage.echoing()
        self.pause(stage, stage.service, seconds=8.0)
        early = stage.send(b"early\n", seconds=6)
        self.assertEqual(early.read, CON_LOST)
        late = stage.send(b"late\n", seconds=2)
        self.assertEqual(late.read, b"re:late\n")

    def test_one_of_several(self) -> None:
        """The others on its machine go on."""
        stage = Together(self).serving()
        self.pause(stage, stage.hosts["l3"])
        held, served = stage.client_of("l3", b"get\n"), stage.client_of("l4", b"get\n")
        stage.turn()
        self.assertEqual((held.read, served.read), (b"", b"re:sethost:l4:get\n"))
        stage.hosts["l3"].resume()
        stage.turn()
        self.assertEqual(held.read, b"re:sethost:l3:get\n")

    def test_stop(self) -> None:
        """A paused host can be stopped: waiting clients get con_lost."""
        stage = Stage(self)
        self.pause(stage, stage.service, seconds=60.0)
        waiting = stage.client(b"get\n")
        stage.stop()
        self.assertEqual(waiting.read, CON_LOST)
        stage.clock.advance(FAREWELL)
        stage.turn()
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_nothing_is_made(self) -> None:
        """No connection is made for requests that wait for a paused host."""
        stage = Stage(self)
        stage.network.on_connect = leave_pending
        self.pause(stage, stage.service)
        stage.send(b"get\n")
        self.assertEqual(stage.network.attempts, [])
