"""
What each host reports, and where people read it: the status file and the process title.

This module is pure but for :func:`write_status`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol, TypedDict

import attrs

from lonc.disk.files import make_own_folder, replace_file
from lonc.report.times import Durations, Parts
from lonc.report.units import count


def local_time(seconds: float) -> str:
    """
    Say a time the way every file of protocol section 7 does: ``Mon Nov  3 05:02:00 2026``.

    :param seconds: Unix time. The time zone is the machine's; the locale does not matter.
    """
    return time.asctime(time.localtime(seconds))


class LastFailure(TypedDict, total=False):
    """What failed last, and when in Unix time; empty where nothing has."""

    what: str
    when: float


class PauseStatus(TypedDict, total=False):
    """Who has paused a host, why, since when and until when (Unix time); empty where nobody has."""

    by: str
    reason: str
    since: float
    until: float
    fail: bool


class LastReload(TypedDict, total=False):
    """How the last reload ended, when in Unix time, and lines for a person; empty before it."""

    outcome: str
    when: float
    changes: list[str]


@attrs.frozen(kw_only=True)
class HostStatus:
    """
    What one host reports (rows S16 and S18).

    :ivar host_id: the lond's host id.
    :ivar state: ``up``, ``DEAD``, ``unproven`` (it was DEAD or is in doubt, and has not
        answered since) or ``stopping``.
    :ivar connecting, handshaking, idle, busy: connections to the lond, by state.
    :ivar clients: open client connections.
    :ivar waiting: requests that wait for a connection.
    :ivar oldest_waiter: how long the oldest of them has waited, in seconds; 0.0 when none waits.
    :ivar retries_left: failures that are left before the host is DEAD.
    :ivar next_probe: seconds until a DEAD host is tried again; -1.0 when nothing is due.
    :ivar delayed: delayed requests on disk.
    :ivar requests, answers: how many since the start.
    :ivar con_lost: requests that ended with ``con_lost`` since the start, by cause.
    :ivar lond_version: the revision that the lond last told; empty when it tells none.
    :ivar mode: the way in of the last complete handshake: ``local``, ``ssl`` or ``insecure``; empty
        before the first.
    :ivar debug_level: 0 (off) to 9.
    :ivar last_log: the host's last line in ``lonc.log``, without its newline; empty at first.
    :ivar since: when it came to its state, in Unix time.
    :ivar last_failure: ``what`` failed last and ``when``, in Unix time; empty when nothing has.
    :ivar last_answer: when it last answered, in Unix time; 0.0 when it never has.
    :ivar seconds: how long requests took in the last five minutes: for ``queue``, ``lond`` and
        ``total`` each ``p50``, ``p99`` and ``max``, in seconds, and ``count``, how many these were.
    :ivar paused: ``by`` whom, ``reason``, ``since`` and ``until`` (Unix time, 0.0 for no end) and
        whether requests ``fail`` at once; empty when it is not paused.
    :ivar machine: where its lond is. Hosts that share a machine share its connections, its retries
        and its handshakes.
    :ivar handshakes: how many since the start, by outcome: ``ready`` or ``failed``.
    :ivar ping_tells: whether the lond's answers to ``ping`` tell that a connection is in step; else
        connections are made anew after some requests.
    :ivar not_served: why its lond does not serve it, or not yet; empty where it does.
    :ivar oldest_owed: how long its lond has owed the oldest answer, in seconds; 0.0 when it owes
        none.
    :ivar oldest_delayed: how old its oldest delayed request is, in seconds; 0.0 without any.
    :ivar name_failure: why its name cannot be resolved; empty while it can, or needs no look-up.
    :ivar name_failing_since: since when that is so, in Unix time; 0.0 else.
    :ivar tried: whether it was ever tried: one that never was is ``up`` as far as anybody knows.
    :ivar requests_lately: requests of the last five minutes.
    :ivar con_lost_lately: those of them that ended with ``con_lost``, by cause, without zeros.
    :ivar usual: the median of how long requests took in the last 24 hours, in seconds; 0.0 while
        there is none.
    """

    host_id: str
    state: str
    connecting: int
    handshaking: int
    idle: int
    busy: int
    clients: int
    waiting: int
    oldest_waiter: float
    retries_left: int
    next_probe: float
    delayed: int
    requests: int
    answers: int
    con_lost: Mapping[str, int]
    lond_version: str
    mode: str
    debug_level: int
    last_log: str
    since: float
    last_failure: LastFailure
    last_answer: float
    seconds: Parts
    paused: PauseStatus
    machine: str
    handshakes: Mapping[str, int]
    ping_tells: bool
    not_served: str
    oldest_owed: float
    oldest_delayed: float
    name_failure: str
    name_failing_since: float
    tried: bool
    requests_lately: int
    con_lost_lately: Mapping[str, int]
    usual: float

    @property
    def connections(self) -> int:
        """Connections to the lond, whatever their state."""
        return self.connecting + self.handshaking + self.idle + self.busy

    @property
    def lost(self) -> int:
        """Requests that ended with ``con_lost`` since the start."""
        return sum(self.con_lost.values())

    @property
    def total(self) -> Durations:
        """How long requests took in the last five minutes, all their waiting included."""
        return self.seconds["total"]

    @property
    def shown(self) -> str:
        """Its state as people are shown it: ``paused`` and ``untried`` are no ``up``."""
        if self.state != "up":
            return self.state
        return "paused" if self.paused else "up" if self.tried else "untried"

    @property
    def text(self) -> str:
        """Row S16's words, with the way in behind them as later releases have it."""
        if self.state == "DEAD":
            return f"{self.host_id} >> DEAD <<"
        notes = ["unproven"] if self.state == "unproven" else []
        notes += [self.mode] if self.mode else []
        return (
            f"{self.host_id} Connection count: {self.connections} "
            f"Retries remaining: {self.retries_left}" + "".join(f" ({note})" for note in notes)
        )


@attrs.frozen(kw_only=True)
class DaemonStatus:
    """
    What the daemon as a whole reports.

    :ivar version: of lonc.
    :ivar host_id: this machine's own host id.
    :ivar pid: the process id.
    :ivar started: when it started, in Unix time.
    :ivar config_file: the configuration it reads; empty when it runs without one.
    :ivar certificate: the file of the own certificate; empty when TLS is not used.
    :ivar certificate_days: how long its chain up to the authority is still valid, in days; negative
        after its end.
    :ivar certificate_ends: when that ends, in Unix time; 0.0 without one.
    :ivar certificate_first: the file of the certificate that ends first, and whom it is for unless
        it is the own one.
    :ivar watch: ids of the hosts that must not be DEAD (``loncWatch``).
    :ivar delayed_unknown: delayed requests for hosts that the table does not have.
    :ivar slow_answer: seconds from which on a host's slowest answers are too slow
        (``loncSlowAnswer``).
    :ivar departed: ``requests``, ``answers`` and ``con_lost`` since the start of hosts that have
        left the table, or were started again.
    :ivar kept: delayed requests that were set aside.
    :ivar refused: clients turned away since the start, because all places were taken.
    :ivar cut_off: clients that lonc closed since the start, for they broke a limit or made room.
    :ivar last_refused: when one was, in Unix time; 0.0 when none was.
    :ivar last_reload: ``outcome``, ``when`` (Unix time) and ``changes`` (lines for a person) of the
        last reload or table that was read; empty before the first.
    :ivar reloads: how many since the start, by outcome.
    :ivar totals: of all hosts, when these were last looked at: ten seconds ago at most.
    """

    version: str
    host_id: str
    pid: int
    started: float
    config_file: str
    certificate: str
    certificate_days: float
    certificate_ends: float
    certificate_first: str
    watch: list[str]
    delayed_unknown: int
    slow_answer: float
    departed: Mapping[str, int]
    kept: int
    refused: int
    cut_off: int
    last_refused: float
    last_reload: LastReload
    reloads: Mapping[str, int]
    totals: Mapping[str, int]


class Counted(Protocol):
    """What the process title tells of a host: its service, or its HostStatus."""

    @property
    def state(self) -> str:
        """As in HostStatus."""

    @property
    def connections(self) -> int:
        """As in HostStatus."""

    @property
    def waiting(self) -> int:
        """As in HostStatus."""


def process_title(statuses: Iterable[Counted], now: float) -> str:
    """
    Sum up all hosts in the process title (row S16).

    :param now: Unix time.
    """
    return f"lonc: {status_line(statuses)} {local_time(now)}"


def status_line(statuses: Iterable[Counted]) -> str:
    """Sum up all hosts."""
    hosts = list(statuses)
    states = Counter(host.state for host in hosts)
    dead, unproven = states["DEAD"], states["unproven"]
    connections = sum(host.connections for host in hosts)
    waiting = sum(host.waiting for host in hosts)
    return (
        f"{count(len(hosts), 'host')}, {dead} DEAD, "
        + (f"{unproven} unproven, " if unproven else "")
        + f"{count(connections, 'connection')}, "
        f"{waiting} waiting"
    )


def status_report(statuses: Iterable[HostStatus], pid: int, now: float) -> bytes:
    """
    Give the content of ``loncstatus.txt`` (protocol section 7).

    :param now: Unix time.
    """
    lines = [f"LONC status {local_time(now)} - parent {pid}", ""]
    lines += [f"{pid}\t{host.host_id}\t{host.text}\t{_field(host.last_log)}" for host in statuses]
    # A log line has no lone surrogates, a host id has none either; the report must not fail at one.
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def write_status(path: str, statuses: Iterable[HostStatus], pid: int, now: float) -> None:
    """
    Replace the status file as a whole, at once, so that nobody reads half of it (row F10).

    Its folder is made when there is none.

    :param now: Unix time.
    :raises OSError: it cannot be written; the file that was there stays.
    """
    content = status_report(statuses, pid, now)
    make_own_folder(os.path.dirname(path))
    replace_file(path, content, sync=False)  # in the reactor's thread, and out of date in a moment


def _field(text: str) -> str:
    return text.translate({ord("\t"): " ", ord("\r"): " ", ord("\n"): " "})
