"""The parts of the daemon that the management port queries and controls (row S18)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from lonc.config.current import InForce
from lonc.config.settings import Settings
from lonc.control.reporter import Reporter
from lonc.delayed.service import DelayedService
from lonc.disk.threads import Disk
from lonc.host.service import HostService
from lonc.local.limits import Clients
from lonc.report.recent import RequestLog


@attrs.frozen(kw_only=True)
class Parts:
    """
    Parts of the daemon.

    :ivar clock: the reactor's clock.
    :ivar hosts: host id -> its service.
    :ivar in_force: the settings in force.
    :ivar clients: the connected clients.
    :ivar delayed: the delayed requests.
    :ivar request_log: slow and traced requests.
    :ivar reporter: status of the daemon and its hosts, and problems.
    :ivar disk: runs ``read_settings`` in a thread.
    :ivar read_settings: reads the settings again; raises SettingsError.
    :ivar reread_table: does what USR2 does, and returns readable changes; fails with ReloadFailed.
    :ivar reload: does what HUP does, likewise.
    :ivar hand_over: prepares for a new process, and returns the path of the socket for it; raises
        NotDone.
    :ivar handing_over: whether a take-over is in progress.
    :ivar refresh_problems: updates the list of problems.
    :ivar stop: begins to stop, as at TERM.
    """

    clock: IReactorTime
    hosts: Mapping[str, HostService]
    in_force: InForce
    clients: Clients
    delayed: DelayedService
    request_log: RequestLog
    reporter: Reporter
    disk: Disk
    read_settings: Callable[[], Settings]
    reread_table: Callable[[], Deferred[str]]
    reload: Callable[[], Deferred[str]]
    hand_over: Callable[[], Awaitable[str]]
    handing_over: Callable[[], bool]
    refresh_problems: Callable[[], Awaitable[None]]
    stop: Callable[[], None]
