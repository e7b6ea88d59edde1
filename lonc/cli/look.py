"""What can be seen: ``lonc status``, ``hosts``, ``clients``, ``slow``, ``trace``, ``settings``."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import click
from rich.text import Text

from lonc.cli.tables import (
    STYLES,
    Column,
    as_json,
    console,
    ordered,
    printable,
    show,
)
from lonc.cli.target import TIMEOUT, asks, no_daemon, target, targeted, who
from lonc.config.kinds import GROUP, MODE
from lonc.config.parameters import PARAMETERS
from lonc.control.client import ManagementClient
from lonc.control.errors import NoAnswer
from lonc.report.judgement import summary
from lonc.report.records import ClientStatus, ConnectionStatus, RequestRecord, SettingStatus
from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.units import ago, clock_time, duration, size

#: What ``lonc status`` ends with, as monitoring plugins have it.
EXIT_STATUS: Final = {"ok": 0, "warning": 1, "critical": 2}

#: Findings that fit on one screen; ``lonc hosts`` has the rest.
ON_SCREEN: Final = 15

json_option = click.option("--json", "wants_json", is_flag=True, help="One JSON object.")
host_argument = click.argument("host", required=False, default="")


# ---------------------------------------------------------------------- status


@click.command()
@json_option
@asks
async def status(lonc: ManagementClient, wants_json: bool) -> int:
    """
    Say whether all is well, and what to do if not.

    Ends with 0 when it is, 1 when there is something to look at, 2 when it is urgent, and 3 when
    no lonc answers: fit for a monitoring plugin.

    In brackets behind an advice stands a section of the page "When something is wrong",
    docs/trouble.rst.
    """
    problems = await lonc.problems()
    daemon, hosts = await lonc.about(), await lonc.hosts()
    found = summary(daemon, hosts, problems)
    if wants_json:
        as_json(**found)
    else:
        _show_status(daemon, found, time.time())
    return EXIT_STATUS[str(found["state"])]


def _show_status(daemon: DaemonStatus, found: Mapping[str, Any], now: float) -> None:
    out, totals = console(), found["totals"]
    headline = Text(f"lonc {daemon.version} of {printable(daemon.host_id)} is ")
    headline.append(found["state"], style=STYLES[found["state"]])
    headline.append(f": process {daemon.pid}, up for {duration(now - daemon.started)}")
    out.print(headline, no_wrap=True, overflow="ellipsis")
    lines = [
        "{hosts} hosts: {up} up, {dead} DEAD, {unproven} unproven, {paused} paused",
        "{clients} clients, {connections} connections, {waiting} waiting",
        "{requests} requests, {answers} answers, {con_lost} con_lost since the start",
        "{delayed} delayed requests, {kept} kept",
    ]
    for counts in lines:
        out.print("  " + counts.format_map(totals), no_wrap=True, overflow="ellipsis")
    listed = found["findings"]
    for finding in listed[:ON_SCREEN]:
        line = Text("\n")
        line.append(finding["level"], style=STYLES[finding["level"]])
        line.append(f"  {printable(finding['host'])}" if finding["host"] else "")
        line.append(f"  {printable(finding['what'])}")
        if finding["since"]:
            line.append(f"  (since {clock_time(finding['since'])})", style="dim")
        out.print(line)
        out.print(f"    {printable(finding['advice'])}", style="dim")
    if len(listed) > ON_SCREEN:
        out.print(f"\n{len(listed) - ON_SCREEN} more: lonc hosts --sort state, or --json")


# ---------------------------------------------------------------------- hosts

_STATES: Final = ("DEAD", "unproven", "stopping", "up")


def _state(host: HostStatus) -> str:
    return "paused" if host.paused and host.state == "up" else host.state


def _of_late(host: HostStatus, what: str, part: str) -> float:
    value = host.seconds.get(what, {}).get(part, 0.0)
    return float(value)


def _seconds(host: HostStatus, part: str) -> str:
    value = _of_late(host, "total", part)
    return duration(value) if value else "-"


HOST_COLUMNS: Final[Sequence[Column[HostStatus]]] = (
    Column("host", lambda host: host.host_id),
    Column("state", _state, order=lambda host: (_STATES.index(host.state), host.host_id)),
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
@host_argument
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
    title.append(_state(host), style=STYLES.get(_state(host), ""))
    since = host.paused["since"] if _state(host) == "paused" else host.since
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


# ---------------------------------------------------------------------- clients

CLIENT_COLUMNS: Final[Sequence[Column[ClientStatus]]] = (
    Column("host", lambda client: client.host_id),
    Column("pid", lambda client: f"{client.pid}", 9, lambda client: client.pid, number=True),
    Column("user", lambda client: client.user, 7),
    Column(
        "open",
        lambda client: duration(max(0.0, time.time() - client.since)),
        5,
        lambda client: client.since,
        number=True,
    ),
    Column(
        "requests",
        lambda client: f"{client.requests}",
        6,
        lambda client: -client.requests,
        number=True,
    ),
    Column("waits for", lambda client: client.waits_for or "-", 8),
    Column(
        "waiting",
        lambda client: duration(client.waiting) if client.waits_for else "-",
        8,
        lambda client: -client.waiting,
        number=True,
    ),
)


@click.command()
@host_argument
@json_option
@click.option("--sort", metavar="COLUMN", default="requests", show_default=True, help="By which.")
@click.option("--reverse", is_flag=True, help="The other way round.")
@asks
async def clients(
    lonc: ManagementClient, host: str, wants_json: bool, sort: str, reverse: bool
) -> int:
    """List the open clients, of HOST or of all, those with the most requests first."""
    listed = ordered(await lonc.clients(host), CLIENT_COLUMNS, sort, reverse)
    if wants_json:
        as_json(clients=listed)
    else:
        show(listed, CLIENT_COLUMNS, "No client is connected.")
    return 0


# ---------------------------------------------------------------------- requests

REQUEST_COLUMNS: Final[Sequence[Column[RequestRecord]]] = (
    Column("time", lambda request: clock_time(request.when), 6, lambda request: request.when),
    Column("host", lambda request: request.host_id),
    Column("pid", lambda request: f"{request.pid}", 4, lambda request: request.pid, number=True),
    Column("command", lambda request: request.command),
    Column("size", lambda request: size(request.size), 2, lambda each: -each.size, number=True),
    Column(
        "reply",
        lambda request: size(request.reply_size),
        2,
        lambda each: -each.reply_size,
        number=True,
    ),
    Column("queue", lambda each: duration(each.queue), 6, lambda each: -each.queue, number=True),
    Column(
        "connect",
        lambda each: duration(each.connecting),
        3,
        lambda each: -each.connecting,
        number=True,
    ),
    Column(
        "handshake",
        lambda each: duration(each.handshake),
        3,
        lambda each: -each.handshake,
        number=True,
    ),
    Column("lond", lambda each: duration(each.lond), 6, lambda each: -each.lond, number=True),
    Column("total", lambda each: duration(each.total), 8, lambda each: -each.total, number=True),
    Column("outcome", lambda request: request.outcome, 7),
)


@click.command()
@host_argument
@json_option
@click.option("--sort", metavar="COLUMN", default="total", show_default=True, help="By which.")
@asks
async def slow(lonc: ManagementClient, host: str, wants_json: bool, sort: str) -> int:
    """Show the slowest 100 requests of late, and where their time went."""
    listed = ordered(await lonc.slow(host), REQUEST_COLUMNS, sort)
    if wants_json:
        as_json(slow=[attrs.asdict(each) | {"total": each.total} for each in listed])
    else:
        show(listed, REQUEST_COLUMNS, "No request of late.")
    return 0


@click.command()
@host_argument
@click.option("--contents", is_flag=True, help="With the requests themselves; the owner may.")
@click.option("--json", "wants_json", is_flag=True, help="One JSON object a line.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many.")
@asks
async def trace(
    lonc: ManagementClient, host: str, contents: bool, wants_json: bool, count: int | None
) -> int:
    """Show requests as they end, of HOST or of all, until Ctrl-C."""
    async for record in lonc.trace(host, contents):
        click.echo(_json_line(record) if wants_json else _line(record))
        sys.stdout.flush()
        if count is not None:
            count -= 1
            if count == 0:
                break
    return 0


def _json_line(record: RequestRecord) -> str:
    return json.dumps({"schema": 1, **attrs.asdict(record)})


def _line(record: RequestRecord) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(record.when))
    return printable(
        f"{clock}  {record.host_id}  {record.pid}  {record.command}"
        f"  {size(record.size)} > {size(record.reply_size)}"
        f"  queue {duration(record.queue)}  lond {duration(record.lond)}  {record.outcome}"
        + (f"  {record.contents}" if record.contents else "")
    )


# ---------------------------------------------------------------------- settings

SETTING_COLUMNS: Final[Sequence[Column[SettingStatus]]] = (
    Column("setting", lambda setting: setting.name),
    Column("value", lambda setting: setting.value),
    Column("unit", lambda setting: setting.unit, 3),
    Column("from", lambda setting: setting.source, 6),
    Column("the file says", lambda setting: setting.differs or "", 7),
)


@click.command()
@json_option
@click.option("--sort", metavar="COLUMN", default="setting", show_default=True, help="By which.")
@asks
async def settings(lonc: ManagementClient, wants_json: bool, sort: str) -> int:
    """List every setting in force, where it comes from, and whether the file has another now."""
    listed = ordered(await lonc.settings(), SETTING_COLUMNS, sort)
    if wants_json:
        as_json(settings=[_with_numbers(each) for each in listed])
    else:
        show(listed, SETTING_COLUMNS, "There are no settings.")
    return 0


def _with_numbers(setting: SettingStatus) -> Mapping[str, object]:
    """Return a setting for programs: seconds, bytes and counts as numbers, switches as such."""
    kinds = {each.variable: each.kind for each in PARAMETERS if each.kind not in (MODE, GROUP)}

    def value(text: str) -> object:
        with contextlib.suppress(ValueError, KeyError):
            parsed = kinds[setting.name].parse(text)
            if isinstance(parsed, int | float):
                return parsed
        return text

    changed = {"value": value(setting.value), "differs": value(setting.differs)}
    return attrs.asdict(setting) | changed


# ---------------------------------------------------------------------- top


@click.command()
@targeted
def top() -> None:
    """Show the hosts live, with keys to sort, pause, resume and retry."""
    try:
        from lonc.cli.top import run
    except ModuleNotFoundError:
        raise click.ClickException("`lonc top` needs Textual: pip install 'lonc[top]'") from None
    try:
        run(target().endpoint(), TIMEOUT, who(), target().certificates())
    except NoAnswer as error:
        raise no_daemon(error) from None
