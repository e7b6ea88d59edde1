# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
The daemon: one service for each host of the table, and what they share.

It starts and stops them, follows changes of the table and of the settings, and answers the
management port and the signals. No request passes through here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator
from random import Random
from typing import Any, TypeVar

import attrs
from setproctitle import setproctitle
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

import lonc
from lonc.certificates import WARNING_DAYS
from lonc.clients import Clients
from lonc.delayed import DelayedService
from lonc.host import HostService, Network, Surroundings
from lonc.hosts import Host, HostTable, TableError, compare
from lonc.limits import needed_files, raise_file_limit
from lonc.logs import PARENT, LoncLog
from lonc.management_errors import ReloadFailed
from lonc.management_port import ManagementPort
from lonc.names import Names, look_up
from lonc.pidfile import PidFile
from lonc.settings import Settings, SettingsError
from lonc.sharing import SharedSockets
from lonc.signals import Signals
from lonc.sockets import SocketError
from lonc.status import DaemonStatus, HostStatus, process_title, write_status
from lonc.tables import TableFetcher, web_client
from lonc.ways import read_access

#: Seconds between two looks at the time limits: a request ends so much late at the most.
SWEEP = 0.25

#: Seconds between two looks at whether every host is served (row S19).
WATCH = 1.0

#: Seconds between two looks at how long the own certificate is still valid.
DAY = 86400.0

#: Settings that are taken over at the next start only: the lock and the logs stand there.
FIXED = ("daemons_dir", "log_format")

log = Logger()

T = TypeVar("T")

#: What is read from the files.
Configuration = tuple[Settings, HostTable]


@attrs.frozen
class Sources:
    """
    Where the configuration comes from when it is read again.

    :ivar everything: ``loncapa.conf`` and the table; raises SettingsError or TableError.
    :ivar table: the table that the settings name; raises TableError.
    """

    everything: Callable[[], Configuration]
    table: Callable[[Settings], HostTable]


class LoncService(MultiService):
    """
    The whole daemon (rows S2, S3, S16 to S19 and F13).

    :ivar hosts: host id -> its service.
    """

    def __init__(
        self,
        reactor: Any,
        network: Network,
        configuration: Configuration,
        sources: Sources,
        pid_file: PidFile,
        lonc_log: LoncLog,
        observer: ILogObserver,
        perm_log: Callable[[str], None],
        random: Random,
    ) -> None:
        super().__init__()
        self.settings, self.table = configuration
        self.hosts: dict[str, HostService] = {}
        self._reactor = reactor
        self._sources = sources
        self._pid_file = pid_file
        self._lonc_log = lonc_log
        self._observer = observer
        self._started = time.time()
        self._access = read_access(self.settings, self.table)
        self._clients = Clients(self.settings, reactor)
        self._names = Names(
            lambda name: look_up(reactor.nameResolver, name),
            reactor,
            self.settings.name_lifetime,
            self._moved,
        )
        self._around = Surroundings(
            clock=reactor,
            network=network,
            look_up=self._names.look_up,
            random=random,
            clients=self._clients,
            revived=self._revived,
            ways=lambda host: self._access.ways(host),
        )
        self._delayed = DelayedService(
            reactor, self.settings, self.hosts.get, self._in_thread, perm_log, random
        )
        self._delayed.setServiceParent(self)
        self._shared = SharedSockets(self.hosts.get, self._around)
        self._tables = TableFetcher(
            reactor,
            lambda: (self.settings, self.table),
            web_client(reactor),
            self._in_thread,
            random,
            self._failing_with_a_line(self._apply_table),
        )
        self._tables.setServiceParent(self)
        self._management = ManagementPort(reactor, self, self.settings.management)
        self._leaving: list[Deferred[Any]] = []
        self._stopping = False
        self._rounds = [
            (self._round(self._sweep), SWEEP),
            (self._round(self._watch), WATCH),
            (self._round(self._look_at_certificate), DAY),
        ]
        self._signals = Signals(
            reactor,
            {
                signal.SIGINT: self.stop,
                signal.SIGTERM: self.stop,
                signal.SIGHUP: self._failing_with_a_line(self.reload),
                signal.SIGUSR1: self._status_wanted,
                signal.SIGUSR2: self._failing_with_a_line(self.reread_table),
            },
        )

    def _failing_with_a_line(self, act: Callable[[], object]) -> Callable[[], None]:
        def wrapped() -> None:
            with contextlib.suppress(ReloadFailed):  # it has been logged
                act()

        return wrapped

    def _in_thread(self, work: Callable[[], T], /) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)

    def _round(self, act: Callable[[], None]) -> LoopingCall:
        call = LoopingCall(self._guarded, act)
        call.clock = self._reactor
        return call

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do one round; a LoopingCall would stop for good at its first error."""
        try:
            act()
        except Exception:
            log.failure("a fault inside lonc")

    # ------------------------------------------------------------------ start and stop

    def setServiceParent(self, parent: Any) -> None:
        """Take over the logging of the application that this becomes part of."""
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """
        Serve all hosts; one whose socket cannot be had is logged and tried again.

        :raises lonc.management_port.ManagementPortError: when the management port cannot be had.
        """
        self._pid_file.write()
        log.critical("starting with {count} hosts", count=len(self.table.hosts))
        self._warn(self.settings, self.table)
        self._access.key_folder.sweep()
        self._management.setServiceParent(self)
        super().startService()
        for host in self.table.hosts.values():
            self._add(host)
        self._shared.arrange(self.table.hosts, self.settings)
        for call, seconds in self._rounds:
            call.start(seconds)
        self._signals.install()

    def _warn(self, settings: Settings, table: HostTable) -> None:
        for problem in (*settings.warnings, *table.problems, *self._access.warnings):
            log.warn("{problem}", problem=problem)
        if table.hosts and settings.host_id not in table.hosts:
            log.warn(
                "{own} (lonHostID) is not in {file}: other servers will not know this one",
                own=settings.host_id,
                file=settings.hosts_file,
            )
        needed = needed_files(len(table.hosts), settings.max_connections, settings.max_clients)
        if settings.socket_names == "both":
            needed += len(table.hosts)
        limit = raise_file_limit(needed)
        if limit < needed:
            log.warn(
                "{needed} files may be needed at once, but the limit is {limit} (ulimit -n): "
                "some clients or connections may have to be turned away",
                needed=needed,
                limit=limit,
            )

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Let every host end its requests, then close the rest and remove the pid file."""
        log.critical("stopping")
        self._stopping = True
        for call, _ in self._rounds:
            if call.running:
                call.stop()
        self._shared.close()
        for host_id in list(self.hosts):
            self._remove(host_id)
        yield DeferredList(self._leaving, consumeErrors=True)
        yield self._shared.dismiss()
        yield super().stopService()
        self._signals.uninstall()
        self.release()
        log.critical("stopped")

    def release(self) -> None:
        """Give the folders free for another lonc."""
        self._pid_file.release()

    def stop(self) -> None:
        """Begin to stop, as at TERM."""
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            log.info("already stopping")

    # ------------------------------------------------------------------ hosts come and go

    def _add(self, host: Host) -> None:
        service = self.hosts[host.id] = HostService(host, self.settings, self._around)
        try:
            service.setServiceParent(self)
        except SocketError as error:
            log.critical("clients cannot be served: {error}", error=error, host_id=host.id)

    def _remove(self, host_id: str) -> None:
        service = self.hosts.pop(host_id)
        leaving = maybeDeferred(service.disownServiceParent)
        self._leaving.append(leaving)
        leaving.addErrback(self._failed_to_stop, host_id)
        leaving.addBoth(lambda _: self._leaving.remove(leaving))

    def _failed_to_stop(self, failure: Failure, host_id: str) -> None:
        log.failure("stopping failed", failure, host_id=host_id)

    def _revived(self, host_id: str) -> None:
        self._delayed.kick(host_id)

    def _moved(self, name: str) -> None:
        """A name has other addresses than before: its hosts have changed."""
        for host_id, host in self.hosts.items():
            if host.host.target == name:
                log.critical("the host's address has changed", host_id=host_id)
                host.moved()

    def _sweep(self) -> None:
        """Look at every time limit; one host's fault is its own (row S19)."""
        now = self._reactor.seconds()
        self._clients.sweep(now)
        for host_id, host in list(self.hosts.items()):
            try:
                host.sweep(now)
            except Exception:
                log.failure("a fault inside lonc", host_id=host_id)
                host.crashed = True

    def _watch(self) -> None:
        """Start again what does not serve (row S19), and say so in the process title."""
        for host_id, host in list(self.hosts.items()):
            try:
                if host.crashed or not host.running:
                    log.critical("the host's service is started again", host_id=host_id)
                    self._remove(host_id)
                    self._add(self.table.hosts[host_id])
                elif not host.listening:
                    host.listen()
                    log.warn("the socket was gone and is there again", host_id=host_id)
            except SocketError as error:
                self._clients.warn("socket", host_id, f"clients cannot be served: {error}")
            except Exception:
                log.failure("a fault inside lonc", host_id=host_id)
        self._shared.watch()
        self._names.renew({host.target for host in self.table.hosts.values()})
        setproctitle(process_title(self.statuses(), time.time()))

    def _look_at_certificate(self) -> None:
        """Warn in time, for a new certificate takes days to be had."""
        certificates = self._access.certificates
        if certificates is None:
            return
        days = certificates.days_left(time.time())
        if days <= 0:
            log.critical("the own certificate {file} has expired", file=certificates.file)
        elif days <= WARNING_DAYS:
            log.warn(
                "the own certificate {file} expires in {days:.1f} days",
                file=certificates.file,
                days=days,
            )

    # ------------------------------------------------------------------ read again

    def reread_table(self) -> Deferred[str]:
        """
        Read the table again (USR2; row F13): only hosts that changed are touched.

        All get their retries back, and report. Then the cluster is asked for its table.

        :raises ReloadFailed: the table is unusable, and the old one stays.
        """
        self._tables.fetch_soon()
        return self._apply_table()

    def _apply_table(self) -> Deferred[str]:
        return self._take_over(lambda: (self.settings, self._sources.table(self.settings)))

    def reload(self) -> Deferred[str]:
        """
        Read ``loncapa.conf`` and the table again (HUP; row F13); open requests end as they would.

        :raises ReloadFailed: one of them is unusable, and what was in force stays.
        """
        self._tables.fetch_soon()
        return self._take_over(self._sources.everything)

    def _take_over(self, read: Callable[[], Configuration]) -> Deferred[str]:
        if self._stopping:
            raise ReloadFailed("nothing is changed: lonc stops")
        try:
            settings, table = read()
            access = read_access(settings, table)
        except (SettingsError, TableError) as error:
            log.critical("nothing is changed: {error}", error=error)
            raise ReloadFailed(f"nothing is changed: {error}") from None
        for name in FIXED:
            if getattr(settings, name) != getattr(self.settings, name):
                log.warn("{name} has changed: that counts from the next start on", name=name)
                settings = attrs.evolve(settings, **{name: getattr(self.settings, name)})
        changes = compare(self.table, table)
        self.settings, self.table, self._access = settings, table, access
        self._clients.settings = settings
        self._names.lifetime = settings.name_lifetime
        self._delayed.reconfigure(settings)
        self._warn(settings, table)
        for host_id in changes.gone:
            log.critical("the host is no longer in the table", host_id=host_id)
            self._remove(host_id)
            self._lonc_log.forget(host_id)
        for host_id in (*changes.changed, *changes.same):
            if host_id in changes.changed:
                log.critical("the host's address has changed", host_id=host_id)
            self._reconfigure(host_id)
        for host_id in changes.new:
            log.info("a new host", host_id=host_id)
            self._add(table.hosts[host_id])
        self._shared.arrange(table.hosts, settings)
        self._move_management()
        self._status_wanted()
        told = (
            f"{len(changes.new)} hosts new, {len(changes.gone)} gone, "
            f"{len(changes.changed)} changed, {len(changes.same)} as before"
        )
        log.info("{told}", told=told, success=True)
        return succeed(told)

    def _reconfigure(self, host_id: str) -> None:
        host = self.hosts[host_id]
        try:
            host.reconfigure(self.table.hosts[host_id], self.settings)
        except SocketError as error:
            log.critical("clients cannot be served: {error}", error=error, host_id=host_id)
        except Exception:
            log.failure("a fault inside lonc", host_id=host_id)
            host.crashed = True

    def _move_management(self) -> None:
        moving = Deferred.fromCoroutine(self._management.move(self.settings.management))
        moving.addErrback(lambda failure: log.critical("{error}", error=failure.value))
        self._leaving.append(moving)
        moving.addBoth(lambda _: self._leaving.remove(moving))

    # ------------------------------------------------------------------ status and management

    def _status_wanted(self) -> None:
        """USR1: reopen the logs, report, and then give retries back: DEAD hosts shall be seen."""
        self._lonc_log.reopen()
        try:
            self.report()
        except OSError as error:
            log.critical("the status file cannot be written: {error}", error=error)
        self.reset_retries(None)

    def report(self) -> None:
        """
        Write the status file (rows S16 and F10).

        :raises OSError: when it cannot be written.
        """
        write_status(self.settings.status_file, self.statuses(), os.getpid(), time.time())

    def about(self) -> DaemonStatus:
        """Report on the daemon as a whole."""
        certificates = self._access.certificates
        return DaemonStatus(
            version=lonc.__version__,
            host_id=self.settings.host_id,
            pid=os.getpid(),
            started=self._started,
            config_file=self.settings.config_file,
            certificate="" if certificates is None else certificates.file,
            certificate_days=0.0 if certificates is None else certificates.days_left(time.time()),
        )

    def statuses(self) -> list[HostStatus]:
        """Report on each host, in the order of the table."""
        last, delayed = self._lonc_log.last_line, self._delayed.counts()
        return [
            host.status(delayed.get(host_id, 0), last(host_id))
            for host_id, host in self.hosts.items()
        ]

    def status_text(self, host_id: str) -> str:
        """Return what stands as the status in a log line."""
        if host_id == PARENT:
            return f"{len(self.hosts)} hosts"
        host = self.hosts.get(host_id)
        return "" if host is None else host.status(0, "").text

    def _chosen(self, host_id: str | None) -> list[HostService]:
        return list(self.hosts.values()) if host_id is None else [self.hosts[host_id]]

    def reset_retries(self, host_id: str | None) -> None:
        """Give a host its retries back; None: all hosts."""
        for host in self._chosen(host_id):
            host.reset_retries()

    def close_connections(self, host_id: str | None) -> None:
        """Close a host's connections and start afresh; None: all hosts."""
        for host in self._chosen(host_id):
            host.close_connections()

    def set_debug(self, host_id: str | None, level: int) -> None:
        """Set a host's debug level; None: all hosts."""
        for host in self._chosen(host_id):
            host.debug_level = level
            log.info("debug level {number}", number=level, host_id=host.host_id, success=True)
