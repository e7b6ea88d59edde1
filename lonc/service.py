# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
The daemon: composes its parts, starts and stops them, and makes them available for management.

No request passes through this module.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from lonc.config.current import InForce
from lonc.config.table_fetcher import TableFetcher
from lonc.control.parts import Parts
from lonc.control.port import Ports
from lonc.control.reporter import Reporter
from lonc.daemon.former import FORMER, FormerChoice, former
from lonc.daemon.kept_sockets import KeptSockets
from lonc.daemon.outside import Outside, web_client
from lonc.daemon.own_process import Signals
from lonc.daemon.reload import Reloader
from lonc.daemon.rounds import guarded
from lonc.daemon.succession import Succession
from lonc.daemon.supervisor import Supervisor
from lonc.daemon.systemd import Notices
from lonc.daemon.upkeep import Upkeep
from lonc.delayed.service import DelayedService
from lonc.disk.threads import Disk
from lonc.host.dependencies import HostDependencies
from lonc.host.machines import Machines
from lonc.host.resolver import PLACES, Names
from lonc.host.shared_sockets import SharedSockets
from lonc.local.limits import Clients
from lonc.report.events import Logger
from lonc.report.kinds import CONFIGURED
from lonc.report.units import count
from lonc.web.history import PAUSE
from lonc.web.port import HTTPPort
from lonc.wire.cipher import has_idea

#: Concurrent disk operations of delayed requests, the fetched table and the configuration together.
#: Each of these has a lower limit of its own, so that hanging ones leave threads to the others.
DISK_THREADS = 16

#: Seconds for proving answers to delayed requests before the hosts close their connections, which
#: usually takes a round trip. Unproven requests are sent again by the next lonc.
PROOFS = 2.0

log = Logger()

T = TypeVar("T")


class LoncService(MultiService):
    """
    The whole daemon (rows S2, S3, S16, S17, S18, S19 and S20).

    :ivar in_force: the settings and the table in force.
    :ivar hosts: host id -> its service.
    :ivar problems: the current problems, reported by the parts.
    :ivar reporter: reports on the daemon and its hosts.
    :ivar observer: writes ``lonc.log``, and keeps the last line of each host for the status.
        Without ``takes_log``, an embedding program can add it to a publisher itself.
    :ivar choices: which resources of the process lonc uses.
    """

    takes_signals, sets_title, takes_log = FormerChoice(), FormerChoice(), FormerChoice()

    def __init__(self, outside: Outside) -> None:
        """Create all parts of the daemon and connect them."""
        super().__init__()
        self._outside, self.observer, self.choices = outside, outside.observer, outside.choices
        reactor, network, random = outside.reactor, outside.network, outside.random
        self.hosts, self.problems = hosts, problems = outside.hosts, outside.problems
        self.in_force = in_force = InForce(outside.configuration)
        settings = in_force.settings
        in_threads = outside.make_threads(reactor, "disk", DISK_THREADS)
        look_up = outside.make_threads(reactor, "names", PLACES)
        self._disk = disk = Disk(reactor, in_threads, lambda: in_force.settings.disk_timeout)

        # Requests, from a client's socket through a host to its lond.
        self._clients = clients = Clients(settings, reactor, in_force.room_for_clients)
        names = Names(
            lambda name: look_up(partial(outside.resolve, name)),
            reactor,
            settings,
            lambda name, gone: machines.readdress(name, gone),
        )
        kept = KeptSockets(outside.manager)
        self._common = common = HostDependencies(
            clock=reactor,
            network=network,
            moment=network.moment,
            look_up=names.look_up,
            random=random,
            clients=clients,
            revived=lambda host_id: delayed.retry(host_id),
            name_trouble=names.trouble,
            auth_modes=in_force.auth_modes,
            ids=in_force.ids,
            enciphers=has_idea(),
            keeper=kept,
        )
        machines = Machines(common)
        self._supervisor = supervisor = Supervisor(hosts, in_force, common, problems, machines)
        self._shared = shared = SharedSockets(hosts.get, common)
        self._delayed = delayed = DelayedService(
            reactor, settings, hosts.get, in_threads, outside.perm_log, random, problems
        )

        # Reports and control.
        self.reporter = reporter = Reporter(
            hosts, in_force, clients, delayed, outside.lonc_log, problems, supervisor.departed
        )
        http = HTTPPort(reactor, network, reporter, settings.http)
        self._ports = ports = Ports(reactor, network, in_force, self.parts, kept, http)

        # Changes: a new configuration, a new table, a new process.
        self._reloader = reloader = Reloader(
            *(outside, disk, in_force, supervisor, shared, reporter, ports),
            [clients.reconfigure, names.reconfigure, delayed.reconfigure],
        )
        self._tables = TableFetcher(
            *(reactor, in_force, web_client(reactor), in_threads, random),
            guarded(reloader.table),
            problems,
        )
        self._succession = succession = Succession(
            outside, in_force, kept, delayed, clients, disk, in_threads, [delayed, *ports.unshared]
        )

        # Periodic work, notifications and signals.
        self._upkeep = Upkeep(
            *(outside, in_force, clients, names, supervisor, shared, kept, ports, reporter),
            succession,
            {http.sampling: PAUSE},
            running=lambda: bool(self.running),
            sets_title=lambda: self.choices.sets_title,
        )
        self._notices = Notices(reactor, outside.manager, reporter.status_line)
        actions: dict[signal.Signals, Callable[[], object]] = {
            signal.SIGINT: self.stop,
            signal.SIGTERM: self.stop,
            signal.SIGHUP: guarded(self.reload),
            signal.SIGUSR1: self._upkeep.report_and_reset,
            signal.SIGUSR2: guarded(self.reread_table),
        }
        self._signals = Signals(reactor, actions)
        for each in (supervisor, delayed, self._tables, *outside.beside):
            each.setServiceParent(self)

    def parts(self) -> Parts:
        """Return the parts accessible over the management port."""
        return Parts(
            clock=self._outside.reactor,
            hosts=self.hosts,
            in_force=self.in_force,
            clients=self._clients,
            delayed=self._delayed,
            request_log=self._common.request_log,
            reporter=self.reporter,
            disk=self._disk,
            read_settings=self._outside.sources.settings,
            reread_table=self.reread_table,
            reload=self.reload,
            hand_over=self._succession.hand_over.offer,
            handing_over=lambda: self._succession.hand_over.under_way,
            refresh_problems=self._upkeep.refresh_problems,
            stop=self.stop,
        )

    # ------------------------------------------------------------------ start and stop

    def setServiceParent(self, parent: Any) -> None:
        """Take over the logging of the parent application, if chosen."""
        if self.choices.takes_log and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """
        Serve all hosts; a host whose socket cannot be opened is logged and tried again.

        :raises lonc.transport.endpoint_port.PortError: the management port or the HTTP port is not
            available.
        :raises lonc.daemon.pidfile.PidFileError: the pid file cannot be written.
        :raises lonc.daemon.takeover.TakeOverError: the process to take over from continues.
        """
        table = self.in_force.table
        self._succession.claim()
        hosts = count(len(table.hosts), "host")
        log.info(
            "starting with {hosts}", hosts=hosts, event="starting-with-hosts", start_or_end=True
        )
        self.problems.replace(self.in_force.problems(), CONFIGURED)
        if not self._common.enciphers:
            what = "OpenSSL has no IDEA: requests that are to be encrypted get con_lost"
            self.problems.tell("no-idea", "", what)
        if not self._succession.following:  # otherwise the old process still uses some
            self.in_force.access.key_folder.sweep()
        self._ports.setServiceParent(self)
        super().startService()
        for host_id in table.hosts:
            self._supervisor.add(host_id)
        for _ in self._shared.arranging(table.hosts, self.in_force.settings, []):
            pass
        self._succession.complete()
        self._upkeep.start()
        self._notices.started()
        if self.choices.takes_signals:
            self._signals.install(self.choices.own_process)

    def stopService(self) -> Deferred[None]:
        """
        Let all hosts complete their requests, close everything and remove the pid file.

        :return: fires when done.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        log.info("stopping", start_or_end=True)
        await self._succession.hand_over.stop()
        await self._delayed.stop_within(PROOFS)
        left = self._succession.stop_accepting()
        self._notices.stopping(self.in_force.settings.drain_timeout)
        taken_over = self._reloader.stop()
        self._upkeep.stop()
        if left:
            await self._succession.leave_to_next()
        self._shared.close()
        await self._supervisor.stop()
        await taken_over
        await self._shared.dismiss()
        await super().stopService()
        self._signals.uninstall()
        self.release()
        self._notices.stopped()
        log.info("stopped", start_or_end=True)

    def release(self) -> None:
        """Release the folders for another lonc."""
        self._succession.release()

    def stop(self) -> None:
        """Begin to stop, as at TERM; if already stopping, wait for nothing more."""
        try:
            self._outside.reactor.stop()
        except ReactorNotRunning:
            self._succession.hand_over.hurry()
            log.info("already stopping: ending requests in flight")
            self._supervisor.stop_at_once()

    # ------------------------------------------------------------------ reload

    def reread_table(self) -> Deferred[str]:
        """
        Read the table again (USR2; row F13), and fetch the table of the cluster.

        :return: readable changes; fails with ReloadFailed if the table is unusable, and the old one
            stays in force.
        """
        return self._then_fetch(self._reloader.table())

    def reload(self) -> Deferred[str]:
        """
        Read ``loncapa.conf`` and the table again (HUP; row F13), and fetch the table of the
        cluster.

        :return: readable changes; fails with ReloadFailed if one of them is unusable, and the old
            configuration stays in force.
        """
        return self._then_fetch(self._notices.reload(self._reloader.everything))

    def _then_fetch(self, reading: Deferred[str]) -> Deferred[str]:
        """Fetch the table once the files have been read, which say where from and how."""

        def fetch(result: T) -> T:
            self._tables.fetch_soon()
            return result

        return reading.addBoth(fetch)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in FORMER:
                raise AttributeError(f"LoncService has no {name}")
            return former(name, self.reporter, self.hosts)
