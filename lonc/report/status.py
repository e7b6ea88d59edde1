"""
The status of hosts and daemon, and the status file.

This module is pure except for :func:`write_status`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TypedDict

import attrs

from lonc.disk.files import make_own_folder, replace_file
from lonc.report.times import Durations, Parts


def local_time(seconds: float) -> str:
    """
    Format a time as in the files of protocol section 7: ``Mon Nov  3 05:02:00 2026``.

    :param seconds: Unix time. The result is in local time, independent of the locale.
    """
    return time.asctime(time.localtime(seconds))


class LastFailure(TypedDict, total=False):
    """What failed last, and when in Unix time; empty if nothing has."""

    what: str
    when: float


class PauseStatus(TypedDict, total=False):
    """Who has paused a host, why, since and until when (Unix time); empty if nobody has."""

    by: str
    reason: str
    since: float
    until: float
    fail: bool


class LastReload(TypedDict, total=False):
    """Outcome of the last reload, when in Unix time, and its changes; empty before the first."""

    outcome: str
    when: float
    changes: list[str]


@attrs.frozen(kw_only=True)
class HostStatus:
    """
    The status of one host (rows S16 and S18). docs/fields.rst explains the fields in detail.

    :ivar host_id: the host id.
    :ivar state: ``up``, ``DEAD``, ``unproven`` (it was DEAD or is in doubt, and has not
        answered since) or ``stopping``.
    :ivar connecting, handshaking, idle, busy: connections to the lond, by state.
    :ivar clients: open client connections.
    :ivar waiting: requests waiting for a connection.
    :ivar oldest_waiter: how long the oldest of them has waited, in seconds; 0.0 if none waits.
    :ivar retries_left: further failures until the host is DEAD.
    :ivar next_probe: seconds until a DEAD host is probed again; -1.0 if no probe is due.
    :ivar delayed: delayed requests on disk.
    :ivar requests, answers: numbers since the start.
    :ivar con_lost: requests that ended with ``con_lost`` since the start, by cause.
    :ivar lond_version: the version that the lond last reported; empty if it reports none.
    :ivar mode: the authentication mode of the last complete handshake: ``local``, ``ssl`` or
        ``insecure``; empty before the first.
    :ivar debug_level: 0 (off) to 9.
    :ivar last_log: the host's last line in ``lonc.log``, without its newline; empty at first.
    :ivar since: when it entered its state, in Unix time.
    :ivar last_failure: ``what`` failed last and ``when``, in Unix time; empty if nothing has.
    :ivar last_answer: when it last answered, in Unix time; 0.0 if it never has.
    :ivar seconds: durations of requests in the last five minutes: for ``queue``, ``lond`` and
        ``total`` each ``p50``, ``p99`` and ``max``, in seconds, and their number ``count``.
    :ivar paused: ``by`` whom, ``reason``, ``since`` and ``until`` (Unix time, 0.0 for no end) and
        whether requests ``fail`` at once; empty if it is not paused.
    :ivar machine: the address of its lond. Hosts on one machine share its connections, retries
        and handshakes.
    :ivar handshakes: numbers since the start, by outcome: ``ready`` or ``failed``.
    :ivar ping_tells: whether the lond's answers to ``ping`` show that a connection is in step; if
        not, connections are replaced after some requests.
    :ivar astray: answers since the start that may have reached the wrong clients, because the lond
        was out of step.
    :ivar last_astray: when that last happened, in Unix time; 0.0 for never.
    :ivar not_served: why its lond does not serve it, or not yet; empty if it does.
    :ivar oldest_owed: how long the oldest request in flight has been waiting for its answer, in
        seconds; 0.0 if there is none.
    :ivar oldest_delayed: age of its oldest delayed request, in seconds; 0.0 if there is none.
    :ivar name_failure: why its name cannot be resolved; empty if it can, or needs no look-up.
    :ivar name_failing_since: when that began, in Unix time; otherwise 0.0.
    :ivar tried: whether lonc ever tried to reach it; if not, it is ``up`` as far as is known.
    :ivar requests_lately: requests of the last five minutes.
    :ivar con_lost_lately: those of them that ended with ``con_lost``, by cause, without zeros.
    :ivar usual: median duration of requests in the last 24 hours, in seconds; 0.0 if there is none
        yet.
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
    astray: int
    last_astray: float
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
        """Connections to the lond in any state."""
        return self.connecting + self.handshaking + self.idle + self.busy

    @property
    def lost(self) -> int:
        """Requests that ended with ``con_lost`` since the start."""
        return sum(self.con_lost.values())

    @property
    def total(self) -> Durations:
        """Total durations of requests in the last five minutes, including waiting."""
        return self.seconds["total"]

    @property
    def shown(self) -> str:
        """Its state for people, with ``paused`` and ``untried`` instead of ``up``."""
        if self.state != "up":
            return self.state
        return "paused" if self.paused else "up" if self.tried else "untried"

    @property
    def text(self) -> str:
        """The text of row S16, followed by the authentication mode as in later releases."""
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
    The status of the daemon as a whole. docs/fields.rst explains the fields in detail.

    :ivar version: the version of lonc.
    :ivar host_id: this machine's own host id.
    :ivar pid: the process id.
    :ivar started: when it started, in Unix time.
    :ivar config_file: the configuration it reads; empty if it runs without one.
    :ivar certificate: the file of the own certificate; empty if TLS is not used.
    :ivar certificate_days: days until the first certificate in its chain expires; negative
        afterwards.
    :ivar certificate_ends: when that is, in Unix time; 0.0 without a certificate.
    :ivar certificate_first: the file of that certificate, and its subject unless it is the own one.
    :ivar watch: ids of the hosts that must not be DEAD (``loncWatch``).
    :ivar delayed_unknown: delayed requests for hosts that are not in the table.
    :ivar slow_answer: seconds above which a host's slowest answers are too slow
        (``loncSlowAnswer``).
    :ivar departed: ``requests``, ``answers`` and ``con_lost`` since the start for hosts that were
        removed from the table or restarted.
    :ivar kept: delayed requests that were set aside.
    :ivar refused: clients refused since the start because all slots were taken.
    :ivar cut_off: clients closed since the start because they exceeded a limit or to free a slot.
    :ivar last_refused: when a client was last refused, in Unix time; 0.0 if none was.
    :ivar last_reload: ``outcome``, ``when`` (Unix time) and ``changes`` (readable lines) of the
        last reload of settings or table; empty before the first.
    :ivar reloads: reloads since the start, by outcome.
    :ivar faults: number of faults inside lonc logged since the start.
    :ivar last_fault: when the last was, in Unix time; 0.0 for never.
    :ivar totals: totals of all hosts, at most ten seconds old.
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
    faults: int
    last_fault: float
    totals: Mapping[str, int]


def status_report(statuses: Iterable[HostStatus], pid: int, now: float) -> bytes:
    """
    Return the content of ``loncstatus.txt`` (protocol section 7).

    :param now: Unix time.
    """
    lines = [f"LONC status {local_time(now)} - parent {pid}", ""]
    lines += [f"{pid}\t{host.host_id}\t{host.text}\t{_field(host.last_log)}" for host in statuses]
    # There should be no lone surrogates, but the report must not fail if there are.
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def write_status(path: str, statuses: Iterable[HostStatus], pid: int, now: float) -> None:
    """
    Replace the status file atomically (row F10).

    Its folder is created if it does not exist.

    :param now: Unix time.
    :raises OSError: it cannot be written; the previous file is left.
    """
    content = status_report(statuses, pid, now)
    make_own_folder(os.path.dirname(path))
    replace_file(
        path, content, sync=False
    )  # it blocks the reactor, and the file is soon out of date


def _field(text: str) -> str:
    return text.translate({ord("\t"): " ", ord("\r"): " ", ord("\n"): " "})
