"""The daemon in memory: hosts that come, go and break, and what is read again."""

from __future__ import annotations

import errno
import grp
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
from setproctitle import getproctitle, setproctitle
from twisted.application.service import Application, IService
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from lonc import service
from lonc.config import current
from lonc.config.hosts import TableError
from lonc.config.rlimit import FEWEST_CLIENTS, FEWEST_HOSTS, needed_files
from lonc.config.settings import SettingsError
from lonc.config.table_fetcher import Downloaded, FetchError
from lonc.control import reporter
from lonc.control.errors import ReloadFailed
from lonc.control.port import ManagementPort
from lonc.daemon.outside import Choices
from lonc.daemon.rounds import SWEEP
from lonc.daemon.upkeep import LOOK, WATCH
from lonc.disk import files
from lonc.disk.threads import Disk
from lonc.host.service import HostService
from lonc.local.client_socket import FAREWELL
from lonc.report.status import local_time
from lonc.service import LoncService
from lonc.test.fixtures.daemon_in_memory import TABLE, ServiceTestCase, a_table, sockets_in, spoil
from lonc.test.fixtures.doubles import Attempt, ScriptedLond, echo, leave_pending
from lonc.test.fixtures.statuses import at_utc
from lonc.test.fixtures.threads import SlowThreads
from lonc.transport.unix_socket import SocketError
from lonc.wire.request import CON_LOST


class StartTests(ServiceTestCase):
    """Starting the daemon."""

    def test_all_hosts_are_served(self) -> None:
        """S2, S3, S4: every host of the table has a socket; the pid file is written."""
        self.echoing()
        self.started()
        self.assertTrue(self.there("l1", "l2"))
        self.assertEqual([self.ask("l1"), self.ask("l2")], [b"re:ping\n"] * 2)
        with open(self.first.pid_file) as file:
            self.assertEqual(file.read(), f"{os.getpid()}\n")

    def test_pid_file(self) -> None:
        """S3: if deleted it is written again; another file in its place is a problem."""
        self.started()
        path = self.first.pid_file
        os.unlink(path)
        self.advance(2.0)
        self.assertTrue(os.path.exists(path))
        os.unlink(path)
        with open(path, "w") as file:
            file.write("1\n")
        self.advance(2.0)
        self.assertEqual([each.subject for each in self.found("pid-file")], [path])
        os.unlink(path)
        self.advance(2.0)
        self.assertEqual(self.found("pid-file"), [])

    def test_one_socket_cannot_be_had(self) -> None:
        """S4, S19: a socket that cannot be opened is a problem until it can; others are served."""
        path = self.first.socket_path("l1")
        os.mkdir(path)
        self.echoing()
        self.started()
        why = f"{path}: something other than a socket is in the way"
        reason = f"clients cannot be served: {why}"
        self.assertIn(reason, self.notes.at(LogLevel.critical))
        (problem,) = self.found("host-not-served")
        self.assertEqual(
            (problem.subject, problem.what), ("l1", f"has no socket that clients can use: {why}")
        )
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        self.advance(5 * WATCH)
        self.assertEqual(self.notes.at(LogLevel.warn).count(reason), 1)  # RateLimited
        os.rmdir(path)
        self.advance(WATCH)
        self.assertEqual(self.ask("l1"), b"re:ping\n")
        self.assertEqual(self.found("host-not-served"), [])

    def test_warnings(self) -> None:
        """S1: problems of the configuration are logged, each with its place."""
        self.settings = attrs.evolve(
            self.first, host_id="l9", warnings=("a.conf, line 1: no such",), max_clients=2**40
        )
        self.table = a_table(TABLE + "nonsense\n")
        self.patch_limit()
        self.started()
        warnings = self.notes.at(LogLevel.warn)
        self.assertEqual(warnings[0], "a problem: a.conf, line 1: no such (setting-unused)")
        self.assertIn(" hosts.tab, line 3: 1 of at least 4 fields", warnings[1])
        self.assertIn(" l9 (lonHostID) is not in ", warnings[2])
        self.assertRegex(warnings[3], r" 1\d+ files may be needed at once, but the limit is 77 ")
        self.assertEqual(len(warnings), 4)

    def test_open_folder(self) -> None:
        """A folder that everybody can write is a problem until that is corrected."""
        os.chmod(self.folder, 0o777)
        self.started()
        self.assertEqual(len(self.found("folder-open")), 1)
        os.chmod(self.folder, 0o755)
        self.advance(LOOK)
        self.assertEqual([*self.daemon.problems], [])

    def test_many_bad_lines(self) -> None:
        """Of many wrong lines of the table some are logged, and the number of the others."""
        self.table = a_table(TABLE + "nonsense\n" * 10000)
        self.started()
        told = self.notes.at(LogLevel.warn)
        self.assertIn("hosts.tab, line 3: 1 of at least", told[0])
        self.assertEqual((len(told), told[-1]), (6, "996 more problems (table-row)"))
        self.assertLess(max(map(len, told)), 400)

    def test_more_hosts_than_files(self) -> None:
        """Hosts beyond the limit on open files are refused in one line; the others are served."""
        self.patch_limit()
        self.table = a_table("".join(f"h{n}:d:access:h{n}.test:10.0.0.1\n" for n in range(30)))
        daemon = self.started()
        self.assertEqual(list(daemon.hosts), [f"h{n}" for n in range(FEWEST_HOSTS)])
        message = "14 hosts of the table cannot be served: "
        told = [line for line in self.notes.at(LogLevel.critical) if message in line]
        self.assertEqual(len(told), 1)
        needed = needed_files(self.first, 30)
        self.assertIn(f"{needed} files may be needed at once, but the limit is 77", told[0])
        self.assertIn(f"\nproblem: {message}", self.successResultOf(daemon.reread_table()))
        self.assertEqual(self.found("open-files"), [])

    def test_more_clients_than_files(self) -> None:
        """Clients leave descriptors for others: beyond that, an idle one is closed."""
        self.patch_limit()
        self.started()
        clients = [self.client("l1") for _ in range(FEWEST_CLIENTS + 1)]
        self.advance(0)
        self.assertEqual([client.read for client in clients], [CON_LOST] + [b""] * FEWEST_CLIENTS)

    def patch_limit(self) -> None:
        """Let the limit on open files be 77."""
        self.patch(current, "raise_file_limit", lambda needed: 77)

    def test_application_takes_the_log(self) -> None:
        """S15: an application that contains the daemon logs to lonc's log."""
        application = Application("lonc")
        daemon = self.made()
        daemon.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), self.lonc_log)
        services: Any = IService(application)
        self.assertEqual(list(services), [daemon])

    def test_process_title(self) -> None:
        """S16: the process title summarises the hosts, and is updated every second."""
        self.network.on_connect = Attempt.refuse
        self.started()
        self.assertTrue(getproctitle().startswith("lonc: 2 hosts, 0 DEAD, 0 connections, 0 wait"))
        self.ask("l1")
        self.advance(WATCH)
        self.assertTrue(getproctitle().startswith("lonc: 2 hosts, 1 DEAD, 0 connections, 0 wait"))


class EmbeddedTests(ServiceTestCase):
    """A daemon in another program."""

    def embedded(self, **choices: bool) -> LoncService:
        """Return a daemon with these choices, and no others."""
        self.clock.hasRun = True
        self.choices = Choices(**choices)
        return self.made()

    def handled(self) -> list[object]:
        """Return the handlers of some signals."""
        return [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]

    def test_left_alone(self) -> None:
        """Signals, process title and log are not changed by default."""
        setproctitle("a program")
        before = self.handled()
        application = Application("a program")
        daemon = self.embedded()
        daemon.setServiceParent(application)
        daemon.startService()
        self.advance(WATCH)
        self.assertIsNone(application.getComponent(ILogObserver))
        self.assertEqual((getproctitle(), self.handled()), ("a program", before))
        daemon.stopService()
        self.advance(0)
        self.assertEqual(self.handled(), before)
        self.assertIn("stopped", self.notes.at(LogLevel.info))
        self.assertEqual(self.notes.at(LogLevel.critical), [])

    def test_asked_for(self) -> None:
        """S16, S17: each can be chosen alone; signal handlers are restored at the end."""
        before = self.handled()
        daemon = self.embedded(takes_signals=True)
        daemon.startService()
        self.assertNotIn(signal.getsignal(signal.SIGHUP), before)
        self.assertFalse(getproctitle().startswith("lonc: "))
        daemon.stopService()
        self.advance(0)
        self.assertEqual(self.handled(), before)

    def test_chosen_later(self) -> None:
        """Setting the former attributes works too, with a DeprecationWarning."""
        asked = LoncService.takes_signals, LoncService.sets_title, LoncService.takes_log
        self.assertEqual(asked, (False, False, False))
        daemon = self.embedded()
        daemon.sets_title = daemon.takes_signals = True
        warned = self.flushWarnings([self.test_chosen_later])
        self.assertEqual(
            [(each["category"], each["message"].split(":")[0]) for each in warned],
            [
                (DeprecationWarning, "LoncService.sets_title"),
                (DeprecationWarning, "LoncService.takes_signals"),
            ],
        )
        self.assertEqual((daemon.sets_title, daemon.takes_log), (True, False))
        daemon.startService()
        self.assertTrue(getproctitle().startswith("lonc: 2 hosts"))
        daemon.stopService()
        self.advance(0)


class BrokenHostTests(ServiceTestCase):
    """S19: a host that fails is restarted, without affecting others."""

    def setUp(self) -> None:
        super().setUp()
        self.echoing()
        self.daemon = self.started()
        self.other = self.daemon.hosts["l1"]
        self.neighbour = self.client("l1", b"before\n")
        self.advance(0)

    def check_others(self) -> None:
        """The other host is the same object, and its client is still connected."""
        self.assertIs(self.daemon.hosts["l1"], self.other)
        self.neighbour.write(b"after\n")
        self.advance(0)
        self.assertEqual(self.neighbour.answers, [b"re:before\n", b"re:after\n"])

    def test_crashed(self) -> None:
        """S19: a host that has crashed is restarted within a second."""
        old = self.daemon.hosts["l2"]
        client = self.client("l2")
        old.crashed = True
        self.advance(WATCH)
        self.assertIsNot(self.daemon.hosts["l2"], old)
        self.assertEqual(client.read, CON_LOST)
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        self.assertIn("the host's service has been restarted", self.notes.at(LogLevel.critical))
        self.check_others()
        new = self.daemon.hosts["l2"]
        self.advance(3 * WATCH)
        self.assertIs(self.daemon.hosts["l2"], new)

    def share(self) -> tuple[HostService, HostService]:
        """Add l3 on the machine of l2; return both."""
        self.reread(TABLE + "l3:msu:access:l2.test:127.0.0.2\n")
        hosts = self.daemon.hosts["l2"], self.daemon.hosts["l3"]
        self.assertIs(hosts[0].machine, hosts[1].machine)
        return hosts

    def test_crashed_beside_another(self) -> None:
        """S19: other hosts of its machine move to the new one with it."""
        old, neighbour = self.share()
        old.crashed = True
        self.advance(WATCH)
        new = self.daemon.hosts["l2"]
        self.assertIs(self.daemon.hosts["l3"], neighbour)
        self.assertIs(new.machine, neighbour.machine)
        self.assertIsNot(new.machine, old.machine)

    def test_machine_fails_in_a_sweep(self) -> None:
        """S19: if a machine fails, all its hosts are restarted on a new one."""
        old = self.share()
        spoil(old[0].machine, "sweep")
        self.advance(2 * WATCH)
        self.flushLoggedErrors(KeyError)
        new = self.daemon.hosts["l2"], self.daemon.hosts["l3"]
        self.assertIs(new[0].machine, new[1].machine)
        self.assertIsNot(new[0].machine, old[0].machine)
        self.assertNotIn(new[1], old)

    def test_stopped(self) -> None:
        """S19: a host that was stopped is restarted."""
        self.daemon.hosts["l2"].stopService()
        self.advance(WATCH)
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        self.check_others()

    def test_fails_in_a_sweep(self) -> None:
        """S19: an error during a sweep is logged, and affects only that host."""
        swept: list[float] = []

        def noted(now: float) -> None:
            swept.append(now)

        spoil(self.daemon.hosts["l2"].machine, "sweep")
        self.daemon.hosts["l1"].machine.sweep = noted  # type: ignore[method-assign]
        self.advance(SWEEP)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.advance(WATCH)
        self.flushLoggedErrors(KeyError)
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        self.advance(WATCH)
        self.assertGreater(len(swept), 6)
        self.assertEqual(self.flushLoggedErrors(KeyError), [])

    def test_fails_in_its_status(self) -> None:
        """S19: periodic work continues after an error."""
        host = self.daemon.hosts["l2"]
        health = host.machine.lond.health
        del host.machine.lond.health
        self.advance(2 * WATCH)
        self.assertGreaterEqual(len(self.flushLoggedErrors(AttributeError)), 2)
        host.machine.lond.health = health
        host.crashed = True
        self.advance(WATCH)
        self.assertIsNot(self.daemon.hosts["l2"], host)

    def test_socket_is_removed(self) -> None:
        """S19: a deleted socket is created again, once; clients stay connected."""
        client = self.client("l2")
        os.unlink(self.first.socket_path("l2"))
        self.advance(WATCH)
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        client.write(b"still\n")
        self.advance(3 * WATCH)
        self.assertEqual(client.read, b"re:still\n")
        self.assertEqual(len(self.network.ports), 4)  # two hosts', one anew, and the management's
        self.check_others()

    def test_fails_to_stop(self) -> None:
        """S19: a host is replaced even if stopping it fails."""
        old = self.daemon.hosts["l2"]
        old.crashed = True
        spoil(old, "stopService")
        self.advance(2 * WATCH)
        self.assertIsNot(self.daemon.hosts["l2"], old)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class ReadAgainTests(ServiceTestCase):
    """S17, F13: reading table and configuration again, as at USR2 and HUP."""

    def setUp(self) -> None:
        super().setUp()
        self.echoing()
        self.daemon = self.started()

    def test_table(self) -> None:
        """F13: hosts are added, removed and changed, and the answer says so."""
        gone = self.client("l2")
        clients = [self.client("l1", b"a\n"), gone]
        self.advance(0)
        changed = self.daemon.hosts["l1"]
        told = self.reread("l3:msu:library:l3.test:127.0.0.3\nl1:msu:access:l1.test:127.0.0.9\n")
        self.assertEqual(
            told.split("\n"),
            [
                "hosts: 1 new, 1 gone, 1 changed, 0 as before",
                "l3: new, at 127.0.0.3",
                "l2: gone",
                "l1: role access, was library; address 127.0.0.9, was 127.0.0.1",
            ],
        )
        self.advance(0)
        self.assertTrue(self.there("l1", "l3"))
        self.assertEqual(gone.read, CON_LOST)
        self.advance(FAREWELL)
        self.assertEqual([client.closed for client in clients], [False, True])
        self.assertIs(self.daemon.hosts["l1"], changed)
        clients[0].write(b"b\n")
        self.advance(0)
        self.assertEqual(clients[0].answers, [b"re:a\n", b"re:b\n"])
        self.assertEqual([each.host for each in self.network.attempts], ["127.0.0.1", "127.0.0.9"])
        self.assertEqual(self.ask("l3"), b"re:ping\n")

    def test_departed_is_forgotten(self) -> None:
        """A host that is removed and added again has no last line, and new recent counts."""
        self.lonc_log(
            {"log_format": "x", "log_level": LogLevel.info, "log_time": 0.0, "host_id": "l2"}
        )
        for _ in range(20):  # more than five minutes
            self.ask("l2")
            for _ in self.daemon.reporter.beginning_slots():
                pass
        self.assertTrue(self.daemon.reporter.status("l2").last_log.endswith("INFO: x</font>"))
        self.reread("l1:msu:access:l1.test:127.0.0.1\n")
        self.advance(FAREWELL)
        self.reread(TABLE)
        self.ask("l2")
        status = self.daemon.reporter.status("l2")
        self.assertEqual((status.last_log, status.requests, status.requests_lately), ("", 1, 1))

    def test_counts_stay(self) -> None:
        """The counts of removed hosts stay in the totals."""
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        self.reread("l1:msu:access:l1.test:127.0.0.1\n")
        counts = {"requests": 1, "answers": 1, "con_lost": 0}
        self.assertEqual(self.daemon.reporter.about().departed, counts)
        self.advance(FAREWELL)
        self.assertEqual(self.daemon.reporter.about().departed, counts)

    def test_status_of_a_new_host(self) -> None:
        """S15: the log line about a new host has its status, like others."""
        seen: list[str] = []

        @implementer(ILogObserver)
        def look(event: LogEvent) -> None:
            if event.get("host_id") == "l3":
                seen.append(self.daemon.reporter.status_text("l3"))

        globalLogPublisher.addObserver(look)
        self.addCleanup(globalLogPublisher.removeObserver, look)
        self.reread(TABLE + "l3:msu:library:l3.test:127.0.0.3\n")
        self.assertEqual(seen, ["l3 Connection count: 0 Retries remaining: 1"])

    def test_host_that_comes_back(self) -> None:
        """F13: a host may be added again before its last request has ended."""
        self.network.prepare = lambda lond: None
        owed = self.client("l2", b"first\n")
        self.advance(0)
        self.reread(TABLE.splitlines()[0])
        self.assertTrue(self.there("l1"))
        self.reread(TABLE)
        self.advance(WATCH)
        self.assertTrue(self.there("l1", "l2"))
        (lond,) = self.network.londs
        lond.say(b"late\n")
        self.advance(WATCH)
        self.assertEqual(owed.read, b"late\n")
        self.echoing()
        self.assertEqual(self.ask("l2"), b"re:ping\n")

    def test_unusable(self) -> None:
        """F13: an unusable file changes nothing; the reason is logged and returned."""
        self.table = TableError("hosts.tab: no host")
        for again in (self.daemon.reread_table, self.daemon.reload):
            failure = self.failureResultOf(again(), ReloadFailed)
            self.assertEqual(str(failure.value), "nothing is changed: hosts.tab: no host")
        self.settings = SettingsError("a.conf, line 1: no")
        self.failureResultOf(self.daemon.reload(), ReloadFailed)
        self.assertEqual(
            self.notes.at(LogLevel.critical),
            ["nothing is changed: hosts.tab: no host"] * 2
            + ["nothing is changed: a.conf, line 1: no"],
        )
        self.assertTrue(self.there("l1", "l2"))

    def test_unusable_lasts(self) -> None:
        """
        That is a problem until the file can be used; reading only the table does not end a problem
        of ``loncapa.conf``, which it does not read.
        """

        def wrong() -> list[str]:
            return [each.what for each in self.found("reload-failed")]

        self.settings = SettingsError("a.conf, line 1: no")
        self.failureResultOf(self.daemon.reload(), ReloadFailed)
        self.successResultOf(self.daemon.reread_table())
        self.assertEqual(wrong(), ["the last reload failed: a.conf, line 1: no"])
        self.settings, self.table = self.first, TableError("hosts.tab: no host")
        self.failureResultOf(self.daemon.reload(), ReloadFailed)
        self.assertEqual(wrong(), ["the last reload failed: hosts.tab: no host"])
        self.reread(TABLE)
        self.assertEqual(wrong(), [])

    def test_settings(self) -> None:
        """F13: new settings apply to clients, hosts and delayed requests."""
        self.settings = attrs.evolve(self.first, socket_mode=0o666, max_clients=1)
        client = self.client("l2", b"pi")
        self.successResultOf(self.daemon.reload())
        self.assertEqual(os.stat(self.first.socket_path("l1")).st_mode & 0o777, 0o666)
        self.assertEqual(self.ask("l1"), CON_LOST)
        client.write(b"ng\n")
        self.advance(0)
        self.assertEqual(client.read, b"re:ping\n")

    def test_sockets_move(self) -> None:
        """F13: sockets and delayed requests move to another folder; clients stay connected."""
        client = self.client("l2")
        folder = os.path.join(self.folder, "delayed", "s")
        os.makedirs(os.path.join(folder, "delayed"))
        self.settings = attrs.evolve(self.first, sock_dir=folder)
        self.successResultOf(self.daemon.reload())
        self.advance(WATCH)
        self.assertTrue(self.there())
        self.assertEqual(sockets_in(folder), {"l1", "l2"})
        client.write(b"ping\n")
        self.delay(os.path.join(folder, "delayed", "1.1.put.l2"))
        self.advance(5.0)
        self.assertEqual(client.read, b"re:ping\n")
        self.assertEqual(self.perm_lines, ["S:l2:put:a"])

    def test_page(self) -> None:
        """F13: HUP opens the HTTP port, and the answer says so."""
        written = {"loncHTTP": ("tcp:8663", "loncapa.conf, line 9")}
        self.settings = attrs.evolve(self.first, http="tcp:8663", written=written)
        told = self.successResultOf(self.daemon.reload())
        self.assertIn("loncHTTP: tcp:8663", told)
        self.assertIn(8663, [port for port, *_ in self.clock.tcpServers])

    def test_for_the_next_start(self) -> None:
        """F13: the folder and the format of the logs only change at the next start."""
        self.settings = attrs.evolve(self.first, daemons_dir="/elsewhere", log_format="json")
        answer = self.successResultOf(self.daemon.reload())
        self.assertEqual(self.daemon.in_force.settings, self.first)
        for variable in ("lonDaemons", "loncLogFormat"):
            self.assertIn(f"{variable} counts from the next start on", answer)
        self.assertEqual(
            [(each.kind, each.subject, each.level) for each in self.daemon.problems],
            [("restart-needed", "lonDaemons", "note"), ("restart-needed", "loncLogFormat", "note")],
        )

    def test_one_socket_cannot_be_had(self) -> None:
        """F13: a socket that cannot be opened does not affect other hosts."""
        folder = os.path.join(self.folder, "delayed", "s")
        os.makedirs(os.path.join(folder, "l1"))
        self.settings = attrs.evolve(self.first, sock_dir=folder)
        self.successResultOf(self.daemon.reload())
        self.assertIn("l2", os.listdir(folder))
        self.assertIn("something other than a socket", self.notes.at(LogLevel.critical)[-1])

    def test_group(self) -> None:
        """F13: a group that cannot be set is in the answer, once and by name."""
        self.patch(os, "chown", no_such_group)
        group = grp.getgrall()[-1]
        self.settings = attrs.evolve(self.first, socket_group=group.gr_gid)
        answer = self.successResultOf(self.daemon.reload())
        self.assertIn(
            f"2 as before; not carried out: loncSocketGroup {group.gr_name}: "
            f"{self.first.socket_path('l1')}: not for group {group.gr_gid}: "
            "Operation not permitted (and 1 more)",
            answer,
        )

    def test_management_group(self) -> None:
        """A group of the management port that cannot be set is a problem until it changes."""

        self.patch(os, "chown", no_such_group)
        self.settings = attrs.evolve(self.first, management_group=7)
        self.daemon.reload()
        self.advance(WATCH)
        (wrong,) = self.found("port-not-open")
        self.assertRegex(wrong.what, ": not for group 7: Operation not permitted$")
        self.settings = self.first
        self.daemon.reload()
        self.advance(WATCH)
        self.assertEqual(self.found("port-not-open"), [])

    def test_management_moves(self) -> None:
        """A reload that moves the management port is answered before connections are closed."""
        seen: list[str] = []

        async def disconnect(port: ManagementPort) -> None:
            seen.append(f"closed: {port.description}")

        self.patch(ManagementPort, "disconnect", disconnect)
        self.patch(reporter, "SLICE", 0.0)  # as if there were many hosts
        self.settings = attrs.evolve(self.first, management="tcp:7000:interface=127.0.0.1")
        self.daemon.reload().addCallback(lambda _: seen.append("answered"))
        for _ in range(50):
            self.advance(0)
        self.assertEqual(seen, ["answered", "closed: tcp:7000:interface=127.0.0.1"])

    def test_management_cannot_move(self) -> None:
        """F13: a management port that cannot be opened is in the answer, and a problem."""
        self.settings = attrs.evolve(self.first, management="tcp:7000")
        answers: list[str] = []
        self.daemon.reload().addCallback(answers.append)
        self.advance(0)
        self.assertIn("loncManagement: management port tcp:7000: clients cannot", answers[0])
        self.advance(WATCH)
        (wrong,) = self.found("port-not-open")
        self.assertEqual((wrong.subject, wrong.level), ("management port", "warning"))
        self.settings = self.first
        self.daemon.reload()
        self.advance(WATCH)
        self.assertEqual(self.found("port-not-open"), [])

    def test_unknown_settings(self) -> None:
        """F13: problems of the configuration are in the answer, a limited number of them."""
        what = tuple(f"a.conf, line {n}: no such setting" for n in range(20))
        self.settings = attrs.evolve(self.first, warnings=what)
        answer = self.successResultOf(self.daemon.reload())
        self.assertIn("line 0: no such setting\nproblem: a.conf, line 1: no such setting", answer)
        self.assertTrue(
            answer.endswith("line 7: no such setting\nproblem: 12 more: lonc status"), answer
        )

    def test_one_host_fails(self) -> None:
        """S19, F13: an error in one host does not affect the others."""
        spoil(self.daemon.hosts["l1"], "reconfigure")
        self.reread(TABLE + "l3:msu:library:l3.test:127.0.0.3\n")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertTrue(self.there("l1", "l2", "l3"))
        self.advance(WATCH)
        self.assertEqual(self.ask("l1"), b"re:ping\n")

    def test_report_and_retries(self) -> None:
        """S17: the status file shows which hosts were DEAD, and retries are restored."""
        self.network.on_connect = Attempt.refuse
        self.assertEqual(self.ask("l2"), CON_LOST)
        self.assertEqual(self.daemon.hosts["l2"].status(0, "").state, "DEAD")
        self.network.on_connect = leave_pending
        self.successResultOf(self.daemon.reread_table())
        self.assertIn("\tl2 >> DEAD <<\t", self.status_file()[3])
        self.assertEqual(self.daemon.hosts["l2"].status(0, "").state, "unproven")

    def test_status_file_cannot_be_written(self) -> None:
        """S17: a status file that cannot be written is logged."""
        os.symlink("/nowhere", os.path.join(self.folder, "lon-status"))
        self.successResultOf(self.daemon.reread_table())
        self.assertIn("the status file cannot be written", self.notes.at(LogLevel.critical)[-1])

    def many(self) -> list[str]:
        """Add 50 hosts to the table, each of which takes 4 ms to add; return their ids."""
        ids = [f"h{number}" for number in range(50)]
        self.table = a_table(TABLE + "".join(f"{x}:msu:access:{x}.test:127.0.0.3\n" for x in ids))
        supervisor = self.daemon._supervisor
        add = supervisor.add

        def slow_add(host_id: str) -> SocketError | None:
            self.clock.rightNow += 0.004
            return add(host_id)

        supervisor.add = slow_add  # type: ignore[method-assign]
        return ids

    def test_few_lines(self) -> None:
        """Of many added, changed or removed hosts twenty are logged, the others are counted."""

        def lines(text: str) -> int:
            return sum(text in formatEvent(event) for event in self.notes.events)

        for address in ("10.0.0.1", "10.0.0.2"):
            rows = "".join(f"h{n}:d:access:h{n}.test:{address}\n" for n in range(100))
            self.table = a_table(TABLE + rows)
            self.advance_through(self.daemon.reread_table())
        self.table = a_table()
        self.advance_through(self.daemon.reread_table())
        for one, rest in (
            ("a new host", "80 more new hosts"),
            ("the host's address has changed", "the addresses of 80 more hosts have changed"),
            ("the host is no longer in the table", "80 more hosts are no longer in the table"),
        ):
            self.assertEqual((lines(one), lines(rest)), (20, 1), one)

    def advance_through(self, reading: Deferred[str]) -> None:
        """Let the iterations pass that a change takes."""
        for _ in range(1000):
            if reading.called:
                break
            self.advance(0)
        self.successResultOf(reading)

    def test_slices(self) -> None:
        """F12, F13: a large change takes many iterations, so others are served meanwhile."""
        ids = self.many()
        reading = self.daemon.reread_table()
        seen: list[int] = []

        def turn() -> None:
            seen.append(len(self.daemon.hosts))
            if not reading.called:
                self.clock.callLater(0, turn)

        turn()
        self.advance(0)
        self.assertTrue(self.there("l1", "l2", *ids))
        self.assertEqual((seen[0] < 8, seen[-1]), (True, 52))
        self.assertLess(max(after - before for before, after in pairwise(seen)), 6)
        told = self.successResultOf(reading)
        self.assertEqual(told.split("\n")[0], "hosts: 50 new, 0 gone, 0 changed, 2 as before")

    def test_stop_in_the_middle(self) -> None:
        """S17: if lonc stops during a change, nothing more of it is begun."""
        self.many()
        reading = self.daemon.reread_table()
        stopped = self.daemon.stopService()
        for _ in range(100):
            self.advance(0)
        self.advance(2)
        self.failureResultOf(reading, ReloadFailed)
        self.successResultOf(stopped)
        self.assertEqual(sockets_in(self.folder), set())

    def test_one_after_the_other(self) -> None:
        """F13: a second change is read after the first one is complete."""
        self.threads["disk"] = threads = SlowThreads()
        self.daemon._reloader._disk = Disk(self.clock, threads, lambda: self.first.disk_timeout)
        self.table = a_table("l1:msu:library:l1.test:127.0.0.1\n")
        first, second = self.daemon.reread_table(), self.daemon.reload()
        self.assertEqual(len(threads.begun), 1)
        threads.finish()
        self.table = a_table()
        self.advance(0)
        threads.finish()
        self.advance(0)
        told = [self.successResultOf(each) for each in (first, second)]
        self.assertEqual(
            [text[:19] for text in told], ["hosts: 0 new, 1 gon", "hosts: 1 new, 0 gon"]
        )

    def test_disk_hangs(self) -> None:
        """F12: if reading the table hangs it fails after the limit; hosts are served."""
        threads = SlowThreads()
        self.daemon._reloader._disk = Disk(self.clock, threads, lambda: self.first.disk_timeout)
        reading, again = self.daemon.reread_table(), self.daemon.reread_table()
        self.assertEqual(self.ask("l2"), b"re:ping\n")
        self.clock.advance(self.first.disk_timeout)
        for each in (reading, again):
            self.failureResultOf(each, ReloadFailed)
        self.assertEqual(len(threads.begun), 1)
        threads.finish()
        last = self.daemon.reread_table()
        threads.finish()
        self.successResultOf(last)

    def test_while_it_stops(self) -> None:
        """S17: a daemon that is stopping changes nothing."""
        self.daemon.stopService()
        self.table = a_table("l3:msu:library:l3.test:127.0.0.3\n")
        for again in (self.daemon.reread_table, self.daemon.reload):
            self.failureResultOf(again(), ReloadFailed)
        self.advance(0)
        self.assertTrue(self.there())


class FetchTests(ServiceTestCase):
    """F13: the table of the cluster is fetched after the files have been read again."""

    def test_servers_just_read(self) -> None:
        """However long reading takes, the servers in ``hosts.tab`` are the ones that are asked."""
        asked: list[str] = []

        def download(url: str, *_: object) -> Deferred[Downloaded]:
            asked.append(url)
            return fail(FetchError("not today"))

        self.patch(service, "web_client", lambda _: download)
        disk = self.threads["disk"] = SlowThreads()
        daemon = self.started()
        for server, read in (("first", daemon.reread_table), ("second", daemon.reload)):
            asked.clear()
            self.table = a_table(f"{TABLE}^{server}\n")
            reading = read()
            self.clock.advance(0)
            while disk.begun:
                disk.finish()
            self.successResultOf(reading)
            self.clock.advance(0)
            self.assertEqual(asked, [f"http://{server}/adm/dns/hosts"])


class SignalTests(ServiceTestCase):
    """S17: the signals."""

    def setUp(self) -> None:
        super().setUp()
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self.daemon = self.started()
        for call, arguments, _ in self.clock.whenRunningHooks:
            call(*arguments)
        self.addCleanup(self.daemon.stopService)
        taken = {number for number in before if signal.getsignal(number) != before[number]}
        self.assertEqual(
            taken,
            {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2},
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process."""
        signal.raise_signal(number)
        self.clock.advance(0)

    def test_stop(self) -> None:
        """S17: INT and TERM stop the reactor."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self.clock.hasStopped = False
            self.send(number)
            self.assertTrue(self.clock.hasStopped)

    def test_read_again(self) -> None:
        """S17: HUP reads everything, USR2 the table; failures are logged without a traceback."""
        self.settings = SettingsError("a.conf, line 1: no")
        self.send(signal.SIGHUP)
        self.assertEqual(
            self.notes.at(LogLevel.critical)[-1], "nothing is changed: a.conf, line 1: no"
        )
        self.table = a_table(TABLE.splitlines()[0])
        self.send(signal.SIGUSR2)
        self.advance(0)
        self.assertTrue(self.there("l1"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_time_zone(self) -> None:
        """HUP applies the current time zone of the machine."""
        at_utc(self)
        os.environ["TZ"] = "XYZ-5"
        self.assertEqual(local_time(0.0), "Thu Jan  1 00:00:00 1970")
        self.send(signal.SIGHUP)
        self.assertEqual(local_time(0.0), "Thu Jan  1 05:00:00 1970")

    def test_report(self) -> None:
        """S17: USR1 writes the status file, restores retries, and reopens the logs."""
        self.network.on_connect = Attempt.refuse
        self.ask("l2")
        path = self.first.log_file
        self.lonc_log({"log_format": "one", "log_level": LogLevel.info, "log_time": 0.0})
        os.rename(path, f"{path}.1")
        self.network.on_connect = leave_pending
        self.send(signal.SIGUSR1)
        self.lonc_log({"log_format": "two", "log_level": LogLevel.info, "log_time": 0.0})
        self.assertIn("\tl2 >> DEAD <<\t", self.status_file()[3])
        self.assertEqual(self.daemon.hosts["l2"].status(0, "").state, "unproven")
        with open(path) as file:
            self.assertIn("INFO: two", file.read())


class ManagedTests(ServiceTestCase):
    """S18: what the management port queries and controls."""

    def setUp(self) -> None:
        super().setUp()
        self.echoing()
        self.daemon = self.started()
        self.managed = self.managing(self.daemon)
        self.ask("l1")
        self.ask("l2")

    def connections(self) -> list[int]:
        """Return the number of connections of each host."""
        return [status.connections for status in self.daemon.reporter.statuses()]

    def states(self) -> list[str]:
        """Return the state of each host."""
        return [status.state for status in self.daemon.reporter.statuses()]

    def test_statuses(self) -> None:
        """S18: hosts are in the order of the table, with delayed requests and last line."""
        self.delay("1.1.put.l2")
        self.lonc_log(
            {"log_format": "x", "log_level": LogLevel.info, "log_time": 0.0, "host_id": "l1"}
        )
        self.advance(1.0)
        first, second = self.daemon.reporter.statuses()
        self.assertEqual((first.host_id, second.host_id), ("l1", "l2"))
        self.assertEqual((first.delayed, second.delayed), (0, 1))
        self.assertTrue(first.last_log.endswith("INFO: x</font>"))
        self.assertEqual(self.daemon.reporter.status_text("l1"), first.text)
        self.assertEqual(self.daemon.reporter.status_text("Parent"), "2 hosts")
        self.assertEqual(self.daemon.reporter.status_text("elsewhere"), "")

    def test_one_or_all(self) -> None:
        """S18: connections are closed, and debug levels set, for one host or all."""
        self.assertEqual(self.connections(), [1, 1])
        self.managed.close_connections("l2")
        self.assertEqual(self.connections(), [1, 0])
        self.managed.close_connections("")
        self.assertEqual(self.connections(), [0, 0])
        self.managed.set_debug_level("l1", 9)
        self.assertEqual([host.debug_level for host in self.daemon.hosts.values()], [9, 0])
        self.managed.set_debug_level("", 2)
        self.assertEqual([host.debug_level for host in self.daemon.hosts.values()], [2, 2])

    def test_all_in_slices(self) -> None:
        """F12: commands for all hosts take several iterations."""
        seconds = self.clock.seconds

        def slow() -> float:
            self.clock.rightNow += 0.006
            return seconds()

        self.patch(self.clock, "seconds", slow)
        calls: list[Callable[[], Deferred[Any]]] = [
            lambda: self.managed.set_debug_level("", 1),
            lambda: self.managed.reset_retries(""),
            lambda: self.managed.close_connections(""),
            lambda: Deferred.fromCoroutine(self.managed.pause("", "me", "", 0.0, False)),
            lambda: self.managed.resume(""),
            lambda: Deferred.fromCoroutine(self.managed.report("")),
            lambda: Deferred.fromCoroutine(self.daemon._upkeep.report_and_reset()),
        ]
        for call in calls:
            answer = call()
            self.assertNoResult(answer)
            for _ in range(10):
                self.clock.advance(0)
            self.successResultOf(answer)

    def test_logs_that_fail(self) -> None:
        """A log that could not be written is a problem until there is room."""
        for path in ("/nowhere/a.log", self.first.log_file):
            self.daemon.problems.tell("log-file", path, "cannot be written: no room")
        self.advance(LOOK)
        self.assertEqual([each.subject for each in self.found("log-file")], ["/nowhere/a.log"])

    def test_installed_anew(self) -> None:
        """An upgrade is a note until lonc is restarted."""
        self.patch(files, "_STARTED_WITH", (0, 0))
        self.advance(1.0)
        self.assertEqual([each.level for each in self.found("lonc-replaced")], ["note"])

    def test_status_file_that_fails(self) -> None:
        """
        S16: a status file that cannot be written is a problem until it can be, which is tried
        periodically, or until its path changes.
        """
        path = self.first.status_file
        os.makedirs(path)
        self.assertRaises(OSError, self.daemon.reporter.report)
        self.advance(LOOK)
        self.assertEqual(len(self.found("status-file")), 1)
        os.rmdir(path)
        self.advance(LOOK)
        self.assertEqual((self.found("status-file"), os.path.isfile(path)), ([], True))
        os.unlink(path)
        os.mkdir(path)
        self.assertRaises(OSError, self.daemon.reporter.report)
        self.assertEqual(len(self.found("status-file")), 1)
        self.settings = attrs.evolve(self.first, doc_root=os.path.join(self.folder, "elsewhere"))
        os.mkdir(self.settings.doc_root)
        self.successResultOf(self.daemon.reload())
        self.assertEqual(self.found("status-file"), [])

    def test_reset_retries(self) -> None:
        """S18, S13: a DEAD host gets its retries back, and its delayed requests are sent."""
        self.managed.close_connections("")
        self.network.on_connect = Attempt.refuse
        self.ask("l1")
        self.ask("l2")
        self.delay("1.1.put.l2")
        self.advance(5.0)
        self.network.on_connect = Attempt.accept
        self.assertEqual(self.states(), ["DEAD", "DEAD"])
        self.managed.reset_retries("l2")
        for _ in range(10):
            self.clock.advance(0)
        self.assertEqual(self.states(), ["DEAD", "up"])
        self.assertEqual(self.perm_lines, ["S:l2:put:a"])

    def test_former_names(self) -> None:
        """Former methods of the daemon still work, with a DeprecationWarning."""
        daemon: Any = self.daemon
        self.assertEqual(daemon.about(), self.daemon.reporter.about())
        self.assertEqual(daemon.status("l1").host_id, "l1")
        daemon.set_debug(None, 3)
        daemon.close_connections("l2")
        self.assertEqual([host.debug_level for host in self.daemon.hosts.values()], [3, 3])
        self.assertEqual(self.connections(), [1, 0])
        told = [each["message"] for each in self.flushWarnings([self.test_former_names])]
        self.assertEqual(told[0], "LoncService.about: use reporter.about")
        self.assertEqual(len(told), 4)
        self.assertRaises(AttributeError, lambda: daemon.nonsense)


class StopTests(ServiceTestCase):
    """S17: stopping the daemon."""

    def stopped(self, daemon: LoncService) -> Deferred[None]:
        """Begin to stop; let pending calls be made."""
        stopped: Deferred[None] = daemon.stopService()
        for _ in range(10):
            self.clock.advance(0)
        return stopped

    def test_idle(self) -> None:
        """S17: without requests it ends in a second; no socket, pid file or timer is left."""
        self.echoing()
        daemon = self.started()
        self.ask("l1")
        client = self.client("l2", b"ping\n")
        self.clock.advance(0)
        stopped = self.stopped(daemon)
        self.assertTrue(self.there())
        self.assertFalse(client.closed)
        self.advance(FAREWELL)
        self.successResultOf(stopped)
        self.assertTrue(client.closed)
        self.assertEqual(client.read, b"re:ping\n")
        self.assertEqual(self.network.open_londs, [])
        self.assertEqual(os.listdir(os.path.join(self.folder, "logs")), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_delayed_request_is_proven(self) -> None:
        """F8: answers to delayed requests are proven before connections are closed."""

        def prepare(lond: ScriptedLond) -> None:
            lond.answer = lambda line: None if line == b"put:3\n" else echo(line)

        self.network.prepare = prepare
        daemon = self.started()
        for number in (1, 2, 3):
            self.delay(f"1.{number}.put.l2", f"put:{number}\n")
        self.advance(6)
        (lond,) = [each for each in self.network.londs if b"put:3\n" in each.asked]
        stopped = self.stopped(daemon)
        lond.say(b"ok\n")
        self.advance(FAREWELL)
        self.successResultOf(stopped)
        self.assertEqual(lond.asked[-2:], [b"put:3\n", b"ping\n"])
        self.assertEqual(os.listdir(self.first.delayed_dir), [])

    def test_nothing_asked_yet(self) -> None:
        """F12: a client without a request gets con_lost, and can still write for a second."""
        daemon = self.started()
        client = self.client("l2")
        stopped = self.stopped(daemon)
        self.assertEqual((client.read, client.closed), (CON_LOST, False))
        client.write(b"too late\n")
        self.advance(FAREWELL)
        self.successResultOf(stopped)
        self.assertEqual((client.read, client.closed), (CON_LOST, True))

    def test_in_flight(self) -> None:
        """S17: requests in flight of all hosts are waited for; waiting ones are lost."""
        self.settings = attrs.evolve(self.first, max_connections=1)
        daemon = self.started()
        owed = [self.client("l1", b"a\n"), self.client("l2", b"b\n")]
        self.advance(0)
        waiting = self.client("l2", b"c\n")
        stopped = self.stopped(daemon)
        self.assertNoResult(stopped)
        self.assertEqual([client.read for client in (*owed, waiting)], [b"", b"", CON_LOST])
        self.assertTrue(self.there())
        self.assertTrue(os.path.exists(self.first.pid_file))
        self.network.londs[1].say(b"ok\n")
        self.advance(self.first.drain_timeout + FAREWELL)
        self.assertEqual([client.read for client in owed], [CON_LOST, b"ok\n"])
        self.successResultOf(stopped)
        self.assertFalse(os.path.exists(self.first.pid_file))

    def test_second_signal(self) -> None:
        """S17: a second TERM ends requests in flight, with con_lost."""
        daemon = self.started()
        owed = self.client("l2", b"b\n")
        self.advance(0)
        daemon.stop()
        stopped = self.stopped(daemon)
        self.assertEqual((owed.read, owed.closed), (b"", False))
        self.patch(self.clock, "stop", raises_not_running)
        daemon.stop()
        self.advance(FAREWELL)
        self.successResultOf(stopped)
        self.assertEqual((owed.read, owed.closed), (CON_LOST, True))
        self.assertFalse(os.path.exists(self.first.pid_file))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_delayed_request_in_flight(self) -> None:
        """S17, S13: a delayed request in flight is still answered and deleted."""
        daemon = self.started()
        path = self.delay("1.1.put.l2")
        self.advance(5.0)
        (lond,) = self.network.londs
        stopped = self.stopped(daemon)
        self.assertNoResult(stopped)
        lond.answer = lambda line: b"l2\n"  # to the pings that prove it
        lond.say(b"ok\n")
        self.advance(0)
        self.successResultOf(stopped)
        self.assertFalse(os.path.exists(path))

    def test_one_host_fails(self) -> None:
        """S19: a host that fails to stop does not prevent the end of the others."""
        daemon = self.started()
        spoil(daemon.hosts["l1"], "stopService")
        self.successResultOf(self.stopped(daemon))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertFalse(os.path.exists(self.first.pid_file))
        self.assertFalse(os.path.exists(self.first.socket_path("l2")))


def raises_not_running() -> None:
    """Fail as a reactor that is already stopping does."""
    raise ReactorNotRunning


def no_such_group(path: str, user: int, group: int) -> None:
    """Fail as if lonc's user were in no other group."""
    raise PermissionError(errno.EPERM, "Operation not permitted")
