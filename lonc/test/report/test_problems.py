"""The list of what is wrong now."""

from __future__ import annotations

import glob
import os
import re

import attrs
from twisted.logger import LogEvent, formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lonc.config.table_fetcher import NOT_FETCHED
from lonc.daemon.supervisor import NOT_SERVED
from lonc.report.kinds import KINDS, LEVELS, TOLD
from lonc.report.problems import Problem, Problems, by_cause, problem, state, worst_first
from lonc.test.fixtures.beginnings import notes_of
from lonc.test.fixtures.source import PACKAGE, TREE, read


class ProblemsTests(SynchronousTestCase):
    """What is told stays until it is over."""

    def setUp(self) -> None:
        self.now = 100.0
        self.problems = Problems(lambda: self.now)

    def listed(self) -> list[tuple[str, str, str, float | None]]:
        """Return kind, subject, text and time of each."""
        return [(each.kind, each.subject, each.what, each.since) for each in self.problems]

    def noted(self) -> list[LogEvent]:
        """Return the events that will have been logged."""
        return notes_of(self).events

    def test_lasting(self) -> None:
        """Told again it has the new text, and goes on since the first time."""
        self.problems.tell("delayed-kept", "", "1 kept")
        self.now = 200.0
        self.problems.tell("delayed-kept", "", "2 kept")
        self.assertEqual(self.listed(), [("delayed-kept", "", "2 kept", 100.0)])

    def test_since_told(self) -> None:
        """Who knows better since when, says so."""
        self.problems.tell("delayed-kept", "", "1 kept", since=7.0)
        self.assertEqual(self.listed()[0][3], 7.0)
        self.problems.tell("delayed-kept", "", "1 kept", since=8.0)
        self.assertEqual(self.listed()[0][3], 8.0)

    def test_over(self) -> None:
        """What is over is gone, and begins anew when it comes back; others stay."""
        self.problems.tell("host-dead", "a", "DEAD")
        self.problems.tell("host-dead", "b", "DEAD")
        self.problems.over("host-dead", "a")
        self.problems.over("host-dead", "never told")
        self.assertEqual([each[1] for each in self.listed()], ["b"])
        self.now = 200.0
        self.problems.tell("host-dead", "a", "DEAD")
        self.assertEqual(self.listed()[1], ("host-dead", "a", "DEAD", 200.0))

    def test_replaced(self) -> None:
        """After a look, what it did not find is over; what it did not look for stays."""
        self.problems.tell("host-dead", "a", "DEAD")
        self.problems.tell("host-dead", "b", "DEAD")
        self.problems.tell("delayed-kept", "", "1 kept")
        self.now = 200.0
        found = [problem("host-dead", "b", "DEAD: refused"), problem("host-dead", "c", "DEAD")]
        self.problems.replace(found, {"host-dead", "host-unproven"})
        self.assertEqual(
            self.listed(),
            [
                ("host-dead", "b", "DEAD: refused", 100.0),
                ("delayed-kept", "", "1 kept", 100.0),
                ("host-dead", "c", "DEAD", 200.0),
            ],
        )

    def test_order(self) -> None:
        """The worst comes first, then the oldest; numbers tell which began first."""
        self.problems.tell("host-paused", "a", "paused")
        self.problems.tell("host-dead", "b", "DEAD")
        self.problems.tell("host-dead", "c", "DEAD", level="critical")
        self.problems.tell("host-dead", "d", "DEAD")
        self.assertEqual([each.subject for each in self.problems], ["c", "b", "d", "a"])
        self.assertEqual([each.number for each in self.problems], [3, 2, 4, 1])

    def test_unknown_kind(self) -> None:
        """A name that is in no table is a mistake of the program."""
        self.assertRaises(KeyError, self.problems.tell, "no-such-kind", "", "?")

    def test_lines(self) -> None:
        """The log has a line at the beginning and one at the end, and none in between."""
        events = self.noted()
        for what in ("3 wait", "4 wait"):
            self.problems.tell("host-waits", "msu", what)
        self.problems.over("host-waits", "msu")
        self.problems.over("host-waits", "msu")
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["msu: a problem: 3 wait (host-waits)", "msu: a problem is over: 4 wait (host-waits)"],
        )
        self.assertEqual([event["host_id"] for event in events], ["msu", "msu"])

    def test_no_lines(self) -> None:
        """Where who notices it has words of their own, it has no others."""
        events = self.noted()
        self.problems.tell("host-dead", "msu", "DEAD")
        self.problems.over("host-dead", "msu")
        self.assertEqual(events, [])


class KindTests(SynchronousTestCase):
    """What a problem has of its kind."""

    def test_level_and_advice(self) -> None:
        """They are those of the kind; the advice names the subject and its section."""
        told = problem("host-dead", "msu", "DEAD")
        self.assertEqual((told.level, told.host), ("warning", "msu"))
        self.assertIn("lonc retry msu", told.advice)
        self.assertTrue(told.advice.endswith(" (host-dead)"))

    def test_of_no_host(self) -> None:
        """A file is no host."""
        self.assertEqual(problem("certificate-ends", "/c.pem", "ends").host, "")

    def test_each_ends(self) -> None:
        """
        What is not looked for again and again, and over when it is not found, is ended by name; but
        for what only a restart of lonc can mend.
        """
        source = "".join(
            read(os.path.relpath(path, TREE))
            for path in glob.glob(os.path.join(PACKAGE, "**", "*.py"), recursive=True)
            if not path.startswith(os.path.join(PACKAGE, "test"))
        )
        by_name = set(re.findall(r'\.over\(\s*"([a-z-]+)"', source))
        for names in re.findall(r"problems\.replace\([\w.()]+, \(([^)]+)\)\)", source):
            by_name |= set(re.findall(r'"([a-z-]+)"', names))
        by_name |= {NOT_SERVED, NOT_FETCHED, "log-file"}
        self.assertEqual(set(TOLD) - by_name, {"no-idea"})
        self.assertEqual(by_name - set(KINDS), set())

    def test_documented(self) -> None:
        """Each kind is documented with its level."""
        if not os.path.exists(os.path.join(TREE, "docs")):
            raise SkipTest("the documentation is not here")
        rows = re.findall(
            rf"^   \* - ``([a-z-]+)``\n     - ({'|'.join(LEVELS)})$",
            read("docs", "states.rst"),
            re.MULTILINE,
        )
        self.assertEqual(sorted(rows), sorted((name, kind.level) for name, kind in KINDS.items()))

    def test_summed_up(self) -> None:
        """The worst decides; a note makes nothing unwell."""

        def found(*kinds: str) -> list[Problem]:
            return [problem(kind, "a", "") for kind in kinds]

        self.assertEqual(state([]), "ok")
        self.assertEqual(state(found("host-paused")), "ok")
        self.assertEqual(state(found("host-paused", "host-dead")), "warning")
        self.assertEqual(state(found("many-dead", "host-dead")), "critical")
        kinds = [each.kind for each in worst_first(found("host-paused", "many-dead", "host-dead"))]
        self.assertEqual(kinds, ["many-dead", "host-dead", "host-paused"])


class GroupTests(SynchronousTestCase):
    """Many problems on one screen."""

    def test_one_cause(self) -> None:
        """Hosts with one cause are one line, those that hurt most first; the rest is a number."""
        lost = {"a": 0, "b": 1, "c": 7, "d": 0}
        told = [problem("host-refused", each, "DEAD: refused") for each in lost]
        found = [attrs.evolve(each, lost=lost[each.subject]) for each in told]
        (group,) = by_cause(found)
        self.assertEqual(group.what, "4 hosts DEAD: refused")
        self.assertEqual(
            (group.subjects(3), group.subjects(4)), ("c, b, a, … 1 more", "c, b, a, d")
        )
        self.assertIn("lonc hosts HOST", group.advice)
        self.assertIn("(host-dead)", group.advice)

    def test_lines_of_files(self) -> None:
        """Names that have a comma themselves are parted by semicolons."""
        lines = [f"hosts.tab, line {number}" for number in (3, 5)]
        (group,) = by_cause([problem("table-row", each, each) for each in lines])
        self.assertEqual(group.subjects(2), "hosts.tab, line 3; hosts.tab, line 5")

    def test_alone(self) -> None:
        """One alone says all that there is to say of it."""
        (group,) = by_cause([problem("host-refused", "a", "DEAD: refused: no route")])
        self.assertEqual((group.what, group.subjects(3)), ("a DEAD: refused: no route", ""))
        self.assertIn("lonc hosts a", group.advice)

    def test_order(self) -> None:
        """The worst is first, then what most have; levels are not mixed."""
        found = [
            problem("delayed-kept", "", "2 kept"),
            *(problem("host-paused", each, "paused") for each in "ab"),
            *(problem("host-refused", each, "DEAD") for each in "cd"),
            problem("host-refused", "e", "DEAD", level="critical"),
        ]
        self.assertEqual(
            [(each.level, each.kind, len(each.members)) for each in by_cause(found)],
            [
                ("critical", "host-refused", 1),
                ("warning", "host-refused", 2),
                ("warning", "delayed-kept", 1),
                ("note", "host-paused", 2),
            ],
        )

    def test_nothing_in_common(self) -> None:
        """Files are a line each."""
        found = [problem("certificate-ends", each, f"{each} ends") for each in ("/a", "/b")]
        self.assertEqual([each.what for each in by_cause(found)], ["/a ends", "/b ends"])

    def test_of_files(self) -> None:
        """Lines of files are counted as what they are."""
        found = [problem("setting-unused", f"/a, line {n}", "no longer needed") for n in (1, 2)]
        (group,) = by_cause(found)
        self.assertEqual(group.what, "2 settings have no effect")
