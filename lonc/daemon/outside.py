"""
What the daemon gets from its process and its machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver

from lonc.config.current import Configuration, Sources
from lonc.config.table_fetcher import Download, Downloaded
from lonc.daemon.pidfile import PidFile
from lonc.daemon.systemd import Manager
from lonc.daemon.takeover import Predecessor
from lonc.disk.threads import InThread, Threads
from lonc.host.resolver import addresses_of
from lonc.host.service import HostService
from lonc.report.logs import LoncLog
from lonc.report.problems import Problems
from lonc.transport.network import Network


@attrs.frozen(kw_only=True)
class Choices:
    """
    Which process-wide resources lonc uses; none by default.

    :ivar own_process: whether the process is lonc's own, so that lonc may end it and handle all
        signals.
    :ivar takes_signals: whether lonc handles HUP, USR1 and the others (row S17).
    :ivar sets_title: whether lonc sets the process title (row S16).
    :ivar takes_log: whether the application that contains the daemon logs only to lonc's log.
    """

    own_process: bool = False
    takes_signals: bool = False
    sets_title: bool = False
    takes_log: bool = False


@attrs.frozen(kw_only=True)
class Outside:
    """
    What the daemon gets from its process and its machine.

    :ivar hosts: host id -> its service; empty until the daemon fills it.
    :ivar sources: read the configuration again.
    :ivar observer: writes ``lonc.log``.
    :ivar lonc_log: has the last line of each host.
    :ivar perm_log: writes a line to ``lonnet.perm.log``.
    :ivar random: for jitter.
    :ivar make_threads: creates a thread pool; arguments: reactor, name, maximum number of threads.
    :ivar resolve: looks a name up, in a thread.
    :ivar choices: which process-wide resources lonc uses.
    :ivar predecessor: the process that this one takes over from.
    :ivar beside: services that run as long as the daemon does.
    """

    reactor: Any
    network: Network
    configuration: Configuration
    sources: Sources
    hosts: dict[str, HostService]
    pid_file: PidFile
    lonc_log: LoncLog
    observer: ILogObserver
    perm_log: Callable[[str], None]
    random: Random
    make_threads: Callable[[Any, str, int], InThread] = Threads
    resolve: Callable[[str], list[str]] = addresses_of
    manager: Manager = attrs.field(factory=lambda: Manager({}))
    choices: Choices = Choices()
    predecessor: Predecessor | None = None
    problems: Problems = attrs.field(factory=Problems)
    beside: Sequence[IService] = ()


def web_client(reactor: Any) -> Download:
    """Return a function that downloads a file with a reactor."""

    def get(url: str, limit: int, authority: str | None) -> Deferred[Downloaded]:
        # Imported only when needed, because most tables name no server.
        from lonc.config.download import download

        return Deferred.fromCoroutine(download(reactor, url, limit, authority))

    return get
