"""
Periodic work of the daemon: time limits, sockets, ports, files and problems.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import attrs

from lonc.config.current import InForce
from lonc.config.rlimit import why_no_file
from lonc.control.port import Ports
from lonc.control.reporter import Reporter, in_slices
from lonc.daemon.kept_sockets import KeptSockets
from lonc.daemon.outside import Outside
from lonc.daemon.rounds import SWEEP, Rounds, Sweep, guarded
from lonc.daemon.succession import Succession
from lonc.daemon.supervisor import Supervisor
from lonc.disk.files import is_replaced
from lonc.host.resolver import Names
from lonc.host.shared_sockets import SharedSockets
from lonc.local.limits import Clients
from lonc.report.events import Logger
from lonc.report.kinds import EXPOSED, SHORTAGES, UPKEEP
from lonc.report.logs import has_room
from lonc.report.problems import Problem, problem
from lonc.report.times import SLOT

#: Seconds between two checks that every host is served (row S19).
WATCH = 1.0

#: Seconds between two checks of the hosts' status: the maximum delay until a problem is logged.
LOOK = 10.0

log = Logger()


@attrs.frozen
class Upkeep:
    """
    Does all of that periodically, from :meth:`start` to :meth:`stop`.

    :param ports: the ports other than the hosts' sockets.
    :param kept: the sockets that are kept over a restart.
    :param also: further work in steps -> its period in seconds.
    :param running: whether the daemon is running.
    :param sets_title: whether to set the process title.
    """

    _outside: Outside
    _in_force: InForce
    _clients: Clients
    _names: Names
    _supervisor: Supervisor
    _shared: SharedSockets
    _kept: KeptSockets
    _ports: Ports
    _reporter: Reporter
    _succession: Succession
    _also: Mapping[Callable[[], Iterator[object]], float]
    _running: Callable[[], bool]
    _sets_title: Callable[[], bool]
    _rounds: Rounds = attrs.field(init=False)

    @_rounds.default
    def _make_rounds(self) -> Rounds:
        rounds: dict[Callable[[], object], float] = {
            Sweep(self._outside.reactor, self._outside.network, guarded(self._sweep)): SWEEP,
            partial(self._do, self._restoring): WATCH,
            partial(self._do, self._reporter.beginning_slots): SLOT,
            self.refresh_problems: LOOK,
        }
        rounds |= {partial(self._do, begin): seconds for begin, seconds in self._also.items()}
        return Rounds(self._outside.reactor, rounds)

    def start(self) -> None:
        """Do everything once, and then periodically."""
        self._rounds.start()

    def stop(self) -> None:
        """Stop."""
        self._rounds.stop()

    def _sweep(self) -> None:
        """Check all time limits."""
        now = self._outside.reactor.seconds()
        self._clients.sweep(now)
        self._supervisor.sweep(now)

    async def _do(self, begin: Callable[[], Iterator[object]]) -> None:
        await self._in_slices(begin())

    async def _in_slices(self, steps: Iterator[object]) -> None:
        await in_slices(self._outside.reactor, steps, self._running)

    async def refresh_problems(self) -> None:
        """Update the list of problems from the status of the hosts."""
        for each in [each for each in self._outside.problems if each.kind == "log-file"]:
            if has_room(each.subject):  # its next line may be hours away
                self._outside.problems.over(each.kind, each.subject)
        if any(each.kind == "status-file" for each in self._outside.problems):
            with contextlib.suppress(OSError):  # it stays a problem
                await self._in_slices(self._reporter.reporting())
        self._outside.problems.replace(self._in_force.exposed(), EXPOSED)
        await self._in_slices(self._reporter.looking())

    async def report_and_reset(self) -> None:
        """Reopen the logs, write the status file, and restore the retries of all hosts."""
        await self._in_slices(self._reporter.reporting_and_resetting())

    def _restoring(self) -> Iterator[None]:
        """Restart and reopen what does not serve, and update problems and process title."""
        self._supervisor.restore()
        yield
        self._shared.restore()
        self._succession.restore_pid_file()
        self._outside.problems.replace(self._clients.problems(time.time()), SHORTAGES)
        yield
        self._kept.store_missing()
        self._ports.restore()
        self._outside.problems.replace(self._own_problems(), UPKEEP)
        yield
        self._names.renew({host.target for host in self._in_force.table.hosts.values()})
        yield
        if self._sets_title():
            self._reporter.show_title()

    def _own_problems(self) -> Iterator[Problem]:
        """Yield problems of ports, of the limit on open files, and of an upgrade."""
        yield from self._ports.problems()
        yield from self._shared.problems()
        why = why_no_file()
        if why:
            yield problem("files-used-up", "", f"no file and no connection can be opened: {why}")
        if is_replaced():
            yield problem("lonc-replaced", "", "lonc has been reinstalled since it started")
