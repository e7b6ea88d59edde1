"""
What the daemon is given by the process and the machine that it runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
from twisted.application.service import IService
from twisted.logger import ILogObserver

from lonc.config.current import Configuration, Sources
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
    What lonc may have of the process that it runs in: without a word, nothing.

    :ivar own_process: whether the process is lonc's own, so that it may be ended, and takes no
        signal for anything else.
    :ivar takes_signals: whether HUP, USR1 and the others are lonc's (row S17).
    :ivar sets_title: whether the process title sums the hosts up (row S16).
    :ivar takes_log: whether the application that the daemon becomes part of logs where lonc does,
        and nowhere else.
    """

    own_process: bool = False
    takes_signals: bool = False
    sets_title: bool = False
    takes_log: bool = False


@attrs.frozen(kw_only=True)
class Outside:
    """
    What the daemon is given: the process and the machine that it runs on.

    :ivar hosts: empty; host id -> its service, once the daemon has put them there.
    :ivar sources: where the configuration is read again.
    :ivar observer: writes ``lonc.log``.
    :ivar lonc_log: knows the last line of each host.
    :ivar perm_log: writes a line to ``lonnet.perm.log``.
    :ivar random: the jitter.
    :ivar make_threads: makes a pool of threads: reactor, name and the most at a time.
    :ivar resolve: looks a name up, in a thread.
    :ivar choices: what of the process is lonc's.
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
