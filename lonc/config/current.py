"""
The configuration in force: settings, host table, everything derived from them, and its problems.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from lonc.config.auth_modes import read_access
from lonc.config.hosts import Changes, Host, HostTable, compare
from lonc.config.rlimit import needed_files, raise_file_limit, room_for_clients, room_for_hosts
from lonc.config.settings import Settings, SettingsError
from lonc.report.judgement import certificate_problem
from lonc.report.problems import Problem, problem
from lonc.report.units import count
from lonc.wire.handshake import AuthModes

#: Settings that only take effect at the next start, because the lock and the logs are open.
FIXED = {
    "daemons_dir": "lonDaemons",
    "log_format": "loncLogFormat",
}

#: How many of the hosts that are not served are named.
EXAMPLES: Final = 5

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


class InForce:
    """
    The configuration in force. Keep no copies, since any part of it may be replaced.

    :ivar settings: the settings.
    :ivar table: the host table, with no more hosts than the limit on open files allows.
    :ivar access: the authentication modes that these allow.
    :ivar later: changes that take effect at the next start: setting -> a readable line.
    :raises SettingsError: the certificates are unusable, and loncAllowInsecure is 0.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.settings, self.table = configuration
        room = room_for_hosts(self.settings, raise_file_limit(self.needed_files))
        if len(self.table.hosts) > room:
            self.table = self.table.first(room, self.settings.host_id)
        self.access = read_access(self.settings, self.table)
        self.later: dict[str, str] = {}

    def auth_modes(self, host: Host) -> AuthModes:
        """Return the authentication modes to offer a host's lond."""
        return self.access.auth_modes(host)

    def ids(self, host: Host) -> Sequence[str]:
        """Return the ids that a host's lond serves."""
        return self.table.ids_at(host.target)

    def proposal(self, configuration: Configuration) -> tuple[InForce, Changes]:
        """
        Prepare a replacement. This reads files, so call it in a thread.

        :return: what to put in force, and its effects on the hosts.
        :raises SettingsError: as in the constructor, or certificates have become unusable.
        """
        new = InForce(configuration)
        new.table.ids_at("")  # the first call builds an index
        if new.access.unusable and self.access.certificates is not None:
            # A file that is missing for a moment must not disable TLS.
            raise SettingsError(new.access.unusable)
        return new, compare(self.table, new.table)

    def replace(self, new: InForce) -> None:
        """Replace the configuration, except for settings that only take effect at a start."""
        settings = new.settings
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
        self.settings, self.table, self.access = settings, new.table, new.access

    @property
    def needed_files(self) -> int:
        """The number of files that may have to be open at once."""
        return needed_files(self.settings, len(self.table.hosts) + len(self.table.refused))

    def room_for_clients(self) -> int:
        """Raise the limit on open files as needed; return how many clients it allows."""
        limit = raise_file_limit(self.needed_files)
        return room_for_clients(self.settings, limit, len(self.table.hosts))

    # ------------------------------------------------------------------ its problems

    def problems(self) -> list[Problem]:
        """Return the problems of the configuration; raise the limit of open files if necessary."""
        restart = (problem("restart-needed", name, what) for name, what in self.later.items())
        return [*self._mistakes(), *self.exposed(), *self._dangers(), *self._too_few(), *restart]

    def _mistakes(self) -> Iterator[Problem]:
        """Yield what is wrong in the files."""
        settings, table = self.settings, self.table
        for warning in settings.warnings:
            yield problem("setting-unused", _place(warning), warning)
        for line in table.problems:
            yield problem("table-row", _place(line), line)
        if table.hosts and settings.host_id not in table.hosts:
            what = f"{settings.host_id} (lonHostID) is not in {settings.hosts_file}"
            yield problem("own-id-missing", settings.hosts_file, what)
        if self.access.warning:
            yield problem("certificate-unusable", settings.certificate or "", self.access.warning)

    def exposed(self) -> Iterator[Problem]:
        """Yield files and folders to which other local users have too much access."""
        settings, certificates = self.settings, self.access.certificates
        for folder in (settings.sock_dir, settings.delayed_dir, settings.logs_dir):
            if _has(folder, stat.S_IWOTH):
                yield problem("folder-open", folder, f"{folder} can be written by everybody")
        key = "" if certificates is None else certificates.files.key
        if key and _has(key, stat.S_IROTH):
            yield problem("key-readable", key, f"the private key {key} can be read by everybody")

    def _dangers(self) -> Iterator[Problem]:
        """Yield settings that let too many in, or nobody."""
        settings = self.settings
        if settings.management_tls is not None and not settings.management_names:
            what = "loncManagementTLS is set, and loncManagementNames names nobody who may come"
            yield problem("nobody-may-manage", settings.management_tls, what)
        if not settings.management.startswith(("unix:", "lonctls:")):
            what = f"every local user may see over {settings.management}, and nobody may steer"
            yield problem("management-open", settings.management, what)
        if os.geteuid() == 0 and _roots_own(settings):
            what = "started as root, lonc has sockets that nobody else may use"
            yield problem("runs-as-root", "", what)

    def _too_few(self) -> Iterator[Problem]:
        """Yield a problem if the limit on open files is too low."""
        needed, refused = self.needed_files, [*self.table.refused]
        limit = raise_file_limit(needed)
        what = f"{needed} files may be needed at once, but the limit is {limit} (ulimit -n)"
        if refused:
            more = len(refused) - EXAMPLES
            what = (
                f"{count(len(refused), 'host')} of the table cannot be served: {what}, which "
                f"leaves room for {len(self.table.hosts)}: {', '.join(refused[:EXAMPLES])}"
            )
            yield problem("hosts-not-served", "", what + (f" and {more} more" if more > 0 else ""))
        elif limit < needed:
            yield problem("open-files", "", what)

    def ended_certificate(self) -> Iterator[Problem]:
        """Yield a problem if one of the own certificates expires soon, or has expired."""
        own = self.access.certificates
        if own is not None:
            yield from certificate_problem(own.ends_first, own.days_left(time.time()))


def _place(line: str) -> str:
    """Return the file and line with which a warning begins."""
    return line.partition(": ")[0]


def _has(path: str, right: int) -> bool:
    try:
        return bool(os.stat(path).st_mode & right)
    except OSError:  # not created yet, or deleted since it was read
        return False


def _roots_own(settings: Settings) -> bool:
    """Whether sockets of root would be unusable for the owner of their folder."""
    if settings.socket_group is not None or settings.socket_mode & 0o006:
        return False
    try:
        folder = os.stat(settings.sock_dir)
    except OSError:
        return False
    return folder.st_uid != 0 or folder.st_gid != 0
