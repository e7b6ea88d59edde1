"""
Which hosts live on one machine, and so share the connections to its lond.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

import attrs
from twisted.logger import Logger

from lonc.config.hosts import Host, normal_target
from lonc.config.settings import Settings
from lonc.report.times import HostTimes
from lonc.wire.request import Cause, Request

log = Logger()

if TYPE_CHECKING:
    from lonc.host.dependencies import HostDependencies
    from lonc.host.dispatcher import Dispatcher


@attrs.frozen
class Machine:
    """
    What makes two rows of the table the same machine.

    :ivar target: where to connect to: the row's address, else its host name, in its one spelling.
    :ivar certificate_name: whom its certificate has to be for; empty without TLS.
    :ivar takes_key_files: whether its lond is on this machine.
    """

    target: str
    certificate_name: str
    takes_key_files: bool


class Member(Protocol):
    """A host of a machine: what its Dispatcher tells it."""

    host_id: str
    debug_level: int
    crashed: bool
    awaits_quiet: bool
    times: HostTimes

    def passed_on(self) -> None:
        """The answer was passed on, or an answer will never come."""

    def trace(self, level: int, text: str, request: Request, size: object) -> None:
        """Log what becomes of a request, at a debug level."""

    def lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """Tell who asked that there is no answer; ``sent`` is when it was sent, if it was."""

    def revived(self) -> None:
        """The lond answers again, or is to be tried afresh."""

    def is_served(self, served: bool) -> None:
        """Whether the lond speaks for this id at all."""


class Machines:
    """
    The Dispatchers of all machines that have hosts.

    One that the last host has left ends what is in flight, and is looked after until then.
    """

    def __init__(self) -> None:
        self._serving: dict[Machine, Dispatcher] = {}
        self._all: dict[Dispatcher, None] = {}

    def dispatcher(
        self, host: Host, settings: Settings, dependencies: HostDependencies
    ) -> Dispatcher:
        """Return the Dispatcher of a host's machine."""
        from lonc.host.dispatcher import Dispatcher

        modes = dependencies.auth_modes(host)
        machine = Machine(normal_target(host.target), modes.name, modes.key_files is not None)
        found = self._serving.get(machine)
        if found is None:
            found = Dispatcher(host, settings, dependencies, self._ended)
            self._serving[machine] = found
            self._all[found] = None
        return found

    def _ended(self, dispatcher: Dispatcher) -> None:
        self._all.pop(dispatcher, None)

    def close(self, dispatcher: Dispatcher) -> None:
        """Let no host come to a Dispatcher any more."""
        for machine, serving in list(self._serving.items()):
            if serving is dispatcher:
                del self._serving[machine]

    def sweep(self, now: float) -> None:
        """
        Look at every time limit.

        A fault inside lonc is logged, and the hosts that it shows at have to be started again.

        :param now: the reactor's time.
        """
        for dispatcher in list(self._all):
            try:
                dispatcher.sweep(now)
            except Exception:
                self.close(dispatcher)
                for member in dispatcher.members:
                    log.failure("a fault inside lonc", host_id=member.host_id)
                    member.crashed = True

    def moved(self, name: str, gone: Set[str]) -> None:
        """Follow a name to other addresses; see :class:`lonc.host.resolver.NameListener`."""
        for dispatcher in self._at(name):
            for member in dispatcher.members if gone else ():
                log.critical("the host's address has changed", host_id=member.host_id)
            dispatcher.readdress(gone)

    def unresolved(self, name: str, why: str) -> None:
        """Note that a name cannot be looked up."""

    def resolved(self, name: str) -> None:
        """Note that it can be again."""

    def _at(self, name: str) -> list[Dispatcher]:
        serving = self._serving.items()
        return [dispatcher for machine, dispatcher in serving if machine.target == name]

    def turn(self) -> None:
        """Let the five minutes of which times are told move on."""
        for dispatcher in self._all:
            dispatcher.turn()
