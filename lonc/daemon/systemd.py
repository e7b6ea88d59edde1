# Twisted's LoopingCall has no annotations:
# mypy: allow-untyped-calls
"""
Notifications to a service manager such as systemd, and its descriptor store.

A notification is a datagram of ``NAME=value`` lines to the socket given in ``NOTIFY_SOCKET``
(``sd_notify(3)``). Without a manager nothing is sent.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from lonc.report.events import Logger

#: The first descriptor that a manager hands over (``sd_listen_fds(3)``).
FIRST: Final = 3

#: Maximum length of a descriptor's name.
_NAME_LIMIT: Final = 255

#: Seconds to wait for a manager whose queue is full; after one such wait, none until it reads
#: again. The queue has room for ten messages, and each socket is one.
_PATIENCE: Final = 1.0


#: Seconds between two status lines if the manager has no watchdog.
STATUS: Final = 10.0

#: Seconds that a stop may take in addition to the drain: one for clients, the rest for a slow disk.
AFTER_DRAIN: Final = 10.0

T = TypeVar("T")

log = Logger()


class Manager:
    """
    The service manager, if there is one.

    :param environment: read once; variables meant only for this process are removed, so that no
        child inherits them.
    :ivar watchdog: seconds of silence after which the manager kills this process; 0.0 for never.
    :ivar room: how many descriptors it stores during a restart.
    :ivar inherited: the descriptors that it stored, by name, and those that another process has
        handed over. Whoever uses one removes it.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        self._patient = True
        self.watchdog = _watchdog(environment)
        self.room = _room(environment) if self._address else 0
        self.inherited = _inherited(environment)
        for name in [x for x, each in self.inherited.items() if not _is_socket(each)]:
            log.warn("no socket was kept as {name}: it is skipped", name=name)
            os.close(self.inherited.pop(name))
            self.remove(name)

    @property
    def present(self) -> bool:
        """Whether there is a service manager."""
        return bool(self._address)

    def store(self, name: str, descriptor: int) -> bool:
        """Send the manager a listening socket to store; return whether that was possible."""
        return self.tell("FDSTORE=1", "FDPOLL=0", f"FDNAME={name}", descriptors=(descriptor,))

    def remove(self, name: str) -> None:
        """Make the manager drop a stored socket."""
        self.tell("FDSTOREREMOVE=1", f"FDNAME={name}")

    def tell(
        self, *lines: str, descriptors: Sequence[int] = (), patience: float = _PATIENCE
    ) -> bool:
        """
        Send lines.

        :param patience: seconds to wait for a manager that is slow, unless it let lonc wait before.
        :return: whether they were sent.
        """
        if not self._address:
            return False
        # A name from the host table must not become a line of its own.
        data = "\n".join(line.replace("\n", " ") for line in lines).encode()
        try:
            connected = self._connected()
            connected.settimeout(patience if self._patient else 0.0)
            socket.send_fds(connected, [data], descriptors)
            self._patient = True
            return True
        except TimeoutError:
            self._patient = False
        except BlockingIOError:
            pass
        except OSError:
            self._disconnect()  # it may come back
        return False

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            address = self._address
            if address.startswith("@"):
                address = "\0" + address[1:]
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                made.connect(address)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket


def name_of(path: str) -> str:
    """
    Return the name under which the socket of a path is stored.

    The manager allows 255 printable characters without colons; a path may contain others.
    """
    kept = "".join(
        each if each.isascii() and each.isprintable() and each not in ":%" else f"%{ord(each):x}%"
        for each in path
    )
    return kept if len(kept) <= _NAME_LIMIT else "/" + kept[1 - _NAME_LIMIT :]


def _watchdog(environment: MutableMapping[str, str]) -> float:
    """Return the seconds of silence after which the manager kills this process; 0.0 for never."""
    pid = environment.pop("WATCHDOG_PID", "")
    microseconds = environment.pop("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(microseconds) / 1e6


def _room(environment: MutableMapping[str, str]) -> int:
    """
    Return how many descriptors the manager keeps.

    systemd has a descriptor store since release 219, and reports its size since 254. Without a
    store it silently closes what it is sent, which lonc only notices at the next start.
    """
    room = environment.pop("FDSTORE", "")
    return int(room) if room.isdecimal() else sys.maxsize


def _inherited(environment: MutableMapping[str, str]) -> dict[str, int]:
    """
    Return the stored descriptors by name.

    Those that are not named after a path belong to something else, such as a socket unit.
    """
    kept: dict[str, int] = {}
    for name, descriptor in _handed_over(environment):
        if not name.startswith("/"):
            continue
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            continue  # announced, but not open
        if name in kept:
            os.close(descriptor)
        else:
            kept[name] = descriptor
    return kept


def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _handed_over(environment: MutableMapping[str, str]) -> Iterable[tuple[str, int]]:
    if environment is os.environ and "LISTEN_FDS" in environment:
        # It finds those of its endpoint ``systemd:`` when it is imported.
        import_module("twisted.internet.endpoints")
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid == str(os.getpid()) and count.isdecimal():
        return zip(names, range(FIRST, FIRST + int(count)), strict=False)
    if environment is os.environ and any(names) and _twisted_has_them():
        return zip(names, range(FIRST, FIRST + len(names)), strict=True)
    return ()


def _twisted_has_them() -> bool:
    """Whether Twisted has found descriptors: its endpoints remove the variables at import."""
    from twisted.internet.endpoints import serverFromString

    try:
        serverFromString(None, "systemd:UNIX:index=0")
    except LookupError:
        return False
    return True


class Notices:
    """
    Notifies the service manager that the daemon is ready, reloading, alive or stopping.

    :param status: returns a one-line summary of the daemon.
    """

    def __init__(self, reactor: Any, manager: Manager, status: Callable[[], str]) -> None:
        self._reactor = reactor
        self._manager = manager
        self._status = status
        self._alive = LoopingCall(self._say_alive)
        self._alive.clock = reactor
        self._reloads = 0
        self._stopping = False

    def started(self) -> None:
        """Notify the manager that lonc is ready, once the reactor runs."""
        if self._manager.present:
            self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        if self._stopping:
            return
        self._tell_ready()
        # Twice as often as the manager requires: one that is late does no harm.
        self._alive.start(self._manager.watchdog / 2 or STATUS, now=False)

    def _say_alive(self) -> None:
        try:
            status = self._status()
        except Exception:  # the event loop is running nevertheless
            log.failure("a fault inside lonc")
            status = ""
        self._manager.tell("WATCHDOG=1", f"STATUS={status}", patience=0.0)

    def _tell_ready(self) -> None:
        self._manager.tell("READY=1", f"STATUS={self._status()}")

    def reload(self, begin: Callable[[], Deferred[str]]) -> Deferred[str]:
        """
        Notify the manager before and after a reload, however it ends.

        :param begin: begins the reload.
        """
        self._reloads += 1
        self._manager.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        reload = begin()
        reload.addBoth(self._reloaded)
        return reload

    def _reloaded(self, result: T) -> T:
        self._reloads -= 1
        if not self._reloads and not self._stopping:  # the manager waits for the last one
            self._tell_ready()
        return result

    def stopping(self, drain: float) -> None:
        """
        Notify the manager that lonc begins to stop.

        :param drain: seconds that requests in flight may take.
        """
        self._stopping = True
        limit = round((drain + AFTER_DRAIN) * 1e6)  # after which the manager kills lonc
        self._manager.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={limit}")

    def stopped(self) -> None:
        """Stop sending notifications."""
        if self._alive.running:
            self._alive.stop()
