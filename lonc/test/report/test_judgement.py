"""The problems that the status shows."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lonc.report.judgement import MANY, summary, totals
from lonc.report.kinds import KINDS
from lonc.report.problems import Problem, state, worst_first
from lonc.report.status import HostStatus
from lonc.report.units import clock_time
from lonc.test.fixtures.statuses import NOW, a_daemon, a_status, judge


def several(*bad: HostStatus) -> list[HostStatus]:
    """Return some hosts, and six more without problems."""
    return [*bad, *(a_status(f"well{number}") for number in range(6))]


class JudgementTests(SynchronousTestCase):
    """Each kind of problem, and the state of the whole."""

    def judge(self, *hosts: HostStatus, **daemon: Any) -> tuple[str, list[Problem]]:
        """Return the state and the problems."""
        found = worst_first(judge(a_daemon(**daemon), several(*hosts), NOW))
        return state(found), found

    def test_none(self) -> None:
        """If all is well, or nearly, there is no problem."""
        self.assertEqual(self.judge(), ("ok", []))
        for host in (
            {"waiting": 3, "oldest_waiter": 9.9},
            {"busy": 2, "oldest_owed": 14.0, "last_answer": NOW - 13.0},
            {"busy": 1, "oldest_owed": 9.0},
            {"astray": 3, "last_astray": NOW - 3601.0},
            {"delayed": 2, "oldest_delayed": 599.0},
        ):
            self.assertEqual(self.judge(a_status("msu", **host)), ("ok", []), host)
        for daemon in (
            {"certificate": "/c.pem", "certificate_days": 21.5},
            {"faults": 1, "last_fault": NOW - 3601.0},
            {"refused": 4, "last_refused": NOW - 301.0},
        ):
            self.assertEqual(self.judge(**daemon), ("ok", []), daemon)

    def test_host(self) -> None:
        """Each kind of problem with a host has its level, a text, and since when it exists."""
        failure = {"what": "nobody listens there", "when": NOW - 5.0}
        name = {"name_failure": "try again", "name_failing_since": NOW - 7.0}
        owes = {"busy": 2, "oldest_owed": 14.0, "last_answer": NOW - 15.0}
        paused = {"by": "root", "reason": "disk", "since": NOW - 1.0, "until": 0.0, "fail": False}
        until = f"paused by root until {clock_time(NOW + 60.0)}: disk"
        dead = {"state": "DEAD", "since": NOW - 4.0, "last_failure": failure, **name}
        for fields, kind, what, ago in (
            (dead, "host-dead", "DEAD: nobody listens there", 4.0),
            ({"state": "unproven"}, "host-unproven", "does not answer, and is being probed", None),
            (name, "host-name", "has a name that cannot be resolved: try again", 7.0),
            ({"waiting": 3, "oldest_waiter": 20.0}, "host-waits", "has 3 requests waiting", 20.0),
            (owes, "host-silent", "has not answered for 14 s, with 2 requests", 14.0),
            ({"astray": 3, "last_astray": NOW - 3599.0}, "host-out-of-step", "was out of", 3599.0),
            ({"delayed": 2, "oldest_delayed": 601.0}, "delayed-old", "has 2 delayed", 601.0),
            ({"paused": paused}, "host-paused", "paused by root: disk", 1.0),
            ({"paused": paused | {"until": NOW + 60.0}}, "host-paused", until, 1.0),
        ):
            whole, [found] = self.judge(a_status("msu", **fields))
            level = KINDS[kind].level
            self.assertEqual((found.kind, found.level, found.host), (kind, level, "msu"))
            self.assertEqual(found.since, ago and NOW - ago)
            self.assertEqual(whole, "ok" if level == "note" else level)
            self.assertTrue(found.what.startswith(what), found.what)

    def test_daemon(self) -> None:
        """Each kind of problem with the daemon has its level."""
        for fields, kind in (
            ({"certificate": "/c.pem", "certificate_days": 20.5}, "certificate-ends"),
            ({"certificate": "/c.pem", "certificate_days": -1.0}, "certificate-ended"),
            ({"faults": 1, "last_fault": NOW - 3599.0}, "lonc-fault"),
            ({"kept": 1}, "delayed-kept"),
            ({"refused": 4, "last_refused": NOW - 299.0}, "clients-refused"),
        ):
            whole, [found] = self.judge(**fields)
            self.assertEqual((found.kind, found.level), (kind, whole))
            self.assertEqual(whole, KINDS[kind].level)

    def test_causes(self) -> None:
        """Kind and advice of a DEAD host's problem depend on what has failed."""
        for what, kind, advice in (
            ("refused: nobody listens there", "host-refused", "is the lond running?"),
            ("timed out: no connection", "host-timed-out", "is the machine up, and the network?"),
            ("timed out: no answer after 60 s", "host-silent", "the lond hangs"),
            ("timed out: no end of the handshake", "host-silent", "the lond hangs"),
            ("look-up failed: what", "host-look-up-failed", "check the name server"),
            ("bad handshake: refused: what", "host-unknown-there", "needs a line for this machine"),
            ("bad handshake: what", "host-bad-handshake", "is it a lond"),
            ("leads to another lond", "host-leads-elsewhere", "correct the address"),
            ("broke: what", "host-broke", "is the lond running?"),
            ("what", "host-dead", "is the lond running?"),
        ):
            failure = {"what": what, "when": NOW}
            _, [problem] = self.judge(a_status("msu", state="DEAD", last_failure=failure))
            self.assertEqual(problem.kind, kind, what)
            self.assertIn(advice, problem.advice)

    def test_watched_host(self) -> None:
        """A host that must not be DEAD or silent is critical, and comes first."""
        silent = {"busy": 2, "oldest_owed": 14.0}
        for fields in ({"state": "DEAD"}, silent):
            level, found = self.judge(a_status("msu", **fields), a_status("own", **fields))
            self.assertEqual((level, [each.host for each in found]), ("critical", ["own", "msu"]))

    def test_half_of_the_hosts(self) -> None:
        """If many hosts, and at least half of all, are DEAD, that is a problem by itself."""
        dead = [a_status(f"dead{n}", state="DEAD", since=NOW - 9.0) for n in range(MANY)]
        others = [a_status(f"up{n}") for n in range(MANY)]
        found = worst_first(judge(a_daemon(), [*dead, *others], NOW))
        self.assertEqual((state(found), found[0].host), ("critical", ""))
        self.assertEqual(found[0].what, f"{MANY} of {2 * MANY} hosts are DEAD")
        for few in ([*dead, *others, a_status("c")], dead[1:]):
            self.assertEqual(state(judge(a_daemon(), few, NOW)), "warning")

    def test_losses(self) -> None:
        """Three lost requests, and one in fifty, are a problem, except expected ones."""

        def lost(requests: int, **causes: int) -> tuple[str, list[Problem]]:
            fields = {"requests_lately": requests, "con_lost_lately": causes}
            return self.judge(a_status("msu", **fields))

        self.assertEqual(lost(100, timeout=2, broken=1)[0], "warning")
        self.assertEqual(lost(2, timeout=2)[0], "ok")
        self.assertEqual(lost(150, timeout=2, broken=1)[0], "warning")
        self.assertEqual(lost(151, timeout=2, broken=1)[0], "ok")
        self.assertEqual(lost(9, paused=3, dead=2, closed=2, too_many_clients=2)[0], "ok")
        _, [problem] = lost(60, broken=1, timeout=56, paused=1)
        self.assertEqual(problem.kind, "host-loses")
        self.assertEqual(
            problem.what,
            "lost 57 of 60 requests of the last five minutes: 56 timeout, 1 broken",
        )
        fields = {"requests_lately": 9, "con_lost_lately": {"timeout": 9}}
        _, [problem] = self.judge(a_status("msu", state="DEAD", **fields))
        self.assertEqual(problem.kind, "host-dead")

    def test_another_lond(self) -> None:
        """If the lond does not serve the host, its address is wrong."""
        fields = {"requests_lately": 9, "con_lost_lately": {"not_served": 1}}
        level, [problem] = self.judge(a_status("msu", **fields))
        self.assertEqual((level, problem.kind), ("warning", "host-leads-elsewhere"))
        self.assertEqual(problem.what, "leads to another lond, which does not serve it")
        for why in ("does not serve it", "does not support sethost, and serves l1"):
            _, [problem] = self.judge(a_status("msu", not_served=f"the lond {why}"))
            self.assertEqual(problem.what, f"leads to another lond, which {why}")

    def test_slow(self) -> None:
        """Answers that take long, and longer than usual, are a problem; one of both is a note."""

        def judged(p50: float, p99: float, usual: float, count: int = 20) -> list[tuple[str, str]]:
            seconds = {"total": {"p50": p50, "p99": p99, "max": p99, "count": count}}
            _, found = self.judge(a_status("msu", seconds=seconds, usual=usual))
            return [(each.kind, each.level) for each in found]

        slow, told = [("host-slow", "warning")], [("host-slow", "note")]
        self.assertEqual(judged(1.0, 5.1, 1.2), slow)
        self.assertEqual(judged(1.0, 5.1, 1.2, count=19), [])
        self.assertEqual(judged(1.0, 4.9, 1.2), told)  # longer than usual
        self.assertEqual(judged(1.0, 5.1, 1.3), told)  # long, as usual
        self.assertEqual(judged(1.0, 4.9, 1.3), [])
        self.assertEqual(judged(0.001, 0.9, 0.001), [])  # nobody notices
        self.assertEqual(judged(2.1, 9.0, 0.0), told)  # nothing is usual yet
        self.assertEqual(judged(1.9, 9.0, 0.0), told)  # long, and nothing is usual yet
        self.assertEqual(judged(1.9, 4.9, 0.0), [])


class SummaryTests(SynchronousTestCase):
    """The content of ``lonc status --json``."""

    def test_departed(self) -> None:
        """Hosts that were removed are included in the counts since the start."""
        gone = {"requests": 10, "answers": 8, "con_lost": 2}
        counts = totals([a_status("a", requests=3, answers=2, con_lost={"dead": 1})], gone, 0)
        told = [counts[name] for name in ("requests", "answers", "con_lost")]
        self.assertEqual(told, [13, 10, 3])

    def test_fields(self) -> None:
        """The names of the fields are stable, and the numbers are numbers."""
        hosts = several(
            a_status("a", state="DEAD", requests=3, answers=2, con_lost={"dead": 1}, delayed=4),
            a_status("b", tried=False),
        )
        daemon = a_daemon(totals=totals(hosts, {}, 5))
        told = json.loads(json.dumps(summary(daemon, judge(daemon, hosts, NOW))))
        names = ["schema", "version", "pid", "since", "host_id", "config_file", "state"]
        self.assertEqual(list(told), [*names, "findings", "totals"])
        self.assertEqual(
            set(told["findings"][0]),
            {"kind", "level", "host", "subject", "what", "since", "advice", "lost"},
        )
        names = ["hosts", "up", "untried", "dead", "unproven", "paused", "clients", "connections"]
        names += ["waiting", "requests", "answers", "con_lost", "delayed", "kept"]
        self.assertEqual(list(told["totals"]), names)
        counts = {
            "hosts": 8,
            "up": 6,
            "dead": 1,
            "untried": 1,
            "requests": 3,
            "answers": 2,
            "con_lost": 1,
        }
        self.assertLessEqual((counts | {"delayed": 4, "kept": 5}).items(), told["totals"].items())
