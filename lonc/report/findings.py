"""
What an administrator should look at, and do: the same for the command, the page and monitoring.

This module judges what the daemon reports, and does nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.units import clock_time, duration

#: Seconds after which a waiting request is worth a look: the usual one does not wait at all, and
#: a person who waits for a page has given up by then.
WAITS_LONG: Final = 10.0

#: Seconds after which a delayed request is worth a look: a host that is restarted is back by then.
DELAYED_LONG: Final = 600.0

#: Days before its end at which a certificate should be renewed.
CERTIFICATE_DAYS: Final = 21.0

#: Seconds for which clients that were turned away are news.
REFUSED_LATELY: Final = 300.0

#: From the best to the worst. A note is something to know: it makes nothing unwell.
LEVELS: Final = ("note", "warning", "critical")


@attrs.frozen(kw_only=True)
class Finding:
    """
    Something to look at.

    :ivar level: one of :data:`LEVELS`.
    :ivar host: its host id; empty where it is about the daemon.
    :ivar what: what was found, for a person.
    :ivar since: since when, in Unix time; ``None`` where that is not known.
    :ivar advice: what to do, with the symptom's name on the page "when something is wrong".
    """

    level: str
    host: str = ""
    what: str
    since: float | None = None
    advice: str


def findings(daemon: DaemonStatus, hosts: Sequence[HostStatus], now: float) -> list[Finding]:
    """
    Return what an administrator should look at, the worst first.

    :param now: Unix time.
    """
    found = [*_of_daemon(daemon, hosts, now)]
    for host in hosts:
        found += _of_host(host, host.host_id in daemon.watch, now)
    return sorted(found, key=lambda each: -LEVELS.index(each.level))


def state(found: Sequence[Finding]) -> str:
    """Sum findings up: ``ok``, ``warning`` or ``critical``."""
    worst = max((LEVELS.index(each.level) for each in found), default=0)
    return LEVELS[worst] if worst else "ok"


def _of_daemon(daemon: DaemonStatus, hosts: Sequence[HostStatus], now: float) -> Iterator[Finding]:
    dead = sum(host.state == "DEAD" for host in hosts)
    if dead and 2 * dead >= len(hosts):
        yield Finding(
            level="critical",
            what=f"{dead} of {len(hosts)} hosts are DEAD",
            since=max(host.since for host in hosts if host.state == "DEAD"),
            advice="look at this machine's network, name server and certificate (many-dead)",
        )
    if daemon.last_refused and now - daemon.last_refused < REFUSED_LATELY:
        yield Finding(
            level="critical",
            what=f"clients were turned away, {daemon.refused} since the start",
            since=daemon.last_refused,
            advice="lonc clients shows who holds the places; loncMaxClients (clients-refused)",
        )
    if daemon.certificate and daemon.certificate_days < CERTIFICATE_DAYS:
        days = daemon.certificate_days
        ends = f"ends in {days:.0f} days" if days > 0.0 else "has ended"
        yield Finding(
            level="warning",
            what=f"the certificate {daemon.certificate} {ends}",
            advice="have it renewed, then lonc reload (certificate)",
        )
    if daemon.kept:
        one = daemon.kept == 1
        yield Finding(
            level="warning",
            what=f"{daemon.kept} delayed request{'' if one else 's'} could not be done and "
            f"{'is' if one else 'are'} kept",
            advice="lonc delayed kept shows them, with the answers (kept)",
        )
    if daemon.last_reload.get("outcome") == "failed":
        yield Finding(
            level="warning",
            what="the last reload failed: " + "; ".join(daemon.last_reload.get("changes", ())),
            since=daemon.last_reload.get("when"),
            advice="lonc check names file and line (reload-failed)",
        )


def _of_host(host: HostStatus, watched: bool, now: float) -> Iterator[Finding]:
    name, why = host.host_id, host.last_failure.get("what", "")
    since = host.since or None
    if host.state == "DEAD":
        yield Finding(
            level="critical" if watched else "warning",
            host=name,
            what="DEAD" + (f": {why}" if why else ""),
            since=since,
            advice=f"lonc hosts {name}; is its lond running? lonc retry {name} (host-dead)",
        )
    elif host.state == "unproven":
        yield Finding(
            level="warning",
            host=name,
            what="was DEAD and has not answered since" + (f": {why}" if why else ""),
            since=since,
            advice=f"it is being tried; lonc hosts {name} (host-unproven)",
        )
    if host.paused:
        by, reason = host.paused.get("by", "?"), host.paused.get("reason", "")
        until = host.paused.get("until")
        end = f" until {clock_time(until)}" if until else ""
        yield Finding(
            level="note",
            host=name,
            what=f"paused by {by}{end}" + (f": {reason}" if reason else ""),
            since=host.paused.get("since"),
            advice=f"lonc resume {name} (paused)",
        )
    if host.waiting and host.oldest_waiter > WAITS_LONG:
        yield Finding(
            level="warning",
            host=name,
            what=f"{host.waiting} request{' waits' if host.waiting == 1 else 's wait'}, the oldest "
            f"for {duration(host.oldest_waiter)}",
            since=now - host.oldest_waiter,
            advice=f"lonc hosts {name} shows where the time goes (slow-host)",
        )
    if host.delayed and host.oldest_delayed > DELAYED_LONG:
        yield Finding(
            level="warning",
            host=name,
            what=f"{host.delayed} delayed request{'' if host.delayed == 1 else 's'} not sent, the "
            f"oldest for {duration(host.oldest_delayed)}",
            since=now - host.oldest_delayed,
            advice=f"lonc delayed list {name} shows what the last try said (delayed-old)",
        )


def _machine(host: HostStatus) -> str:
    """Return what tells one machine from another: hosts on one share its connections."""
    return host.machine or host.host_id


def totals(daemon: DaemonStatus, hosts: Sequence[HostStatus]) -> Mapping[str, int]:
    """Sum all hosts up."""
    return {
        "hosts": len(hosts),
        "up": sum(host.state == "up" for host in hosts),
        "dead": sum(host.state == "DEAD" for host in hosts),
        "unproven": sum(host.state == "unproven" for host in hosts),
        "paused": sum(bool(host.paused) for host in hosts),
        "clients": sum(host.clients for host in hosts),
        "connections": sum({_machine(host): host.connections for host in hosts}.values()),
        "waiting": sum(host.waiting for host in hosts),
        "requests": sum(host.requests for host in hosts),
        "answers": sum(host.answers for host in hosts),
        "con_lost": sum(sum(host.con_lost.values()) for host in hosts),
        "delayed": sum(host.delayed for host in hosts),
        "kept": daemon.kept,
    }


def summary(daemon: DaemonStatus, hosts: Sequence[HostStatus], now: float) -> Mapping[str, Any]:
    """
    Give what ``lonc status`` says, as one object of plain values.

    :param now: Unix time.
    """
    found = findings(daemon, hosts, now)
    return {
        "schema": 1,
        "version": daemon.version,
        "pid": daemon.pid,
        "since": daemon.started,
        "host_id": daemon.host_id,
        "config_file": daemon.config_file,
        "state": state(found),
        "findings": [attrs.asdict(each) for each in found],
        "totals": totals(daemon, hosts),
    }
