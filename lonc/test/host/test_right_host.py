"""A request reaches the host that it names, or none: londs without sethost, or that break."""

from __future__ import annotations

import os
from typing import Any

from twisted.logger import LogLevel

from lonc.config.hosts import parse_host_table
from lonc.config.key_files import KeyFolder
from lonc.test.fixtures.doubles import ScriptedLond, a_host, echo
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.handshake import AuthModes
from lonc.wire.request import CON_LOST, Cause


class VersionTests(HostTestCase):
    """A lond that breaks when it is asked for its version."""

    def setUp(self) -> None:
        super().setUp()
        self.breaking = True

    def prepare(self, lond: ScriptedLond) -> None:
        """Have later londs, which hang up at that question while ``breaking``."""
        lond.know_hosts()
        lond.answer = echo
        hear = lond.wire.heard

        def heard(data: bytes) -> None:
            if self.breaking and data == b"version\n":
                lond.raw.append(data)
                lond.close()
            else:
                hear(data)

        lond.wire.heard = heard

    def stage(self, *ids: str) -> Stage:
        """Return a host with such londs."""
        stage = Stage(self, ids=ids)
        stage.network.prepare = self.prepare
        return stage

    def asked(self, stage: Stage) -> int:
        """Return how many londs were asked for their version."""
        return sum(b"version\n" in lond.raw for lond in stage.londs)

    def test_ten_at_once(self) -> None:
        """Each attempt is repeated without the question, and the host loses no retry; the lond is
        still told which host is meant."""
        stage = self.stage("l2")
        clients = stage.clients_of(10, b"sethost:l2:ping\n")
        self.assertEqual(self.answers(clients), [b"re:sethost:l2:ping\n"] * 10)
        self.assertEqual((stage.status.retries_left, stage.status.state), (2, "up"))
        self.assertEqual(len(self.warnings), 1)

    def test_repetition_fails_too(self) -> None:
        """Both together are one attempt, which fails once."""
        stage = self.stage("l2")
        client = stage.client(b"ping\n")
        stage.network.on_connect = lambda attempt: (
            attempt.refuse() if len(stage.network.attempts) > 1 else attempt.accept()
        )
        stage.turn()
        self.assertEqual((client.read, stage.status.retries_left), (CON_LOST, 1))

    def test_one_hour(self) -> None:
        """It is not asked again for an hour."""
        stage = self.stage("l2")
        stage.clients_of(1)
        self.assertEqual(self.asked(stage), 1)
        stage.clients_of(2)
        self.assertEqual(self.asked(stage), 1)
        stage.clock.advance(3599)
        stage.clients_of(3)
        self.assertEqual((len(stage.londs), self.asked(stage)), (4, 1))
        self.breaking = False
        stage.clock.advance(1)
        stage.clients_of(4)
        self.assertEqual((self.asked(stage), stage.status.lond_version), (2, "1.400"))

    def test_reset(self) -> None:
        """It is asked again at once when the host's connections were reset."""
        stage = self.stage("l2")
        stage.clients_of(1)
        stage.service.close_connections()
        stage.clients_of(1)
        self.assertEqual((self.asked(stage), stage.status.retries_left), (2, 2))

    def test_several_ids(self) -> None:
        """Where the lond serves several ids it is a failure like any other."""
        stage = self.stage("l2", "l3")
        client = stage.send(b"ping\n")
        self.assertEqual((client.read, stage.status.retries_left), (CON_LOST, 1))
        self.breaking = False
        again = stage.send(b"sethost:l2:ping\n")
        self.assertEqual(again.read, b"re:sethost:l2:ping\n")


class SethostTests(HostTestCase):
    """A lond that knows no sethost."""

    def told(self, word: bytes, *ids: str) -> Stage:
        """Return a host whose londs answer ``ping`` with a word, and all else with itself."""
        stage = Stage(self, ids=ids, retries=2)

        stage.answering(lambda line: word if line == b"ping\n" else echo(line))
        return stage

    def ask(self, stage: Stage) -> bytes:
        """Ask for the host by its name; return the answer."""
        client = stage.send(b"sethost:l2:put\n")
        return client.read

    def test_one_id(self) -> None:
        """Where it has one id the prefix is left out, whatever it says to ping."""
        self.assertEqual(self.ask(self.told(b"l9\n", "l2")), b"re:put\n")

    def test_the_one_that_it_gives(self) -> None:
        """Where it has several the one that it gives is served."""
        self.assertEqual(self.ask(self.told(b"l2\n", "l2", "l3")), b"re:put\n")

    def test_renewed(self) -> None:
        """A single id is asked for on each connection: the lond may serve others too by now."""
        stage = self.told(b"l2\n", "l2")
        self.assertEqual(self.ask(stage), b"re:put\n")
        stage.network.prepare = lambda lond: lond.know_hosts("l2", "l3")
        stage.clients_of(3, b"put\n")
        self.assertEqual([b"sethost:l2\n" in lond.raw for lond in stage.londs], [True] * 3)

    def test_the_others(self) -> None:
        """The others get con_lost, and nothing of theirs is sent; the log says why, once."""
        for word in (b"l3\n", b"l9\n", b"unknown_cmd\n"):
            self.notes.events.clear()
            stage = self.told(word, "l2", "l3")
            for _ in range(5):
                self.assertEqual(self.ask(stage), CON_LOST)
            asked = [line for lond in stage.londs for line in lond.asked]
            self.assertEqual(set(asked), {b"ping\n"})
            (line,) = self.warnings
            self.assertIn("does not support sethost", line)

    def test_another_row(self) -> None:
        """A row that comes into the table is a doubt: connections that were good are not used."""
        stage = self.told(b"l3\n", "l2")
        self.assertEqual(self.ask(stage), b"re:put\n")
        stage.ids = ("l2", "l3")
        stage.service.reconfigure(a_host(), stage.settings)
        self.assertEqual(self.ask(stage), CON_LOST)
        stage.ids = ("l2",)
        stage.service.reconfigure(a_host(), stage.settings)
        self.assertEqual(self.ask(stage), b"re:put\n")


class KeyFileTests(HostTestCase):
    """A lond that says ok:local."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = KeyFolder(os.path.abspath(self.mktemp()))
        self.path = b""

    def prepare(self, lond: ScriptedLond) -> None:
        """Have londs that say so, whatever becomes of the file."""
        lond.answer = echo
        hear = lond.wire.heard

        def heard(data: bytes) -> None:
            if data.startswith(b"init:local:"):
                self.path = data[11:-1]
                lond.say(b"ok:local\n")
            else:
                hear(data)

        lond.wire.heard = heard

    def prepare_accident(self, lond: ScriptedLond) -> None:
        """Have londs that close instead, and answer requests on insecure connections."""
        hear = lond.wire.heard
        lond.wire.heard = lambda d: lond.close() if d.startswith(b"init:local") else hear(d)
        lond.answer = echo

    def stage(self, insecure: bool, **settings: Any) -> Stage:
        """Return a host with such londs."""
        modes = AuthModes(key_files=self.folder, insecure=insecure)
        stage = Stage(self, modes=modes, **settings)
        stage.network.prepare = self.prepare
        return stage

    def test_left(self) -> None:
        """A second later the file is still there: it is no way in, and nothing was sent."""
        for insecure, answer in ((False, CON_LOST), (True, b"re:put\n")):
            stage = self.stage(insecure)
            client = stage.send(b"put\n", seconds=0.9)
            self.assertEqual((client.read, stage.londs[0].asked), (b"", []))
            stage.advance(0.3)
            self.assertEqual((client.read, stage.londs[0].asked), (answer, []))
            self.assertFalse(os.path.exists(self.path))

    def test_taken_late(self) -> None:
        """It may delete the file after it has spoken."""
        stage = self.stage(insecure=False)
        client = stage.send(b"put\n", seconds=0.5)
        os.unlink(self.path)
        stage.advance(0.1)
        self.assertEqual((client.read, stage.status.mode), (b"re:put\n", "local"))

    def test_accident(self) -> None:
        """A lond that hangs up once is asked in the clear for an hour, and not for good."""
        stage = self.stage(insecure=True)
        hang_up = stage.network.prepare
        stage.network.prepare = self.prepare_accident
        client = stage.send(b"put\n")
        self.assertEqual((client.read, stage.status.mode), (b"re:put\n", "insecure"))
        stage.network.prepare = hang_up
        stage.advance(3590)
        client.write(b"put\n")
        stage.turn()
        self.assertEqual((len(stage.londs), stage.status.mode), (2, "insecure"))
        stage.advance(10)
        client.write(b"put\n")
        stage.turn()
        os.unlink(self.path)
        stage.advance(0.1)
        self.assertEqual((client.read, stage.status.mode), (b"re:put\n" * 3, "local"))

    def test_accident_is_over(self) -> None:
        """A request that waits when the hour is over gets a connection at once."""
        stage = self.stage(insecure=True)
        stage.network.prepare = self.prepare_accident
        stage.send(b"get\n", seconds=3570)
        stage.londs[-1].answer = lambda request: None
        stage.send(b"get\n")
        stage.stall_at(b"init\n")
        waiting = stage.send(b"wait\n", seconds=10)
        self.assertEqual(stage.state, (0, 1, 0, 1))
        stage.echoing()
        stage.advance(25)
        self.assertEqual(waiting.read, b"re:wait\n")

    def test_accident_is_over_at_rest(self) -> None:
        """When the hour is over while all connections rest, they are closed, and no fault shows."""
        stage = self.stage(insecure=True, idle_timeout=100)
        stage.network.prepare = self.prepare_accident
        client = stage.client(b"put\n")
        for _ in range(50):  # it never waits, and is never idle for long
            stage.advance(80)
            client.write(b"put\n")
        stage.turn()
        self.assertEqual(client.read, b"re:put\n" * 51)
        self.assertEqual((stage.service.crashed, self.notes.at(LogLevel.critical)), (False, []))

    def test_stopped_meanwhile(self) -> None:
        """Nothing is left of a connection that ends meanwhile."""
        stage = self.stage(insecure=False)
        stage.send(b"put\n", seconds=0.1)
        stage.stop()
        stage.advance(2)
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(stage.clock.getDelayedCalls(), [])


class CipherTests(HostTestCase):
    """An OpenSSL without IDEA."""

    def test_never_in_the_clear(self) -> None:
        """What must be encrypted gets con_lost and is not sent; all else is served."""
        stage = Stage(self, enciphers=False)
        stage.echoing()
        clients = [
            stage.client(line + b"\n")
            for line in (b"encrypt:put:x", b"sethost:l2:encrypt:put:x", b"ping")
        ]
        stage.turn()
        self.assertEqual(self.answers(clients), [CON_LOST, CON_LOST, b"re:ping\n"])
        self.assertEqual(stage.lost(Cause.NO_CIPHER), 2)
        self.assertEqual([lond.asked for lond in stage.londs], [[b"ping\n"]])


class TableTests(HostTestCase):
    """Which ids one lond serves, by the table."""

    def test_ids(self) -> None:
        """Those of rows with one address, or with one name and no address."""
        table = parse_host_table(
            b"a:d:access:one.test:10.0.0.1\nb:d:access:two.test:10.0.0.1\n"
            b"c:d:access:one.test:\nd:d:access:ONE.test.:http\ne:d:access:x.test:one.test\n",
            "hosts.tab",
        )
        for host_id, ids in (("a", "ab"), ("b", "ab"), ("c", "cde"), ("e", "cde")):
            self.assertEqual(table.ids_at(table.hosts[host_id].target), tuple(ids))
