"""Requests that name a host, and sockets that bear host names and are shared by several ids."""

from __future__ import annotations

import os
import re
from typing import Any

import attrs
from twisted.logger import LogLevel

from lonc.config.settings import Settings
from lonc.host.pause import Pause
from lonc.service import LoncService
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase, a_table, spoil
from lonc.test.fixtures.doubles import FakeClient, ScriptedLond, echo
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST, Cause

WRONG = "a request names a host that this socket does not serve: it gets con_lost"


def echoing(lond: ScriptedLond) -> None:
    """Be a lond of the seed's time that answers each request with itself."""
    lond.answer = echo


def knowing(lond: ScriptedLond) -> None:
    """Be one of later releases."""
    lond.know_hosts()
    lond.answer = echo


class NamedHostTests(HostTestCase):
    """A request for a host's own socket that begins with ``sethost:<id>:``."""

    def ask(self, line: bytes, lond: Any = echoing) -> tuple[bytes, list[bytes], Stage]:
        """Return what a client reads, what the lond was asked, and the stage."""
        stage = Stage(self)
        stage.network.prepare = lond
        client = stage.send(line, seconds=1)
        return client.read, [each for lond in stage.londs for each in lond.asked], stage

    def test_prefix(self) -> None:
        """A lond that knows ``sethost`` gets the prefix as it is; for others it is left out."""
        for lond, line, asked, answer in (
            (echoing, b"sethost:l2:put:d:u:x\n", b"put:d:u:x\n", b"re:put:d:u:x\n"),
            (knowing, b"sethost:l2:ping\n", b"sethost:l2:ping\n", b"re:sethost:l2:ping\n"),
            (knowing, b"ping\n", b"ping\n", b"re:ping\n"),
            (echoing, b"sethost:l2\n", b"sethost:l2\n", b"re:sethost:l2\n"),
            (knowing, b"sethost:l2\n", b"sethost:l2\n", b"ok\n"),
        ):
            self.assertEqual(self.ask(line, lond)[:2], (answer, [asked]))

    def test_encrypted(self) -> None:
        """S7: a request behind ``encrypt:`` is encrypted; the prefix before it is not."""
        _, asked, _ = self.ask(b"sethost:l2:encrypt:put:d:u:x\n")
        self.assertEqual(asked, [b"encrypt:put:d:u:x\n"])
        _, _, stage = self.ask(b"sethost:l2:encrypt:put:d:u:x\n", knowing)
        (lond,) = stage.londs
        prefix, frame = lond.raw[-1][:11], lond.raw[-1][11:-1]
        self.assertEqual((prefix, frame[:6]), (b"sethost:l2:", b"enc:9:"))
        self.assertEqual(lond.cipher.decrypt(frame), b"put:d:u:x")

    def test_another_host(self) -> None:
        """A request for another id gets con_lost, is not sent, is counted, and the log says so."""
        for line in (
            b"sethost:l1:ping\n",
            b"sethost:L2:ping\n",
            b"sethost:l1\n",
            b"sethost::ping\n",
            b"sethost:l2:sethost:l1:ping\n",
            b"encrypt:sethost:l1:ping\n",
            b"sethost:l1:close_connection_exit\n",
        ):
            answer, asked, stage = self.ask(line, knowing)
            self.assertEqual((answer, asked), (CON_LOST, []), line)
            self.assertEqual(stage.lost(Cause.WRONG_HOST), 1)
            self.assertEqual(self.warnings, [WRONG])
            self.notes.events.clear()

    def test_close_connections(self) -> None:
        """S14: ``close_connection_exit`` behind the prefix closes the connections, too."""
        stage, lond = self.connected()
        client = stage.send(b"sethost:l2:close_connection_exit\n")
        self.assertEqual((client.read, lond.asked), (b"ok\n", []))
        self.assertEqual(stage.network.open_londs, [])

    def test_never_in_a_log(self) -> None:
        """What a wrong request holds is not logged, not even the id."""
        self.ask(b"sethost:hunter2:put:secret\n")
        told = " ".join(str(event) for event in self.notes.events)
        self.assertNotIn("hunter2", told)
        self.assertNotIn("secret", told)


TABLE = """\
l2:msu:access:two.test:127.0.0.2
l3:msu:access:two.test:127.0.0.3
l4:msu:library:one.test:127.0.0.4
"""


class SharingTestCase(ServiceTestCase):
    """A daemon with three hosts, two of them of one name."""

    names = "hostname"

    def setUp(self) -> None:
        super().setUp()
        self.settings = self.with_names(self.names)
        self.table = a_table(TABLE)
        self.network.prepare = echoing

    def with_names(self, names: str, **changes: Any) -> Settings:
        """Return settings with this choice of names."""
        return attrs.evolve(self.first, socket_names=names, **changes)

    def say(self, name: str, *lines: bytes) -> list[bytes]:
        """Return what a new client of a socket reads when it asks these."""
        client = self.client(name, *lines)
        self.advance(1)
        return client.answers

    def asked(self) -> dict[str, list[bytes]]:
        """Return what was asked at each address."""
        asked: dict[str, list[bytes]] = {}
        for attempt, lond in zip(self.network.attempts, self.network.londs, strict=True):
            asked.setdefault(attempt.host, []).extend(lond.asked)
        return asked

    def reread(self, table: str) -> str:
        """Let the daemon read another table."""
        told = super().reread(table)
        self.advance(1)
        return told

    def stop(self, daemon: LoncService) -> list[object]:
        """Begin to stop; the list has an entry once it is done."""
        done: list[object] = []
        daemon.stopService().addCallback(done.append)
        return done


class SharedSocketTests(SharingTestCase):
    """Sockets by host name alone."""

    def lost(self, daemon: LoncService, host_id: str) -> int:
        """Return how many requests a host refused because they were not meant for it."""
        return daemon.hosts[host_id].status(0, "").con_lost[Cause.WRONG_HOST.value]

    def test_prefix_picks_the_id(self) -> None:
        """The prefix picks the host; without it the first of that name in the table is asked."""
        self.started()
        lines = (b"sethost:l3:a\n", b"sethost:l2:b\n", b"c\n")
        self.assertEqual(self.say("two.test", *lines), [b"re:a\n", b"re:b\n", b"re:c\n"])
        self.assertEqual(self.asked(), {"127.0.0.2": [b"b\n", b"c\n"], "127.0.0.3": [b"a\n"]})

    def test_another_name(self) -> None:
        """An id of another name gets con_lost, counted and logged with the first host."""
        daemon = self.started()
        for line in (b"sethost:l4:ping\n", b"sethost:nobody:ping\n", b"sethost\n"):
            self.assertEqual(self.say("two.test", line), [CON_LOST])
        self.assertEqual((self.lost(daemon, "l2"), self.lost(daemon, "l3")), (3, 0))
        self.assertEqual(self.asked(), {})

    def test_client_goes(self) -> None:
        """F16: its waiting request goes with it, also where the host has another name by now."""
        self.settings = self.with_names("hostname", max_connections=1)
        self.network.prepare = lambda lond: None
        daemon = self.started()
        lines = (b"sethost:l3:a\n", b"sethost:l3:b\n", b"sethost:l3:c\n")
        first, *others = [self.client("two.test", line) for line in lines]
        self.advance(1)
        for left, other in ((1, others[0]), (0, others[1])):
            other.hang_up()
            self.assertEqual(daemon.hosts["l3"].status(0, "").waiting, left)
            self.assertFalse(first.closed)
            self.reread(TABLE.replace("l3:msu:access:two", "l3:msu:access:three"))

    def test_lost_before_another_host_is_asked(self) -> None:
        """A host is quiet once its last request is lost, though the client asks another at once."""
        self.network.prepare = lambda lond: None
        daemon = self.started()
        client = self.client("two.test", b"sethost:l2:a\nsethost:l3:b\n")
        self.advance(1)
        quiet = daemon.hosts["l2"].pause(Pause("root", "", 0.0, 0.0, False), 0.0)
        self.assertNoResult(quiet)
        self.network.londs[0].close()
        self.advance(1)
        self.assertEqual(client.read, CON_LOST)
        self.successResultOf(quiet)

    def test_close_connections(self) -> None:
        """S14: close_connection_exit is for all hosts of the name, or for the one that is named."""
        daemon = self.started()
        lines = (b"sethost:l2:a\n", b"sethost:l3:b\n")
        self.say("two.test", *lines)
        self.assertEqual(self.say("two.test", b"sethost:l3:close_connection_exit\n"), [b"ok\n"])
        idle = [daemon.hosts[name].status(0, "").idle for name in ("l2", "l3")]
        self.assertEqual(idle, [1, 0])
        self.say("two.test", *lines)
        self.assertEqual(self.say("two.test", b"close_connection_exit\n"), [b"ok\n"])
        self.assertEqual(self.network.open_londs, [])

    def test_too_long(self) -> None:
        """F3: a line that is too long is counted with the first host."""
        self.settings = self.with_names("hostname", max_line=1024)
        daemon = self.started()
        self.assertEqual(self.say("two.test", b"x" * 2000), [CON_LOST])
        self.assertEqual(daemon.hosts["l2"].status(0, "").con_lost["too_long"], 1)

    def test_crashed(self) -> None:
        """S19: the host with the fault is started again, and the socket serves as before."""
        daemon = self.started()
        spoil(daemon.hosts["l3"], "submit")
        with self.assertRaises(KeyError):
            self.client("two.test", b"sethost:l3:a\n")
        self.assertEqual([host.crashed for host in daemon.hosts.values()], [False, True, False])
        self.advance(1)
        self.assertEqual(self.say("two.test", b"sethost:l3:a\n"), [b"re:a\n"])
        self.assertFalse(daemon.hosts["l3"].crashed)

    def test_removed(self) -> None:
        """A socket that somebody removed is there again a second later."""
        self.started()
        os.unlink(os.path.join(self.folder, "two.test"))
        self.advance(1)
        self.assertEqual(self.say("two.test", b"a\n"), [b"re:a\n"])

    def test_cannot_be_had(self) -> None:
        """A name without a socket is logged, and a problem until it is had; the others serve."""
        in_the_way = os.path.join(self.folder, "one.test")
        os.mkdir(in_the_way)
        daemon = self.started()

        def wrong() -> dict[str, str]:
            self.advance(1)
            found = [each for each in daemon.problems if each.kind == "name-not-served"]
            return {each.subject: each.what for each in found}

        message = "clients cannot be served: "
        told = [event for event in self.notes.events if message in str(event.get("what"))]
        self.assertEqual([event["host_id"] for event in told], ["l4"])
        self.assertEqual(self.say("two.test", b"a\n"), [b"re:a\n"])
        found = wrong()
        self.assertEqual([*found], ["one.test"])
        what = f"has no socket that clients can use: {in_the_way}: something"
        self.assertIn(what, found["one.test"])
        os.rmdir(in_the_way)
        self.assertEqual(wrong(), {})
        self.assertEqual(self.say("one.test", b"b\n"), [b"re:b\n"])

    def test_cannot_be_had_and_goes(self) -> None:
        """Such a name is no problem any more when it needs no socket."""
        os.mkdir(os.path.join(self.folder, "one.test"))
        daemon = self.started()
        self.settings = self.with_names("id")
        self.successResultOf(daemon.reload())
        self.advance(1)
        self.assertNotIn("name-not-served", [each.kind for each in daemon.problems])

    def test_long_name(self) -> None:
        """A name too long for a socket's path is logged; the others serve."""
        self.table = a_table(TABLE + f"l5:msu:access:{'x.' * 60}test:127.0.0.5\n")
        self.started()
        self.assertTrue(self.there("one.test", "two.test"))
        self.assertIn("there is room for", str(self.notes.events))

    def test_reserved_name(self) -> None:
        """A name that is a file of lonc's own gets no socket, and that file is left alone."""
        own = os.path.join(self.folder, "port.test")
        self.settings = self.with_names("hostname", management=f"unix:{own}:mode=600")
        names = ("lonc.amp", "lonc.keys", "delayed", "port.test")
        rows = [f"m{n}:msu:access:{name}:127.0.0.5\n" for n, name in enumerate(names)]
        self.table = a_table(TABLE + "".join(rows))
        self.started()
        self.advance(1)
        self.assertTrue(self.there("one.test", "two.test", "port.test"))
        self.assertEqual(str(self.notes.events).count("is reserved for one of lonc's own files"), 4)

    def test_table_changes(self) -> None:
        """S17: sockets follow the names of the table; clients of one that stays notice nothing."""
        self.started()
        client = self.client("two.test", b"sethost:l3:a\n")
        self.advance(1)
        self.reread("l3:msu:access:two.test:127.0.0.3\nl2:msu:access:new.test:127.0.0.2\n")
        self.assertTrue(self.there("new.test", "two.test"))
        for line in (b"b\n", b"sethost:l3:c\n", b"sethost:l2:d\n"):
            client.write(line)
        self.advance(1)
        self.assertEqual(client.answers, [b"re:a\n", b"re:b\n", b"re:c\n", CON_LOST])
        self.assertEqual(self.say("new.test", b"sethost:l2:e\n"), [b"re:e\n"])

    def test_name_goes(self) -> None:
        """F13: what is in flight when a name leaves the table has its answer, and then an end."""
        self.network.prepare = lambda lond: None
        self.started()
        client = self.client("two.test", b"sethost:l3:a\n")
        idle = self.client("two.test")
        self.advance(1)
        self.reread("l3:msu:access:new.test:127.0.0.3\n")
        self.assertTrue(self.there("new.test"))
        self.network.londs[-1].say(b"re:a\n")
        self.advance(1)
        self.assertEqual(client.read, b"re:a\n")
        self.advance(self.first.drain_timeout)
        self.assertTrue(client.closed and idle.closed)

    def test_name_goes_over_a_request(self) -> None:
        """F13: what is still in flight at the end of that time gets con_lost, and what comes."""
        self.network.prepare = lambda lond: None
        self.settings = self.with_names("hostname", request_timeout=100.0)
        daemon = self.started()
        owed = self.client("two.test", b"sethost:l3:a\n")
        late = self.client("two.test", b"sethost:l3:b\n")
        self.advance(1)
        self.network.londs[-1].say(b"re:b\n")
        self.table = a_table("l3:msu:access:new.test:127.0.0.3\n")
        daemon.reread_table()
        self.advance(self.first.drain_timeout)
        self.assertEqual((owed.read, late.read), (CON_LOST, b"re:b\n"))
        late.write(b"sethost:l3:c\n")
        self.advance(1)
        self.assertEqual((owed.read, late.read), (CON_LOST, b"re:b\n" + CON_LOST))
        self.assertTrue(owed.closed and late.closed)

    def test_settings_change(self) -> None:
        """HUP: sockets come and go with the setting, and open clients are served meanwhile."""
        self.settings = self.with_names("id")
        daemon = self.started()
        client = self.client("l2", b"a\n")
        self.advance(1)
        for names, there in (
            ("both", {"l4", "l2", "l3", "one.test", "two.test"}),
            ("hostname", {"one.test", "two.test"}),
            ("id", {"l4", "l2", "l3"}),
        ):
            self.settings = self.with_names(names)
            daemon.reload()
            self.advance(2)
            self.assertTrue(self.there(*there), names)
            client.write(b"a\n")
            self.advance(1)
        self.assertEqual(client.answers, [b"re:a\n"] * 4)

    def test_no_watch_over_what_shall_not_be(self) -> None:
        """By host name, the sockets of the ids do not come back."""
        self.started()
        self.advance(3)
        self.assertTrue(self.there("one.test", "two.test"))
        self.assertNotIn("the socket was gone", str(self.notes.events))


class BothTests(SharingTestCase):
    """Sockets by id and by host name."""

    names = "both"

    def test_name_is_an_id(self) -> None:
        """Where a host's name is its id, its one socket serves for both."""
        self.table = a_table("l4:msu:library:l4:127.0.0.4\n")
        self.started()
        self.assertTrue(self.there("l4"))
        self.assertEqual(self.say("l4", b"sethost:l4:a\n", b"b\n"), [b"re:a\n", b"re:b\n"])
        self.assertNotIn("clients cannot be served", str(self.notes.events))

    def test_name_is_the_id_of_another(self) -> None:
        """Where a name is another host's id, the id's socket has the path, and the log says so."""
        self.table = a_table("l4:msu:library:l2:127.0.0.4\nl2:msu:access:x.test:127.0.0.2\n")
        self.started()
        self.assertTrue(self.there("l4", "l2", "x.test"))
        self.assertIn("it is the socket of the host with that id", str(self.notes.events))
        self.say("l2", b"a\n")
        self.advance(3)
        self.assertEqual(self.asked(), {"127.0.0.2": [b"a\n"]})

    def test_more_files(self) -> None:
        """The sockets of the names count when the limit of open files is looked at."""
        self.settings = self.with_names("both", max_clients=1_000_000)
        self.made().startService()
        self.settings = self.with_names(
            "id", max_clients=1_000_000, management=f"unix:{self.folder}/another"
        )
        self.pid_file.release()
        self.pid_file.acquire()
        self.made().startService()
        told = re.findall(r"(\d+) files may be needed", "\n".join(self.notes.at(LogLevel.warn)))
        self.assertEqual(int(told[0]) - int(told[1]), 3)


class StopTests(SharingTestCase):
    """The end of a daemon with shared sockets."""

    def test_in_flight(self) -> None:
        """What is in flight has its answer; what waits has con_lost, and what comes too."""
        self.settings = self.with_names("hostname", max_connections=1)
        self.network.prepare = lambda lond: None
        daemon = self.started()
        owed = self.client("two.test", b"sethost:l3:a\n")
        waiting = self.client("two.test", b"sethost:l3:b\n")
        late = self.client("two.test")
        self.advance(1)
        done = self.stop(daemon)
        self.assertTrue(self.there())
        self.advance(1)
        late.write(b"sethost:l3:c\n")
        self.advance(0)
        self.assertEqual([owed.read, waiting.read, late.read], [b"", CON_LOST, CON_LOST])
        self.network.londs[0].say(b"re:a\n")
        self.advance(2)  # the host's clients have a second, and then those of the shared socket
        self.assertEqual(owed.read, b"re:a\n")
        self.assertTrue(owed.closed and waiting.closed and late.closed)
        self.assertEqual(done, [None])

    def test_does_not_read(self) -> None:
        """A client that does not read its answer is cut a second later."""
        daemon = self.started()
        (port,) = [each for each in self.network.ports if each.path.endswith("/two.test")]
        client = FakeClient(self.clock, port.factory, room=3)
        client.write(b"a\n")
        self.advance(1)
        done = self.stop(daemon)
        self.advance(0.75)
        self.assertEqual((client.closed, done), (False, []))
        self.advance(0.5)
        self.assertEqual((client.closed, done), (True, [None]))

    def test_after_a_change(self) -> None:
        """Clients of a name that has just left the table do not hold a stop up for long."""
        daemon = self.started()
        client = self.client("two.test")
        self.reread("l4:msu:library:one.test:127.0.0.4\n")
        done = self.stop(daemon)
        self.advance(self.first.drain_timeout)
        self.assertEqual((client.closed, done), (True, [None]))
