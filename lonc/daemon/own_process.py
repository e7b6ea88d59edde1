"""
What lonc changes in its own process: standard descriptors, clock, signals, and the user.

A program that embeds lonc controls these itself. If root starts lonc to run as another user
(twistd's ``--uid`` and ``--gid``), twistd drops root's privileges only after the application was
created. By then files have been opened, in folders where the other user can place links, so they
are opened with the other user's rights.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
import time
from collections.abc import Iterator

from lonc.daemon import signals


def fill_standard_descriptors() -> None:
    """
    Open ``/dev/null`` where stdin, stdout or stderr is closed.

    Otherwise the next file or socket would get that number: text for the terminal would be written
    to it, or twistd would close it when it goes into the background.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def take_over_process() -> None:
    """
    Give the reactor a monotonic clock, and block signals until the reactor runs.

    Twisted uses the wall clock: setting it would end, or prolong, every wait. No timer may have
    been started yet.
    """
    from twisted.internet import reactor

    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    signals.hold()


@contextlib.contextmanager
def acting_as(uid: int | None, gid: int | None, umask: int | None = None) -> Iterator[bool]:
    """
    Run a block with the rights of a user and a group; None leaves either unchanged.

    :param gid: None with a user for that user's group.
    :param umask: the file mode creation mask for the block.
    :return: whether the user has changed: with a group alone it is still root.
    """
    if os.geteuid() != 0 or (uid is None and gid is None):
        yield False  # only root can do this; twistd reports it
        return
    name = None
    if uid is not None:
        with contextlib.suppress(KeyError):  # a user without a name needs a group
            user = pwd.getpwuid(uid)
            name = user.pw_name
            gid = user.pw_gid if gid is None else gid
    before = os.geteuid(), os.getegid(), os.getgroups()
    mask_before = None if umask is None else os.umask(umask)
    try:
        if gid is not None:
            os.setegid(gid)
        if uid is not None:
            if name is None:
                os.setgroups([])
            else:
                os.initgroups(name, os.getegid())
            os.seteuid(uid)
        yield os.geteuid() != before[0]
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])
        os.setgroups(before[2])
        if mask_before is not None:
            os.umask(mask_before)
