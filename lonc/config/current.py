"""
The configuration in force: settings, host table, and what follows from both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import attrs

from lonc.config.auth_modes import Access, read_access
from lonc.config.certificates import Certificates
from lonc.config.hosts import Changes, Host, HostTable, compare
from lonc.config.judgement import configuration_problems
from lonc.config.rlimit import needed_files, raise_file_limit, room_for_clients, room_for_hosts
from lonc.config.settings import Settings, SettingsError
from lonc.report.problems import Problem, problem
from lonc.wire.handshake import AuthModes

#: Settings that are taken over at the next start only: the lock and the logs are there already.
FIXED = {
    "daemons_dir": "lonDaemons",
    "log_format": "loncLogFormat",
}

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
    The configuration in force. Keep no copies: any part of it may be replaced.

    :ivar settings: the settings.
    :ivar table: the host table.
    :ivar access: which ways in the two leave open.
    :ivar later: what waits for the next start: setting -> a line for a person.
    :raises SettingsError: certificates are set, cannot be used, and have to be.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.settings, table = configuration
        self.table = _within_limit(self.settings, table)
        self.access = read_access(self.settings, self.table)
        self.later: dict[str, str] = {}

    def configuration(self) -> Configuration:
        """Return both."""
        return self.settings, self.table

    def auth_modes(self, host: Host) -> AuthModes:
        """Return the authentication modes to offer a host's lond."""
        return self.access.auth_modes(host)

    def ids(self, host: Host) -> Sequence[str]:
        """Return the ids that a host's lond serves."""
        return self.table.ids_at(host.target)

    def certificates(self) -> Certificates | None:
        """Return the own certificates."""
        return self.access.certificates

    def management_names(self) -> Sequence[tuple[str, bool]]:
        """Return whose certificates may see over the management port, and whether they steer."""
        return self.settings.management_names

    def proposal(self, configuration: Configuration) -> Proposal:
        """
        Prepare a replacement. It reads files, so call it in a thread.

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
        Replace the configuration, except for what takes effect at the next start only.

        :return: what that changes for the hosts.
        """
        settings = proposal.settings
        self.later = {}
        for name, variable in FIXED.items():
            if getattr(settings, name) != getattr(self.settings, name):
                self.later[variable] = f"{variable} counts from the next start on"
                written = {**settings.written}
                if variable in self.settings.written:
                    written[variable] = self.settings.written[variable]
                settings = attrs.evolve(
                    settings, written=written, **{name: getattr(self.settings, name)}
                )
        self.settings, self.table, self.access = settings, proposal.table, proposal.access
        return proposal.changes

    @property
    def needed_files(self) -> int:
        """How many files may be open at once."""
        return _needed(self.settings, self.table)

    def room_for_clients(self) -> int:
        """Allow as many open files as it takes; return how many clients they leave room for."""
        hosts = len(self.table.hosts)
        sockets = hosts * _sockets(self.settings)
        limit = raise_file_limit(self.needed_files)
        return room_for_clients(limit, sockets, hosts * self.settings.max_connections)

    def problems(self, user: int | None = None) -> list[Problem]:
        """
        Judge what is in force, and allow as many open files as it takes.

        :param user: the user id that lonc runs as; None for this process's.
        """
        needed = self.needed_files
        limit = raise_file_limit(needed)
        return [
            *configuration_problems(
                self.settings,
                self.table,
                self.access,
                needed,
                limit,
                os.geteuid() if user is None else user,
            ),
            *(problem("restart-needed", name, what) for name, what in self.later.items()),
        ]
