"""
Finds the problems that the status of the daemon and its hosts shows.

This module is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from lonc.report.kinds import Level
from lonc.report.problems import Problem, problem, state, worst_first
from lonc.report.recent import ENOUGH
from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.units import clock_time, count, duration
from lonc.wire.request import Cause

#: Number of DEAD hosts that, if they are at least half of all, indicates a cause on this machine.
MANY: Final = 3

#: Seconds after which a waiting request is a problem: usually requests do not wait at all, and
#: a person who waits for a page has given up by then.
WAITS_LONG: Final = 10.0

#: Seconds after which a delayed request is a problem: a restarted host is back by then.
DELAYED_LONG: Final = 600.0

DAY: Final = 86_400.0  #: seconds

#: Days before its expiry at which a certificate should be renewed.
CERTIFICATE_DAYS: Final = 21.0

#: A host is slow if its 99th percentile is this many times its usual median, and longer than the
#: settings allow. Without a usual median, a median of this many seconds is worth a note.
SLOWER: Final = 4.0
SLOW_MEDIAN: Final = 2.0

#: Seconds from which a 99th percentile that is slower than usual is worth a note: nobody notices
#: the difference between a thousandth and a hundredth of a second.
NOTICED: Final = 1.0

#: A host loses requests if this many, and this share of all, were lost in five minutes: a lond that
#: is restarted may lose the ten in flight, which does not matter if there are many others.
LOST: Final = 3
LOST_SHARE: Final = 0.02

#: Causes of ``con_lost`` that somebody has requested, or that other problems report.
EXPECTED: Final = frozenset(
    {Cause.DEAD.value, Cause.PAUSED.value, Cause.CLOSED.value, Cause.TOO_MANY_CLIENTS.value}
)

#: Seconds for which refused clients are a problem.
REFUSED_LATELY: Final = 300.0

#: Seconds for which answers that may have reached the wrong clients, and faults inside lonc, are a
#: problem: long enough to be noticed by occasional checks.
SHOWN_LONG: Final = 3600.0

#: Beginning of the text of a host's last failure -> the kind of problem if it is DEAD.
CAUSES: Final = {
    "refused": "host-refused",
    "unreachable": "host-unreachable",
    "timed out: no answer": "host-silent",
    "timed out: no end of the handshake": "host-silent",
    "timed out": "host-timed-out",
    "look-up failed": "host-look-up-failed",
    "bad handshake: refused": "host-unknown-there",
    "bad handshake": "host-bad-handshake",
    "leads to another lond": "host-leads-elsewhere",
    "broke": "host-broke",
}


def judge_daemon(
    daemon: DaemonStatus, hosts: Sequence[HostStatus], now: float
) -> Iterator[Problem]:
    """Yield the problems of the daemon, or of all hosts together."""
    dead = sum(host.state == "DEAD" for host in hosts)
    if dead >= MANY and 2 * dead >= len(hosts):
        yield problem(
            "many-dead",
            "",
            f"{dead} of {len(hosts)} hosts are DEAD",
            since=max(host.since for host in hosts if host.state == "DEAD"),
        )
    if daemon.last_refused and now - daemon.last_refused < REFUSED_LATELY:
        what = f"clients were turned away, {daemon.refused} since the start"
        yield problem("clients-refused", "", what, since=daemon.last_refused)
    if daemon.certificate:
        file = daemon.certificate_first or daemon.certificate
        yield from certificate_problem(file, daemon.certificate_days)
    if daemon.last_fault and now - daemon.last_fault < SHOWN_LONG:
        what = f"{count(daemon.faults, 'fault')} inside lonc since the start"
        yield problem("lonc-fault", "", what, since=daemon.last_fault)
    if daemon.kept:
        what = f"{count(daemon.kept, 'delayed request')} failed"
        yield problem("delayed-kept", "", what)


def certificate_problem(file: str, days: float) -> Iterator[Problem]:
    """
    Yield a problem if a certificate expires soon or has expired.

    :param days: days until it expires; negative afterwards.
    """
    if days <= 0.0:
        yield problem("certificate-ended", file, f"the certificate {file} has expired")
    elif days < CERTIFICATE_DAYS:
        left = duration(days * DAY) if days < 2.0 else f"{days:.0f} days"
        yield problem("certificate-ends", file, f"the certificate {file} expires in {left}")


def judge_host(host: HostStatus, daemon: DaemonStatus, now: float) -> Iterator[Problem]:
    """Yield the problems of a host."""
    lost = sum(host.con_lost_lately.values())
    return (attrs.evolve(each, lost=lost) for each in _judge_host(host, daemon, now))


def _judge_host(host: HostStatus, daemon: DaemonStatus, now: float) -> Iterator[Problem]:
    watched = host.host_id in daemon.watch
    name, why = host.host_id, str(host.last_failure.get("what", ""))
    since = host.since or None
    level: Level = "critical" if watched else "warning"
    if host.state == "DEAD":
        what = "DEAD" + (f": {why}" if why else "")
        yield problem(_cause(why), name, what, level=level, since=since)
    elif host.state == "unproven":
        what = "does not answer, and is being probed" + (f": {why}" if why else "")
        yield problem("host-unproven", name, what, since=since)
    elif host.oldest_owed > WAITS_LONG and now - host.last_answer > host.oldest_owed:
        open_requests = count(host.busy, "request")
        what = (
            f"has not answered for {duration(host.oldest_owed)}, with {open_requests} outstanding"
        )
        since = now - host.oldest_owed
        yield problem("host-silent", name, what, level=level, since=since)
    elif host.name_failure:
        what = f"has a name that cannot be resolved: {host.name_failure}"
        yield problem("host-name", name, what, since=host.name_failing_since)
    if host.last_astray and now - host.last_astray < SHOWN_LONG:
        what = f"was out of step: up to {count(host.astray, 'answer')} reached the wrong clients"
        yield problem("host-out-of-step", name, what, since=host.last_astray)
    if not host.ping_tells:
        what = "answers ping differently or not at all: its connections are replaced more often"
        yield problem("host-ping", name, what)
    yield from _losses(host)
    yield from _slowness(host, daemon.slow_answer)
    if host.paused:
        by, reason = host.paused.get("by", "?"), host.paused.get("reason", "")
        until = host.paused.get("until")
        end = f" until {clock_time(until)}" if until else ""
        what = f"paused by {by}{end}" + (f": {reason}" if reason else "")
        yield problem("host-paused", name, what, since=host.paused.get("since"))
    if host.waiting and host.oldest_waiter > WAITS_LONG:
        waiting = count(host.waiting, "request")
        what = f"has {waiting} waiting, the oldest for {duration(host.oldest_waiter)}"
        yield problem("host-waits", name, what, since=now - host.oldest_waiter)
    if host.delayed and host.oldest_delayed > DELAYED_LONG:
        delayed = count(host.delayed, "delayed request")
        what = f"has {delayed} not sent, the oldest for {duration(host.oldest_delayed)}"
        yield problem("delayed-old", name, what, since=now - host.oldest_delayed)


def _losses(host: HostStatus) -> Iterator[Problem]:
    """Yield problems with requests lost in the last five minutes."""
    if host.state == "DEAD":
        return
    lost = {cause: count for cause, count in host.con_lost_lately.items() if cause not in EXPECTED}
    number = sum(lost.values())
    if host.not_served or lost.get(Cause.NOT_SERVED.value):
        why = host.not_served.removeprefix("the lond ") or "does not serve it"
        what = f"leads to another lond, which {why}"
        yield problem("host-leads-elsewhere", host.host_id, what)
    elif number >= LOST and number >= LOST_SHARE * host.requests_lately:
        causes = ", ".join(
            f"{lost[each]} {each}" for each in sorted(lost, key=lost.__getitem__)[::-1]
        )
        what = (
            f"lost {number} of {host.requests_lately} requests of the last five minutes: {causes}"
        )
        yield problem("host-loses", host.host_id, what)


def _slowness(host: HostStatus, limit: float) -> Iterator[Problem]:
    """Yield problems with the durations of requests in the last five minutes."""
    took = host.total
    if took["count"] < ENOUGH:
        return
    slowest, median, usual = took["p99"], took["p50"], host.usual
    slow = slowest > limit
    slower = usual > 0.0 and slowest > SLOWER * usual
    what = f"took {duration(slowest)} for its slowest requests of the last five minutes"
    what += f"; {duration(usual)} is usual" if usual else f"; the median is {duration(median)}"
    if slow and slower:
        yield problem("host-slow", host.host_id, what)
    elif slow or (slower and slowest > NOTICED) or (not usual and median > SLOW_MEDIAN):
        yield problem("host-slow", host.host_id, what, level="note")


def _cause(failure: str) -> str:
    """Return the kind of problem of a DEAD host."""
    return next((kind for begin, kind in CAUSES.items() if failure.startswith(begin)), "host-dead")


def _machine(host: HostStatus) -> str:
    """Return a machine's key: hosts with the same key share its connections."""
    return host.machine or host.host_id


def totals(
    hosts: Sequence[HostStatus], gone: Mapping[str, int], kept: int, unknown: int = 0
) -> Mapping[str, int]:
    """
    Add up all hosts.

    :param gone: counts since the start of hosts that are no longer served.
    :param kept: number of delayed requests that were set aside.
    :param unknown: number of delayed requests for hosts that are not in the table.
    """
    return {
        "hosts": len(hosts),
        "up": sum(host.state == "up" and host.tried for host in hosts),
        "untried": sum(not host.tried for host in hosts),
        "dead": sum(host.state == "DEAD" for host in hosts),
        "unproven": sum(host.state == "unproven" for host in hosts),
        "paused": sum(bool(host.paused) for host in hosts),
        "clients": sum(host.clients for host in hosts),
        "connections": sum({_machine(host): host.connections for host in hosts}.values()),
        "waiting": sum(host.waiting for host in hosts),
        "requests": sum(host.requests for host in hosts) + gone.get("requests", 0),
        "answers": sum(host.answers for host in hosts) + gone.get("answers", 0),
        "con_lost": sum(host.lost for host in hosts) + gone.get("con_lost", 0),
        "delayed": sum(host.delayed for host in hosts) + unknown,
        "kept": kept,
    }


def finding(told: Problem) -> Mapping[str, object]:
    """Return a problem as plain values for JSON, under stable names."""
    fields = attrs.asdict(told) | {"host": told.host}
    del fields["number"]
    return fields


def summary(daemon: DaemonStatus, problems: Iterable[Problem]) -> Mapping[str, object]:
    """Return the content of ``lonc status --json``."""
    found = worst_first(problems)
    return {
        "schema": 1,
        "version": daemon.version,
        "pid": daemon.pid,
        "since": daemon.started,
        "host_id": daemon.host_id,
        "config_file": daemon.config_file,
        "state": state(found),
        "findings": [finding(each) for each in found],
        "totals": daemon.totals,
    }
