"""The hosts, and all about one of them: ``lonc hosts``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import click
from rich.text import Text

from lonc.cli.arguments import any_host, json_option
from lonc.cli.tables import STYLES, Column, as_json, console, ordered, show
from lonc.cli.target import asks
from lonc.control.client import ManagementClient
from lonc.report.records import ConnectionStatus
from lonc.report.status import HostStatus
from lonc.report.units import ago, clock_time, duration
from lonc.wire.printable import printable

_STATES: Final = ("DEAD", "unproven", "stopping", "up")


def _of_late(host: HostStatus, what: str, part: str) -> float:
    value = host.seconds.get(what, {}).get(part, 0.0)
    return float(value)


def _seconds(host: HostStatus, part: str) -> str:
    value = _of_late(host, "total", part)
    return duration(value) if value else "-"


HOST_COLUMNS: Final[Sequence[Column[HostStatus]]] = (
    Column("host", lambda host: host.host_id),
    Column(
        "state",
        lambda host: host.shown,
        order=lambda host: (_STATES.index(host.state), host.host_id),
    ),
    Column(
        "conns",
        lambda host: f"{host.connections}",
        6,
        lambda host: -host.connections,
        number=True,
    ),
    Column("busy", lambda host: f"{host.busy}", 4, lambda host: -host.busy, number=True),
    Column("waiting", lambda host: f"{host.waiting}", 8, lambda host: -host.waiting, number=True),
    Column("clients", lambda host: f"{host.clients}", 3, lambda host: -host.clients, number=True),
    Column(
        "p50",
        lambda host: _seconds(host, "p50"),
        5,
        lambda host: -_of_late(host, "total", "p50"),
        number=True,
    ),
    Column(
        "p99",
        lambda host: _seconds(host, "p99"),
        7,
        lambda host: -_of_late(host, "total", "p99"),
        number=True,
    ),
    Column(
        "requests", lambda host: f"{host.requests}", 3, lambda host: -host.requests, number=True
    ),
    Column(
        "con_lost",
        lambda host: f"{sum(host.con_lost.values())}",
        5,
        lambda host: -sum(host.con_lost.values()),
        number=True,
    ),
    Column("delayed", lambda host: f"{host.delayed}", 6, lambda host: -host.delayed, number=True),
    Column("mode", lambda host: host.mode or "-", 2),
    Column("lond", lambda host: host.lond_version or "-", 1),
)


@click.command()
@any_host
@json_option
@click.option("--sort", metavar="COLUMN", default="state", show_default=True, help="By which.")
@click.option("--reverse", is_flag=True, help="The other way round.")
@asks
async def hosts(
    lonc: ManagementClient, host: str, wants_json: bool, sort: str, reverse: bool
) -> int:
    """List the hosts, the unwell first; or tell all about HOST."""
    listed = await lonc.hosts()
    if host:
        listed = [each for each in listed if each.host_id == host]
        if not listed:
            raise click.ClickException(f"no such host: {host}")
    listed = ordered(listed, HOST_COLUMNS, sort, reverse)
    if wants_json and host:
        as_json(hosts=listed, connections=await lonc.connections(host))
    elif wants_json:
        as_json(hosts=listed)
    elif host:
        _show_host(listed[0], await lonc.connections(host), time.time())
    else:
        show(listed, HOST_COLUMNS, "The host table is empty.")
    return 0


def _show_host(host: HostStatus, connections: Sequence[ConnectionStatus], now: float) -> None:
    out = console()
    title = Text(f"{printable(host.host_id)} is ")
    title.append(host.shown, style=STYLES.get(host.shown, ""))
    since = host.paused["since"] if host.shown == "paused" else host.since
    if since:
        title.append(f" since {clock_time(since)}")
    out.print(title)
    failure = host.last_failure
    lost = ", ".join(f"{count} {cause}" for cause, count in host.con_lost.items() if count)
    facts = {
        "lond": f"version {host.lond_version or 'not told'}, mode {host.mode or 'not known yet'}",
        "connections": f"{host.connecting} connecting, {host.handshaking} in the handshake, "
        f"{host.idle} idle, {host.busy} busy",
        "queue": f"{host.waiting} waiting, the oldest for {duration(host.oldest_waiter)}"
        if host.waiting
        else "nobody waits",
        "clients": f"{host.clients}",
        "requests": f"{host.requests}, {host.answers} answered",
        "con_lost": lost or "none",
        "last answer": ago(host.last_answer, now) or "none yet",
        "last failure": f"{failure['what']}, {ago(failure['when'], now)}" if failure else "none",
        "retries": f"{host.retries_left} left"
        + (f", next probe in {duration(host.next_probe)}" if host.next_probe >= 0.0 else ""),
        "delayed": f"{host.delayed}"
        + (f", the oldest is {duration(host.oldest_delayed)} old" if host.oldest_delayed else ""),
        "debug level": f"{host.debug_level}",
        "last log line": host.last_log or "none",
    }
    if host.paused:
        until = host.paused.get("until")
        end = f"until {clock_time(until)}" if until else "until it is resumed"
        facts["paused"] = f"by {host.paused['by']}, {end}: {host.paused['reason']}"
    for name, fact in facts.items():
        line = Text(f"  {name:<14}{printable(fact)}")
        line.stylize("bold", 2, 2 + len(name))
        out.print(line, no_wrap=True, overflow="ellipsis")
    for each in connections:
        line = Text(f"  {'connection':<14}{each.state} for {duration(each.seconds)}, made ")
        line.append(ago(each.since, now))
        out.print(line, no_wrap=True, overflow="ellipsis")
    if host.seconds:
        out.print("\n  of the last five minutes")
        out.print(f"  {'':<6}{'median':>9}{'p99':>11}{'longest':>10}", style="bold")
        for what, times in host.seconds.items():
            row = f"  {what:<6}{duration(times['p50']):>9}{duration(times['p99']):>11}"
            out.print(row + f"{duration(times['max']):>10}")
