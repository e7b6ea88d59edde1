# ManagementPort, a Twisted Service, has no annotations:
# mypy: allow-untyped-calls
"""
Reloading the configuration while lonc runs (HUP, USR2 and fetched tables; row F13).

The files are read in a thread. If all of them are usable, each part of the daemon is reconfigured,
a few hosts in each iteration of the event loop. Unchanged parts are not touched. Reloads are
serialised: the files for the next one are read after the last one is complete.
"""

from __future__ import annotations

import grp
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs
from twisted.internet.defer import Deferred, DeferredLock

from lonc.config.current import Configuration, InForce
from lonc.config.hosts import Changes, TableError, changed_hosts
from lonc.config.settings import Settings, SettingsError, changed_settings
from lonc.control.errors import ReloadFailed
from lonc.control.port import Ports
from lonc.control.reporter import Reporter, in_slices
from lonc.daemon.outside import Outside
from lonc.daemon.supervisor import Supervisor
from lonc.disk.threads import Disk, NoPlace, Stuck
from lonc.host.shared_sockets import SharedSockets
from lonc.report.events import Logger
from lonc.report.kinds import CONFIGURED
from lonc.report.units import fitting
from lonc.transport.unix_socket import GroupError, SocketError

log = Logger()


#: Added, removed or changed hosts that are logged individually; the rest is counted. A cluster's
#: table can have thousands.
HOSTS_TOLD = 20


#: Maximum number of failures, and of problems, in the answer.
MOST_TOLD: Final = 8

#: Maximum length of the changes in the answer: AMP allows 65,535 bytes.
MOST_CHARACTERS: Final = 15_000


@attrs.frozen
class ReloadAnswer:
    """
    The answer to a successful reload.

    :ivar summary: numbers of added, removed, changed and unchanged hosts.
    :ivar changes: changed settings and hosts.
    :ivar not_done: what could not be carried out, and why.
    :ivar problems: problems of the new configuration.
    """

    summary: str
    changes: Sequence[str]
    not_done: Sequence[str]
    problems: Sequence[str]

    def __str__(self) -> str:
        """Return the summary, a line for each change, and a line for each problem."""
        told = self.summary
        if self.not_done:
            told += f"; not carried out: {'; '.join(_first(self.not_done))}"
        problems = [f"problem: {each}" for each in _first(self.problems)]
        return "\n".join([told, *fitting(self.changes, MOST_CHARACTERS), *problems])


def _first(lines: Sequence[str]) -> list[str]:
    left_out = len(lines) - MOST_TOLD
    more = [f"{left_out} more: lonc status"] if left_out > 0 else []
    return [*lines[:MOST_TOLD], *more]


def told_of_sockets(errors: Sequence[SocketError], group: int | None) -> Iterator[str]:
    """
    Yield a line for each error, but a single one for all sockets whose group cannot be set.

    :param group: the id of the group; None for none.
    """
    groups = [str(error) for error in errors if isinstance(error, GroupError)]
    if groups:
        count = f" (and {len(groups) - 1} more)" if len(groups) > 1 else ""
        yield f"loncSocketGroup {_group_name(group)}: {groups[0]}{count}"
    yield from (str(error) for error in errors if not isinstance(error, GroupError))


def _group_name(group: int | None) -> str:
    try:
        return "none" if group is None else grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


@attrs.define
class Reloader:
    """
    Replaces the configuration in force, and reconfigures the parts of the daemon.

    :param outside: has the functions that read the files.
    :param disk: runs them in a thread.
    :param ports: the ports other than the hosts' sockets.
    :param followers: called with the new settings, for parts that need no more than these.
    """

    _outside: Outside
    _disk: Disk
    _in_force: InForce
    _supervisor: Supervisor
    _shared: SharedSockets
    _reporter: Reporter
    _ports: Ports
    _followers: Sequence[Callable[[Settings], object]]
    _one_at_a_time: DeferredLock = attrs.field(init=False, factory=DeferredLock)
    _stopping: bool = attrs.field(init=False, default=False)

    def table(self) -> Deferred[str]:
        """
        Read the table again; only hosts that changed are affected.

        The retries of all hosts are restored, and the status file is written.

        :return: readable changes; fails with ReloadFailed if the table is unusable, and the old one
            stays in force.
        """

        def read() -> Configuration:
            settings = self._in_force.settings
            return settings, self._outside.sources.table(settings)

        return Deferred.fromCoroutine(self._take_over(read, self._in_force.settings.hosts_file))

    def everything(self) -> Deferred[str]:
        """
        Read ``loncapa.conf`` and the table again, without interrupting requests.

        :return: readable changes; fails with ReloadFailed if one of them is unusable, and the old
            configuration stays in force.
        """
        time.tzset()  # the time zone of the machine may have changed
        return Deferred.fromCoroutine(
            self._take_over(self._outside.sources.everything, self._in_force.settings.config_file)
        )

    async def _take_over(self, read: Callable[[], Configuration], file: str) -> str:
        answer, moved = await self._one_at_a_time.run(
            lambda: Deferred.fromCoroutine(self._take_over_next(read, file))
        )
        ports = [line for each in moved for line in await each]
        return str(attrs.evolve(answer, not_done=[*ports, *answer.not_done]))

    async def _take_over_next(
        self, read: Callable[[], Configuration], file: str
    ) -> tuple[ReloadAnswer, list[Deferred[list[str]]]]:
        """
        Perform a reload.

        :return: the answer, and Deferreds with further errors of each port.
        """
        if self._stopping:
            raise ReloadFailed("nothing is changed: lonc stops")
        new, changes = await self._read(read, file)
        if self._stopping:
            raise ReloadFailed("nothing is changed: lonc stops")
        before = self._in_force.settings, self._in_force.table, self._in_force.access
        self._in_force.replace(new)
        settings, table = self._in_force.settings, self._in_force.table
        lines = [
            *changed_settings(before[0], settings),
            *changed_hosts(before[1], table, changes),
        ]
        if before[2].certificates != self._in_force.access.certificates:
            lines.append("the certificates have changed")
        self._reporter.reloaded("done", lines)
        # Reading the table alone does not end a failure of loncapa.conf.
        for read_file in {file, before[0].hosts_file}:
            self._reporter.problems.over("reload-failed", read_file)
        for each in self._followers:
            each(settings)
        sockets: list[SocketError | None] = []
        problems = self._in_force.problems()
        self._reporter.problems.replace(problems, CONFIGURED)
        await self._in_slices(self._tell_hosts(changes, sockets))
        await self._in_slices(self._shared.arranging(table.hosts, settings, sockets))
        shared = self._ports.share(settings.management_group)
        await self._in_slices(self._reporter.reporting_and_resetting())
        summary = (
            f"hosts: {len(changes.new)} new, {len(changes.gone)} gone, "
            f"{len(changes.changed)} changed, {len(changes.same)} as before"
        )
        log.info("{told}", told=summary, success=True, event="reloaded")
        errors = [error for error in sockets if error is not None]
        not_done = [*shared, *told_of_sockets(errors, settings.socket_group)]
        wrong = [each.what for each in (*self._in_force.ended_certificate(), *problems)]
        # Last, because it closes the connection that may wait for the answer.
        moved = self._ports.relocate(settings)
        return ReloadAnswer(summary, lines, not_done, wrong), moved

    async def _read(self, read: Callable[[], Configuration], file: str) -> tuple[InForce, Changes]:
        """Read in a thread, because tables may be long and disks may hang."""
        settings = self._in_force.settings
        path = settings.hosts_file
        try:
            if self._disk.is_at(path):
                raise NoPlace(f"{path}: the disk has not answered the previous read")
            return await self._disk.run(path, lambda: self._in_force.proposal(read()))
        except (SettingsError, TableError, Stuck) as error:
            log.critical("nothing is changed: {error}", error=error)
            self._reporter.reloaded("failed", [str(error)])
            what, problems = f"the last reload failed: {error}", self._reporter.problems
            if isinstance(error, TableError):  # loncapa.conf was usable
                problems.over("reload-failed", file)
                file = path
            problems.tell("reload-failed", file, what, since=time.time())
            raise ReloadFailed(f"nothing is changed: {error}") from None

    async def _in_slices(self, steps: Iterator[None]) -> None:
        """
        Run steps of the reload.

        :raises ReloadFailed: lonc is stopping, so the remaining steps are skipped.
        """
        await in_slices(self._outside.reactor, steps, lambda: not self._stopping)
        if self._stopping:
            raise ReloadFailed("not all is changed: lonc stops")

    def _tell_hosts(self, changes: Changes, errors: list[SocketError | None]) -> Iterator[None]:
        for number, host_id in enumerate(changes.gone):
            if number < HOSTS_TOLD:
                log.critical("the host is no longer in the table", host_id=host_id)
            self._supervisor.remove(host_id)
            self._reporter.forget(host_id)
            yield
        if len(changes.gone) > HOSTS_TOLD:
            count = len(changes.gone) - HOSTS_TOLD
            log.critical("{count} more hosts are no longer in the table", count=count)
        for number, host_id in enumerate(changes.changed):
            if number < HOSTS_TOLD:
                log.critical("the host's address has changed", host_id=host_id)
            errors.append(self._supervisor.reconfigure(host_id))
            yield
        if len(changes.changed) > HOSTS_TOLD:
            count = len(changes.changed) - HOSTS_TOLD
            log.critical("the addresses of {count} more hosts have changed", count=count)
        for host_id in changes.same:
            errors.append(self._supervisor.reconfigure(host_id))
            yield
        for number, host_id in enumerate(changes.new):
            errors.append(self._supervisor.add(host_id))
            if number < HOSTS_TOLD:
                log.info("a new host", host_id=host_id)
            yield
        if len(changes.new) > HOSTS_TOLD:
            log.info("{count} more new hosts", count=len(changes.new) - HOSTS_TOLD)

    def stop(self) -> Deferred[list[tuple[bool, list[str]]]]:
        """Refuse further reloads; fires when all ports have been moved."""
        self._stopping = True
        return self._ports.relocated()
