"""What ``lonc status`` says."""

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
        """Hosts with one cause are one line: how many, which, and how many more."""
        lines = self.shown(refused(39))
        (line,) = [each for each in lines if "refused" in each]
        self.assertRegex(line, r"^warning  39 hosts DEAD: refused: h0, h1, .*, … \d+ more  \(since")
        self.assertLessEqual(len(line), 80)
        self.assertIn("lonc hosts HOST", lines[-1])

    def test_one_host(self) -> None:
        """One host is told of in full, with what to do about it."""
        lines = self.shown(refused(1))
        self.assertRegex(lines[-2], r"^warning  h0 DEAD: refused: nobody listens there  \(since")
        self.assertIn("lonc hosts h0; lonc retry h0 (host-dead)", lines[-1])

    def test_most_lost_first(self) -> None:
        """Of several hosts, those that lost most requests are named."""
        found = [attrs.evolve(each, lost=lost) for lost, each in enumerate(refused(39))]
        (group,) = by_cause(found)
        self.assertEqual(group.subjects(2), "h38, h37, … 37 more")

    def test_asks_for_no_host(self) -> None:
        """Its numbers and problems are asked for, and not what each of thousands of hosts does."""

        class Lonc:
            async def problems(self) -> list[Problem]:
                return refused(3)

            async def about(self) -> DaemonStatus:
                return a_daemon()

        command: Any = status.callback
        asked = Deferred.fromCoroutine(command.__wrapped__(Lonc(), True, False, False))
        self.assertEqual(self.successResultOf(asked), 1)

    def test_fits(self) -> None:
        """It fits any terminal of 8 lines or more; what had no room is counted."""
        many = [problem(kind, f"{kind}-1", "x" * 70) for kind in KINDS] + refused(300)
        for width, height in ((80, 24), (80, 40), (40, 24), (120, 60), (20, 8), (1, 10)):
            lines = self.shown(many, width, height)
            self.assertLess(len(lines), height, (width, height))
            self.assertLessEqual(max(map(len, lines)), width)
        self.assertRegex(self.shown(many, 80, 12)[-1], r"^\d+ more: lonc status --all$")

    def test_all(self) -> None:
        """With --all each has its own lines, however many these are."""
        lines = self.shown(refused(100), every=True)
        self.assertEqual(len([line for line in lines if "DEAD: refused" in line]), 100)

    def test_plural(self) -> None:
        """One is one."""
        self.assertIn(
            "  1 host: 1 up, 0 untried, 0 DEAD, 0 unproven, 0 paused", self.shown(refused(1))
        )


class MonitoringTests(StatusCase):
    """``--monitoring``: a line for Nagios and its kin."""

    def test_well(self) -> None:
        """All is well: how many hosts, and the numbers."""
        line = monitored("ok", [], {"hosts": 1, "requests": 7})
        self.assertEqual(line, "LONC OK - 1 host | hosts=1 requests=7c")

    def test_ill(self) -> None:
        """What is wrong, but for notes; no text ends the line or begins the numbers."""
        problems = [
            *refused(2),
            problem("delayed-kept", "", "2 are | kept\n"),
            problem("host-paused", "h", "paused"),
        ]
        line = monitored("warning", by_cause(problems), {"hosts": 3})
        self.assertEqual(line, "LONC WARNING - 2 hosts DEAD: refused; 2 are / kept\\n | hosts=3")
