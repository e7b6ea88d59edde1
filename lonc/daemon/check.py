"""
``lonc check``: what a start would report about the configuration.

It uses the functions of the start, changes nothing, and can be run while lonc runs on the same
folders.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterator
from typing import Final

import attrs

from lonc.config.current import InForce
from lonc.config.hosts import TableError
from lonc.config.judgement import ended_certificate
from lonc.config.settings import SettingsError
from lonc.daemon.load import Loader
from lonc.daemon.pidfile import holder_of, who_serves
from lonc.report.problems import Problem, problem
from lonc.report.units import count

#: From the least to the worst: an error keeps lonc from starting.
LEVELS: Final = ("ok", "note", "warning", "critical", "error")


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
    """Look at everything that a start looks at, and name all that is wrong."""
    loader = Loader(config_file)
    try:
        in_force = InForce(loader.everything(lenient=True))
    except (SettingsError, TableError) as error:
        for each in error.errors if isinstance(error, SettingsError) else [error]:
            yield Checked("error", str(each), "lonc does not start, and a reload is refused")
        return
    pid = holder_of(in_force.settings.pid_file)
    problems = [
        *in_force.problems(_user_of(pid)),
        *ended_certificate(in_force.access.certificates),
        *_sockets(in_force),
    ]
    for found in problems:
        yield Checked(found.level, found.sentence, found.advice)
    yield from _running(in_force, pid)
    yield from _well(in_force, {found.kind for found in problems})


def _sockets(in_force: InForce) -> Iterator[Problem]:
    for host_id in in_force.table.hosts:
        path = in_force.settings.socket_path(host_id)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if not stat.S_ISSOCK(mode):
            yield problem("host-not-served", host_id, f"has no socket: something else is at {path}")


def _user_of(pid: str) -> int | None:
    """Return the user id of the lonc that runs; None for a start by whoever looks."""
    try:
        return os.stat(f"/proc/{pid}").st_uid if pid else None
    except OSError:
        return None


def _running(in_force: InForce, pid: str) -> Iterator[Checked]:
    """Say who runs on these folders and sockets."""
    settings = in_force.settings
    if pid:
        yield Checked("ok", f"lonc runs on these folders: process {pid}")
    elif others := who_serves(settings, in_force.table):
        yield Checked("error", others, "stop it: lonc does not start beside it")


def _well(in_force: InForce, wrong: Collection[str]) -> Iterator[Checked]:
    """
    Say what could be read, and suffices.

    :param wrong: the kinds of problems that there are.
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
