"""Fetching the cluster's host table: whom to ask, what to believe, and what to keep."""

from __future__ import annotations

import os
import stat
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from lonc.config.hosts import HostTable, TableError, parse_host_table
from lonc.config.table_fetcher import FIRST_PAUSE, Downloaded, FetchError, TableFetcher
from lonc.control.errors import ReloadFailed
from lonc.disk.files import replace_file
from lonc.disk.threads import InThread
from lonc.report.problems import Problems
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase, a_table
from lonc.test.fixtures.doubles import NoJitter, some_settings
from lonc.test.fixtures.stage import Notes

T = TypeVar("T")

#: A table as it comes from a server.
ROWS = [f"h{number}:d:library:h{number}.test:10.0.0.{number}" for number in range(1, 9)]

SETTINGS = some_settings("/f")


def text(*rows: str) -> bytes:
    """Return the lines of a table."""
    return "".join(f"{row}\n" for row in rows).encode()


def at_once(work: Any, /) -> Deferred[Any]:
    """Do what belongs into a thread."""
    done: Deferred[Any] = Deferred()
    try:
        done.callback(work())
    except (OSError, FetchError) as error:
        done.errback(error)
    return done


class ReplaceTests(SynchronousTestCase):
    """Putting a file in place."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "dns_hosts.tab")

    def test_replaced(self) -> None:
        """The file is there as a whole, for all to read, and nothing else is."""
        umask = os.umask(0o077)
        self.addCleanup(os.umask, umask)
        for content in (b"first", b"second"):
            replace_file(self.path, content)
            with open(self.path, "rb") as file:
                self.assertEqual(file.read(), content)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o644)
        self.assertEqual(os.listdir(self.folder), ["dns_hosts.tab"])

    def test_after_a_crash(self) -> None:
        """What a crash left of an earlier attempt is no hindrance, and a link is not followed."""
        target = os.path.join(self.folder, "target")
        for leave in (lambda path: os.symlink(target, path), lambda path: open(path, "w").close()):
            leave(f"{self.path}.new")
            replace_file(self.path, b"content")
            self.assertFalse(os.path.lexists(target))
            self.assertFalse(os.path.islink(self.path))

    def test_fails(self) -> None:
        """When it cannot be put in place, what was there stays."""
        os.mkdir(self.path)
        self.assertRaises(OSError, replace_file, self.path, b"content")
        self.assertTrue(os.path.isdir(self.path))
        error = self.assertRaises(OSError, replace_file, "/nowhere/dns_hosts.tab", b"content")
        self.assertIn("/nowhere", str(error))


class Web:
    """
    Web servers whose answers are the test's.

    :ivar asked: what was asked for, each with the Deferred of its answer.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[Downloaded]]] = []
        self.given_up: list[str] = []
        self.terms: list[tuple[int, str | None]] = []

    def __call__(self, url: str, limit: int, authority: str | None, /) -> Deferred[Downloaded]:
        self.terms.append((limit, authority))
        self.asked.append((url, Deferred(lambda _: self.given_up.append(url))))
        return self.asked[-1][1]

    @property
    def urls(self) -> list[str]:
        """What was asked for so far."""
        return [url for url, _ in self.asked]

    def send(self, *rows: str) -> None:
        """Answer the latest question with a table."""
        self.asked[-1][1].callback(Downloaded(text(*rows)))

    def fail(self, why: str = "no connection") -> None:
        """Answer it with an error."""
        self.asked[-1][1].errback(FetchError(why))


A, B = (f"http://{name}.test/adm/dns/hosts" for name in "ab")


class FetcherTests(SynchronousTestCase):
    """The service, with a Clock and servers of the test."""

    own = ("^a.test", "^b.test", *ROWS[:2])

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.settings = some_settings(folder)
        self.table = self.parsed(*self.own)
        self.notes = Notes()
        globalLogPublisher.addObserver(self.notes)
        self.addCleanup(globalLogPublisher.removeObserver, self.notes)
        self.clock = Clock()
        self.web = Web()
        self.arrivals = 0
        self.problems = Problems()
        self.in_thread: InThread = at_once
        self.fetcher = TableFetcher(
            self.clock,
            lambda: (self.settings, self.table),
            self.web,
            lambda work: self.in_thread(work),
            NoJitter(),
            self.arrived,
            self.problems,
        )

    def arrived(self) -> None:
        """Be told that there is a new table."""
        self.arrivals += 1

    def parsed(self, *rows: str) -> HostTable:
        """Return a table."""
        return parse_host_table(text(*rows), "hosts.tab")

    def start(self) -> None:
        """Start, and let the first turn pass."""
        self.fetcher.startService()
        self.addCleanup(self.fetcher.stopService)
        self.clock.advance(0)

    def kept(self) -> bytes | None:
        """Return what is on the disk."""
        try:
            with open(self.settings.fetched_hosts_file, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def told(self, level: LogLevel) -> list[str]:
        """Return what was logged at a level, and forget it."""
        lines = self.notes.at(level)
        self.notes.events = [e for e in self.notes.events if e["log_level"] is not level]
        return lines

    def test_start(self) -> None:
        """The start waits for nothing; the first server is asked right after it."""
        self.fetcher.startService()
        self.addCleanup(self.fetcher.stopService)
        self.assertEqual(self.web.urls, [])
        self.clock.advance(0)
        self.assertEqual(self.web.urls, [A])

    def test_good_table(self) -> None:
        """A good table is written as it came, told of, and the log says where it is from."""
        self.start()
        self.web.send(*ROWS[:5])
        self.assertEqual((self.kept(), self.arrivals), (text(*ROWS[:5]), 1))
        self.assertEqual(self.told(LogLevel.info), [f"hosts fetched from {A}: 5"])
        self.assertEqual(self.told(LogLevel.warn), [])

    def test_terms(self) -> None:
        """The limit of the settings is passed on, and which authority is trusted."""
        self.settings = attrs.evolve(
            self.settings,
            table_limit=5000,
            certificate_directory="/certificates",
            certificate_authority="authority.pem",
        )
        self.start()
        self.assertEqual(self.web.terms, [(5000, "/certificates/authority.pem")])

    def test_no_authority(self) -> None:
        """Where no authority is set, the system's are all."""
        self.start()
        self.assertEqual(self.web.terms[0][1], None)

    def test_next_server(self) -> None:
        """When a server fails, or what it has is no table, the next one is asked."""
        self.start()
        self.web.fail("it answers with status 500")
        self.assertEqual(self.web.urls, [A, B])
        self.web.send(*ROWS)
        self.assertEqual((self.kept(), self.arrivals), (text(*ROWS), 1))
        self.assertEqual(
            self.told(LogLevel.warn), [f"no host table from {A}: it answers with status 500"]
        )

    def test_refused(self) -> None:
        """A page that is no table is refused, and the last table stays."""
        self.table = self.parsed("^a.test", *ROWS)
        self.start()
        self.web.send(*ROWS[:3])
        self.assertEqual((self.kept(), self.arrivals), (None, 0))
        warnings = self.told(LogLevel.warn)
        reason = "it has 3 hosts, fewer than half of the 8 that are known"
        self.assertEqual(warnings[0], f"no host table from {A}: {reason}")
        self.assertEqual(len(warnings), 2)

    def test_first_table_of_all(self) -> None:
        """A machine that knows no host takes what the cluster has."""
        self.table = self.parsed("^a.test")
        self.start()
        self.web.send(ROWS[0])
        self.assertEqual(self.arrivals, 1)

    def test_silent_server(self) -> None:
        """A server has its time; then it is given up and the next one asked."""
        self.start()
        self.clock.advance(self.settings.table_timeout - 0.1)
        self.assertEqual(self.web.urls, [A])
        self.clock.advance(0.1)
        self.assertEqual((self.web.urls, self.web.given_up), ([A, B], [A]))
        self.assertIn("it did not come within 30 s", self.told(LogLevel.warn)[0])

    def test_twice_a_day(self) -> None:
        """After a table the next one is fetched half a day later, give or take a tenth."""
        self.start()
        self.web.send(*ROWS)
        self.clock.advance(12 * 3600 * 1.1 - 1)
        self.assertEqual(len(self.web.asked), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.web.asked), 2)

    def test_sooner_after_a_failure(self) -> None:
        """Without a table the servers are asked again after a minute, then less and less often."""
        self.table = self.parsed("^a.test")
        self.start()
        pause = FIRST_PAUSE
        for count in range(1, 12):
            self.assertEqual(len(self.web.asked), count)
            self.web.fail()
            shown = f"{min(pause, 43200) * 1.1:.0f} s"
            self.assertIn(f"next try in {shown}", self.told(LogLevel.warn)[-1])
            self.clock.advance(min(pause, 43200) * 1.1)
            pause *= 2
        self.web.send(*ROWS)
        self.clock.advance(43200 * 1.1)
        self.web.fail()
        self.assertIn("next try in 66 s", self.told(LogLevel.warn)[-1])

    def test_asked_for(self) -> None:
        """USR2, HUP: the table is fetched at once, and the half day begins anew."""
        self.start()
        self.web.send(*ROWS)
        self.clock.advance(3600)
        self.fetcher.fetch_soon()
        self.clock.advance(0)
        self.assertEqual(len(self.web.asked), 2)
        self.web.send(*ROWS)
        self.clock.advance(13 * 3600)
        self.assertEqual(len(self.web.asked), 2)
        self.clock.advance(3600)
        self.assertEqual(len(self.web.asked), 3)

    def test_asked_for_meanwhile(self) -> None:
        """Only one fetch is under way; asked for meanwhile, one more follows, of the new table."""
        self.start()
        self.table = self.parsed("^b.test", *ROWS[:2])
        for _ in range(3):
            self.fetcher.fetch_soon()
        self.clock.advance(1)
        self.assertEqual(self.web.urls, [A])
        self.web.send(*ROWS)
        self.clock.advance(0)
        self.assertEqual(self.web.urls, [A, B])
        self.web.send(*ROWS)
        self.clock.advance(3600)
        self.assertEqual(len(self.web.asked), 2)

    def test_asked_for_twice(self) -> None:
        """Asked for twice in a turn, it is fetched once."""
        self.start()
        self.web.send(*ROWS)
        self.fetcher.fetch_soon()
        self.fetcher.fetch_soon()
        self.clock.advance(1)
        self.assertEqual(len(self.web.asked), 2)

    def test_without_servers(self) -> None:
        """Without a server nothing is done, until a table names one."""
        self.table = self.parsed(*ROWS)
        self.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.table = self.parsed(*self.own)
        self.fetcher.fetch_soon()
        self.clock.advance(0)
        self.assertEqual(self.web.urls, [A])

    def test_cannot_be_written(self) -> None:
        """A table that cannot be written down is not used; the log says why, and it goes on."""
        os.mkdir(self.settings.fetched_hosts_file)
        self.start()
        self.web.send(*ROWS)
        self.assertEqual((self.arrivals, self.web.urls), (0, [A]))
        (line,) = self.told(LogLevel.error)
        self.assertIn("the fetched host table cannot be written: ", line)
        self.assertIn(self.settings.fetched_hosts_file, line)
        (problem,) = self.problems
        self.assertEqual(problem.kind, "table-not-fetched")
        self.assertIn(self.settings.fetched_hosts_file, problem.what)
        os.rmdir(self.settings.fetched_hosts_file)
        self.clock.advance(FIRST_PAUSE * 1.1)
        self.web.send(*ROWS)
        self.assertEqual(self.arrivals, 1)
        self.assertEqual(list(self.problems), [])

    def test_no_server_any_more(self) -> None:
        """Where no server is to be asked any more, that none has answered is no problem."""
        self.start()
        self.web.fail()
        self.web.fail("gone")
        (problem,) = self.problems
        self.assertIn(f"{B}: gone", problem.what)
        self.table = self.parsed(*self.own[2:])
        self.fetcher.fetch_soon()
        self.clock.advance(0)
        self.assertEqual(list(self.problems), [])

    def test_disk_hangs(self) -> None:
        """A disk that hangs is not waited for longer than its time."""
        self.in_thread = lambda work: Deferred()
        self.start()
        self.web.send(*ROWS)
        self.clock.advance(self.settings.disk_timeout)
        self.assertIn("no answer from the disk", self.told(LogLevel.error)[0])
        self.clock.advance(FIRST_PAUSE * 1.1)
        self.assertEqual(len(self.web.asked), 2)

    def test_looked_at_in_a_thread(self) -> None:
        """F12: a table is looked at in a thread, since a long one takes its time."""
        begun: list[tuple[Any, Deferred[Any]]] = []

        def later(work: Any) -> Deferred[Any]:
            begun.append((work, Deferred()))
            return begun[-1][1]

        self.in_thread = later
        self.start()
        self.web.send("nonsense")
        self.assertEqual(self.told(LogLevel.warn), [])
        ((work, done),) = begun
        self.assertRaises(FetchError, work)
        done.errback(FetchError("no table"))
        self.assertEqual(self.told(LogLevel.warn), [f"no host table from {A}: no table"])
        self.assertEqual(self.web.urls, [A, B])

    def test_stop(self) -> None:
        """A stop gives up what is under way, and nothing follows."""
        self.start()
        self.fetcher.fetch_soon()
        self.successResultOf(self.fetcher.stopService())
        self.assertEqual(self.web.given_up, [A])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.fetcher.fetch_soon()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.told(LogLevel.warn) + self.told(LogLevel.critical), [])

    def test_stop_between(self) -> None:
        """A stop in between has nothing to wait for."""
        self.start()
        self.web.send(*ROWS)
        self.successResultOf(self.fetcher.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fault(self) -> None:
        """A fault in lonc is logged, and does not end the fetching for good."""
        self.start()
        self.web.asked[0][1].errback(KeyError())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.clock.advance(FIRST_PAUSE * 1.1)
        self.assertEqual(len(self.web.asked), 2)


class DaemonTests(ServiceTestCase):
    """What the whole daemon does with it; the connections that it makes go nowhere."""

    def setUp(self) -> None:
        super().setUp()
        self.table = a_table("^127.0.0.9:8080\nl1:d:library:l1.test:127.0.0.1\n")

    def asked(self) -> int:
        """Return how many times a server was asked since the last look."""
        self.advance(1)
        ports = [port for _, port, *_ in self.clock.tcpClients]
        self.clock.tcpClients.clear()
        self.assertLessEqual(set(ports), {8080})
        # What has not ended yet would keep the next one waiting.
        self.clock.advance(self.first.table_timeout)
        return len(ports)

    def test_start(self) -> None:
        """The servers are asked once all hosts are served."""
        self.started()
        self.assertTrue(self.there("l1"))
        self.assertEqual(self.asked(), 1)

    def test_read_again(self) -> None:
        """USR2 and HUP ask again, also when the local files are of no use."""
        daemon = self.started()
        self.asked()
        for act in (daemon.reread_table, daemon.reload):
            act()
            self.assertEqual(self.asked(), 1)
        self.table = TableError("no use")
        for act in (daemon.reread_table, daemon.reload):
            self.failureResultOf(act(), ReloadFailed)
            self.assertEqual(self.asked(), 1)

    def test_without_servers(self) -> None:
        """A table that names no server asks nobody, and loads no web client."""
        self.table = a_table()
        daemon = self.started()
        daemon.reread_table()
        self.assertEqual(self.asked(), 0)

    def test_no_host_yet(self) -> None:
        """A first start without a host says nothing of the own id."""
        self.table = a_table("^127.0.0.9:8080\n")
        self.started()
        self.assertTrue(self.there())
        self.assertEqual(self.notes.at(LogLevel.warn), [])

    def test_stop(self) -> None:
        """A stop does not wait for a server."""
        daemon = self.started()
        self.advance(1)
        done: list[None] = []
        daemon.stopService().addCallback(done.append)
        self.advance(1)
        self.assertEqual(done, [None])
