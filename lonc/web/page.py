"""
The pages, as HTML: all hosts, and one.

They read well without scripts, in a narrow window and in the dark. Whatever is not ours (host ids,
what londs say) is escaped by the templates.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from lonc.report.judgement import totals
from lonc.report.problems import Problem, state, worst_first
from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.units import clock_time, duration
from lonc.web.history import HEIGHT, WIDTH, Sample, graph

#: Seconds after which a browser asks again.
REFRESH: Final = 10

#: Hosts in the table: more would be slow to draw, and those that are unwell come first.
IN_TABLE: Final = 200

_ORDER: Final = ("DEAD", "unproven", "stopping", "up")


def _late(host: HostStatus, part: str) -> str:
    value = host.seconds.get("total", {}).get(part, 0.0)
    return duration(value) if value else "-"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lonc.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "clock": clock_time,
        "duration": duration,
        "iso": lambda when: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when)),
        "late": _late,
        "path": lambda host_id: "/hosts/" + quote(host_id, safe=""),
    }
    return environment


_TEMPLATES: Final = _environment()


def index(
    daemon: DaemonStatus,
    hosts: Sequence[HostStatus],
    problems: Iterable[Problem],
    samples: Sequence[Sample],
    now: float,
) -> str:
    """Return the page of all hosts, the worst first; ``now`` is Unix time."""
    found = worst_first(problems)
    worst = sorted(
        hosts,
        key=lambda host: (_ORDER.index(host.state), not host.paused, -host.waiting, host.host_id),
    )
    rate = graph([sample.rate for sample in samples])
    waiting = graph([sample.waiting for sample in samples])
    slowest = graph([sample.p99 for sample in samples])
    return _render(
        "index.html",
        daemon,
        now,
        state=state(found),
        findings=found,
        totals=totals(daemon, hosts),
        hosts=worst[:IN_TABLE],
        left_out=max(0, len(worst) - IN_TABLE),
        width=WIDTH,
        height=HEIGHT,
        graphs=[
            ("Requests a second", rate, f"{rate.last:.1f}", f"{rate.highest:.1f}"),
            ("Waiting", waiting, f"{waiting.last:.0f}", f"{waiting.highest:.0f}"),
            (
                "99th percentile of the slowest host",
                slowest,
                duration(slowest.last),
                duration(slowest.highest),
            ),
        ],
    )


def host_page(
    daemon: DaemonStatus, host: HostStatus, problems: Iterable[Problem], now: float
) -> str:
    """Return the page of one host; ``now`` is Unix time."""
    found = [each for each in problems if each.host == host.host_id]
    return _render("host.html", daemon, now, host=host, findings=found)


def _render(name: str, daemon: DaemonStatus, now: float, **values: Any) -> str:
    return _TEMPLATES.get_template(name).render(daemon=daemon, now=now, refresh=REFRESH, **values)
