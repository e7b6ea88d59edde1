"""Fetching the cluster's host table: which servers are asked, and which tables are accepted."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from lonc.config.current import InForce
from lonc.config.hosts import HostTable, TableError, parse_host_table
from lonc.config.table_fetcher import (
    FIRST_PAUSE,
    Downloaded,
    FetchError,
    TableFetcher,
    check_table,
)
from lonc.control.errors import ReloadFailed
from lonc.disk.threads import InThread
from lonc.report.problems import Problems
from lonc.test.fixtures.beginnings import notes_of
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase, a_table
from lonc.test.fixtures.doubles import NoJitter, some_settings
from lonc.test.fixtures.properties import given, settings, st

#: A table as a server sends it.
ROWS = [f"h{number}:d:library:h{number}.test:10.0.0.{number}" for number in range(1, 9)]

SETTINGS = some_settings("/f")


def text(*rows: str) -> bytes:
    """Return the lines of a table."""
    return "".join(f"{row}\n" for row in rows).encode()


def many(count: int) -> bytes:
    """Return a table with that many hosts."""
    return text(*[f"h{number}:d:access:h.test" for number in range(count)])


class CheckTests(SynchronousTestCase):
    """Which tables from a server are accepted."""

    def test_accepted(self) -> None:
        """
        A few invalid lines do not matter; half of the known hosts suffice; a table may have a
        hundred more hosts than the last one, or four times as many, and the first one any number.
        """
        odd = b"# \xfc\n\n" + text(*ROWS[:3]) + b"\xff\xfe nonsense\n^evil.test\n"
        for sent, known, last, hosts in (
            (odd, 0, None, 3),
            (text(*ROWS[:3], *["nonsense"] * 3), 0, None, 3),
            (text(*ROWS[:3]), 6, None, 3),
            (many(400), 0, 100, 400),
            (many(105), 0, 5, 105),
            (many(2000), 0, None, 2000),
        ):
            table = check_table(Downloaded(sent), SETTINGS, known, last)
            self.assertEqual(len(table.hosts), hosts)
        for last in (None, 8):
            uncertain = Downloaded(text(*ROWS), certain=False)
            self.assertEqual(len(check_table(uncertain, SETTINGS, 0, last).hosts), 8)

    def test_refused(self) -> None:
        """Other tables are refused with a readable reason."""
        page = b"<!DOCTYPE html>\n<html><title>404: Not Found</title>\n</html>\n"
        ids = [f"{name}:d:library:h.test:10.0.0.1" for name in ("../x", "..", "a/b", "x" * 105)]
        for sent, known, last, why in (
            (page, 0, None, "there is no host that can be used"),
            (b"", 0, None, "no host"),
            (b"\n" * 100, 0, None, "no host"),
            (b"# no hosts today\n", 0, None, "no host"),
            (b"^other.test\n", 0, None, "no host"),
            (text(*ids), 0, None, "no host"),
            (
                text(*ROWS[:3], *["<p>nonsense"] * 4),
                0,
                None,
                "4 of its lines cannot be understood, and only 3 can",
            ),
            (
                text(*ROWS[:3]),
                7,
                None,
                "it has 3 hosts, fewer than half of the 7 that are known",
            ),
            (text(*[ROWS[0]] * 10), 4, None, "it has 1 hosts, fewer than half"),
            (many(401), 100, 100, "401 hosts, and the last one had 100: more growth than loncT"),
            (many(106), 5, 5, "more growth"),
        ):
            self.assertIn(why, self.refusal(Downloaded(sent), known, last))
        for sent, last, why in (
            (text(*ROWS)[:-1], None, "it ends within a line"),
            (text(*ROWS), 9, "it has 8 hosts where the last one had 9"),
        ):
            self.assertIn(why, self.refusal(Downloaded(sent, certain=False), 0, last))

    def refusal(self, sent: Downloaded, known: int, last: int | None) -> str:
        """Return why a text is not accepted as a table."""
        error = self.assertRaises(FetchError, check_table, sent, SETTINGS, known, last)
        self.assertTrue(str(error).isprintable() and len(str(error)) < 400, error)
        return str(error)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.binary(max_size=300), st.integers(0, 3))
    def test_any_bytes(self, sent: bytes, known: int) -> None:
        """Any bytes are accepted, or refused with a printable reason."""
        try:
            check_table(Downloaded(text(*ROWS[:2]) + sent), SETTINGS, known)
        except FetchError as error:
            self.assertTrue(str(error).isprintable(), str(error))


def at_once(work: Any, /) -> Deferred[Any]:
    """Do the work of a thread now."""
    done: Deferred[Any] = Deferred()
    try:
        done.callback(work())
    except (OSError, FetchError) as error:
        done.errback(error)
    return done


class Web:
    """
    Web servers whose answers the test determines.

    :ivar asked: the URLs requested, each with the Deferred of its answer.
    :ivar given_up: those whose request was cancelled.
    :ivar terms: the size limit and the authority of each request.
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
        """The URLs requested so far."""
        return [url for url, _ in self.asked]

    def send(self, *rows: str) -> None:
        """Answer the latest request with a table."""
        self.asked[-1][1].callback(Downloaded(text(*rows)))

    def fail(self, why: str = "no connection") -> None:
        """Answer it with an error."""
        self.asked[-1][1].errback(FetchError(why))


A, B = (f"http://{name}.test/adm/dns/hosts" for name in "ab")


class FetcherTests(SynchronousTestCase):
    """The service, with a Clock and the test's servers."""

    own = ("^a.test", "^b.test", *ROWS[:2])

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.in_force = InForce((some_settings(folder), self.parsed(*self.own)))
        self.notes = notes_of(self)
        self.clock = Clock()
        self.web = Web()
        self.arrivals: list[None] = []
        self.problems = Problems()
        self.in_thread: InThread = at_once
        self.fetcher = TableFetcher(
            self.clock,
            self.in_force,
            self.web,
            lambda work: self.in_thread(work),
            NoJitter(),
            lambda: self.arrivals.append(None),
            self.problems,
        )

    def parsed(self, *rows: str) -> HostTable:
        """Return a table."""
        return parse_host_table(text(*rows), "hosts.tab")

    def start(self) -> None:
        """Start, and let the first iteration of the reactor pass."""
        self.fetcher.startService()
        self.addCleanup(self.fetcher.stopService)
        self.clock.advance(0)

    def kept(self) -> bytes | None:
        """Return the fetched table on disk, None if there is none."""
        if not os.path.exists(self.in_force.settings.fetched_hosts_file):
            return None
        with open(self.in_force.settings.fetched_hosts_file, "rb") as file:
            return file.read()

    def told(self, level: LogLevel) -> list[str]:
        """Return what was logged at a level, and forget it."""
        lines = self.notes.at(level)
        self.notes.events = [e for e in self.notes.events if e["log_level"] is not level]
        return lines

    def ask_again(self) -> None:
        """Request a fetch, as USR2 and HUP do, and let an iteration pass."""
        self.fetcher.fetch_soon()
        self.clock.advance(0)

    def test_start(self) -> None:
        """The start does not wait; the first server is asked right after it, within limits."""
        self.fetcher.startService()
        self.addCleanup(self.fetcher.stopService)
        self.assertEqual(self.web.urls, [])
        self.clock.advance(0)
        self.assertEqual(self.web.urls, [A])
        self.assertEqual(self.web.terms, [(self.in_force.settings.table_limit, None)])

    def test_terms(self) -> None:
        """The size limit and the authority are those of the settings."""
        self.in_force.settings = attrs.evolve(
            self.in_force.settings,
            table_limit=5000,
            certificate_directory="/certificates",
            certificate_authority="authority.pem",
        )
        self.start()
        self.assertEqual(self.web.terms, [(5000, "/certificates/authority.pem")])

    def test_good_table(self) -> None:
        """A good table is stored as it is, and the log names its server; also the first table."""
        for own in (self.own, self.own[:2]):
            self.in_force.table = self.parsed(*own)
            self.start()
            self.web.send(*ROWS[:5])
            self.assertEqual((self.kept(), len(self.arrivals)), (text(*ROWS[:5]), 1))
            self.assertEqual(self.told(LogLevel.info), [f"hosts fetched from {A}: 5"])
            self.assertEqual(self.told(LogLevel.warn), [])
            self.successResultOf(self.fetcher.stopService())
            self.arrivals.clear()

    def test_next_server(self) -> None:
        """If a server fails, the next one is asked."""
        self.start()
        self.web.fail("it answers with status 500")
        self.assertEqual(self.web.urls, [A, B])
        self.web.send(*ROWS)
        self.assertEqual((self.kept(), len(self.arrivals)), (text(*ROWS), 1))
        self.assertEqual(
            self.told(LogLevel.warn), [f"no host table from {A}: it answers with status 500"]
        )

    def test_refused(self) -> None:
        """An implausible table is refused, and the last one stays."""
        self.in_force.table = self.parsed("^a.test", *ROWS)
        self.start()
        self.web.send(*ROWS[:3])
        self.assertEqual((self.kept(), self.arrivals), (None, []))
        warnings = self.told(LogLevel.warn)
        reason = "it has 3 hosts, fewer than half of the 8 that are known"
        self.assertEqual(warnings[0], f"no host table from {A}: {reason}")
        self.assertEqual(len(warnings), 2)

    def test_silent_server(self) -> None:
        """A server that does not answer in time is given up, and the next one asked."""
        self.start()
        self.clock.advance(self.in_force.settings.table_timeout - 0.1)
        self.assertEqual(self.web.urls, [A])
        self.clock.advance(0.1)
        self.assertEqual((self.web.urls, self.web.given_up), ([A, B], [A]))
        self.assertIn("it did not come within 30 s", self.told(LogLevel.warn)[0])

    def test_sooner_after_a_failure(self) -> None:
        """
        Without a table, the servers are asked again after a minute, then less and less often, and
        after a table half a day later; all that is varied by a tenth.
        """
        self.in_force.table = self.parsed("^a.test")
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
        self.clock.advance(43200 * 1.1 - 1)
        self.assertEqual(len(self.web.asked), 12)
        self.clock.advance(1)
        self.web.fail()
        self.assertIn("next try in 66 s", self.told(LogLevel.warn)[-1])

    def test_on_request(self) -> None:
        """On request, the table is fetched at once and only once, and the half day begins anew."""
        self.start()
        self.web.send(*ROWS)
        self.clock.advance(3600)
        self.fetcher.fetch_soon()
        self.ask_again()
        self.assertEqual(len(self.web.asked), 2)
        self.web.send(*ROWS)
        self.clock.advance(13 * 3600)
        self.assertEqual(len(self.web.asked), 2)
        self.clock.advance(3600)
        self.assertEqual(len(self.web.asked), 3)

    def test_on_request_meanwhile(self) -> None:
        """Requests during a fetch are followed by one more, according to the new table."""
        self.start()
        self.in_force.table = self.parsed("^b.test", *ROWS[:2])
        for _ in range(3):
            self.ask_again()
        self.assertEqual(self.web.urls, [A])
        self.web.send(*ROWS)
        self.clock.advance(0)
        self.assertEqual(self.web.urls, [A, B])
        self.web.send(*ROWS)
        self.clock.advance(3600)
        self.assertEqual(len(self.web.asked), 2)

    def test_without_servers(self) -> None:
        """Nothing is fetched until a table names a server."""
        self.in_force.table = self.parsed(*ROWS)
        self.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.in_force.table = self.parsed(*self.own)
        self.ask_again()
        self.assertEqual(self.web.urls, [A])

    def test_no_more_servers(self) -> None:
        """That no server answers is a problem until one does, or none is named any more."""
        self.start()
        self.web.fail()
        self.web.fail("gone")
        (problem,) = self.problems
        self.assertIn(f"{B}: gone", problem.what)
        self.in_force.table = self.parsed(*self.own[2:])
        self.ask_again()
        self.assertEqual(list(self.problems), [])

    def test_cannot_be_written(self) -> None:
        """A table that cannot be stored is not used; log and problem name the file."""
        path = self.in_force.settings.fetched_hosts_file
        os.mkdir(path)
        self.start()
        self.web.send(*ROWS)
        self.assertEqual((self.arrivals, self.web.urls), ([], [A]))
        (line,), (problem,) = self.told(LogLevel.error), self.problems
        self.assertIn("the fetched host table cannot be written: ", line)
        self.assertEqual(problem.kind, "table-not-fetched")
        for told in (line, problem.what):
            self.assertIn(path, told)
        os.rmdir(path)
        self.clock.advance(FIRST_PAUSE * 1.1)
        self.web.send(*ROWS)
        self.assertEqual((len(self.arrivals), list(self.problems)), (1, []))

    def test_disk_hangs(self) -> None:
        """A disk that hangs delays the next fetch by its time limit only."""
        self.in_thread = lambda work: Deferred()
        self.start()
        self.web.send(*ROWS)
        self.clock.advance(self.in_force.settings.disk_timeout)
        self.assertIn("no answer from the disk", self.told(LogLevel.error)[0])
        self.clock.advance(FIRST_PAUSE * 1.1)
        self.assertEqual(len(self.web.asked), 2)

    def test_checked_in_a_thread(self) -> None:
        """F12: a table is checked in a thread, because a long one takes a second."""
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
        """Stopping cancels the request in progress, if any, and nothing follows."""
        for answered in (False, True):
            self.start()
            if answered:
                self.web.send(*ROWS)
            else:
                self.fetcher.fetch_soon()
            self.successResultOf(self.fetcher.stopService())
            self.assertEqual(self.web.given_up, [A])
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.fetcher.fetch_soon()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual(self.told(LogLevel.warn) + self.told(LogLevel.critical), [])

    def test_fault(self) -> None:
        """A fault inside lonc is logged, and fetching goes on."""
        self.start()
        self.web.asked[0][1].errback(KeyError())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.clock.advance(FIRST_PAUSE * 1.1)
        self.assertEqual(len(self.web.asked), 2)


class DaemonTests(ServiceTestCase):
    """The whole daemon; its connections to servers lead nowhere."""

    def setUp(self) -> None:
        super().setUp()
        self.table = a_table("^127.0.0.9:8080\nl1:d:library:l1.test:127.0.0.1\n")

    def asked(self) -> int:
        """Return how many requests servers got since the last call."""
        self.advance(1)
        ports = [port for _, port, *_ in self.clock.tcpClients]
        self.clock.tcpClients.clear()
        self.assertLessEqual(set(ports), {8080})
        # An unanswered request would delay the next one.
        self.clock.advance(self.first.table_timeout)
        return len(ports)

    def test_read_again(self) -> None:
        """Servers are asked at the start, at USR2 and at HUP, even if the files are unusable."""
        daemon = self.started()
        self.assertTrue(self.there("l1"))
        self.assertEqual(self.asked(), 1)
        for act in (daemon.reread_table, daemon.reload):
            act()
            self.assertEqual(self.asked(), 1)
        self.table = TableError("no use")
        for act in (daemon.reread_table, daemon.reload):
            self.failureResultOf(act(), ReloadFailed)
            self.assertEqual(self.asked(), 1)

    def test_no_host_yet(self) -> None:
        """A first start without a host does not warn about the own id."""
        self.table = a_table("^127.0.0.9:8080\n")
        self.started()
        self.assertTrue(self.there())
        self.assertEqual(self.notes.at(LogLevel.warn), [])
