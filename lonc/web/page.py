"""
The HTML pages of all hosts and of one host.

They need no scripts, and support narrow windows and dark mode. The templates escape all external
data (host ids, texts of londs).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Final
from urllib.parse import quote, urlencode

import attrs
from jinja2 import Environment, PackageLoader, StrictUndefined

from lonc.report.kinds import KINDS, LEVELS
from lonc.report.problems import Group, Problem, by_cause, by_host, state
from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.units import clock_time, count, duration, measured
from lonc.web.history import SAMPLES, History, Series

#: Seconds after which a browser reloads the page, which folds what was unfolded.
REFRESH: Final = 30

#: Maximum number of hosts in the table unless all are requested: more would be slow to draw.
IN_TABLE: Final = 200

#: Lines of problems that are not folded, so that graphs and table are on the first screen too.
GROUPS: Final = 6

#: Seconds after which people who wait for a page notice.
SLOW: Final = 5.0

#: Hosts that are named in such a line, and listed when it is unfolded.
NAMED: Final = 4
LISTED: Final = 100

#: Size of a graph in units; a sample is two wide.
WIDTH: Final = 2 * SAMPLES
HEIGHT: Final = 40

#: Pieces of a template that are joined before they are sent: some kilobytes.
_PIECES: Final = 100

_STATES: Final = ("DEAD", "unproven", "stopping", "up")


@attrs.frozen
class Row:
    """
    A host in the table.

    :ivar lost: ``con_lost`` per minute.
    :ivar problems: its problems, the worst first.
    """

    host: HostStatus
    lost: float
    problems: Sequence[Problem] = ()

    def severity(self) -> tuple[object, ...]:
        """
        Return a sort key.

        Hosts that hang or are slow come before those that are DEAD, because there people wait; idle
        ones come last.
        """
        host, p99 = self.host, self.host.total["p99"]
        level = LEVELS.index(self.problems[0].level) if self.problems else -1
        rank = _STATES.index(host.state) if max(p99, host.oldest_waiter) < SLOW else -1
        return -level, rank, -self.lost, -host.waiting, -p99, -host.busy, host.host_id


@attrs.frozen
class Column:
    """A column of the table, by which it can be sorted."""

    title: str
    key: Callable[[Row], float | str]
    number: bool = True


COLUMNS: Final[Mapping[str, Column]] = {
    "host": Column("Host", lambda row: row.host.host_id, number=False),
    "state": Column("State", lambda row: _STATES.index(row.host.state), number=False),
    "connections": Column("Connections", lambda row: row.host.connections),
    "waiting": Column("Waiting", lambda row: row.host.waiting),
    "median": Column("Median", lambda row: row.host.total["p50"]),
    "p99": Column("p99", lambda row: row.host.total["p99"]),
    "rate": Column("con_lost/min", attrgetter("lost")),
    "lost": Column("con_lost", attrgetter("host.lost")),
    "delayed": Column("Delayed", lambda row: row.host.delayed),
}


def _is(state: str, row: Row) -> bool:
    return row.host.state == state and (row.host.tried or state != "up")


#: Filters by the text of their links; the numbers of hosts are those of the totals.
FILTERS: Final[Mapping[str, Callable[[Row], bool]]] = {
    "with problems": lambda row: bool(row.problems),
    **{name: partial(_is, name) for name in _STATES},
    "untried": lambda row: not row.host.tried,
    "paused": lambda row: bool(row.host.paused),
}


#: The fields of a view, each with a function that returns whether a value is valid.
VALID: Final[Mapping[str, Callable[[str], bool]]] = {
    "sort": lambda value: value.removeprefix("-") in COLUMNS,
    "only": lambda value: value in FILTERS,
    "problem": lambda value: value in KINDS,
    "all": lambda value: value == "yes",
}


@attrs.frozen
class View:
    """
    The selection and order of the table, from the query of the URL.

    :ivar sort: a name in :data:`COLUMNS`, prefixed with ``-`` for the reverse order; empty for
        the worst first.
    :ivar only: a name in :data:`FILTERS`; empty for all hosts.
    :ivar problem: only hosts with this kind of problem; empty for all.
    :ivar all: ``yes`` for all rows, not only the first.
    """

    sort: str = ""
    only: str = ""
    problem: str = ""
    all: str = ""

    @classmethod
    def of(cls, query: Mapping[bytes, Sequence[bytes]]) -> View:
        """Parse a query; invalid values are ignored."""
        fields = {}
        for name, is_valid in VALID.items():
            value = query.get(name.encode(), [b""])[0].decode("utf-8", "replace")
            if is_valid(value):
                fields[name] = value
        return cls(**fields)

    def but(self, **changes: str) -> str:
        """Return the link to a view with changes."""
        fields = attrs.asdict(attrs.evolve(self, **changes))
        return "?" + urlencode({name: value for name, value in fields.items() if value}) + "#hosts"

    def by(self, column: str) -> str:
        """Return the link to the table sorted by a column, or in reverse if it already is."""
        return self.but(sort=f"-{column}" if self.sort == column else column)

    def order(self, column: str) -> str:
        """Return the value of ``aria-sort`` for a column."""
        if self.sort.removeprefix("-") != column:
            return "none"
        down = COLUMNS[column].number != self.sort.startswith("-")
        return "descending" if down else "ascending"

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """Return the selected rows, in order."""
        chosen = [row for row in rows if not self.only or FILTERS[self.only](row)]
        if self.problem:
            chosen = [row for row in chosen if self.problem in {each.kind for each in row.problems}]
        chosen.sort(key=Row.severity)
        if self.sort:
            column = COLUMNS[self.sort.removeprefix("-")]
            chosen.sort(key=column.key, reverse=column.number != self.sort.startswith("-"))
        return chosen


def _count(value: float) -> str:
    return f"{value:.1f}" if 0.0 < value < 10.0 and value != round(value) else f"{value:.0f}"


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
        "seconds": measured,
        "iso": lambda when: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when)),
        "path": lambda host_id: "/hosts/" + quote(host_id, safe=""),
        "count": _count,
        "counted": count,
    }
    return environment


_TEMPLATES: Final = _environment()
for _name in ("index.html", "host.html", "parts.html"):
    _TEMPLATES.get_template(_name)  # compiled now, so that no request waits for it


@attrs.frozen
class Graph:
    """
    A line in a box of :data:`WIDTH` and :data:`HEIGHT`.

    :ivar say: formats a value.
    :ivar points: for SVG's ``polyline``.
    :ivar last: the latest value; 0.0 if there is none.
    :ivar highest: the maximum.
    :ivar top: the value at the upper edge; that at the lower edge is 0.
    """

    title: str
    say: Callable[[float], str]
    points: str
    last: float
    highest: float
    top: float


def graph(title: str, values: Sequence[float], say: Callable[[float], str] = _count) -> Graph:
    """Compute a graph with the latest value at the right edge."""
    highest = max(values, default=0.0)
    top = scale_end(highest)
    left = WIDTH - 2 * len(values)
    points = " ".join(
        f"{left + 2 * index},{HEIGHT - value * HEIGHT / top:.1f}"
        for index, value in enumerate([*values, *values[-1:]])  # the latest extends to the edge
    )
    return Graph(title, say, points, values[-1] if values else 0.0, highest, top)


def scale_end(highest: float) -> float:
    """Return the end of a scale: 1, 2 or 5 times a power of ten, or 1 if the value is 0."""
    if highest <= 0.0:
        return 1.0
    power = 1e-6
    while highest > 10 * power:
        power *= 10
    return next(step * power for step in (1, 2, 5, 10) if highest <= step * power)


def _graphs(series: Series, slowest: str) -> list[Graph]:
    return [
        graph("Requests per second", series.rate),
        graph("Waiting", series.waiting),
        graph(slowest, series.p99, measured),
        graph("con_lost per minute", series.lost),
    ]


def index(
    daemon: DaemonStatus,
    hosts: Sequence[HostStatus],
    problems: Iterable[Problem],
    history: History,
    view: View,
    seconds: float,
) -> Iterator[str]:
    """
    Yield the page of all hosts, in pieces of a few milliseconds of work.

    :param seconds: the reactor's time.
    """
    found = list(problems)
    wrong = by_host(found)
    yield ""
    rows = [
        Row(host, history.lost_per_minute(host, seconds), wrong.get(host.host_id, ()))
        for host in hosts
    ]
    yield ""
    groups = by_cause(found)
    yield ""
    shown = view.rows(rows)
    most = len(shown) if view.all else IN_TABLE
    filters = [(name, sum(map(choose, rows))) for name, choose in FILTERS.items()]
    yield ""
    yield from _pieces(
        "index.html",
        daemon,
        state=state(found),
        groups=groups[:GROUPS],
        more_groups=groups[GROUPS:],
        totals=daemon.totals,
        rows=shown[:most],
        left_out=max(0, len(shown) - most),
        view=view,
        columns=COLUMNS,
        filters=[(name, count) for name, count in filters if count or name == view.only],
        graphs=_graphs(history.total, "p99 of the slowest host"),
    )


def host_page(
    daemon: DaemonStatus, host: HostStatus, problems: Iterable[Problem], series: Series
) -> str:
    """Return the page of one host."""
    found = [Group([each]) for each in problems if each.host == host.host_id]
    graphs = _graphs(series, "p99")
    return "".join(_pieces("host.html", daemon, host=host, groups=found, graphs=graphs))


def _pieces(name: str, daemon: DaemonStatus, **values: object) -> Iterator[str]:
    stream = _TEMPLATES.get_template(name).stream(
        daemon=daemon,
        now=time.time(),
        refresh=REFRESH,
        width=WIDTH,
        height=HEIGHT,
        named=NAMED,
        listed=LISTED,
        **values,
    )
    stream.enable_buffering(_PIECES)
    yield from stream
