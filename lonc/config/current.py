"""
What the daemon runs by: the settings and the table in force, and what the two allow together.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import attrs
from twisted.logger import Logger

from lonc.config.auth_modes import Access, read_access
from lonc.config.certificates import WARNING_DAYS
from lonc.config.exposure import exposed
from lonc.config.hosts import Changes, HostTable, compare
from lonc.config.rlimit import needed_files, raise_file_limit, room_for_clients, room_for_hosts
from lonc.config.settings import Settings, SettingsError

#: Settings that are taken over at the next start only: the lock and the logs are there already.
FIXED = {
    "daemons_dir": "lonDaemons",
    "log_format": "loncLogFormat",
}

#: So many lines of the table that have problems are told one by one; of more, a few as examples.
PROBLEMS_TOLD = 5
EXAMPLES = 3

log = Logger()

#: What is read from the files.
Configuration = tuple[Settings, HostTable]


@attrs.frozen
class Sources:
    """
    Where the configuration comes from when it is read again.

    :ivar everything: ``loncapa.conf`` and the table; raises SettingsError or TableError.
    :ivar table: the table that the settings name; raises TableError.
    :ivar settings: ``loncapa.conf`` alone; raises SettingsError.
    """

    everything: Callable[[], Configuration]
    table: Callable[[Settings], HostTable]
    settings: Callable[[], Settings]


@attrs.frozen
class Proposal:
    """
    What may be put in force.

    :ivar changes: what that changes for the hosts.
    """

    settings: Settings
    table: HostTable
    access: Access
    changes: Changes


def _sockets(settings: Settings) -> int:
    """Return how many sockets a host has at most."""
    return 2 if settings.socket_names == "both" else 1


def _needed(settings: Settings, table: HostTable) -> int:
    hosts = len(table.hosts)
    needed = needed_files(hosts, settings.max_connections, settings.max_clients)
    return needed + hosts * (_sockets(settings) - 1)


def _within_limit(settings: Settings, table: HostTable) -> HostTable:
    """Return the table with no more hosts than the limit of open files leaves room for."""
    limit = raise_file_limit(_needed(settings, table))
    room = room_for_hosts(limit, _sockets(settings))
    return table.first(room, settings.host_id) if len(table.hosts) > room else table


class InForce:
    """
    The configuration in force. Ask it each time: all of it may be replaced.

    :ivar settings: the settings.
    :ivar table: the host table.
    :ivar access: which ways in the two leave open.
    :ivar room_for_clients: how many the limit of open files allows.
    :ivar later: what waits for the next start, in a line for each.
    :raises SettingsError: certificates are set, cannot be used, and have to be.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.settings, table = configuration
        self.table = _within_limit(self.settings, table)
        self.access = read_access(self.settings, self.table)
        self.later: list[str] = []
        self.room_for_clients = sys.maxsize

    def proposal(self, configuration: Configuration) -> Proposal:
        """
        Return what it takes to put another in its place. It reads files: for a thread.

        :raises SettingsError: as at the start.
        """
        settings, table = configuration
        table = _within_limit(settings, table)
        table.ids_at("")  # that takes a moment the first time
        access = read_access(settings, table)
        if access.unusable and self.access.certificates is not None:
            # A file that is gone for a moment must not put everything in the clear.
            raise SettingsError(access.unusable)
        return Proposal(settings, table, access, compare(self.table, table))

    def replace(self, proposal: Proposal) -> Changes:
        """
        Put another in its place, but for what has to wait for the next start.

        :return: what that changes for the hosts.
        """
        settings = proposal.settings
        self.later = []
        for name, variable in FIXED.items():
            if getattr(settings, name) != getattr(self.settings, name):
                log.warn("{name} has changed: that counts from the next start on", name=variable)
                self.later.append(f"{variable} counts from the next start on")
                written = {**settings.written}
                if variable in self.settings.written:
                    written[variable] = self.settings.written[variable]
                settings = attrs.evolve(
                    settings, written=written, **{name: getattr(self.settings, name)}
                )
        self.settings, self.table, self.access = settings, proposal.table, proposal.access
        if self.table.refused:
            self.later.append(f"{len(self.table.refused)} hosts are beyond the limit of open files")
        return proposal.changes

    def warn(self) -> Iterator[None]:
        """
        Log what looks wrong but stops nothing; allow as many open files as it takes.

        :return: a line at each step.
        """
        settings, table = self.settings, self.table
        open_to_others = exposed(settings, self.access.certificates)
        for problem in (
            *settings.warnings,
            *(table.problems if table.problem_count <= PROBLEMS_TOLD else ()),
            *self.access.warnings,
            *open_to_others,
        ):
            log.warn("{problem}", problem=problem, event="configuration-problem")
            yield
        if table.problem_count > PROBLEMS_TOLD:
            log.warn(
                "{count} lines of the host table have problems, such as {examples}",
                count=table.problem_count,
                examples="; ".join(table.problems[:EXAMPLES]),
            )
        if table.hosts and settings.host_id not in table.hosts:
            log.warn(
                "{own} (lonHostID) is not in {file}: other servers will not know this one",
                own=settings.host_id,
                file=settings.hosts_file,
            )
        needed = _needed(settings, table)
        limit = raise_file_limit(needed)
        hosts = len(table.hosts)
        self.room_for_clients = room_for_clients(
            limit, hosts * _sockets(settings), hosts * settings.max_connections
        )
        if table.refused:
            log.critical(
                "{count} hosts of the table are not served: the limit of open files is {limit} "
                "(ulimit -n), which leaves room for {room}",
                count=len(table.refused),
                limit=limit,
                room=len(table.hosts),
            )
        if limit < needed:
            log.warn(
                "{needed} files may be needed at once, but the limit is {limit} (ulimit -n): "
                "some clients or connections may have to be turned away",
                needed=needed,
                limit=limit,
            )

    def look_at_certificate(self) -> None:
        """Warn in time, for a new certificate takes days to be had; called once a day."""
        certificates = self.access.certificates
        if certificates is None:
            return
        days = certificates.days_left(time.time())
        if days <= 0:
            log.critical("the certificate {file} has expired", file=certificates.ends_first)
        elif days <= WARNING_DAYS:
            log.warn(
                "the certificate {file} expires in {days:.1f} days",
                file=certificates.ends_first,
                days=days,
            )
