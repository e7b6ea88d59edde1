"""
What Prometheus scrapes (``/metrics``), made as text, a few hosts at a time.

This module is pure. The Prometheus client's own objects are too slow for some hundred hosts; its
parser reads what comes from here in the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from lonc.report.problems import KINDS, Problem
from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.times import BOUNDS, Totals

#: Hosts whose lines are made at once; about a millisecond of work.
SLICE: Final = 20

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]


class Watched(NamedTuple):
    """One host, and how long its requests take."""

    status: HostStatus
    times: Mapping[str, Totals]


#: Lines of one host: the rest of a metric's name with its labels, and the value.
_Lines = Iterable[tuple[str, float]]


def _one(value: Callable[[HostStatus], float]) -> Callable[[Watched, str], _Lines]:
    return lambda host, label: ((f"{{{label}}}", value(host.status)),)


def _by(
    name: str, counts: Callable[[HostStatus], Mapping[str, float]]
) -> Callable[[Watched, str], _Lines]:
    def lines(host: Watched, label: str) -> _Lines:
        for kind, count in counts(host.status).items():
            yield f'{{{label},{name}="{_escaped(kind)}"}}', count

    return lines


def _histogram(kind: str) -> Callable[[Watched, str], _Lines]:
    def lines(host: Watched, label: str) -> _Lines:
        counted = host.times[kind]
        cumulative = counted.cumulative()
        for bound, count in zip(_BOUNDS, cumulative, strict=True):
            yield f'_bucket{{{label},le="{bound}"}}', count
        yield f"_sum{{{label}}}", counted.seconds
        yield f"_count{{{label}}}", cumulative[-1]

    return lines


def _connections(status: HostStatus) -> Mapping[str, float]:
    return {
        "connecting": status.connecting,
        "handshaking": status.handshaking,
        "idle": status.idle,
        "busy": status.busy,
    }


class _Family(NamedTuple):
    """
    A metric of each host.

    :ivar of_machine: whether hosts that share a machine share it too: then the first of them has
        it, so that a sum counts each once.
    """

    name: str
    kind: str
    text: str
    lines: Callable[[Watched, str], _Lines]
    of_machine: bool = False


#: What there is of each host.
HOST_FAMILIES: Final = (
    _Family(
        "lonc_requests_total", "counter", "Requests of clients.", _one(lambda host: host.requests)
    ),
    _Family("lonc_answers_total", "counter", "Answers of londs.", _one(lambda host: host.answers)),
    _Family(
        "lonc_con_lost_total",
        "counter",
        "Requests that ended with con_lost, by cause.",
        _by("cause", lambda host: host.con_lost),
    ),
    _Family(
        "lonc_connections",
        "gauge",
        "Connections to the lond, by state.",
        _by("state", _connections),
        of_machine=True,
    ),
    _Family(
        "lonc_waiting_requests",
        "gauge",
        "Requests that wait for a connection.",
        _one(lambda host: host.waiting),
    ),
    _Family(
        "lonc_oldest_waiting_seconds",
        "gauge",
        "How long the oldest of them has waited.",
        _one(lambda host: host.oldest_waiter),
    ),
    _Family(
        "lonc_host_up",
        "gauge",
        "1 where the host is up; 0 where it is DEAD, unproven or stopping.",
        _one(lambda host: host.state == "up"),
    ),
    _Family(
        "lonc_host_tried",
        "gauge",
        "1 where the host was tried since the start: until then nobody knows whether it is up.",
        _one(lambda host: host.tried),
    ),
    _Family(
        "lonc_host_paused",
        "gauge",
        "1 where somebody has paused the host.",
        _one(lambda host: bool(host.paused)),
    ),
    _Family(
        "lonc_retries_left",
        "gauge",
        "Failures that are left before the host is DEAD.",
        _one(lambda host: host.retries_left),
    ),
    _Family(
        "lonc_delayed_requests",
        "gauge",
        "Delayed requests on disk.",
        _one(lambda host: host.delayed),
    ),
    _Family(
        "lonc_delayed_oldest_seconds",
        "gauge",
        "How old the oldest of them is.",
        _one(lambda host: host.oldest_delayed),
    ),
    _Family("lonc_clients", "gauge", "Open client connections.", _one(lambda host: host.clients)),
    _Family(
        "lonc_handshakes_total",
        "counter",
        "Handshakes with the lond, by outcome.",
        _by("outcome", lambda host: host.handshakes),
        of_machine=True,
    ),
    _Family(
        "lonc_queue_seconds",
        "histogram",
        "How long requests waited for a connection.",
        _histogram("queue"),
    ),
    _Family(
        "lonc_lond_seconds",
        "histogram",
        "How long the lond took to answer.",
        _histogram("lond"),
    ),
    _Family(
        "lonc_handshake_seconds",
        "histogram",
        "How long handshakes took that succeeded.",
        _histogram("handshake"),
        of_machine=True,
    ),
)

#: What there is of the daemon: name, kind, text, and its lines.
DAEMON_FAMILIES: Final[
    Sequence[tuple[str, str, str, Callable[[DaemonStatus], Iterable[tuple[str, float]]]]]
] = (
    (
        "lonc_kept_requests",
        "gauge",
        "Delayed requests that could not be done and are kept.",
        lambda daemon: [("", daemon.kept)],
    ),
    (
        "lonc_clients_refused_total",
        "counter",
        "Clients turned away because all places were taken.",
        lambda daemon: [("", daemon.refused)],
    ),
    (
        "lonc_clients_cut_off_total",
        "counter",
        "Clients closed because they broke a limit or made room.",
        lambda daemon: [("", daemon.cut_off)],
    ),
    (
        "lonc_reloads_total",
        "counter",
        "Reloads and tables that were read, by outcome.",
        lambda daemon: [
            (f'{{outcome="{_escaped(outcome)}"}}', count)
            for outcome, count in daemon.reloads.items()
        ],
    ),
    (
        "lonc_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the own certificate ends, in Unix time.",
        lambda daemon: [("", daemon.certificate_ends)] if daemon.certificate else [],
    ),
    (
        "lonc_start_timestamp_seconds",
        "gauge",
        "When lonc was started, in Unix time.",
        lambda daemon: [("", daemon.started)],
    ),
    (
        "lonc_build_info",
        "gauge",
        "1, with lonc's version and host id.",
        lambda daemon: [
            (
                f'{{version="{_escaped(daemon.version)}",host_id="{_escaped(daemon.host_id)}"}}',
                1,
            )
        ],
    ),
)


#: How many problems there are: name, kind and text.
PROBLEMS: Final = ("lonc_problems", "gauge", "What is wrong now, by kind and level.")


def _problems(problems: Iterable[Problem]) -> Iterator[str]:
    """Count each kind, those too of which there is none now."""
    counts: Counter[tuple[str, str]] = Counter()
    counts.update({(kind, rules.level): 0 for kind, rules in KINDS.items()})
    counts.update((each.kind, each.level) for each in problems)
    for (kind, level), count in counts.items():
        yield f'{PROBLEMS[0]}{{kind="{kind}",level="{level}"}} {count}\n'


def exposition(
    daemon: DaemonStatus, hosts: Iterable[Watched], problems: Iterable[Problem]
) -> Iterator[str]:
    """
    Give the text, in pieces of about a millisecond's work each.

    :param hosts: may be lazy; they are taken a slice at a time.
    :param problems: may be lazy; they are taken after the hosts.
    """
    for name, kind, text, lines in DAEMON_FAMILIES:
        yield _head(name, kind, text) + "".join(
            f"{name}{labels} {_number(value)}\n" for labels, value in lines(daemon)
        )
    watched: list[tuple[Watched, str]] = []
    first: dict[str, str] = {}  # machine -> label of its first host
    for host in hosts:
        label = f'host="{_escaped(host.status.host_id)}"'
        watched.append((host, label))
        first.setdefault(host.status.machine or label, label)
        if len(watched) % SLICE == 0:
            yield ""
    yield _head(*PROBLEMS) + "".join(_problems(problems))
    for family in HOST_FAMILIES:
        yield _head(*family[:3])
        for start in range(0, len(watched), SLICE):
            yield "".join(
                f"{family.name}{labels} {_number(value)}\n"
                for host, label in watched[start : start + SLICE]
                if not family.of_machine or first[host.status.machine or label] == label
                for labels, value in family.lines(host, label)
            )


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else repr(value)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
