"""
What lonc changes in its own process: standard descriptors, modules, clock, signals (protocol,
section 8; row S17), and the user.

A program that embeds lonc controls these itself. If root starts lonc to run as another user
(twistd's ``--uid`` and ``--gid``), twistd drops root's privileges only after the application was
created. By then files have been opened, in folders where the other user can place links, so they
are opened with the other user's rights.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import FrameType
from typing import Any

from twisted.internet.defer import maybeDeferred

from lonc.report.events import Logger

#: Signals that report faults, belong to job control, or cannot be caught.
_LEFT = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGCONT, signal.SIGCHLD, signal.SIGWINCH, signal.SIGSEGV, signal.SIGBUS),
    *(signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS, signal.SIGXCPU),
}

#: All others: by default they end the process and leave its sockets and pid file behind.
SIGNALS = signal.valid_signals() - _LEFT

log = Logger()


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


def import_reactor_without_tls() -> None:
    """
    Import the modules of the reactor as if pyOpenSSL were not installed.

    They import it if it is, which takes 4 MB; but lonc wraps TLS around plain connections itself
    where it is needed, and imports it then.
    """
    if "OpenSSL" in sys.modules or "twisted.internet.posixbase" in sys.modules:
        return  # as with twistd's --reactor
    hidden: dict[str, Any] = sys.modules
    hidden["OpenSSL"] = None
    try:
        import_module("twisted.internet.posixbase")
    finally:
        del sys.modules["OpenSSL"]


def hold() -> None:
    """
    Block all signals that would end the process until `Signals` handles them.

    Sockets and files created from now on must be removed at the end. Only for lonc's
    own process.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def take_over_process() -> None:
    """
    Give the reactor a monotonic clock, and block signals until the reactor runs.

    Twisted uses the wall clock: setting it would end, or prolong, every wait. No timer may have
    been started yet.
    """
    from twisted.internet import reactor

    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    hold()


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


class Signals:
    """
    Calls functions for signals, in the reactor's thread.

    Repeated signals that arrive before the function was called, or while it is running, cause only
    one more call.

    :param reactor: the reactor.
    :param actions: signal -> function. Its exceptions are logged; if it returns a Deferred or a
        coroutine, it runs until that has ended.
    """

    def __init__(
        self, reactor: Any, actions: Mapping[signal.Signals, Callable[[], object]]
    ) -> None:
        self._reactor = reactor
        self._actions = actions
        self._own_process = False
        self._before: dict[signal.Signals, Any] = {}
        self._waiting: set[int] = set()
        self._under_way: set[int] = set()

    def install(self, own_process: bool) -> None:
        """
        Install the handlers once the reactor runs.

        Not earlier: the reactor installs its own handler for TERM when it starts, and ends the
        process by that signal where an administrator expects exit status 0.

        :param own_process: whether the process is lonc's own, and `hold` was called: then signals
            without an action are ignored, and at the end all are.
        """
        self._own_process = own_process
        self._reactor.callWhenRunning(self._take_over)

    def _take_over(self) -> None:
        for number in self._actions:
            self._before[number] = signal.signal(number, self._arrived)
        if self._own_process:
            for other in SIGNALS - set(self._actions):
                if signal.getsignal(other) == signal.SIG_DFL:
                    signal.signal(other, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if number not in self._waiting:
            self._waiting.add(number)
            self._reactor.callFromThread(self._act, number)

    def _act(self, number: int) -> None:
        if number in self._under_way:
            return
        self._waiting.discard(number)
        self._under_way.add(number)
        name = signal.Signals(number).name
        log.info("signal {name}", name=name)
        acting = maybeDeferred(self._actions[signal.Signals(number)])
        acting.addErrback(lambda failure: log.failure("signal {name} failed", failure, name=name))
        acting.addBoth(self._acted, number)

    def _acted(self, result: object, number: int) -> None:
        self._under_way.discard(number)
        if number in self._waiting:
            self._reactor.callLater(0, self._act, number)

    def uninstall(self) -> None:
        """Restore the previous handlers; lonc's own process ignores signals from now on."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._own_process else before)
        self._before.clear()
