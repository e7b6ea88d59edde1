# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
Adds, removes and reconfigures hosts (row S2), and restarts those that fail (row S19).

Errors in the service of one host are logged and do not affect the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

from lonc.config.current import InForce
from lonc.disk.files import RestingFolder
from lonc.host.dependencies import HostDependencies
from lonc.host.machines import Machines
from lonc.host.service import HostService
from lonc.report.events import Logger
from lonc.report.problems import Problems
from lonc.transport.unix_socket import SocketError

#: The problem that a host has no socket.
NOT_SERVED = "host-not-served"

log = Logger()


class Supervisor(MultiService):
    """
    Serves every host of the table, as the parent of their services.

    :param hosts: host id -> its service; only the supervisor changes it.
    :param in_force: the settings and the table.
    :param dependencies: what all hosts share.
    :param problems: where hosts without a socket are reported.
    :param machines: the machines of the hosts.
    """

    def __init__(
        self,
        hosts: dict[str, HostService],
        in_force: InForce,
        dependencies: HostDependencies,
        problems: Problems,
        machines: Machines,
    ) -> None:
        super().__init__()
        self.setName("hosts")
        self._hosts = hosts
        self._in_force = in_force
        self._dependencies = dependencies
        self._problems = problems
        self._machines = machines
        self._departed: Counter[str] = Counter(requests=0, answers=0, con_lost=0)
        self._leaving: dict[HostService, Deferred[object]] = {}
        self._sockets = RestingFolder()

    # ------------------------------------------------------------------ add, change and remove

    def add(self, host_id: str) -> SocketError | None:
        """
        Serve a host of the table.

        :return: why its socket cannot be opened, which is tried again; None if it is open.
        """
        host = self._in_force.table.hosts[host_id]
        service = self._hosts[host_id] = HostService(
            host, self._in_force.settings, self._dependencies, self._machines
        )
        try:
            service.setServiceParent(self)
        except SocketError as error:
            return self._not_served(host_id, error)
        self._problems.over(NOT_SERVED, host_id)
        return None

    def _not_served(self, host_id: str, error: SocketError, again: bool = False) -> SocketError:
        """Report that the socket of a host cannot be opened; return why."""
        self._sockets.disturb()
        if again:
            what = f"clients cannot be served: {error}"
            self._dependencies.clients.warn("socket", host_id, what)
        else:
            log.critical("clients cannot be served: {error}", error=error, host_id=host_id)
        self._problems.tell(NOT_SERVED, host_id, f"has no socket that clients can use: {error}")
        return error

    def reconfigure(self, host_id: str) -> SocketError | None:
        """Apply the current table and settings to a host; returns as :meth:`add` does."""
        host = self._hosts.get(host_id)
        if host is None:  # restarting it failed
            return self.add(host_id)
        try:
            host.reconfigure(self._in_force.table.hosts[host_id], self._in_force.settings)
        except SocketError as error:
            return self._not_served(host_id, error)
        except Exception:
            log.failure("a fault inside lonc", host_id=host_id)
            host.crashed = True
        else:
            self._problems.over(NOT_SERVED, host_id)
        return None

    def remove(self, host_id: str) -> None:
        """Stop serving a host; its requests in flight may finish."""
        self._problems.over(NOT_SERVED, host_id)
        service = self._hosts.pop(host_id, None)
        if service is None:
            return
        leaving = maybeDeferred(service.disownServiceParent)
        self._leaving[service] = leaving
        leaving.addErrback(self._failed_to_stop, host_id)
        leaving.addBoth(lambda _: self._note_left(service))

    def _failed_to_stop(self, failure: Failure, host_id: str) -> None:
        log.failure("stopping failed", failure, host_id=host_id)

    def _note_left(self, service: HostService) -> None:
        del self._leaving[service]
        self._departed.update(service.counts())

    def departed(self) -> Mapping[str, int]:
        """Return the counts of all removed hosts, for the totals since the start."""
        counts = Counter(self._departed)
        for service in self._leaving:
            counts.update(service.counts())
        return counts

    def stop(self) -> Deferred[list[tuple[bool, object]]]:
        """Remove every host; fires once all have stopped, including those removed earlier."""
        for host_id in list(self._hosts):
            self.remove(host_id)
        return DeferredList(list(self._leaving.values()), consumeErrors=True)

    def stop_at_once(self) -> None:
        """End the requests that stopping hosts are waiting for."""
        for service in list(self._leaving):
            service.end_drain()

    # ------------------------------------------------------------------ checks

    def sweep(self, now: float) -> None:
        """
        Check the time limits of all hosts.

        :param now: the reactor's time.
        """
        self._machines.sweep(now)

    def restore(self) -> None:
        """
        Restart failed services, and open removed sockets again.

        The sockets of thousands of hosts are checked only if their folder has changed.
        """
        rests = self._sockets.rests(self._in_force.settings.sock_dir)
        for host_id, host in list(self._hosts.items()):
            try:
                if host.crashed or not host.running:
                    log.critical("the host's service has been restarted", host_id=host_id)
                    neighbours = host.neighbours
                    self.remove(host_id)
                    if host_id in self._in_force.table.hosts:  # otherwise it is about to be removed
                        self.add(host_id)
                    # They move from the possibly broken machine to the new one.
                    for each in neighbours:
                        if each in self._in_force.table.hosts:
                            self.reconfigure(each)
                elif not rests and not host.listening:
                    self._sockets.disturb()
                    host.listen()
                    log.warn("the socket was missing and has been created again", host_id=host_id)
                    self._problems.over(NOT_SERVED, host_id)
            except SocketError as error:
                self._not_served(host_id, error, again=True)
            except Exception:
                log.failure("a fault inside lonc", host_id=host_id)
