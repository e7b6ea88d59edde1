"""Several host ids on one machine: they share its connections, queue and health."""

from __future__ import annotations

from itertools import count

import attrs
from twisted.logger import LogLevel

from lonc.host.connection import PING
from lonc.host.pause import Pause
from lonc.host.service import HostService
from lonc.test.fixtures.doubles import (
    BUILD_KEY,
    FakeClient,
    ScriptedLond,
    echo,
    leave_pending,
)
from lonc.test.fixtures.stage import HostTestCase, Stage, Together
from lonc.wire.handshake import AuthModes
from lonc.wire.request import CON_LOST


class SharedTests(HostTestCase):
    """A lond that knows sethost."""

    def test_one_pool(self) -> None:
        """Requests for any id go over the same connection, each with its name in front."""
        stage = Together(self).serving()
        for host_id in ("l2", "l3", "l2", "l3"):
            client = stage.send_to(host_id, b"get\n")
            self.assertEqual(client.read, b"re:sethost:%s:get\n" % host_id.encode())
        (lond,) = stage.londs
        asked = [b"sethost:l2:get\n", b"sethost:l3:get\n"] * 2
        self.assertEqual([line for line in lond.asked if line.count(b":") > 1], asked)
        # l2 was confirmed before the key was made, l3 before its first request.
        named = [line for line in lond.raw if line.startswith(b"sethost") and line.count(b":") == 1]
        self.assertEqual(named, [b"sethost:l2\n", b"sethost:l3\n"])

    def test_many(self) -> None:
        """A newcomer costs the same however many ids there are: none of them is told anything."""
        told: list[str] = []
        self.patch(HostService, "set_served", lambda host, served: told.append(host.host_id))
        ids = tuple(f"h{number}" for number in range(50))
        Together(self, ids=ids)
        self.assertLess(len(told), 3 * len(ids))

    def test_own_name_in_front(self) -> None:
        """A client may name the id itself; what is encrypted is named as well."""
        stage = Together(self).serving()
        named = stage.client_of("l3", b"sethost:l3:get\n")
        secret = stage.send_to("l3", b"encrypt:get\n")
        self.assertEqual(named.read, b"re:sethost:l3:get\n")
        self.assertTrue(secret.read.startswith(b"re:sethost:l3:enc:"))

    def test_naming_only(self) -> None:
        """A request that only names its host is passed to the lond."""
        stage = Together(self).serving()
        client = stage.send_to("l3", b"sethost:l3\n", b"get\n")
        self.assertEqual(client.read, b"ok\nre:sethost:l3:get\n")
        (lond,) = stage.londs
        self.assertEqual(lond.asked, [b"sethost:l3\n"] * 2 + [b"sethost:l3:get\n"])

    def test_name_of_the_machine(self) -> None:
        """Hosts that share connections show the same machine name, with the lond's port."""
        stage = Together(self)
        names = {host.status(0, "").machine for host in stage.hosts.values()}
        self.assertEqual(len(names), 1)
        stage.settings = attrs.evolve(stage.settings, lond_port=7000)
        stage.follow("l2", "l3", "l4")
        names = {host.status(0, "").machine for host in stage.hosts.values()}
        self.assertEqual(names, {"127.0.0.2:7000"})

    def test_names_by_certificate(self) -> None:
        """If the certificate has to be for a certain name, the machine's name contains it."""
        stage = Stage(self, modes=AuthModes(name="l2.test"))
        self.assertEqual(stage.status.machine, f"127.0.0.2:{stage.settings.lond_port} (l2.test)")

    def test_unable_to_set(self) -> None:
        """It costs that id con_lost, and nothing else."""
        stage = Together(self).serving("l2", "l4")
        lost, served = stage.client_of("l3", b"get\n"), stage.client_of("l4", b"get\n")
        stage.turn()
        self.assertEqual((lost.read, served.read), (CON_LOST, b"re:sethost:l4:get\n"))
        status = stage.hosts["l3"].status(0, "")
        self.assertEqual((status.con_lost["not_served"], status.retries_left), (1, 2))
        self.assertEqual(status.not_served, "the lond does not serve it")
        self.assertEqual(stage.hosts["l4"].status(0, "").not_served, "")
        self.assertTrue(any("does not serve it" in line for line in self.warnings))
        (lond,) = stage.londs[:1]
        self.assertNotIn(b"sethost:l3:get\n", lond.asked)

    def test_first_id_is_not_served(self) -> None:
        """The connection is made in the name of another."""
        stage = Together(self).serving("l3")
        lost, served = stage.client_of("l2", b"get\n"), stage.client_of("l3", b"get\n")
        stage.turn()
        self.assertEqual((lost.read, served.read), (CON_LOST, b"re:sethost:l3:get\n"))
        self.assertEqual(stage.status.retries_left, 2)

    def test_health(self) -> None:
        """DEAD is the machine: all its ids are, its death is one line, and one probe finds back."""
        stage = Together(self, retries=1)
        stage.refuse()
        stage.send_to("l3", b"get\n")
        states = {host.status(0, "").state for host in stage.hosts.values()}
        self.assertEqual(states, {"DEAD"})
        self.assertEqual(len(self.notes.at(LogLevel.critical)), 1)
        self.assertEqual(stage.client_of("l4", b"get\n").read, CON_LOST)
        before = len(stage.network.attempts)
        stage.serving()
        stage.accept()
        stage.advance(1)
        self.assertEqual(len(stage.network.attempts), before + 1)
        self.assertEqual(sorted(stage.revived), ["l2", "l3", "l4"])
        lines = [line for line in self.notes.at(LogLevel.info) if "again" in line]
        self.assertEqual(lines, ["host answers again"])

    def test_close_connections(self) -> None:
        """Only that id's requests are lost; the others end, and their connections with them."""
        stage = Together(self)
        for host_id in ("l2", "l3"):
            stage.network.prepare = lambda lond: lond.know_hosts()
            stage.send_to(host_id, b"warm\n")
        mine = stage.client_of("l2")
        for lond in stage.londs:
            lond.say(b"ok\n")
        mine.write(b"mine\n")
        other = stage.send_to("l3", b"other\n")
        stage.client_of("l2", b"close_connection_exit\n")
        owing = next(lond for lond in stage.londs if b"sethost:l3:other\n" in lond.asked)
        owing.say(b"answer\n")
        self.assertEqual((mine.read[-9:], other.read), (CON_LOST, b"answer\n"))
        stage.turn()
        self.assertTrue(all(lond.wire.closed for lond in stage.londs[:2]))

    def test_stopping_one(self) -> None:
        """A host that goes ends what it owes; the others and their connections stay."""
        stage = Together(self).serving()
        stage.send_to("l3", b"get\n")
        done: list[object] = []
        stage.hosts["l2"].stopService().addCallback(done.append)
        stage.turn()
        self.assertEqual(len(done), 1)
        again = stage.send_to("l3", b"get\n")
        self.assertEqual((again.read, len(stage.londs)), (b"re:sethost:l3:get\n", 1))


class NoSethostTests(HostTestCase):
    """A lond that cannot be told which id is wanted."""

    def test_only_its_own(self) -> None:
        """The id that it gives for ping is served, the others get con_lost."""
        stage = Together(self).serving_only("l3")
        clients = {host_id: stage.client_of(host_id, b"get\n") for host_id in stage.hosts}
        stage.turn()
        self.assertEqual(
            {host_id: client.read for host_id, client in clients.items()},
            {"l2": CON_LOST, "l3": b"re:get\n", "l4": CON_LOST},
        )
        self.assertEqual(stage.client_of("l2", b"get\n").read, CON_LOST)
        self.assertTrue(any("does not support sethost" in line for line in self.warnings))

    def test_asked_again(self) -> None:
        """An id that is not served is tried again after pauses, and is told when it is served."""
        stage = Together(self).serving_only("l3")
        stage.send_to("l3", b"get\n")
        before = len(stage.londs)
        stage.advance(4)
        self.assertEqual(len(stage.londs), before + 2)
        stage.serving()
        stage.revived.clear()
        stage.advance(4)
        self.assertEqual(set(stage.revived), {"l2", "l4"})
        client = stage.send_to("l2", b"get\n")
        self.assertEqual(client.read, b"re:sethost:l2:get\n")
        stage.advance(600)
        self.assertEqual(len(stage.londs), before + 3)

    def test_not_served_without_connections(self) -> None:
        """An id that was not served is shown as such, and tried again, without any connection."""
        stage = Together(self).serving("l2", "l4")
        stage.send_to("l3", b"get\n")
        for lond in stage.londs:
            lond.close()
        stage.turn()
        self.assertEqual(stage.network.open_londs, [])
        self.assertIn("not serve", stage.hosts["l3"].status(0, "").not_served)
        stage.revived.clear()
        stage.serving()
        stage.advance(60)
        self.assertEqual(stage.hosts["l3"].status(0, "").not_served, "")
        self.assertIn("l3", stage.revived)

    def test_asked_again_after_dead(self) -> None:
        """It is also tried again if the host was DEAD meanwhile and came back by a late answer."""
        stage = Together(self, retries=1)
        stage.answering(lambda line: b"l3\n" if line == b"ping\n" else None)
        stage.client_of("l3", b"get\n")
        stage.advance(2.5)  # it asks after 1 s and after 3
        stage.client_of("l3", b"get\n")
        stage.refuse()
        stage.client_of("l3", b"get\n")
        stage.advance(0.6)
        self.assertEqual(stage.hosts["l3"].state, "DEAD")
        stage.londs[0].say(b"answer\n")
        self.assertEqual(stage.hosts["l3"].state, "up")
        stage.accept()
        stage.serving()
        stage.advance(50)
        client = stage.send_to("l2", b"get\n")
        self.assertEqual(client.read, b"re:sethost:l2:get\n")

    def test_both_releases(self) -> None:
        """Beside a connection that serves one id, one that can be told serves the others."""
        stage = Together(self, max_connections=3).knowing()
        stage.send_to("l2", b"stay\n")
        (new,) = stage.londs
        stage.serving_only("l3")
        clients = {each: stage.client_of(each, b"get\n") for each in ("l3", "l4")}
        stage.turn()
        self.assertEqual((clients["l3"].read, clients["l4"].read), (b"re:get\n", b""))
        new.answer = echo
        new.reply(b"answer\n")
        self.assertEqual(clients["l4"].read, b"re:sethost:l4:get\n")
        self.assertTrue(all(b"sethost:l4" not in lond.asked for lond in stage.londs[1:]))

    def test_closed_while_an_id_is_asked_for(self) -> None:
        """What a connection has not sent yet is not sent where another id is served."""
        stage = Together(self, max_connections=2).serving()
        new = stage.warm("l2")
        new.stalls_at = b"sethost:l4\n"
        waiting = stage.client_of("l4", b"put\n")
        stage.serving_only("l3")
        stage.send_to("l3", b"get\n")
        old = stage.londs[1]
        self.assertEqual((new.asked[-1], old.asked[-1]), (b"sethost:l2:warm\n", b"get\n"))
        stage.serving()
        stage.send_to("l3", b"close_connection_exit\n")
        self.assertEqual(old.asked[-1], b"get\n")
        self.assertEqual(waiting.read, b"re:sethost:l4:put\n")

    def test_refused_and_asked_again_at_once(self) -> None:
        """A request repeated after con_lost is not sent on another id's connection."""
        stage = Together(self, max_connections=3).knowing()
        stage.send_to("l4", b"stay\n")
        stage.serving_only("l3")
        stage.send_to("l3", b"get\n")
        old = stage.londs[1]
        stage.network.on_connect = leave_pending
        clients = [stage.client_of("l2", b"one\ntwo\n") for _ in range(3)]
        stage.serving("l3", "l4")
        stage.network.attempts[-1].accept()
        stage.turn()
        self.assertEqual(old.asked, [b"ping\n", b"get\n"])
        self.assertEqual(self.answers(clients), [CON_LOST * 2] * 3)

    def test_renewed(self) -> None:
        """A lond that comes to know sethost serves all; older connections serve one id only."""
        stage = Together(self, max_connections=3)
        stage.answering(lambda line: {b"ping\n": b"l3\n", b"warm\n": b"ok\n"}.get(line))
        stage.send_to("l3", b"warm\n")
        flying = stage.send_to("l3", b"flying\n")
        (old,) = stage.londs
        stage.serving()
        clients = {"l3": stage.client_of("l3", b"get\n")}
        stage.turn()
        old.say(b"answer\n")
        clients |= {host_id: stage.client_of(host_id, b"get\n") for host_id in ("l2", "l4")}
        stage.turn()
        self.assertEqual(flying.read, b"answer\n")
        for host_id, client in clients.items():
            self.assertEqual(client.read, b"re:sethost:%s:get\n" % host_id.encode())
        self.assertEqual(old.asked[-1], b"flying\n")
        self.assertTrue(old.wire.closed)


class ChangesTests(HostTestCase):
    """The table brings ids together and parts them while requests are on their way."""

    def apart(self, *ids: str) -> Together:
        """Return a stage where l3 is elsewhere, with a request that waits for it there."""
        stage = Together(self, ids=("l2", "l3", *ids), max_connections=2)
        stage.move("l3", "elsewhere.test")
        stage.follow("l2", *ids)
        stage.serving()
        return stage

    def waiting_elsewhere(self, stage: Together) -> tuple[ScriptedLond, FakeClient]:
        """Return the lond of l3, which owes an answer, and a client that waits for another."""
        stage.network.prepare = lambda lond: None
        for _ in range(2):
            stage.client_of("l3", b"flying\n")
        stage.turn()
        lond = stage.londs[-1]
        return lond, stage.client_of("l3", b"waiting\n")

    def test_to_an_id_that_was_alone(self) -> None:
        """Its connections are not used for another id: they carry no names."""
        stage = self.apart()
        alone = stage.warm("l2")
        _, client = self.waiting_elsewhere(stage)
        stage.serving()
        stage.move("l3", "127.0.0.2")
        stage.turn()
        self.assertEqual(client.read, b"re:sethost:l3:waiting\n")
        self.assertEqual(alone.asked, [b"warm\n"])
        self.assertTrue(alone.wire.closed)

    def test_changing_places(self) -> None:
        """Two ids that were alone change places: neither uses the connections of the other."""
        stage = self.apart()
        for host_id in ("l2", "l3"):
            stage.send_to(host_id, b"warm\n")
        before = list(stage.londs)
        stage.rows["l3"] = attrs.evolve(stage.rows["l3"], address="127.0.0.2")
        stage.move("l2", "elsewhere.test")
        between = stage.send_to("l2", b"get\n")
        stage.follow("l3")
        after = [stage.client_of(host_id, b"get\n") for host_id in ("l2", "l3")]
        stage.turn()
        self.assertEqual(between.read, b"re:sethost:l2:get\n")
        self.assertEqual(self.answers(after), [b"re:get\n", b"re:get\n"])
        for lond in before:
            self.assertEqual(lond.asked[-1], b"warm\n")
            self.assertTrue(lond.wire.closed)

    def test_to_a_lond_that_does_not_serve_it(self) -> None:
        """What has waited for it gets con_lost, and nothing is sent to another id's lond."""
        stage = self.apart("l4")
        stage.serving_only("l2")
        other = stage.warm("l2")
        _, client = self.waiting_elsewhere(stage)
        stage.move("l3", "127.0.0.2")
        stage.turn()
        self.assertEqual(client.read, CON_LOST)
        self.assertEqual(other.asked[-1], b"warm\n")

    def test_paused(self) -> None:
        """A host that is paused stays so: what waits for it waits on, elsewhere."""
        stage = self.apart("l4")
        stage.send_to("l2", b"warm\n")
        _, client = self.waiting_elsewhere(stage)
        pause = Pause(by="root", reason="disk", since=1.0, until=0.0, fail=False)
        stage.hosts["l3"].pause(pause, 0.0)
        stage.serving()
        stage.move("l3", "127.0.0.2")
        stage.turn()
        self.assertEqual((client.read, stage.hosts["l3"].waiting), (b"", 1))
        stage.hosts["l3"].resume()
        stage.turn()
        self.assertEqual(client.read, b"re:sethost:l3:waiting\n")

    def test_while_an_id_is_asked_for(self) -> None:
        """A retired connection still completes the request that it has accepted."""
        stage = Together(self, max_connections=1).knowing()
        lond = stage.warm("l2")
        lond.answer = echo
        lond.stalls_at = b"sethost:l3\n"
        client, waiting = stage.client_of("l3", b"get\n"), stage.client_of("l3", b"next\n")
        lond.reply(b"done\n")
        stage.serving()
        stage.client_of("l4", b"close_connection_exit\n")
        lond.reply(b"ok\n")
        self.assertEqual(client.read, b"re:sethost:l3:get\n")
        self.assertEqual(waiting.read, b"re:sethost:l3:next\n")
        self.assertTrue(lond.wire.closed)

    def test_a_line_too_many_while_an_id_is_asked_for(self) -> None:
        """That is the connection's fault: the id is served by the next one."""
        stage = Together(self, max_connections=1).serving()
        lond = stage.warm("l2")
        lond.stalls_at = b"sethost:l3\n"
        client = stage.send_to("l3", b"get\n")
        lond.say(b"ok\nok\n")
        again = stage.send_to("l3", b"again\n")
        self.assertEqual((client.read, again.read), (CON_LOST, b"re:sethost:l3:again\n"))
        status = stage.hosts["l3"].status(0, "")
        self.assertEqual((status.con_lost["broken"], status.con_lost["not_served"]), (1, 0))

    def with_a_line_too_many(self, stage: Together, at: int, *served: str) -> None:
        """Let each lond serve these ids, and the first say one line more at a request."""
        asked = count(1)

        def prepare(lond: ScriptedLond) -> None:
            def answer(line: bytes) -> bytes:
                if line.endswith(PING):
                    return b"l2\n"
                if next(asked) == at:
                    lond.say(b"extra\n")
                return echo(line)

            lond.know_hosts(*served)
            lond.answer = answer

        stage.network.prepare = prepare

    def test_a_line_too_many_among_refusals(self) -> None:
        """F2: an id that the lond refuses all the time proves nothing of the answers to others."""
        for at in (10, 57, 100):
            self.notes.events.clear()
            stage = Together(self, max_connections=1)
            self.with_a_line_too_many(stage, at, "l2", "l4")
            wrong = 0
            for number in range(200):
                line = b"%d\n" % number
                before = stage.client_of("l2", line)  # so that it is never idle
                refused, served = stage.client_of("l3", line), stage.client_of("l4", line)
                stage.turn()
                for host_id, client in ((b"l2", before), (b"l3", refused), (b"l4", served)):
                    right = (CON_LOST, echo(b"sethost:%s:%s" % (host_id, line)))
                    wrong += client.read not in right
            self.assertLessEqual(wrong, 64, at)
            critical = self.notes.at(LogLevel.critical)
            self.assertTrue(any("out of step" in line for line in critical), at)

    def test_a_line_too_many_seen_while_an_id_is_asked_for(self) -> None:
        """F2: it is said there too how many answers are in doubt."""
        stage = Together(self, max_connections=1).serving()
        for each in range(3):
            stage.client_of("l2", b"%d\n" % each)
        stage.turn()
        (lond,) = stage.londs
        lond.stalls_at = b"sethost:l3\n"
        stage.send_to("l3", b"get\n")
        lond.say(b"re:late\nok\n")
        (line,) = self.notes.at(LogLevel.critical)
        self.assertIn("out of step, 3 answers", line)
        status = stage.hosts["l2"].status(0, "")
        self.assertEqual((status.astray, status.last_astray > 0.0), (3, True))

    def test_a_name_that_is_given_up(self) -> None:
        """A lond that does not take a name any more costs con_lost, and is asked again."""
        stage = Together(self).serving()
        lond = stage.warm("l3")
        lond.answer = lambda line: b"unable_to_set\n"
        self.assertEqual(stage.client_of("l3", b"get\n").read, b"")
        stage.turn()
        lond.answer = echo
        again = stage.send_to("l3", b"again\n")
        self.assertEqual(again.read, b"re:sethost:l3:again\n")
        named = [b"sethost:l3:get\n", b"sethost:l3\n", b"sethost:l3:again\n"]
        self.assertEqual(lond.asked[-3:], named)
        self.assertEqual(stage.hosts["l3"].status(0, "").con_lost["not_served"], 1)

    def test_coming_back(self) -> None:
        """An id that leaves and comes back is introduced again on each connection."""
        stage = Together(self).serving()
        for host_id in ("l2", "l3"):
            stage.send_to(host_id, b"warm\n")
        (lond,) = stage.londs
        stage.move("l3", "elsewhere.test")
        stage.move("l3", "127.0.0.2")
        lond.asked.clear()
        client = stage.send_to("l3", b"get\n")
        self.assertEqual(client.read, b"re:sethost:l3:get\n")
        self.assertEqual(lond.asked, [b"sethost:l3\n", b"sethost:l3:get\n"])

    def test_coming_back_while_it_is_asked_for(self) -> None:
        """The same holds if its sethost was outstanding when it left; its request goes along."""
        stage = Together(self).serving()
        lond = stage.warm("l2")
        lond.stalls_at = b"sethost:l3\n"
        client = stage.send_to("l3", b"get\n")
        stage.move("l3", "elsewhere.test")
        stage.move("l3", "127.0.0.2")
        lond.stalls_at = b""
        lond.reply(b"ok\n")
        again = stage.send_to("l3", b"again\n")
        self.assertEqual(client.read, b"re:sethost:l3:get\n")
        self.assertEqual(again.read, b"re:sethost:l3:again\n")
        self.assertNotIn(b"sethost:l3:again\n", lond.asked)

    def test_coming_back_while_a_connection_is_made(self) -> None:
        """The same holds if a handshake in progress has named it; others get a new connection."""
        stage = Together(self)

        def prepare(lond: ScriptedLond) -> None:
            lond.know_hosts()
            lond.stalls_at = b"ekey\n"

        stage.network.prepare = prepare
        waiting = stage.send_to("l3", b"get\n")
        (lond,) = stage.londs
        stage.serving()
        stage.move("l2", "elsewhere.test")
        stage.move("l2", "127.0.0.2")
        lond.reply(BUILD_KEY + b"\n")
        self.assertEqual(waiting.read, b"re:sethost:l3:get\n")
        client = stage.send_to("l2", b"get\n")
        self.assertEqual(client.read, b"re:sethost:l2:get\n")
        carried = stage.londs[-1].raw
        self.assertLess(carried.index(b"sethost:l2\n"), carried.index(b"sethost:l2:get\n"))
        self.assertEqual(lond.asked, [])

    def test_first_spelling_leaves(self) -> None:
        """When the row goes that a machine's name was spelled by, the name is still looked up."""
        stage = Together(self).serving()
        stage.move("l2", "ONE.test.")
        stage.move("l3", "one.test")
        stage.move("l2", "elsewhere.test")
        stage.send_to("l3", b"get\n")
        self.assertEqual(stage.targets[-1], "one.test")
        self.assertEqual(stage.hosts["l3"].status(0, "").machine.partition(":")[0], "one.test")

    def test_spelling(self) -> None:
        """A name is the same machine in capitals and with a dot at its end."""
        stage = Together(self).serving()
        for host_id, target in (("l2", "one.test"), ("l3", "ONE.test."), ("l4", "One.Test")):
            stage.move(host_id, target)
        for host_id in stage.hosts:
            stage.send_to(host_id, b"get\n")
        self.assertEqual(len(stage.londs), 1)

    def test_first_one_leaves(self) -> None:
        """The machine's lines in the log are in the name of one that is there."""
        stage = Together(self, retries=1)
        stage.refuse()
        stage.move("l2", "elsewhere.test")
        stage.send_to("l3", b"get\n")
        (event,) = [each for each in self.notes.events if each["log_level"] is LogLevel.critical]
        self.assertEqual(event["host_id"], "l3")
