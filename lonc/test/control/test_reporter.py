"""The status of the daemon and its hosts over time."""

from __future__ import annotations

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from lonc.control.reporter import process_title
from lonc.report.recent import MEDIANS, TURNS
from lonc.report.times import SLOTS
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase, a_table
from lonc.test.fixtures.statuses import NOW, a_status, at_utc

WITHOUT = "l1:msu:library:l1.test:127.0.0.1\n"


class DepartedTests(ServiceTestCase):
    """A host that is removed from the table, and added again."""

    def setUp(self) -> None:
        super().setUp()
        self.echoing()
        self.daemon = self.started()
        self.ask("l2")
        event = {"log_format": "x", "log_level": LogLevel.info, "log_time": 0.0, "host_id": "l2"}
        self.lonc_log(event)
        self.full = self.table

    def change(self, table: object) -> None:
        """Put another table in force."""
        self.table = table  # type: ignore[assignment]
        self.successResultOf(self.daemon.reread_table())

    def test_forgotten(self) -> None:
        """Its earlier status is forgotten; its requests remain in the totals."""
        before = self.daemon.reporter.status("l2")
        self.assertTrue(before.last_log.endswith("INFO: x</font>"))
        self.assertEqual((before.requests, before.requests_lately), (1, 1))
        for _ in range(SLOTS):
            list(self.daemon.reporter.beginning_slots())
        self.assertEqual(self.daemon.reporter.status("l2").requests_lately, 0)
        self.change(a_table(WITHOUT))
        self.assertRaises(KeyError, self.daemon.reporter.status, "l2")
        self.advance(1.0)
        self.change(self.full)
        after = self.daemon.reporter.status("l2")
        self.assertEqual((after.last_log, after.requests, after.requests_lately), ("", 0, 0))
        self.ask("l2")
        self.assertEqual(self.daemon.reporter.status("l2").requests_lately, 1)
        self.assertEqual(self.daemon.reporter.about().departed["requests"], 1)

    def test_leaves_meanwhile(self) -> None:
        """A host that is removed while the hosts are processed in slices is forgotten too."""
        turning = self.daemon.reporter.beginning_slots()
        next(turning)
        self.change(a_table(WITHOUT))
        self.assertEqual(len(list(turning)), 1)
        self.change(self.full)
        self.assertEqual(self.daemon.reporter.status("l2").requests_lately, 0)


class FirstTests(ServiceTestCase):
    """A host that has its first requests long after lonc has started."""

    def test_five_minutes(self) -> None:
        """They are shown for five minutes."""
        self.echoing()
        reporter = self.started().reporter
        for _ in range(SLOTS):
            list(reporter.beginning_slots())
        self.ask("l2")
        for _ in range(SLOTS - 1):
            list(reporter.beginning_slots())
            self.assertEqual(reporter.status("l2").requests_lately, 1)
        list(reporter.beginning_slots())
        self.assertEqual(reporter.status("l2").requests_lately, 0)


class RestTests(ServiceTestCase):
    """A host that is seldom asked."""

    def test_first_request(self) -> None:
        """Its first request, after hours, belongs to the last five minutes as any other."""
        self.echoing()
        reporter = self.started().reporter
        for _ in range(2 * SLOTS):
            list(reporter.beginning_slots())
        self.ask("l2")
        found = []
        for _ in range(SLOTS):
            found.append(reporter.status("l2").requests_lately)
            list(reporter.beginning_slots())
        self.assertEqual(found, [1] * SLOTS)
        self.assertEqual(reporter.status("l2").requests_lately, 0)


class UsualTests(ServiceTestCase):
    """A host that becomes slow."""

    def setUp(self) -> None:
        super().setUp()
        self.echoing()
        self.daemon = self.started()

    def goes_by(self, slots: int, seconds: float, slowest: float) -> None:
        """Let time pass, with an answer each second, some slower than others."""
        host = self.daemon.hosts["l2"]
        for _ in range(slots):
            host.requests += 30
            host.times.direct += [seconds] * 28 + [slowest] * 2
            list(self.daemon.reporter.beginning_slots())

    def wrong(self) -> list[tuple[str, str]]:
        """Return the host's problems."""
        list(self.daemon.reporter.looking())
        return [(each.level, each.what) for each in self.daemon.problems if each.host == "l2"]

    def test_slow(self) -> None:
        """A host that is much slower than in the last 24 hours is a warning, and later a note."""
        day = TURNS * MEDIANS
        self.goes_by(day, 0.1, 0.2)
        self.assertEqual(self.wrong(), [])
        self.goes_by(SLOTS, 0.1, 8.0)
        ((level, what),) = self.wrong()
        self.assertEqual(level, "warning")
        self.assertRegex(what, r"^took 7\.\d s for .*; \d\d ms is usual$")
        self.goes_by(SLOTS, 0.1, 0.2)
        self.assertEqual(self.wrong(), [])
        self.goes_by(day, 7.0, 8.0)
        ((level, what),) = self.wrong()
        self.assertEqual(level, "note")
        self.assertRegex(what, r"; [67]\.\d s is usual$")


class TitleTests(SynchronousTestCase):
    """The process title."""

    def test_sum(self) -> None:
        """S16: hosts, DEAD ones, connections and waiting requests are added up."""
        at_utc(self)
        statuses = [
            a_status("a", idle=5, waiting=7),
            a_status("b", busy=6, connecting=1, waiting=1),
            a_status("c", state="DEAD"),
        ]
        for hosts, title in (
            (statuses, "lonc: 3 hosts, 1 DEAD, 12 connections, 8 waiting Tue Nov  3 05:02:00 2026"),
            (
                [a_status("a", idle=1)],
                "lonc: 1 host, 0 DEAD, 1 connection, 0 waiting Tue Nov  3 05:02:00 2026",
            ),
        ):
            self.assertEqual(process_title(hosts, NOW), title)
