# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""What the daemon tells of itself and its hosts."""

from __future__ import annotations

from twisted.logger import LogLevel

from lonc.report.times import SLOTS
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase, a_table

WITHOUT = "l1:msu:library:l1.test:127.0.0.1\n"


class DepartedTests(ServiceTestCase):
    """A host that leaves the table, and comes back."""

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
        """Nothing is told of it that was so before it left; its requests stay in the totals."""
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
        """One that leaves while all are gone through in slices is not remembered by that."""
        turning = self.daemon.reporter.beginning_slots()
        next(turning)
        self.change(a_table(WITHOUT))
        self.assertEqual(len(list(turning)), 1)
        self.change(self.full)
        self.assertEqual(self.daemon.reporter.status("l2").requests_lately, 0)
