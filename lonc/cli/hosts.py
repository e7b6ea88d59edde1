"""The hosts, and details of one of them: ``lonc hosts``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs
import click
from rich.text import Text

from lonc.cli.arguments import any_host, json_option, limit_option, reverse_option, sort_option
from lonc.cli.tables import STYLES, Column, as_json, console, numbers, ordered, print_line, show
from lonc.cli.target import asks
from lonc.control.client import ManagementClient
from lonc.report.judgement import finding
from lonc.report.kinds import LEVELS
from lonc.report.problems import Problem, by_host
from lonc.report.records import ConnectionStatus
from lonc.report.status import HostStatus
from lonc.report.units import ago, clock_time, duration, measured
from lonc.wire.printable import printable

#: The states of a row, the worst first.
STATES: Final = ("DEAD", "unproven", "stopping", "paused", "up", "untried")


@attrs.frozen
class Row:
    """
    A host in a listing.

    :ivar host: its status.
    :ivar problems: its problems, the worst first.
    """

    host: HostStatus
    problems: Sequence[Problem]

    @property
    def state(self) -> str:
        """One of :data:`STATES`."""
        return self.host.shown

    @property
    def reason(self) -> str:
        """Its problems, without repeating its state."""
        return "; ".join(each.what.removeprefix(f"{self.state}: ") for each in self.problems)

    @property
    def badness(self) -> tuple[int, int, int, int, int, str]:
        """A sort key that puts the worst first."""
        level = LEVELS.index(self.problems[0].level) if self.problems else -1
        state = STATES.index(self.state)
        lately = sum(self.host.con_lost_lately.values())
        return -level, state, -lately, -self.host.lost, -self.host.waiting, self.host.host_id


def rows(hosts: Iterable[HostStatus], problems: Iterable[Problem]) -> list[Row]:
    """Combine hosts and their problems."""
    wrong = by_host(problems)
    return [Row(host, wrong.get(host.host_id, [])) for host in hosts]


HOST_COLUMNS: Final[Sequence[Column[Row]]] = (
    Column("host", lambda row: row.host.host_id),
    Column("state", lambda row: row.state, order=lambda row: row.badness),
    numbers("conns", 6, lambda row: row.host.connections),
    numbers("busy", 4, lambda row: row.host.busy),
    numbers("waiting", 8, lambda row: row.host.waiting),
    numbers("clients", 3, lambda row: row.host.clients),
    numbers("p50", 5, lambda row: row.host.total["p50"], measured),
    numbers("p99", 7, lambda row: row.host.total["p99"], measured),
    numbers("requests", 3, lambda row: row.host.requests),
    numbers("con_lost", 8, lambda row: row.host.lost),
    numbers("delayed", 6, lambda row: row.host.delayed),
    Column("mode", lambda row: row.host.mode or "-", 2),
    Column("lond", lambda row: row.host.lond_version or "-", 1),
    Column("reason", lambda row: row.reason, least=30),
)


@click.command()
@any_host
@json_option
@click.option(
    "--state", "states", type=click.Choice(STATES), multiple=True, help="Only hosts in this state."
)
@click.option("--problems", "ill", is_flag=True, help="Only hosts with a problem.")
@sort_option("state")
@reverse_option
@limit_option
@asks
async def hosts(
    lonc: ManagementClient,
    host: str,
    wants_json: bool,
    states: Sequence[str],
    ill: bool,
    sort: str,
    reverse: bool,
    limit: int | None,
) -> None:
    """List the hosts, the worst first; or show HOST in detail."""
    every = rows(await lonc.hosts(), await lonc.problems())
    chosen = [
        row
        for row in every
        if (not host or row.host.host_id == host)
        and (not states or row.state in states)
        and (not ill or row.problems)
    ]
    if host and all(row.host.host_id != host for row in every):
        raise click.ClickException(f"{printable(host)} is not in hosts.tab")
    chosen = ordered(chosen, HOST_COLUMNS, sort, reverse)[:limit]
    connections = await lonc.connections(host) if host else []
    if wants_json:
        objects = [_as_object(row) for row in chosen]
        as_json(hosts=objects, **({"connections": connections} if host else {}))
    elif host and chosen:
        out = console()
        for line in about(chosen[0], connections, time.time()):
            print_line(out, line)
    else:
        show(chosen, HOST_COLUMNS, "No host matches." if every else "hosts.tab has no host.")


def _as_object(row: Row) -> Mapping[str, object]:
    return attrs.asdict(row.host) | {"problems": [finding(each) for each in row.problems]}


def about(row: Row, connections: Sequence[ConnectionStatus], now: float) -> Iterator[Text]:
    """Yield lines with the details of a host."""
    host = row.host
    title = Text(f"{printable(host.host_id)} is ")
    title.append(row.state, style=STYLES.get(row.state, ""))
    since = host.paused["since"] if row.state == "paused" else host.since
    yield title.append(f" since {clock_time(since)}" if since else "")
    for wrong in row.problems:
        line = Text("  ").append(wrong.level, style=STYLES[wrong.level])
        yield line.append(f"  {printable(wrong.what)}")
        yield Text(f"    {printable(wrong.advice)}", style="dim")
    for name, fact in _facts(host, now).items():
        line = Text("  ").append(f"{name:<14}", style="bold")
        yield line.append(printable(fact))
    for each in connections:
        line = Text("  ").append(f"{'connection':<14}", style="bold")
        yield line.append(f"{each.state} for {duration(each.seconds)}, made {ago(each.since, now)}")
    if host.seconds:
        yield Text("\n  of the last five minutes")
        yield Text(f"  {'':<6}{'median':>9}{'p99':>11}{'longest':>10}", style="bold")
        for what, times in host.seconds.items():
            told = f"  {what:<6}{measured(times['p50']):>9}{measured(times['p99']):>11}"
            yield Text(told + f"{measured(times['max']):>10}")


def _facts(host: HostStatus, now: float) -> dict[str, str]:
    owed = f"; oldest outstanding request: {duration(host.oldest_owed)}" if host.oldest_owed else ""
    waits = f"{host.waiting} waiting, the oldest for {duration(host.oldest_waiter)}"
    lost = ", ".join(f"{number} {cause}" for cause, number in host.con_lost.items() if number)
    failure = host.last_failure
    probe = f", next probe in {duration(host.next_probe)}" if host.next_probe >= 0.0 else ""
    age = f", the oldest is {duration(host.oldest_delayed)} old" if host.oldest_delayed else ""
    facts = {
        "lond": f"version {host.lond_version or 'unknown'}, mode {host.mode or 'not yet known'}",
        "connections": f"{host.connecting} connecting, {host.handshaking} in the handshake, "
        f"{host.idle} idle, {host.busy} busy{owed}",
        "queue": waits if host.waiting else "nobody waits",
        "clients": f"{host.clients}",
        "requests": f"{host.requests}, {host.answers} answered",
        "con_lost": lost or "none",
        "last answer": ago(host.last_answer, now) or "none yet",
        "last failure": host.not_served
        or (f"{failure['what']}, {ago(failure['when'], now)}" if failure else "none"),
        "retries": f"{host.retries_left} left{probe}",
        "delayed": f"{host.delayed}{age}",
        "debug level": f"{host.debug_level}",
        "last log line": re.sub("</?font[^>]*>", "", host.last_log) or "none",
    }
    if host.paused:
        until = host.paused.get("until")
        end = f"until {clock_time(until)}" if until else "until it is resumed"
        facts["paused"] = f"by {host.paused['by']}, {end}: {host.paused['reason']}"
    return facts
