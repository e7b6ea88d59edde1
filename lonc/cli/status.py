"""How lonc fares: ``lonc status``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import click
from rich.text import Text

from lonc.cli.arguments import json_option
from lonc.cli.tables import STYLES, as_json, console
from lonc.cli.target import asks
from lonc.control.client import ManagementClient
from lonc.report.judgement import summary
from lonc.report.status import DaemonStatus
from lonc.report.units import clock_time, duration
from lonc.wire.printable import printable

#: What ``lonc status`` ends with, as monitoring plugins have it.
EXIT_STATUS: Final = {"ok": 0, "warning": 1, "critical": 2}

#: Findings that fit on one screen; ``lonc hosts`` has the rest.
ON_SCREEN: Final = 15


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
        "{hosts} hosts: {up} up, {untried} untried, {dead} DEAD, {unproven} unproven, "
        "{paused} paused",
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
