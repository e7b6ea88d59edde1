"""
The configuration in force: settings, host table, and everything derived from them.
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

#: Settings that only take effect at the next start, because the lock and the logs are open.
FIXED = {
    "daemons_dir": "lonDaemons",
    "log_format": "loncLogFormat",
}

#: What is read from the files.
Configuration = tuple[Settings, HostTable]


@attrs.frozen
class Sources:
    """
    Functions that read the configuration again.

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
    A checked configuration that can replace the one in force.

    :ivar changes: its effects on the hosts.
    """

    settings: Settings
    table: HostTable
    access: Access
    changes: Changes


def _sockets(settings: Settings) -> int:
    """Return the maximum number of sockets of a host."""
    return 2 if settings.socket_names == "both" else 1


def _needed(settings: Settings, table: HostTable) -> int:
    hosts = len(table.hosts) + len(table.refused)
    needed = needed_files(hosts, settings.max_connections, settings.max_clients)
    return needed + hosts * (_sockets(settings) - 1)


def _within_limit(settings: Settings, table: HostTable) -> HostTable:
    """Return the table with no more hosts than the limit on open files allows."""
    limit = raise_file_limit(_needed(settings, table))
    room = room_for_hosts(limit, _sockets(settings))
    return table.first(room, settings.host_id) if len(table.hosts) > room else table


class InForce:
    """
    The configuration in force. Keep no copies, since any part of it may be replaced.

    :ivar settings: the settings.
    :ivar table: the host table.
    :ivar access: the authentication modes that these allow.
    :ivar later: changes that take effect at the next start: setting -> a readable line.
    :raises SettingsError: the certificates are unusable, and loncAllowInsecure is 0.
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
        """Return the certificate names that may see over the management port, and may steer."""
        return self.settings.management_names

    def proposal(self, configuration: Configuration) -> Proposal:
        """
        Prepare a replacement. This reads files, so call it in a thread.

        :raises SettingsError: as in the constructor, or certificates have become unusable.
        """
        settings, table = configuration
        table = _within_limit(settings, table)
        table.ids_at("")  # the first call builds an index
        access = read_access(settings, table)
        if access.unusable and self.access.certificates is not None:
            # A file that is missing for a moment must not disable TLS.
            raise SettingsError(access.unusable)
        return Proposal(settings, table, access, compare(self.table, table))

    def replace(self, proposal: Proposal) -> Changes:
        """
        Replace the configuration, except for settings that only take effect at the next start.

        :return: the effects on the hosts.
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
        """The number of files that may have to be open at once."""
        return _needed(self.settings, self.table)

    def room_for_clients(self) -> int:
        """Raise the limit on open files as needed; return how many clients it allows."""
        hosts = len(self.table.hosts)
        sockets = hosts * _sockets(self.settings)
        limit = raise_file_limit(self.needed_files)
        return room_for_clients(limit, sockets, hosts * self.settings.max_connections)

    def problems(self) -> list[Problem]:
        """Return the problems of the configuration; raise the limit of open files if necessary."""
        needed = self.needed_files
        limit = raise_file_limit(needed)
        return [
            *configuration_problems(
                self.settings, self.table, self.access, needed, limit, os.geteuid()
            ),
            *(problem("restart-needed", name, what) for name, what in self.later.items()),
        ]
