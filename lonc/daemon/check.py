"""
``lonc check``: what a start would report about the configuration.

It uses the functions of the start, changes nothing, and can be run while lonc is running in the
same folders.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Collection, Iterator
from typing import Final

import attrs

from lonc.config.current import InForce
from lonc.config.hosts import TableError
from lonc.config.settings import SettingsError
from lonc.control.access import user_name
from lonc.daemon.load import Loader
from lonc.daemon.own_process import acting_as
from lonc.daemon.pidfile import holder_of, who_serves
from lonc.report.problems import Problem, problem
from lonc.report.units import count

#: In increasing order of severity: an error prevents a start.
LEVELS: Final = ("ok", "note", "warning", "critical", "error")


@attrs.frozen
class Checked:
    """
    The result of one check.

    :ivar level: one of :data:`LEVELS`.
    :ivar what: a readable result, with file and line if there are any.
    :ivar advice: what to do; empty if there is nothing to do.
    """

    level: str
    what: str
    advice: str = ""


def check(config_file: str) -> list[Checked]:
    """
    Perform all checks of a start, and return all problems.

    For root, permissions are checked as the user of a running lonc, since root's own permissions
    are irrelevant for a reload.
    """
    loader = Loader(config_file)
    pid = ""
    with contextlib.suppress(SettingsError):  # reported below
        pid = holder_of(loader.settings().pid_file)
    user = _number_of(pid, "Uid")
    with contextlib.ExitStack() as rights:
        with contextlib.suppress(OSError):  # root in a container may be unable to change its user
            rights.enter_context(acting_as(user, _number_of(pid, "Gid")))
        found = [*_checked(loader, pid)]
        me = os.geteuid()
        if user is not None and user != me:
            runs, looks = user_name(user), user_name(me)
            what = f"lonc runs as {runs}, and this is what {looks} may do"
            found.append(Checked("note", what, f"look as that user: sudo -u {runs} lonc check"))
    return found


def _checked(loader: Loader, pid: str) -> Iterator[Checked]:
    try:
        in_force = InForce(loader.everything(lenient=True))
    except (SettingsError, TableError) as error:
        for each in error.errors if isinstance(error, SettingsError) else [error]:
            yield Checked("error", str(each), "lonc does not start, and a reload is refused")
        return
    problems = [
        *in_force.problems(),
        *in_force.ended_certificate(),
        *_sockets(in_force),
    ]
    for found in problems:
        yield Checked(found.level, found.sentence, found.advice)
    yield from _running(in_force, pid)
    yield from _well(in_force, {found.kind for found in problems})


def _sockets(in_force: InForce) -> Iterator[Problem]:
    if in_force.settings.socket_names == "hostname":
        return  # no socket is named after an id
    for host_id in in_force.table.hosts:
        path = in_force.settings.socket_path(host_id)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if not stat.S_ISSOCK(mode):
            yield problem("host-not-served", host_id, f"has no socket: something else is at {path}")


def _number_of(pid: str, name: str) -> int | None:
    """Return the effective user or group id of a process; None if there is no process."""
    try:
        # The owner of the folder in /proc is root if lonc has changed its user.
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[2]) for line in file if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None


def _running(in_force: InForce, pid: str) -> Iterator[Checked]:
    """Report a lonc or loncnew that is running in these folders."""
    settings = in_force.settings
    if pid:
        yield Checked("ok", f"lonc runs on these folders: process {pid}")
    elif others := who_serves(settings, in_force.table):
        yield Checked("error", others, "stop it: lonc does not start beside it")


def _well(in_force: InForce, wrong: Collection[str]) -> Iterator[Checked]:
    """
    Report what is in order.

    :param wrong: the kinds of the problems found.
    """
    settings, table = in_force.settings, in_force.table
    yield Checked("ok", f"{settings.config_file} can be read")
    yield Checked("ok", "all folders are there and can be used")
    yield Checked(
        "ok", f"{settings.hosts_file} has {count(len(table.hosts) + len(table.refused), 'host')}"
    )
    if settings.delayed_key_file is not None:
        yield Checked("ok", f"delayed requests are sealed with {settings.delayed_key_file}")
    certificates = in_force.access.certificates
    if certificates is not None and not {"certificate-ends", "certificate-ended"} & {*wrong}:
        days = certificates.days_left(time.time())
        yield Checked("ok", f"{certificates.ends_first} is valid for {days:.0f} days")
    if not {"open-files", "hosts-not-served"} & {*wrong}:
        what = f"{in_force.needed_files} files may be needed at once, and the limit allows them"
        yield Checked("ok", what)
