"""What an administrator is told to look at."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lonc.report.judgement import MANY, summary, totals
from lonc.report.problems import Problem, state, worst_first
from lonc.report.status import HostStatus
from lonc.report.units import clock_time
from lonc.test.fixtures.statuses import NOW, a_daemon, a_status, judge


def several(*bad: HostStatus) -> list[HostStatus]:
    """Give some hosts, and six that are well beside them."""
    return [*bad, *(a_status(f"well{number}") for number in range(6))]


class JudgementTests(SynchronousTestCase):
    """Each kind of finding, and what it makes of the whole."""

    def judge(self, *hosts: HostStatus, **daemon: Any) -> tuple[str, list[Problem]]:
        """Return the state and the findings."""
        found = worst_first(judge(a_daemon(**daemon), several(*hosts), NOW))
        return state(found), found

    def test_well(self) -> None:
        """There is nothing to say."""
        self.assertEqual(self.judge(), ("ok", []))

    def test_dead_host(self) -> None:
        """It is named, with what failed and since when."""
        failure = {"what": "nobody listens there", "when": NOW - 5.0}
        dead = a_status("msu", state="DEAD", since=NOW - 4.0, last_failure=failure)
        level, [finding] = self.judge(dead)
        self.assertEqual((level, finding.level, finding.host), ("warning", "warning", "msu"))
        self.assertEqual((finding.what, finding.since), ("DEAD: nobody listens there", NOW - 4.0))
        self.assertIn("lonc retry msu", finding.advice)

    def test_causes(self) -> None:
        """What a DEAD host's problem is called, and the advice, fits what has failed."""
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
        """One that must not be DEAD is critical, and comes first."""
        level, found = self.judge(a_status("msu", state="DEAD"), a_status("own", state="DEAD"))
        self.assertEqual((level, [each.host for each in found]), ("critical", ["own", "msu"]))

    def test_half_of_the_hosts(self) -> None:
        """The fault is then rather here."""
        dead = [a_status(f"dead{n}", state="DEAD", since=NOW - 9.0) for n in range(MANY)]
        others = [a_status(f"up{n}") for n in range(MANY)]
        found = worst_first(judge(a_daemon(), [*dead, *others], NOW))
        self.assertEqual((state(found), found[0].host), ("critical", ""))
        self.assertEqual(found[0].what, f"{MANY} of {2 * MANY} hosts are DEAD")
        for few in ([*dead, *others, a_status("c")], dead[1:]):
            self.assertEqual(state(judge(a_daemon(), few, NOW)), "warning")

    def test_name(self) -> None:
        """A host that serves on though its name cannot be resolved; a DEAD one is DEAD."""
        fields = {"name_failure": "try again", "name_failing_since": NOW - 7.0}
        level, [finding] = self.judge(a_status("msu", **fields))
        self.assertEqual((level, finding.kind, finding.since), ("warning", "host-name", NOW - 7.0))
        self.assertEqual(finding.what, "has a name that cannot be resolved: try again")
        _, [finding] = self.judge(a_status("msu", state="DEAD", **fields))
        self.assertNotEqual(finding.kind, "host-name")

    def test_unproven_host(self) -> None:
        """One that was DEAD, and has not shown yet that it is well."""
        level, [finding] = self.judge(a_status("msu", state="unproven"))
        self.assertEqual((level, finding.host), ("warning", "msu"))

    def test_waiting(self) -> None:
        """A wait is worth a look when it is long."""
        self.assertEqual(self.judge(a_status("msu", waiting=3, oldest_waiter=9.9))[0], "ok")
        level, [finding] = self.judge(a_status("msu", waiting=3, oldest_waiter=20.0))
        self.assertEqual((level, finding.since), ("warning", NOW - 20.0))

    def test_silent(self) -> None:
        """A host that owes an answer for long, and has answered nothing since it was asked."""
        fields = {"busy": 2, "oldest_owed": 14.0}
        level, [problem] = self.judge(a_status("msu", last_answer=NOW - 15.0, **fields))
        self.assertEqual((level, problem.kind, problem.since), ("warning", "host-silent", NOW - 14))
        self.assertEqual(problem.what, "has not answered for 14 s, with 2 requests outstanding")
        _, [problem] = self.judge(a_status("own", **fields))
        self.assertEqual(problem.level, "critical")
        self.assertEqual(self.judge(a_status("msu", last_answer=NOW - 13.0, **fields))[0], "ok")
        self.assertEqual(self.judge(a_status("msu", busy=1, oldest_owed=9.0))[0], "ok")

    def test_losses(self) -> None:
        """Requests that are lost: three or more, and more than one in fifty; not those expected."""

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

    def test_losses_of_the_dead(self) -> None:
        """A host that is DEAD loses all; that is no problem beside."""
        fields = {"requests_lately": 9, "con_lost_lately": {"timeout": 9}}
        _, [problem] = self.judge(a_status("msu", state="DEAD", **fields))
        self.assertEqual(problem.kind, "host-dead")

    def test_another_lond(self) -> None:
        """A lond that does not serve the host is another's: the address is wrong."""
        fields = {"requests_lately": 9, "con_lost_lately": {"not_served": 1}}
        level, [problem] = self.judge(a_status("msu", **fields))
        self.assertEqual((level, problem.kind), ("warning", "host-leads-elsewhere"))
        self.assertEqual(problem.what, "leads to another lond, which does not serve it")
        for why in ("does not serve it", "does not support sethost, and serves l1"):
            _, [problem] = self.judge(a_status("msu", not_served=f"the lond {why}"))
            self.assertEqual(problem.what, f"leads to another lond, which {why}")

    def test_out_of_step(self) -> None:
        """Answers that may have reached the wrong clients are critical for an hour."""
        for ago, level in ((3599.0, "critical"), (3601.0, "ok")):
            self.assertEqual(self.judge(a_status("msu", astray=3, last_astray=NOW - ago))[0], level)

    def test_slow(self) -> None:
        """It is slow where it takes long and longer than usual; one of these is only told."""

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

    def test_delayed(self) -> None:
        """So is a delayed request that lies there for ten minutes."""
        self.assertEqual(self.judge(a_status("msu", delayed=2, oldest_delayed=599.0))[0], "ok")
        self.assertEqual(self.judge(a_status("msu", delayed=2, oldest_delayed=601.0))[0], "warning")

    def test_paused(self) -> None:
        """What somebody did on purpose is told, and makes nothing unwell."""
        paused = {"by": "root", "reason": "disk", "since": NOW - 1.0, "until": 0.0, "fail": False}
        level, [finding] = self.judge(a_status("msu", paused=paused))
        self.assertEqual((level, finding.what), ("ok", "paused by root: disk"))
        _, [finding] = self.judge(a_status("msu", paused=paused | {"until": NOW + 60.0}))
        self.assertEqual(finding.what, f"paused by root until {clock_time(NOW + 60.0)}: disk")

    def test_certificate(self) -> None:
        """It is to be renewed before it ends."""
        self.assertEqual(self.judge(certificate="/c.pem", certificate_days=21.5)[0], "ok")
        self.assertEqual(self.judge(certificate="/c.pem", certificate_days=20.5)[0], "warning")
        _, [finding] = self.judge(certificate="/c.pem", certificate_days=-1.0)
        self.assertIn("has expired", finding.what)

    def test_fault(self) -> None:
        """A fault inside lonc is a warning for an hour."""
        self.assertEqual(self.judge(faults=1, last_fault=NOW - 3599.0)[0], "warning")
        self.assertEqual(self.judge(faults=1, last_fault=NOW - 3601.0)[0], "ok")

    def test_kept(self) -> None:
        """Each kept request is a change that somebody believes to be made."""
        self.assertEqual(self.judge(kept=1)[0], "warning")

    def test_refused(self) -> None:
        """Clients that find no place are critical for a while."""
        self.assertEqual(self.judge(refused=4, last_refused=NOW - 299.0)[0], "critical")
        self.assertEqual(self.judge(refused=4, last_refused=NOW - 301.0)[0], "ok")


class SummaryTests(SynchronousTestCase):
    """What programs read."""

    def test_departed(self) -> None:
        """What hosts have done that have left stays in what is counted since the start."""
        gone = {"requests": 10, "answers": 8, "con_lost": 2}
        counts = totals([a_status("a", requests=3, answers=2, con_lost={"dead": 1})], gone, 0)
        told = [counts[name] for name in ("requests", "answers", "con_lost")]
        self.assertEqual(told, [13, 10, 3])

    def test_fields(self) -> None:
        """Names stay; numbers are numbers."""
        hosts = several(
            a_status("a", state="DEAD", requests=3, answers=2, con_lost={"dead": 1}, delayed=4)
        )
        daemon = a_daemon(totals=totals(hosts, {}, 5))
        told = json.loads(json.dumps(summary(daemon, judge(daemon, hosts, NOW))))
        names = ["schema", "version", "pid", "since", "host_id", "config_file", "state"]
        self.assertEqual(list(told), [*names, "findings", "totals"])
        self.assertEqual(
            set(told["findings"][0]),
            {"kind", "level", "host", "subject", "what", "since", "advice", "lost"},
        )
        names = [
            "hosts",
            "up",
            "untried",
            "dead",
            "unproven",
            "paused",
            "clients",
            "connections",
            "waiting",
        ]
        names += ["requests", "answers", "con_lost", "delayed", "kept"]
        self.assertEqual(list(told["totals"]), names)
        counts = {"hosts": 7, "up": 6, "dead": 1, "requests": 3, "answers": 2, "con_lost": 1}
        self.assertLessEqual((counts | {"delayed": 4, "kept": 5}).items(), told["totals"].items())
