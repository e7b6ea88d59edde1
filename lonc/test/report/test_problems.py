"""The list of current problems."""

from __future__ import annotations

import glob
import os
import re

import attrs
from twisted.logger import formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lonc.config.table_fetcher import NOT_FETCHED
from lonc.daemon.supervisor import NOT_SERVED
from lonc.report.kinds import KINDS, LEVELS, TOLD
from lonc.report.problems import Problem, Problems, by_cause, problem, state, worst_first
from lonc.test.fixtures.beginnings import notes_of
from lonc.test.fixtures.source import PACKAGE, TREE, read


class ProblemsTests(SynchronousTestCase):
    """Problems remain on the list until they are over."""

    def setUp(self) -> None:
        self.now = 100.0
        self.problems = Problems(lambda: self.now)

    def listed(self) -> list[tuple[str, str, str, float | None]]:
        """Return kind, subject, text and time of each."""
        return [(each.kind, each.subject, each.what, each.since) for each in self.problems]

    def test_lasting(self) -> None:
        """A problem that is reported again has the new text, and exists since the first time."""
        self.problems.tell("delayed-kept", "", "1 kept")
        self.now = 200.0
        self.problems.tell("delayed-kept", "", "2 kept")
        self.assertEqual(self.listed(), [("delayed-kept", "", "2 kept", 100.0)])
        for since in (7.0, 8.0):
            self.problems.tell("delayed-kept", "", "2 kept", since=since)
            self.assertEqual(self.listed(), [("delayed-kept", "", "2 kept", since)])
        self.assertRaises(KeyError, self.problems.tell, "no-such-kind", "", "?")

    def test_over(self) -> None:
        """A problem that is over is removed, and begins anew if it returns."""
        self.problems.tell("host-dead", "a", "DEAD")
        self.problems.tell("host-dead", "b", "DEAD")
        self.problems.over("host-dead", "a")
        self.problems.over("host-dead", "never told")
        self.assertEqual([each[1] for each in self.listed()], ["b"])
        self.now = 200.0
        self.problems.tell("host-dead", "a", "DEAD")
        self.assertEqual(self.listed()[1], ("host-dead", "a", "DEAD", 200.0))

    def test_replaced(self) -> None:
        """After a check, problems of its kinds that it did not find are over."""
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
        """The worst is first, then the oldest; the numbers are in order of beginning."""
        self.problems.tell("host-paused", "a", "paused")
        self.problems.tell("host-dead", "b", "DEAD")
        self.problems.tell("host-dead", "c", "DEAD", level="critical")
        self.problems.tell("host-dead", "d", "DEAD")
        self.assertEqual([each.subject for each in self.problems], ["c", "b", "d", "a"])
        self.assertEqual([each.number for each in self.problems], [3, 2, 4, 1])

    def test_logged(self) -> None:
        """The log has a line at the beginning and one at the end, if the kind is logged here."""
        events = notes_of(self)
        for what in ("3 wait", "4 wait"):
            self.problems.tell("host-waits", "msu", what)
            self.problems.tell("host-dead", "msu", "DEAD")
        for _ in range(2):
            self.problems.over("host-waits", "msu")
            self.problems.over("host-dead", "msu")
        self.assertEqual(
            [formatEvent(event) for event in events.events],
            ["msu: a problem: 3 wait (host-waits)", "msu: a problem is over: 4 wait (host-waits)"],
        )
        self.assertEqual([event["host_id"] for event in events.events], ["msu", "msu"])


class KindTests(SynchronousTestCase):
    """The kinds of problems."""

    def test_level_and_advice(self) -> None:
        """They are those of the kind; the advice names the subject and its section."""
        told = problem("host-dead", "msu", "DEAD")
        self.assertEqual((told.level, told.host), ("warning", "msu"))
        self.assertIn("lonc retry msu", told.advice)
        self.assertTrue(told.advice.endswith(" (host-dead)"))
        self.assertEqual(problem("certificate-ends", "/c.pem", "ends").host, "")

    def test_each_ends(self) -> None:
        """
        Problems that are not found by periodic checks are ended by name, except one that only a
        restart can end.
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
        """The worst problem determines the state, and a note does not."""

        def found(*kinds: str) -> list[Problem]:
            return [problem(kind, "a", "") for kind in kinds]

        self.assertEqual(state([]), "ok")
        self.assertEqual(state(found("host-paused")), "ok")
        self.assertEqual(state(found("host-paused", "host-dead")), "warning")
        self.assertEqual(state(found("many-dead", "host-dead")), "critical")
        kinds = [each.kind for each in worst_first(found("host-paused", "many-dead", "host-dead"))]
        self.assertEqual(kinds, ["many-dead", "host-dead", "host-paused"])


class GroupTests(SynchronousTestCase):
    """Grouping of problems by cause."""

    def test_one_cause(self) -> None:
        """Hosts with one cause are one line, first those with the most losses; some are named."""
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
        (group,) = by_cause(found[:1])
        self.assertEqual((group.what, group.subjects(3)), ("a DEAD: refused", ""))
        self.assertIn("lonc hosts a", group.advice)

    def test_files(self) -> None:
        """Lines of files are counted, and separated by semicolons; files are a line each."""
        for kind, subjects, told in (
            (
                "setting-unused",
                ("/a, line 3", "/a, line 5"),
                [("2 settings have no effect", "/a, line 3; /a, line 5")],
            ),
            ("certificate-ends", ("/a", "/b"), [("/a ends", ""), ("/b ends", "")]),
        ):
            groups = by_cause([problem(kind, each, f"{each} ends") for each in subjects])
            self.assertEqual([(each.what, each.subjects(2)) for each in groups], told)

    def test_order(self) -> None:
        """The worst is first, then the group with the most members; levels are not mixed."""
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
