"""Delayed requests on their way: which connection carries them, and how it is proven (row F8)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred, execute

from lonc.delayed.service import DelayedService
from lonc.host.audit import EARLIEST, ROUND
from lonc.host.connection import PING
from lonc.host.pause import Pause
from lonc.host.request_queue import ROUND_ROBIN_AFTER
from lonc.report.events import Logger
from lonc.report.problems import Problems
from lonc.test.fixtures.delayed import read, write
from lonc.test.fixtures.doubles import ScriptedLond, a_host, echo
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import Cause, ConLost, Provable

Delivered = tuple[bytes, Provable | None]


class DeliveryCase(HostTestCase):
    """A host whose londs answer each request with itself, and ``ping`` as they are told."""

    def setUp(self) -> None:
        super().setUp()
        self.pong: Callable[[], bytes | None] = lambda: b"l2\n"
        self.reply: Callable[[ScriptedLond, bytes], bytes | None] = lambda lond, line: echo(line)

    def stage(self, **settings: Any) -> Stage:
        """Return such a host."""
        stage = Stage(self, **settings)

        def prepare(lond: ScriptedLond) -> None:
            lond.answer = lambda line: self.pong() if line == PING else self.reply(lond, line)

        stage.network.prepare = prepare
        return stage

    def know_hosts(
        self,
        stage: Stage,
        also: Callable[[ScriptedLond], object] = lambda lond: None,
        served: Sequence[str] = (),
    ) -> None:
        """Let its londs know sethost, and serve these ids or any."""
        prepare = stage.network.prepare

        def knows_hosts(lond: ScriptedLond) -> None:
            prepare(lond)
            lond.know_hosts(*served)
            also(lond)

        stage.network.prepare = knows_hosts

    def deliver(
        self, stage: Stage, line: bytes = b"put\n", fresh: bool = False
    ) -> Deferred[Delivered]:
        """Send a delayed request, and let arrive what is on its way."""
        outcome = stage.service.deliver(line, fresh)
        stage.turn(4)
        return outcome

    def known(self, **settings: Any) -> Stage:
        """Return a host whose lond's answer to ``ping`` is known, and that has one connection."""
        stage = self.stage(**settings)
        self.assertEqual(self.successResultOf(self.deliver(stage)), (echo(b"put\n"), None))
        stage.londs[0].asked.clear()
        return stage

    def delivered(self, stage: Stage) -> Provable:
        """Send a request whose answer has to be proven; return by which connection it came."""
        reply, connection = self.successResultOf(self.deliver(stage))
        self.assertEqual(reply, echo(b"put\n"))
        assert connection is not None
        return connection

    def carried(self, **settings: Any) -> tuple[Stage, Provable]:
        """Return such a host, and the connection of an answer that has to be proven."""
        stage = self.known(**settings)
        return stage, self.delivered(stage)


class DeliveryTests(DeliveryCase):
    """Which connection carries a delayed request."""

    def test_first(self) -> None:
        """Its answer counts if it is the first request there; then ``ping`` is asked for twice."""
        stage = self.stage()
        self.assertEqual(self.successResultOf(self.deliver(stage)), (echo(b"put\n"), None))
        self.assertEqual([lond.asked for lond in stage.londs], [[b"put\n", PING, PING]])

    def test_used_last(self) -> None:
        """Once it is known what ``ping`` brings, it goes out as any other, and is to be proven."""
        stage = self.known()
        self.delivered(stage)
        self.assertEqual([lond.asked for lond in stage.londs], [[b"put\n"]])

    def test_another_lond(self) -> None:
        """What ``ping`` brings is learned anew of a lond that comes after one that has ended."""
        stage = self.known()
        stage.londs[0].close()
        stage.turn()
        self.pong = lambda: b"another\n"
        self.assertEqual(self.successResultOf(self.deliver(stage)), (echo(b"put\n"), None))
        self.assertEqual(stage.londs[1].asked, [b"put\n", PING, PING])

    def test_fresh(self) -> None:
        """If it has to be the first request, another connection is made for it."""
        stage = self.known()
        self.assertEqual(
            self.successResultOf(self.deliver(stage, fresh=True)), (echo(b"put\n"), None)
        )
        self.assertEqual([lond.asked[0] for lond in stage.londs[1:]], [b"put\n"])

    def test_useless_ping(self) -> None:
        """Where ``ping`` tells nothing, each is the first request on its connection."""
        pongs = iter(range(100))
        self.pong = lambda: b"load %d\n" % next(pongs)
        stage = self.stage(max_connections=2)
        for number in range(5):
            line = b"put:%d\n" % number
            self.assertEqual(self.successResultOf(self.deliver(stage, line)), (echo(line), None))
            client = stage.send(b"get\n")
            stage.turn()
            self.assertEqual(client.read, echo(b"get\n"))
        firsts = [lond.asked[0] for lond in stage.londs]
        stored = [each for each in firsts if each.startswith(b"put")]
        self.assertEqual(stored, [b"put:%d\n" % number for number in range(5)])
        self.assertLessEqual(len(stage.service.machine.pool), 2)

    def test_ping_hangs(self) -> None:
        """Where ``ping`` turns out to hang, the answer counts; it is asked for once only."""
        self.pong = lambda: None
        stage = self.stage()
        outcome = self.deliver(stage)
        self.assertNoResult(outcome)
        stage.advance(stage.settings.request_timeout)
        self.assertEqual(self.successResultOf(outcome), (echo(b"put\n"), None))
        self.assertEqual(self.successResultOf(self.deliver(stage)), (echo(b"put\n"), None))
        asked = [line for lond in stage.londs for line in lond.asked]
        self.assertEqual(asked, [b"put\n", PING, b"put\n"])

    def test_makes_room(self) -> None:
        """Where all places are taken, a connection ends for it: if need be one that is busy."""
        stage = self.known(max_connections=1)
        self.reply = lambda lond, line: None
        client = stage.send(b"get\n")
        outcome = self.deliver(stage, fresh=True)
        self.assertNoResult(outcome)
        stage.londs[0].say(b"got\n")
        stage.turn(4)
        stage.londs[1].reply(b"ok\n")
        self.assertEqual(client.read, b"got\n")
        self.assertEqual(self.successResultOf(outcome), (b"ok\n", None))

    def test_several_ids(self) -> None:
        """The name of its host comes before it, where the lond has several."""
        stage = self.stage(ids=("l2", "l3"))
        self.know_hosts(stage)
        reply, _ = self.successResultOf(self.deliver(stage))
        self.assertEqual(reply, echo(b"sethost:l2:put\n"))

    def test_lonc_answers(self) -> None:
        """What lonc answers itself counts."""
        for stage in (self.known(), self.stage()):
            outcome = self.deliver(stage, b"sethost:l2:close_connection_exit\n")
            self.assertEqual(self.successResultOf(outcome), (b"ok\n", None))

    def test_clients_alone_close_connections(self) -> None:
        """A request for that which no client has sent goes to the lond."""
        stage = self.known()
        outcome = self.deliver(stage, b"close_connection_exit\n")
        reply, _ = self.successResultOf(outcome)
        self.assertEqual(reply, echo(b"close_connection_exit\n"))
        self.assertEqual(stage.state[2], 1)

    def lost(self, outcome: Deferred[Delivered]) -> Cause:
        """Return why there was no answer."""
        failure = self.failureResultOf(outcome, ConLost)
        assert isinstance(failure.value, ConLost)
        return failure.value.cause

    def test_unreachable(self) -> None:
        """Without a connection it gets con_lost; from a DEAD or a paused host at once."""
        stage = self.stage()
        stage.refuse()
        causes = [self.lost(self.deliver(stage)) for _ in range(3)]
        self.assertEqual(causes, [Cause.UNREACHABLE, Cause.DEAD, Cause.DEAD])
        stage = self.stage()
        stage.service.pause(Pause("root", "", 0.0, 0.0, False), 0.0)
        self.assertEqual((self.lost(self.deliver(stage)), stage.londs), (Cause.DEAD, []))

    def test_limit(self) -> None:
        """It waits for a connection as long as any other, and for its answer as well."""
        stage = self.stage()
        stage.stall_at(b"init\n")
        outcome = self.deliver(stage)
        stage.advance(stage.settings.queue_timeout + 1)
        self.assertIn(self.lost(outcome), (Cause.QUEUE_TIMEOUT, Cause.UNREACHABLE))
        self.reply = lambda lond, line: None
        stage = self.stage()
        outcome = self.deliver(stage)
        stage.advance(stage.settings.request_timeout + 1)
        self.assertEqual(self.lost(outcome), Cause.TIMEOUT)

    def test_host_leaves(self) -> None:
        """When its host leaves the table, or moves, it gets con_lost; it stays on the disk."""
        for moves in (False, True):
            stage = self.stage()
            stage.stall_at(b"init\n")
            outcome = self.deliver(stage)
            if moves:
                stage.service.reconfigure(a_host(address="127.0.0.9"), stage.settings)
            else:
                stage.stop()
            self.assertEqual(self.lost(outcome), Cause.CLOSED)

    def test_makes_room_twice(self) -> None:
        """It gets another connection, too, if the one that ends for it is closed sooner."""
        stage = self.stage(ids=("l2", "l3"), max_connections=1)
        self.know_hosts(stage)
        host = stage.serve(attrs.evolve(a_host(), id="l3"))
        host.startService()
        self.reply = lambda lond, line: None
        stage.service.ask(b"get\n").addErrback(lambda _: None)
        stage.turn()
        self.reply = lambda lond, line: echo(line)
        outcome = host.deliver(b"put\n", True)
        stage.turn()
        self.assertNoResult(outcome)
        stage.service.close_connections()
        stage.turn(4)
        self.assertEqual(self.successResultOf(outcome), (echo(b"sethost:l3:put\n"), None))

    def test_more_hosts_than_places(self) -> None:
        """Those of many hosts that have to be first requests go one after the other."""
        ids = ("l2", "l3", "l4", "l5")
        stage = self.stage(ids=ids, max_connections=1)
        pongs = iter(range(100))
        self.pong = lambda: b"load %d\n" % next(pongs)

        def differ(lond: ScriptedLond) -> None:
            reply = lond.answer
            lond.answer = lambda x: self.pong() if x.endswith(b":ping\n") else reply(x)

        self.know_hosts(stage, differ)
        hosts = [stage.service]
        hosts += [stage.serve(attrs.evolve(a_host(), id=each)) for each in ids[1:]]
        for _ in range(2):
            outcomes = [host.deliver(b"put\n", True) for host in hosts]
            stage.advance(3)
            for host_id, outcome in zip(ids, outcomes, strict=True):
                answer = b"re:sethost:%s:put\n" % host_id.encode()
                self.assertEqual(self.successResultOf(outcome), (answer, None))

    def test_first_elsewhere(self) -> None:
        """
        If its connection is used no more before its host was introduced there, it is the first
        request on the next one; so its answer counts there, too.
        """
        stage = self.stage(ids=("l2", "l3"), max_connections=1)
        host = stage.serve(attrs.evolve(a_host(), id="l3"))
        host.startService()

        def stall(lond: ScriptedLond) -> None:
            if len(stage.londs) == 1:
                lond.stalls_at = b"sethost:l3\n"

        self.know_hosts(stage, stall)
        outcome = host.deliver(b"put\n", True)
        stage.turn()
        client = stage.send(b"get\n")
        stage.service.close_connections()
        stage.turn(4)
        put, get = b"sethost:l3:put\n", b"sethost:l3:get\n"
        self.assertEqual(self.successResultOf(outcome), (echo(put), None))
        self.assertEqual(client.read, echo(get))
        asked = [[x for x in lond.asked if x in (put, get)] for lond in stage.londs]
        self.assertEqual(asked[:2], [[], [put, get]])


class ProofTests(DeliveryCase):
    """Whether a connection has been in step."""

    def test_in_step(self) -> None:
        """One right answer to ``ping`` proves it for all waiting requests."""
        stage, connection = self.carried()
        first, second = connection.prove(), connection.prove()
        stage.turn()
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (True, True))
        self.assertEqual(stage.londs[0].asked, [b"put\n", PING])

    def test_out_of_step(self) -> None:
        """A wrong one, or none in time, disproves it, and the connection goes."""
        for pong in (b"other\n", None):
            stage, connection = self.carried()
            self.pong = lambda pong=pong: pong  # type: ignore[misc]
            proof = connection.prove()
            stage.advance(stage.settings.request_timeout + 1)
            self.assertFalse(self.successResultOf(proof))
            self.assertTrue(stage.londs[0].wire.closed)
            self.pong = lambda: b"l2\n"

    def test_ended(self) -> None:
        """One that ends before, or has ended, is not proven."""
        stage = self.known()
        self.pong = lambda: None
        connection = self.delivered(stage)
        proof = connection.prove()
        stage.londs[0].close()
        stage.turn()
        self.assertFalse(self.successResultOf(proof))
        self.assertFalse(self.successResultOf(connection.prove()))

    def test_busy(self) -> None:
        """A busy one is checked after its answer; waiting clients are not delayed for long."""
        stage, connection = self.carried()
        self.reply = lambda lond, line: None
        client = stage.send(b"get\n")
        proof = connection.prove()
        stage.advance(1)
        self.assertNoResult(proof)
        stage.londs[0].say(b"got\n")
        stage.advance(1)
        self.assertTrue(self.successResultOf(proof))
        self.assertEqual(client.read, b"got\n")

    def test_never_idle(self) -> None:
        """One that is never idle, for others wait all the time, is asked between two requests."""
        stage, connection = self.carried(max_connections=1)
        self.reply = lambda lond, line: None
        for _ in range(50):
            stage.client(b"get\n")
        stage.turn()
        proof = connection.prove()
        (lond,) = stage.londs
        for _ in range(6):
            stage.advance(4)
            lond.say(b"got\n")
        stage.turn()
        self.assertTrue(self.successResultOf(proof))
        self.assertEqual(lond.asked[:3], [b"put\n", b"get\n", PING])

    def test_slow_ping(self) -> None:
        """A lond that is slow for a while proves it all the same: nothing is sent twice."""
        stage, connection = self.carried()
        self.pong = lambda: None
        proof = connection.prove()
        stage.advance(8)
        stage.londs[0].reply(b"l2\n")
        self.assertTrue(self.successResultOf(proof))

    def test_behind_a_ping(self) -> None:
        """F2: the late answer to a client's own ``ping`` proves nothing."""
        stage = self.known(max_connections=1)
        self.reply = lambda lond, line: None
        self.pong = lambda: None
        stage.client(b"get\n")
        outcome = self.deliver(stage)
        client = stage.client(PING)
        for answer in (b"extra\n", b"got\n", b"ok\n"):
            stage.londs[0].reply(answer)
        self.assertEqual(client.read, b"ok\n")
        reply, connection = self.successResultOf(outcome)
        self.assertEqual(reply, b"got\n")
        assert connection is not None
        proof = connection.prove()
        stage.turn()
        stage.londs[0].reply(b"l2\n")
        self.assertFalse(self.successResultOf(proof))

    def busy(self) -> tuple[Stage, Provable]:
        """Return a host of two connections that are never idle, and that of a delayed request."""
        stage = self.known(max_connections=2)
        self.reply = lambda lond, line: echo(line) if line == b"put\n" else None
        stage.clients_of(300, b"get\n")
        outcome = self.deliver(stage)
        stage.advance(2 * ROUND_ROBIN_AFTER)  # the programs take turns
        self.answer(stage, stage.londs[0], 2)
        reply, connection = self.successResultOf(outcome)
        self.assertEqual(reply, echo(b"put\n"))
        assert connection is not None
        return stage, connection

    def answer(self, stage: Stage, lond: ScriptedLond, times: int) -> None:
        """Let a lond answer so many requests, one after the other."""
        for _ in range(times):
            lond.reply(b"got\n")

    def test_ping_tells_nothing_by_then(self) -> None:
        """A connection is not proven if ``ping`` turns out to be no check before it is asked."""
        stage = self.known()
        connections = [self.delivered(stage) for _ in range(2)]
        proofs = [each.prove() for each in connections]
        stage.service.machine.lond.auditor._answers["l2"].hopeless = True
        self.assertNoResult(proofs[0])
        stage.advance(1)
        self.assertEqual([self.successResultOf(each) for each in proofs], [False, False])

    def test_many_are_asked(self) -> None:
        """It is asked before it has answered too often, however many others are being asked."""
        stage, connection = self.busy()
        first, second = stage.londs
        self.pong = lambda: None
        self.answer(stage, second, EARLIEST)
        self.assertEqual(second.asked[-1], PING)
        proof = connection.prove()
        self.answer(stage, first, ROUND - 3)
        self.assertNoResult(proof)
        first.say(b"l2\n")
        self.assertTrue(self.successResultOf(proof))

    def test_makes_room_elsewhere(self) -> None:
        """The connection that ends for another request is not the one that has to be proven."""
        stage, connection = self.busy()
        proof = connection.prove()
        self.deliver(stage, fresh=True)
        self.answer(stage, stage.londs[0], 1)
        self.assertTrue(self.successResultOf(proof))

    def test_paused(self) -> None:
        """While its host is paused it is proven all the same."""
        stage, connection = self.carried()
        stage.service.pause(Pause("root", "", 0.0, 0.0, False), 0.0)
        proof = connection.prove()
        stage.turn()
        self.assertTrue(self.successResultOf(proof))

    def test_proven_already(self) -> None:
        """One that was asked after the answer is proven at once, though nothing came since."""
        stage, connection = self.carried()
        self.assertEqual(self.delivered(stage), connection)
        for _ in range(2):  # as two hosts of the machine ask, one after the other
            proof = connection.prove()
            stage.advance(stage.settings.request_timeout + 1)
            self.assertTrue(self.successResultOf(proof))


class StoredCase(DeliveryCase):
    """Requests that wait on the disk for such a host."""

    def delayed(self, stage: Stage, *lines: bytes) -> DelayedService:
        """Let these requests wait, and send them."""
        os.mkdir(stage.settings.delayed_dir)
        for number, line in enumerate(lines, 1):
            write(os.path.join(stage.settings.delayed_dir, f"1.{number}.4711.put.l2"), line)
        service = DelayedService(
            stage.clock,
            stage.settings,
            {"l2": stage.service}.get,
            execute,
            lambda line: None,
            Random(1),
            Problems(),
            log=Logger("test", observer=self.notes),
        )
        service.startService()
        return service


class NotServedTests(StoredCase):
    """A lond that does not serve the host yet."""

    def test_served_later(self) -> None:
        """The requests stay on the disk; lonc asks again by itself, and they go when it does."""
        stage = self.stage(ids=("l2", "l3"))
        self.know_hosts(stage, served=(served := ["l3"]))
        self.delayed(stage, b"put:1\n")
        stage.advance(100)
        self.assertEqual(os.listdir(stage.settings.delayed_dir), ["1.1.4711.put.l2"])
        self.assertEqual(stage.status.state, "DEAD")
        self.assertIn("leads to another lond", str(stage.status.last_failure["what"]))
        served.append("l2")
        stage.advance(130)
        self.assertEqual(os.listdir(stage.settings.delayed_dir), [])


class ShiftedTests(StoredCase):
    """A lond that says a line too many, and the requests on the disk."""

    def run_with(self, extra: int, useless: bool = False) -> tuple[list[bytes], dict[str, bytes]]:
        """
        Let twelve requests wait, each third to be refused, and a lond say lines too many.

        :return: what the lond has carried out, and what was kept.
        """
        carried: list[bytes] = []
        pongs = iter(range(1000))

        def reply(lond: ScriptedLond, line: bytes) -> bytes:
            carried.append(line)
            if len(carried) == 2:
                for _ in range(extra):
                    lond.say(b"ok\n")
            return b"refused\n" if int(line[4:]) % 3 == 0 else b"ok\n"

        self.reply = reply
        self.pong = (lambda: b"%d\n" % next(pongs)) if useless else (lambda: b"l2\n")
        stage = self.stage()
        service = self.delayed(stage, *(b"put:%d\n" % number for number in range(1, 13)))
        stage.advance(60)
        self.successResultOf(service.stopService())
        self.assertEqual(os.listdir(stage.settings.delayed_dir), ["kept"])
        kept = stage.settings.kept_dir
        return carried, {name: read(os.path.join(kept, name)) for name in sorted(os.listdir(kept))}

    def test_none_is_lost(self) -> None:
        """F8: each is carried out, and what was refused is kept, with its own answer."""
        refused = {f"1.{number}.4711.put.l2": b"put:%d\n" % number for number in (3, 6, 9, 12)}
        answers = {f"{name}.answer": b"refused\n" for name in refused}
        for useless in (False, True):
            for extra in (0, 1, 2, 5):
                carried, kept = self.run_with(extra, useless)
                self.assertEqual(kept, refused | answers, (extra, useless))
                self.assertEqual({*carried}, {b"put:%d\n" % n for n in range(1, 13)})
                if not extra:
                    self.assertEqual(len(carried), 12)

    def test_behind_from_the_start(self) -> None:
        """A line too many before any answer to ``ping`` is known: what is refused is kept."""
        owed = [b"ok\n"]

        def shifted(answer: bytes) -> bytes:
            if len(stage.londs) > 1:
                return answer
            owed.append(answer)
            return owed.pop(0)

        self.reply = lambda lond, line: shifted(b"refused\n")
        self.pong = lambda: shifted(b"l2\n")
        stage = self.stage()
        self.delayed(stage, b"put:1\n")
        stage.advance(60)
        kept = ["1.1.4711.put.l2", "1.1.4711.put.l2.answer"]
        self.assertEqual(sorted(os.listdir(stage.settings.kept_dir)), kept)
