# deferLater has few annotations:
# mypy: allow-untyped-calls
"""
Reports on the daemon and its hosts, for the status file, the process title, the log and the
management port (rows S16 and F10).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs
from setproctitle import setproctitle
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

import lonc
from lonc.config.current import InForce
from lonc.delayed.service import DelayedService
from lonc.disk.files import why
from lonc.host.service import HostService
from lonc.local.limits import Clients
from lonc.report.events import PARENT, Logger
from lonc.report.judgement import judge_daemon, judge_host, totals
from lonc.report.kinds import JUDGED
from lonc.report.logs import LoncLog
from lonc.report.problems import Problem, Problems, problem
from lonc.report.recent import Recent
from lonc.report.status import (
    DaemonStatus,
    HostStatus,
    LastReload,
    local_time,
    write_status,
)
from lonc.report.times import Totals
from lonc.report.units import count, fitting

log = Logger()

#: Seconds of work per slice, plus at most one step; too short for anybody to notice.
SLICE: Final = 0.005

#: Maximum length of the changes of the last reload: over AMP a character may take twelve bytes, and
#: 65,535 are available.
MOST_TOLD: Final = 5000


async def in_slices(
    clock: IReactorTime, steps: Iterator[object], go_on: Callable[[], bool] = lambda: True
) -> None:
    """
    Run long work in slices, between which the event loop serves others.

    :param clock: the reactor's clock.
    :param steps: short steps.
    :param go_on: called before each further slice; if it returns False, the rest is skipped.
    """
    until = clock.seconds() + SLICE
    for _ in steps:
        if clock.seconds() >= until:
            await deferLater(clock, 0)
            if not go_on():
                return
            until = clock.seconds() + SLICE


def status_text(hosts: Mapping[str, HostService], host_id: str) -> str:
    """Return the status for a log line."""
    if host_id == PARENT:
        return count(len(hosts), "host")
    host = hosts.get(host_id)
    return "" if host is None else host.status(0, "").text


def process_title(statuses: Iterable[HostService | HostStatus], now: float) -> str:
    """
    Return a process title that summarises all hosts (row S16).

    :param now: Unix time.
    """
    return f"lonc: {status_line(statuses)} {local_time(now)}"


def status_line(statuses: Iterable[HostService | HostStatus]) -> str:
    """Summarise all hosts."""
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


@attrs.define(eq=False)
class Reporter:
    """
    Collects the status of the daemon, and writes it where people read it.

    :param hosts: host id -> its service, in the order of the table.
    :param in_force: the settings and the table.
    :param clients: has the number of refused clients.
    :param delayed: has the delayed requests on disk.
    :param lonc_log: has the last line of each host.
    :param problems: the current problems; :meth:`looking` updates them.
    :param departed: returns the counts of hosts that are no longer served.
    """

    _hosts: Mapping[str, HostService]
    _in_force: InForce
    _clients: Clients
    _delayed: DelayedService
    _lonc_log: LoncLog
    problems: Problems
    _departed: Callable[[], Mapping[str, int]]
    _started: float = attrs.field(init=False, factory=time.time)
    _recent: dict[str, Recent] = attrs.field(init=False, factory=dict)
    _last_reload: LastReload = attrs.field(init=False, factory=LastReload)
    _totals: Mapping[str, int] = attrs.field(init=False, factory=lambda: totals([], {}, 0))
    _reloads: Counter[str] = attrs.field(init=False, factory=lambda: Counter(done=0, failed=0))

    def about(self) -> DaemonStatus:
        """Return the status of the daemon as a whole."""
        settings, certificates = self._in_force.settings, self._in_force.access.certificates
        return DaemonStatus(
            version=lonc.__version__,
            host_id=settings.host_id,
            pid=os.getpid(),
            started=self._started,
            config_file=settings.config_file,
            certificate="" if certificates is None else certificates.files.certificate,
            certificate_days=0.0 if certificates is None else certificates.days_left(time.time()),
            certificate_ends=0.0 if certificates is None else certificates.expires,
            certificate_first="" if certificates is None else certificates.ends_first,
            watch=list(settings.watch or (settings.host_id,)),
            delayed_unknown=sum(
                count for x, count in self._delayed.counts.items() if x not in self._hosts
            ),
            slow_answer=settings.slow_answer,
            departed=self._departed(),
            kept=self._delayed.kept,
            refused=self._clients.refused.count,
            last_refused=self._clients.refused.last,
            cut_off=self._clients.cut_off.count,
            last_reload=self._last_reload,
            reloads=dict(self._reloads),
            faults=self._lonc_log.faults,
            last_fault=self._lonc_log.last_fault,
            totals=self._totals,
        )

    def reloaded(self, outcome: str, changes: Sequence[str]) -> None:
        """
        Record a reload of settings or table.

        :param outcome: ``done`` or ``failed``.
        :param changes: readable lines; if it failed, the reasons.
        """
        self._reloads[outcome] += 1
        self._last_reload = {
            "outcome": outcome,
            "when": time.time(),
            "changes": fitting(changes, MOST_TOLD),
        }

    def statuses(self) -> list[HostStatus]:
        """Return the status of all hosts, in the order of the table, without durations."""
        return list(self._statuses())

    def _statuses(self) -> Iterator[HostStatus]:
        last, delayed = self._lonc_log.last_line, self._delayed.counts
        for host_id, host in list(self._hosts.items()):
            yield host.status(delayed.get(host_id, 0), last(host_id))

    # ------------------------------------------------------------------ one host at a time

    def host_ids(self) -> list[str]:
        """Return the ids of all hosts, in the order of the table."""
        return list(self._hosts)

    def status(self, host_id: str) -> HostStatus:
        """
        Return the complete status of a host.

        :raises KeyError: there is no such host.
        """
        host, recent = self._hosts[host_id], self._recent.get(host_id) or Recent()
        oldest = self._delayed.oldest.get(host_id)
        return host.status(
            self._delayed.counts.get(host_id, 0),
            self._lonc_log.last_line(host_id),
            0.0 if oldest is None else max(0.0, time.time() - oldest),
            recent.lately(host.requests, host.con_lost, host.times.of_late()),
        )

    def looking(self) -> Iterator[HostStatus]:
        """
        Yield the status of each host, one per step, and find problems.

        After the last step ``problems`` is up to date.
        """
        daemon = self.about()
        hosts: list[HostStatus] = []
        found: list[Problem] = []
        for host_id in self.host_ids():
            with contextlib.suppress(KeyError):  # it was removed meanwhile
                hosts.append(self.status(host_id))
                found += judge_host(hosts[-1], daemon, time.time())
                yield hosts[-1]
        self._totals = totals(hosts, daemon.departed, daemon.kept, daemon.delayed_unknown)
        found += judge_daemon(self.about(), hosts, time.time())
        self.problems.replace(found, JUDGED)

    def times(self, host_id: str) -> Mapping[str, Totals]:
        """
        Return the durations of a host's requests since the start.

        :raises KeyError: there is no such host.
        """
        return self._hosts[host_id].totals()

    def beginning_slots(self) -> Iterator[None]:
        """Advance the window of the last five minutes, one host per step, every half minute."""
        for host_id, host in list(self._hosts.items()):
            if host_id in self._hosts:  # otherwise it was removed meanwhile
                host.begin_slot()
                if host.requests or host_id in self._recent:  # many hosts have none
                    recent = self._recent.setdefault(host_id, Recent())
                    recent.begin_slot(host.requests, host.con_lost, host.times.of_late()["total"])
            yield

    def http_names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Return this machine's names, and those in the settings, under which pages are served."""
        settings = self._in_force.settings
        row = self._in_force.table.hosts.get(settings.host_id)
        own = [socket.gethostname(), *([row.name] if row is not None else [])]
        return own, settings.http_names

    # ------------------------------------------------------------------ for people

    def status_text(self, host_id: str) -> str:
        """Return the status for a log line."""
        return status_text(self._hosts, host_id)

    def report(self) -> None:
        """Write the status file; raises OSError."""
        for _ in self.reporting():
            pass

    def reporting(self) -> Iterator[None]:
        """
        Write the status file, processing one host per step.

        :raises OSError: it cannot be written.
        """
        statuses: list[HostStatus] = []
        for status in self._statuses():
            statuses.append(status)
            yield
        path = self._in_force.settings.status_file
        try:
            write_status(path, statuses, os.getpid(), time.time())
        except OSError as error:
            what = f"{path}: cannot be written: {error.strerror}"
            self.problems.replace([problem("status-file", path, what)], ("status-file",))
            raise
        self.problems.replace((), ("status-file",))

    def reporting_and_resetting(self) -> Iterator[None]:
        """
        Reopen the log, write the status file, then restore retries, one host per step.

        In this order, so that the report shows DEAD hosts.
        """
        self._lonc_log.reopen()
        try:
            yield from self.reporting()
        except OSError as error:
            log.critical("the status file cannot be written: {error}", error=why(error))
        yield
        for host in list(self._hosts.values()):
            host.reset_retries()
            yield

    def show_title(self) -> None:
        """Set the process title."""
        setproctitle(process_title(self._hosts.values(), time.time()))

    def status_line(self) -> str:
        """Return a line that summarises all hosts, for the service manager."""
        return status_line(self._hosts.values())

    def forget(self, host_id: str) -> None:
        """Drop what is remembered of a host that was removed from the table."""
        self._lonc_log.forget(host_id)
        self._recent.pop(host_id, None)
