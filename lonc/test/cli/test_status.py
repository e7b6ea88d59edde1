"""The output of ``lonc status``."""

from __future__ import annotations

import io
import re
from typing import Any

import attrs
from rich.console import Console
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lonc.cli.status import monitored, show, status
from lonc.report.judgement import totals
from lonc.report.kinds import KINDS
from lonc.report.problems import Group, Problem, by_cause, problem
from lonc.report.status import DaemonStatus
from lonc.test.fixtures.statuses import a_daemon, a_status


def refused(count: int) -> list[Problem]:
    """Return the problems of hosts that are DEAD for one reason."""
    return [
        problem("host-refused", f"h{each}", "DEAD: refused: nobody listens there", since=1.0)
        for each in range(count)
    ]


class StatusCase(SynchronousTestCase):
    """A network with some problems."""

    def shown(
        self, problems: list[Problem], width: int = 80, height: int = 24, every: bool = False
    ) -> list[str]:
        """Return the lines in a terminal of that size, without styles."""
        output = io.StringIO()
        out = Console(
            width=width, height=height, file=output, force_terminal=True, color_system=None
        )
        hosts = [a_status(each.subject) for each in problems if each.host]
        groups = [Group([each]) for each in problems] if every else by_cause(problems)
        show(out, a_daemon(totals=totals(hosts, {}, 0)), problems, groups, every)
        return re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue()).splitlines()


class ScreenTests(StatusCase):
    """One screen, whatever is wrong."""

    def test_one_cause(self) -> None:
        """Hosts with one cause are one line: their number, and the names of as many as fit."""
        lines = self.shown(refused(39))
        (line,) = [each for each in lines if "refused" in each]
        self.assertRegex(line, r"^warning  39 hosts DEAD: refused: h0, h1, .*, … \d+ more  \(since")
        self.assertLessEqual(len(line), 80)
        self.assertIn("lonc hosts HOST", lines[-1])

    def test_one_host(self) -> None:
        """A problem of one host is shown in full, with advice; a single host is singular."""
        lines = self.shown(refused(1))
        self.assertIn("  1 host: 1 up, 0 untried, 0 DEAD, 0 unproven, 0 paused", lines)
        self.assertRegex(lines[-2], r"^warning  h0 DEAD: refused: nobody listens there  \(since")
        self.assertIn("lonc hosts h0; lonc retry h0 (host-dead)", lines[-1])

    def test_most_lost_first(self) -> None:
        """The hosts named in a line are those that lost most requests."""
        found = [attrs.evolve(each, lost=lost) for lost, each in enumerate(refused(39))]
        (group,) = by_cause(found)
        self.assertEqual(group.subjects(2), "h38, h37, … 37 more")

    def test_asks_for_no_host(self) -> None:
        """Only totals and problems are requested, not the status of each host."""

        class Lonc:
            async def problems(self) -> list[Problem]:
                return refused(3)

            async def about(self) -> DaemonStatus:
                return a_daemon()

        command: Any = status.callback
        asked = Deferred.fromCoroutine(command.__wrapped__(Lonc(), True, False, False))
        self.assertEqual(self.successResultOf(asked), 1)

    def test_fits(self) -> None:
        """It fits into any terminal of 8 lines or more; the number of omitted lines is shown."""
        many = [problem(kind, f"{kind}-1", "x" * 70) for kind in KINDS] + refused(300)
        for width, height in ((80, 24), (80, 40), (40, 24), (120, 60), (20, 8), (1, 10)):
            lines = self.shown(many, width, height)
            self.assertLess(len(lines), height, (width, height))
            self.assertLessEqual(max(map(len, lines)), width)
        self.assertRegex(self.shown(many, 80, 12)[-1], r"^\d+ more: lonc status --all$")

    def test_all(self) -> None:
        """With --all, each problem has its own lines."""
        lines = self.shown(refused(100), every=True)
        self.assertEqual(len([line for line in lines if "DEAD: refused" in line]), 100)


class MonitoringTests(StatusCase):
    """``--monitoring``: a line for Nagios and similar programs."""

    def test_well(self) -> None:
        """Without problems: the number of hosts, and the performance data."""
        line = monitored("ok", [], {"hosts": 1, "requests": 7})
        self.assertEqual(line, "LONC OK - 1 host | hosts=1 requests=7c")

    def test_ill(self) -> None:
        """Problems, except for notes; texts cannot end the line or begin the performance data."""
        problems = [
            *refused(2),
            problem("delayed-kept", "", "2 are | kept\n"),
            problem("host-paused", "h", "paused"),
        ]
        line = monitored("warning", by_cause(problems), {"hosts": 3})
        self.assertEqual(line, "LONC WARNING - 2 hosts DEAD: refused; 2 are / kept\\n | hosts=3")
