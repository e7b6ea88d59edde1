"""The overall state: ``lonc status``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from lonc.cli.arguments import json_option
from lonc.cli.tables import STYLES, as_json, console, print_line
from lonc.cli.target import asks
from lonc.control.client import ManagementClient
from lonc.report.judgement import summary
from lonc.report.problems import Group, Problem, by_cause, state
from lonc.report.status import DaemonStatus
from lonc.report.units import clock_time, count, duration
from lonc.wire.printable import printable

#: The exit status of ``lonc status``, as of monitoring plug-ins.
EXIT_STATUS: Final = {"ok": 0, "warning": 1, "critical": 2}

#: Maximum number of hosts of a group that are named in a line.
NAMED: Final = 10

#: The performance data are all totals; these are counters.
_GROWING: Final = ("requests", "answers", "con_lost")


@click.command()
@json_option
@click.option("--all", "every", is_flag=True, help="List each problem separately.")
@click.option("--monitoring", is_flag=True, help="Print one line, as a Nagios plug-in does.")
@asks
async def status(lonc: ManagementClient, wants_json: bool, every: bool, monitoring: bool) -> int:
    """
    Show the overall state, and what to do about problems.

    Problems with the same cause are shown as one line, and all fit on one screen. The name in
    brackets after the advice is a section of the page "When something is wrong",
    docs/trouble.rst.

    The exit status is 0 if all is well, 1 with warnings, 2 if something is critical, and 3 if no
    lonc answers. With --monitoring, 2 also means that no lonc answers, and 3 that the check could
    not be made.
    """
    problems, daemon = await lonc.problems(), await lonc.about()
    groups = [Group([each]) for each in problems] if every else by_cause(problems)
    if wants_json:
        as_json(**summary(daemon, problems))
    elif monitoring:
        click.echo(monitored(state(problems), groups, daemon.totals))
    else:
        show(console(), daemon, problems, groups, every)
    return EXIT_STATUS[state(problems)]


def _head(daemon: DaemonStatus, problems: Sequence[Problem], now: float) -> Iterator[Text]:
    headline = Text(f"lonc {daemon.version} of {printable(daemon.host_id)} is ")
    headline.append(state(problems), style=STYLES[state(problems)])
    yield headline.append(f": process {daemon.pid}, up for {duration(now - daemon.started)}")
    sums = daemon.totals
    number = {name: count(sums[name], name.removesuffix("s")) for name in sums}
    yield Text(
        f"  {number['hosts']}: {sums['up']} up, {sums['untried']} untried, {sums['dead']} DEAD, "
        f"{sums['unproven']} unproven, {sums['paused']} paused"
    )
    yield Text(f"  {number['clients']}, {number['connections']}, {sums['waiting']} waiting")
    yield Text(
        f"  {number['requests']}, {number['answers']}, {sums['con_lost']} con_lost since the start"
    )
    yield Text(f"  {count(sums['delayed'], 'delayed request')}, {sums['kept']} kept")


#: Lines of the head, and one for the prompt.
HEAD: Final = 6


def show(
    out: Console,
    daemon: DaemonStatus,
    problems: Sequence[Problem],
    groups: Sequence[Group],
    every: bool,
) -> None:
    """Print the status; in a terminal only what fits, unless ``every`` is set."""
    for line in _head(daemon, problems, time.time()):
        print_line(out, line)
    told = [(line_of(each, out.width), Text(f"    {printable(each.advice)}")) for each in groups]
    room = out.height - HEAD
    whole = sum(1 + _height(what, out.width) + _height(advice, out.width) for what, advice in told)
    if every or not out.is_terminal or whole <= room:
        for what, advice in told:
            out.print()
            out.print(what)
            out.print(advice, style="dim")
        return
    shown = told if len(told) <= room else told[: max(1, room - 1)]
    for what, advice in shown:
        print_line(out, what)
        if 2 * len(told) <= room:
            print_line(out, advice, "dim")
    if len(shown) < len(told):
        print_line(out, f"{len(told) - len(shown)} more: lonc status --all", "dim")


def _height(line: Text, width: int) -> int:
    return 1 + max(0, line.cell_len - 1) // max(1, width)


def line_of(group: Group, width: int) -> Text:
    """Format a group of problems as one line, naming as many hosts as fit."""
    line = Text().append(group.level, style=STYLES[group.level]).append("  ")
    starts = [each.since for each in group.members if each.since]
    since = f"  (since {clock_time(min(starts))})" if starts else ""
    named = min(NAMED, len(group.members))
    while named > 1 and len(line) + len(group.sentence(named)) + len(since) > width:
        named -= 1
    return line.append(printable(group.sentence(named))).append(since, style="dim")


def monitored(level: str, groups: Sequence[Group], sums: Mapping[str, int]) -> str:
    """Return the line of a Nagios plug-in: problems, and performance data after a bar."""
    what = "; ".join(group.what for group in groups if group.level != "note")
    told = printable(what or count(sums["hosts"], "host")).replace("|", "/")
    data = " ".join(f"{name}={sums[name]}{'c' * (name in _GROWING)}" for name in sums)
    return f"LONC {level.upper()} - {told} | {data}"
