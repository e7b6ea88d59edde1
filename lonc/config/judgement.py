"""
The problems of a usable configuration, reported at the start, at a reload and by ``lonc check``.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import Final

from lonc.config.auth_modes import Access
from lonc.config.certificates import Certificates
from lonc.config.hosts import HostTable
from lonc.config.settings import Settings
from lonc.report.judgement import certificate_problem
from lonc.report.problems import Problem, problem
from lonc.report.units import count

#: How many of the hosts that are not served are named.
EXAMPLES: Final = 5


def ended_certificate(certificates: Certificates | None) -> Iterator[Problem]:
    """Yield a problem if one of the own certificates expires soon, or has expired."""
    if certificates is not None:
        yield from certificate_problem(certificates.ends_first, certificates.days_left(time.time()))


def configuration_problems(
    settings: Settings, table: HostTable, access: Access, needed: int, limit: int, user: int
) -> Iterator[Problem]:
    """
    Yield the problems of a configuration.

    :param needed: descriptors that may be needed at once.
    :param limit: the limit on open files.
    :param user: the user id that lonc runs as.
    """
    for warning in settings.warnings:
        yield problem("setting-unused", _place(warning), warning)
    for line in table.problems:
        yield problem("table-row", _place(line), line)
    if table.hosts and settings.host_id not in table.hosts:
        what = f"{settings.host_id} (lonHostID) is not in {settings.hosts_file}"
        yield problem("own-id-missing", settings.hosts_file, what)
    for warning in access.warnings:
        yield problem("certificate-unusable", settings.certificate or "", warning)
    yield from exposed(settings, access)
    if settings.management_tls is not None and not settings.management_names:
        what = "loncManagementTLS is set, and loncManagementNames names nobody who may come"
        yield problem("nobody-may-manage", settings.management_tls, what)
    if not settings.management.startswith(("unix:", "lonctls:")):
        what = f"every local user may see over {settings.management}, and nobody may steer"
        yield problem("management-open", settings.management, what)
    if user == 0 and _roots_own(settings):
        what = "started as root, lonc has sockets that nobody else may use"
        yield problem("runs-as-root", "", what)
    too_few = f"{needed} files may be needed at once, but the limit is {limit} (ulimit -n)"
    if table.refused:
        names = ", ".join([*table.refused][:EXAMPLES])
        more = len(table.refused) - EXAMPLES
        what = (
            f"{count(len(table.refused), 'host')} of the table cannot be served: {too_few}, which "
            f"leaves room for {len(table.hosts)}: {names}"
        )
        yield problem("hosts-not-served", "", what + (f" and {more} more" if more > 0 else ""))
    elif limit < needed:
        yield problem("open-files", "", too_few)


def _place(line: str) -> str:
    """Return the file and line with which a warning begins."""
    return line.partition(": ")[0]


def exposed(settings: Settings, access: Access) -> Iterator[Problem]:
    """Yield files and folders to which other local users have too much access."""
    for folder in (settings.sock_dir, settings.delayed_dir, settings.logs_dir):
        if _has(folder, stat.S_IWOTH):
            yield problem("folder-open", folder, f"{folder} can be written by everybody")
    if access.certificates is not None:
        key = access.certificates.files.key
        if _has(key, stat.S_IROTH):
            yield problem("key-readable", key, f"the private key {key} can be read by everybody")


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
