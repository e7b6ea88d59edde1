"""
The metrics for Prometheus (``/metrics``) as text, generated a few hosts at a time.

This module is pure. The objects of prometheus-client are too slow for hundreds of hosts; the tests
check the text with its parser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final, Generic, NamedTuple, TypeVar

import attrs

from lonc.report.kinds import KINDS
from lonc.report.problems import Problem
from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.times import BOUNDS, Totals

#: Hosts whose lines are generated at a time; about a millisecond of work.
SLICE: Final = 20

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]


class Watched(NamedTuple):
    """A host and its durations."""

    status: HostStatus
    times: Mapping[str, Totals]


#: Lines of a metric: labels or suffix, and value.
_Lines = Iterator[tuple[str, float]]

S = TypeVar("S", HostStatus, DaemonStatus)
T = TypeVar("T")


@attrs.frozen
class Family(Generic[S]):
    """
    A metric.

    :ivar kind: the type in Prometheus.
    :ivar lines: generates its lines from a status, the durations of a host and the host's label.
    :ivar of_machine: whether hosts on one machine share it: then only the first of them has
        it, so that a sum counts each once.
    """

    name: str
    kind: str
    text: str
    lines: Callable[[S, Mapping[str, Totals], str], _Lines]
    of_machine: bool = False


def _kind(name: str) -> str:
    return "counter" if name.endswith("_total") else "gauge"


def _labels(*labels: str) -> str:
    return "{" + ",".join(filter(None, labels)) + "}" if any(labels) else ""


def _of(value: str | Callable[[S], T]) -> Callable[[S], T]:
    """Return a function of a status that may be given as the name of a field."""
    return attrgetter(value) if isinstance(value, str) else value


def _one(name: str, text: str, value: str | Callable[[S], float | None]) -> Family[S]:
    """Return a metric with one value; it is omitted if that is ``None``."""
    value_of = _of(value)

    def lines(status: S, times: Mapping[str, Totals], label: str) -> _Lines:
        found = value_of(status)
        if found is not None:
            yield _labels(label), found

    return Family(name, _kind(name), text, lines)


def _by(
    name: str,
    text: str,
    by: str,
    counts: str | Callable[[S], Mapping[str, float]],
    of_machine: bool = False,
) -> Family[S]:
    """Return a metric with one value for each value of a label."""
    counts_of = _of(counts)

    def lines(status: S, times: Mapping[str, Totals], label: str) -> _Lines:
        for each, count in counts_of(status).items():
            yield _labels(label, f'{by}="{_escaped(each)}"'), count

    return Family(name, _kind(name), text, lines, of_machine)


def _histogram(name: str, text: str, of: str, of_machine: bool = False) -> Family[HostStatus]:
    """Return a histogram of durations."""

    def lines(status: HostStatus, times: Mapping[str, Totals], label: str) -> _Lines:
        counted = times[of]
        cumulative = counted.cumulative()
        for bound, count in zip(_BOUNDS, cumulative, strict=True):
            yield f'_bucket{{{label},le="{bound}"}}', count
        yield f"_sum{{{label}}}", counted.seconds
        yield f"_count{{{label}}}", cumulative[-1]

    return Family(name, "histogram", text, lines, of_machine)


def _connections(host: HostStatus) -> Mapping[str, float]:
    states = ("connecting", "handshaking", "idle", "busy")
    return dict(zip(states, attrgetter(*states)(host), strict=True))


#: Metrics of each host.
HOST_FAMILIES: Final[Sequence[Family[HostStatus]]] = (
    _one("lonc_requests_total", "Requests from clients and from the disk.", "requests"),
    _one("lonc_answers_total", "Answers from the lond.", "answers"),
    _by("lonc_con_lost_total", "Requests that ended with con_lost, by cause.", "cause", "con_lost"),
    _by("lonc_connections", "Connections to the lond, by state.", "state", _connections, True),
    _one("lonc_waiting_requests", "Requests waiting for a connection.", "waiting"),
    _one("lonc_oldest_waiting_seconds", "How long the oldest of them has waited.", "oldest_waiter"),
    _one(
        "lonc_host_up",
        "1 if the host is up; 0 if it is DEAD, unproven or stopping.",
        lambda host: host.state == "up",
    ),
    _one(
        "lonc_host_tried",
        "1 if the host was tried since the start: until then it is unknown whether it is up.",
        "tried",
    ),
    _one("lonc_host_paused", "1 if somebody has paused the host.", lambda host: bool(host.paused)),
    _one("lonc_retries_left", "Further failures until the host is DEAD.", "retries_left"),
    _one("lonc_delayed_requests", "Delayed requests on disk.", "delayed"),
    _one("lonc_delayed_oldest_seconds", "Age of the oldest of them.", "oldest_delayed"),
    _one("lonc_clients", "Open client connections.", "clients"),
    _by(
        "lonc_handshakes_total",
        "Handshakes with the lond, by outcome.",
        "outcome",
        "handshakes",
        True,
    ),
    _histogram("lonc_queue_seconds", "How long requests waited for a connection.", "queue"),
    _histogram("lonc_lond_seconds", "How long the lond took to answer.", "lond"),
    _histogram("lonc_handshake_seconds", "How long successful handshakes took.", "handshake", True),
)

#: Metrics of the daemon.
DAEMON_FAMILIES: Final[Sequence[Family[DaemonStatus]]] = (
    _one(
        "lonc_delayed_unknown_requests",
        "Delayed requests on disk for hosts that are not in the table.",
        "delayed_unknown",
    ),
    _one("lonc_kept_requests", "Delayed requests that failed and are kept.", "kept"),
    _one("lonc_clients_refused_total", "Clients refused because all slots were taken.", "refused"),
    _one(
        "lonc_clients_cut_off_total",
        "Clients closed because they exceeded a limit or to free a slot.",
        "cut_off",
    ),
    _by(
        "lonc_reloads_total",
        "Reloads of the settings or the table, by outcome.",
        "outcome",
        "reloads",
    ),
    _one(
        "lonc_certificate_expiry_timestamp_seconds",
        "When the own certificate expires, in Unix time.",
        lambda daemon: daemon.certificate_ends if daemon.certificate else None,
    ),
    _one("lonc_start_timestamp_seconds", "When lonc was started, in Unix time.", "started"),
    Family(
        "lonc_build_info",
        "gauge",
        "1, with lonc's version and host id.",
        lambda daemon, times, label: iter([(_labels(*_build(daemon)), 1)]),
    ),
)


def _build(daemon: DaemonStatus) -> tuple[str, str]:
    return f'version="{_escaped(daemon.version)}"', f'host_id="{_escaped(daemon.host_id)}"'


#: The number of problems.
PROBLEMS: Final = Family[DaemonStatus](
    "lonc_problems", "gauge", "Current problems, by kind and level.", lambda *_: iter(())
)


def _counts(problems: Iterable[Problem]) -> Iterator[str]:
    """Count the problems of each kind, including kinds without any."""
    counts: Counter[tuple[str, str]] = Counter()
    counts.update({(kind, rules.level): 0 for kind, rules in KINDS.items()})
    counts.update((each.kind, each.level) for each in problems)
    for (kind, level), count in counts.items():
        yield f'{PROBLEMS.name}{{kind="{kind}",level="{level}"}} {count}\n'


def exposition(
    daemon: DaemonStatus, hosts: Iterable[Watched], problems: Iterable[Problem]
) -> Iterator[str]:
    """
    Yield the text, in pieces of about a millisecond of work each.

    :param hosts: may be lazy; consumed in slices.
    :param problems: may be lazy; consumed after the hosts.
    """
    for about in DAEMON_FAMILIES:
        yield _head(about) + _text(about, about.lines(daemon, {}, ""))
    watched: list[tuple[Watched, str]] = []
    first: dict[str, str] = {}  # machine -> label of its first host
    for host in hosts:
        label = f'host="{_escaped(host.status.host_id)}"'
        watched.append((host, label))
        first.setdefault(host.status.machine or label, label)
        if len(watched) % SLICE == 0:
            yield ""
    yield _head(PROBLEMS) + "".join(_counts(problems))
    for family in HOST_FAMILIES:
        yield _head(family)
        for start in range(0, len(watched), SLICE):
            yield "".join(
                _text(family, family.lines(host.status, host.times, label))
                for host, label in watched[start : start + SLICE]
                if not family.of_machine or first[host.status.machine or label] == label
            )


def _head(family: Family[HostStatus] | Family[DaemonStatus]) -> str:
    return f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n"


def _text(family: Family[HostStatus] | Family[DaemonStatus], lines: _Lines) -> str:
    return "".join(f"{family.name}{labels} {_number(value)}\n" for labels, value in lines)


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else repr(value)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
