# Twisted's endpoints have no annotations:
# mypy: allow-untyped-calls
"""
What a start would say about the configuration, without one (``lonc check``).

It reads what a start and a reload read, by the same functions, changes nothing, and may be called
while a lonc runs on the same folders.
"""

from __future__ import annotations

import os
import resource
import stat
import time
from collections.abc import Iterator
from typing import Final

import attrs
from twisted.internet.endpoints import serverFromString

from lonc.config.auth_modes import Access, read_access
from lonc.config.certificates import WARNING_DAYS
from lonc.config.hosts import HostTable, TableError, read_both_tables
from lonc.config.rlimit import needed_files
from lonc.config.settings import Settings, SettingsError, check_folders, read_settings
from lonc.control.port import ManagementPortError, check_description
from lonc.delayed.sealing import UnusableKey, key_of

#: From the least to the worst: an error keeps lonc from starting.
LEVELS: Final = ("ok", "warning", "error")


@attrs.frozen
class Checked:
    """
    One thing that was looked at.

    :ivar level: one of :data:`LEVELS`.
    :ivar what: what it is, with file and line where there are any.
    :ivar advice: what to do; empty where there is nothing.
    """

    level: str
    what: str
    advice: str = ""


def check(config_file: str) -> Iterator[Checked]:
    """Look at everything that a start looks at; what cannot be looked at any more is left out."""
    try:
        settings = read_settings(config_file, {})
    except SettingsError as error:
        yield Checked("error", str(error), "mend it: lonc does not start, and a reload is refused")
        return
    yield Checked("ok", f"{settings.config_file} can be read")
    for warning in settings.warnings:
        yield Checked("warning", warning, "it has no effect as it stands")
    yield from _folders(settings)
    yield from _key(settings)
    table = None
    try:
        table = read_both_tables(
            settings.hosts_file,
            settings.fetched_hosts_file,
            settings.max_host_id,
            lenient=True,
        )
    except TableError as error:
        yield Checked("error", str(error), "mend the table: lonc does not start without a host")
    if table is not None:
        yield from _table(settings, table)
        yield from _certificates(settings, table)
        yield from _ports(settings, table)
        yield from _limits(settings, table)
        yield from _sockets(settings, table)


def _folders(settings: Settings) -> Iterator[Checked]:
    try:
        check_folders(settings)
    except SettingsError as error:
        yield Checked("error", str(error), "make it, or mend its owner and mode")
        return
    yield Checked("ok", "all folders are there and can be used")
    for variable, folder in (
        ("lonSockDir", settings.sock_dir),
        ("lonSockDir", settings.delayed_dir),
        ("lonDaemons", settings.logs_dir),
    ):
        if os.path.isdir(folder) and os.stat(folder).st_mode & stat.S_IWOTH:
            yield Checked(
                "warning",
                f"{folder} ({variable}) can be written by everybody",
                f"chmod o-w {folder}",
            )


def _key(settings: Settings) -> Iterator[Checked]:
    try:
        key = key_of(settings)
    except UnusableKey as error:
        yield Checked("error", str(error), "mend loncDelayedKeyFile; lonc make-delayed-key")
        return
    if key is not None:
        yield Checked("ok", f"delayed requests are sealed with {settings.delayed_key_file}")


def _table(settings: Settings, table: HostTable) -> Iterator[Checked]:
    yield Checked("ok", f"{settings.hosts_file} has {len(table.hosts)} hosts")
    for problem in table.problems:
        yield Checked("warning", problem, "mend the line: its host is not served")
    if table.hosts and settings.host_id not in table.hosts:
        yield Checked(
            "warning",
            f"{settings.host_id} (lonHostID) is not in {settings.hosts_file}",
            "other servers will not know this one",
        )


def _certificates(settings: Settings, table: HostTable) -> Iterator[Checked]:
    try:
        access: Access = read_access(settings, table)
    except SettingsError as error:
        yield Checked("error", str(error), "mend the certificate, or set loncAllowInsecure 1")
        return
    for warning in access.warnings:
        yield Checked("warning", warning, "see the page on certificates")
    certificates = access.certificates
    if certificates is None:
        return
    days, first = certificates.days_left(time.time()), certificates.ends_first
    if days <= 0:
        yield Checked("warning", f"{first} has expired", "have it renewed")
    elif days <= WARNING_DAYS:
        yield Checked("warning", f"{first} ends in {days:.0f} days", "have it renewed")
    else:
        yield Checked("ok", f"{first} is valid for {days:.0f} days")


def _ports(settings: Settings, table: HostTable) -> Iterator[Checked]:
    try:
        certificates = read_access(settings, table).certificates
    except SettingsError:
        return  # it has been told
    for variable, description in (
        ("loncManagement", settings.management),
        ("loncManagementTLS", settings.management_tls),
    ):
        try:
            if description is not None:
                check_description(description, certificates)
        except ManagementPortError as error:
            yield Checked("error", f"{variable}: {error}", "mend it: lonc does not start")
    if settings.management_tls is not None and not settings.management_names:
        yield Checked(
            "warning",
            "loncManagementTLS is set, and loncManagementNames names nobody who may come",
            "name those whose certificates may see, or steer",
        )
    try:
        if settings.http is not None:
            serverFromString(None, settings.http)
    except Exception as error:  # endpoints raise whatever they like
        yield Checked("error", f"loncHTTP: {settings.http}: {error}", "mend it")


def _limits(settings: Settings, table: HostTable) -> Iterator[Checked]:
    needed = needed_files(len(table.hosts), settings.max_connections, settings.max_clients)
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield Checked(
            "warning",
            f"{needed} files may be needed at once, but this shell's limit is {limit}",
            "raise it for lonc: ulimit -n, or LimitNOFILE of the unit",
        )
    else:
        yield Checked("ok", f"{needed} files may be open at once, and are allowed")


def _sockets(settings: Settings, table: HostTable) -> Iterator[Checked]:
    for host_id in table.hosts:
        path = settings.socket_path(host_id)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if not stat.S_ISSOCK(mode):
            yield Checked(
                "warning", f"{path} is no socket", f"move it away: {host_id} cannot be served"
            )
