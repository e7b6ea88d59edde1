"""
Which hosts are on the same machine, and so share the connections to its lond.
"""

from __future__ import annotations

from collections.abc import Set

import attrs

from lonc.config.hosts import Host, normal_target
from lonc.config.settings import Settings
from lonc.host.dependencies import HostDependencies
from lonc.host.machine import Machine
from lonc.report.events import Logger

log = Logger()


@attrs.frozen
class MachineKey:
    """
    What identifies the machine of a row of the table.

    :ivar target: the row's address, else its host name, in normal form.
    :ivar certificate_name: the name that its certificate must be for; empty without TLS.
    :ivar takes_key_files: whether its lond is on this machine.
    """

    target: str
    certificate_name: str
    takes_key_files: bool


class Machines:
    """
    All machines that have hosts.

    A machine without hosts is kept until its outstanding requests have ended.
    """

    def __init__(self, dependencies: HostDependencies) -> None:
        self._dependencies = dependencies
        self._serving: dict[MachineKey, Machine] = {}
        self._all: dict[Machine, None] = {}

    def machine_of(self, host: Host, settings: Settings) -> Machine:
        """Return the machine of a host."""
        modes = self._dependencies.auth_modes(host)
        key = MachineKey(normal_target(host.target), modes.name, modes.key_files is not None)
        found = self._serving.get(key)
        if found is None:
            found = Machine(host, settings, self._dependencies, self._ended)
            self._serving[key] = found
            self._all[found] = None
        return found

    def _ended(self, machine: Machine) -> None:
        self._all.pop(machine, None)

    def close(self, machine: Machine) -> None:
        """Assign no more hosts to a machine."""
        for key, serving in list(self._serving.items()):
            if serving is machine:
                del self._serving[key]

    def sweep(self, now: float) -> None:
        """
        Check all time limits.

        A fault inside lonc is logged, and the hosts concerned have to be restarted.

        :param now: the reactor's time.
        """
        for machine in list(self._all):
            try:
                machine.sweep(now)
            except Exception:
                self.close(machine)
                for member in machine.members.values():
                    log.failure("a fault inside lonc", host_id=member.host_id)
                    member.crashed = True

    def readdress(self, name: str, gone: Set[str]) -> None:
        """
        React to a change of a name's addresses.

        :param name: in normal form.
        :param gone: addresses that it no longer has.
        """
        serving = list(self._serving.items())
        for machine in [machine for key, machine in serving if key.target == name]:
            for member in machine.members.values() if gone else ():
                log.critical("the host's address has changed", host_id=member.host_id)
            machine.lond.retire_from(gone)
