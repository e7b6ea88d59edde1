# Twisted's Service has no annotations:
# mypy: allow-untyped-calls
"""
A host of the network as a Service: its socket, clients and counters, its start, change, pause and
stop.

:mod:`lonc.host.machine` handles its requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.delivery import Delivery
from lonc.host.dependencies import HostDependencies
from lonc.host.machines import Machines
from lonc.host.pause import Hold, Pause
from lonc.host.report import connection_statuses, host_status
from lonc.local.client_socket import FAREWELL
from lonc.local.protocol import CLOSE_CONNECTIONS
from lonc.report.events import Logger
from lonc.report.recent import NOTHING_LATELY, Lately
from lonc.report.records import ConnectionStatus
from lonc.report.status import HostStatus, PauseStatus
from lonc.report.times import HostTimes, Totals
from lonc.transport.unix_socket import SocketError
from lonc.wire.request import (
    ADDRESSED,
    ADDRESSED_OR_SECRET,
    MASK_CONTROL,
    PECULIAR,
    Cause,
    Provable,
    Request,
    Waiter,
    addressee,
    has_control_byte,
    without_addressee,
)

__all__ = ["FAREWELL", "HostDependencies", "HostService", "Pause"]

#: Maximum bytes of a request that is checked as a whole; of longer ones only the command is.
_SHORT: Final = 512

_NONE_LOST: Final[Mapping[str, int]] = {cause.value: 0 for cause in Cause}

#: Causes of a ``con_lost`` after a wait that is included in the durations.
OUT_OF_TIME: Final = frozenset({Cause.TIMEOUT, Cause.QUEUE_TIMEOUT})

log = Logger()

T = TypeVar("T")


class HostService(Service):
    """
    A host (rows S2, S4, F13 and F14).

    :ivar host: its row of the table.
    :ivar host_id: its id.
    :ivar crashed: whether a fault inside lonc occurred, so that it has to be restarted (row S19).
    :ivar machine: its machine.
    :ivar machines: its machine, and former ones that may still owe answers.
    :ivar times: the durations of its requests.
    :ivar requests: the number of requests.
    :ivar is_watched: whether its requests need checks when they arrive or are answered.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        dependencies: HostDependencies,
        machines: Machines | None = None,
    ) -> None:
        self.setName(host.id)
        self.host_id = host.id
        self._debug_level = 0
        self.crashed = False
        self.host = host
        self.times = HostTimes()
        self._settings = settings
        self._dependencies = dependencies
        self._seconds = dependencies.seconds
        self._moment = dependencies.moment
        #: Beginnings of requests that have to be looked at more closely, however short they are.
        self._marked = ADDRESSED if dependencies.enciphers else ADDRESSED_OR_SECRET
        self._socket = dependencies.socket_for(self)
        self.requests = 0
        self._con_lost: dict[Cause, int] = {}
        self._hold = Hold(dependencies.clock)
        self._quiet: list[Deferred[None]] = []  # wait until no request is outstanding
        self._deliveries = 0
        self.is_watched = False
        self._stopped: Deferred[None] | None = None
        self._every_machine = machines or Machines(dependencies)
        self.machine = self._every_machine.machine_of(host, settings)
        self.machines = [self.machine]
        self.machine.add_member(self, host, settings)

    # ------------------------------------------------------------------ requests

    def submit(self, request: Request) -> None:
        """
        Send a request on the most recently used idle connection, or let it wait for one (row S8).

        The asker is called exactly once, maybe before this returns.
        """
        self.requests += 1
        request.host = self
        line = request.line
        if (
            len(line) > _SHORT
            or line.translate(MASK_CONTROL) is not line
            or (line[0] in PECULIAR and line.startswith(self._marked))
            or self.is_watched
        ) and self._intercept(request):
            return
        machine = self.machine
        if idle := machine.idle:
            request.since = 0.0
            if machine.seldom:
                machine.start_where_served(request)
            else:
                machine.start(idle.pop(), request)
        elif len((queue := machine.queue).arrivals) < queue.room:
            request.since = self._moment.now or self._seconds()
            queue.arrivals.append(request)
        else:
            request.since = 0.0
            machine.wait(request)

    def _intercept(self, request: Request) -> bool:
        """End a request that may not be sent, or let it wait; return whether this was done."""
        request.since = 0.0
        if self._debug_level >= 6:
            self.trace(6, "request {command}, {size} bytes", request, len(request.line))
        if self._reject(request):
            return True
        return self.is_watched and self._divert(request)

    def _divert(self, request: Request) -> bool:
        """Do what is due with a request that is not sent as usual; return whether it is one."""
        if isinstance(request.asker, Delivery) and request.asker.is_first:
            if self._hold.holds:
                self.lose(request, Cause.DEAD)
            else:
                self.machine.deliver(request)
        elif not self._hold.holds:
            return False
        elif self._hold.cause is None:
            self.machine.wait(request, connect=False)
        else:
            self.lose(request, self._hold.cause)
        return True

    @property
    def awaits_answers(self) -> bool:
        """Whether `note_answered` is to be called for each answer."""
        return bool(self._quiet or self._deliveries)

    def _reconsider(self) -> None:
        """Determine again, after a change, whether its requests need checks."""
        self.is_watched = self._hold.holds or self.awaits_answers or self._debug_level >= 6
        for machine in self.machines:
            machine.reconsider()

    @property
    def debug_level(self) -> int:
        """The debug level, 0 to 9 (row S20)."""
        return self._debug_level

    @debug_level.setter
    def debug_level(self, level: int) -> None:
        self._debug_level = level
        self._reconsider()

    def _reject(self, request: Request) -> bool:
        """
        End a request that is invalid or names another host; return whether it was ended.

        A request that names another host gets ``con_lost``: a lond that serves several ids would
        execute it for that host, and any other reply would look like one of lond.
        """
        warn, line = self._dependencies.clients.warn, request.line
        (prefix, bare), cause = without_addressee(line), None
        if has_control_byte(line):
            what = "a request's command contains a control byte: it gets con_lost"
            warn("control byte", self.host_id, what)
            cause = Cause.CONTROL_BYTE
        elif addressee(line) not in (None, self.host_id):
            what = "a request names a host that this socket does not serve: it gets con_lost"
            warn("host", self.host_id, what)
            cause = Cause.WRONG_HOST
        elif not self._dependencies.enciphers and bare.startswith(b"encrypt:"):
            cause = Cause.NO_CIPHER  # never unencrypted; logged at the start
        elif prefix and bare == CLOSE_CONNECTIONS:  # without one the client protocol obeys it
            self.close_connections()
            request.asker.answered(b"ok\n")
            return True
        if cause is not None:
            self.lose(request, cause)
        return cause is not None

    def passed_on(self) -> None:
        """Fire waiting Deferreds if no request is outstanding any more."""
        if self._quiet and not any(each.owes(self) for each in self.machines):
            quiet, self._quiet = self._quiet, []
            self._reconsider()
            for waiting in quiet:
                waiting.callback(None)

    def resubmit(self, request: Request) -> None:
        """Send a request again that its connection, now retired, has not sent."""
        if not self._divert(request):
            self.machine.wait(request, connect=False)
        self.passed_on()

    def withdraw(self, request: Request) -> bool:
        """Remove a waiting request of a disconnected client; return whether it was waiting."""
        return self.machine.withdraw(request)

    def cut_off(self, request: Request) -> None:
        """Close the connection on which a request is outstanding, without reporting it."""
        for machine in self.machines:
            machine.cut_off(request)
        self.passed_on()

    def sent_at(self, request: Request) -> float:
        """Return when a request was sent to its lond; 0.0 if it waits for a connection."""
        return max(machine.sent_at(request) for machine in self.machines)

    def ask(self, line: bytes) -> Deferred[bytes]:
        """
        Send a request and return a Deferred.

        :param line: a request with its newline.
        :return: fires with the reply; fails with :exc:`lonc.wire.request.ConLost`.
        """
        waiter = Waiter(self.host_id)
        self.submit(Request(line, waiter))
        return waiter.outcome

    def deliver(self, line: bytes, fresh: bool) -> Deferred[tuple[bytes, Provable | None]]:
        """
        Send a delayed request (row F8).

        :param fresh: whether it must be the first one on its connection, because a proof failed.
            This also applies until it is known whether ``ping`` is a valid check, and if it is not.
        :return: fires with the answer, and with the connection that has to be proven before it
            counts, or None if it counts already; fails with :exc:`lonc.wire.request.ConLost`.
        """
        auditor = self.machine.lond.auditor
        is_first = fresh or not auditor.knows
        # These answers count: otherwise a lond that is never in step would be sent it forever.
        delivery = Delivery(self.host_id, is_first, lambda: fresh or not auditor.ping_tells)
        self._deliveries += 1
        self._reconsider()
        self.submit(Request(line, delivery))
        delivery.came_by(None)  # if lonc itself has answered
        return delivery.outcome.addBoth(self._delivered)

    def _delivered(self, outcome: T) -> T:
        self._deliveries -= 1
        self._reconsider()
        return outcome

    def note_answered(self, connection: Provable, request: Request) -> None:
        """Handle an answer that a delayed request or a pause waits for."""
        if isinstance(request.asker, Delivery):
            request.asker.came_by(connection)
        self.passed_on()

    def lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """
        Report a lost request to its asker, and count it.

        :param sent: when the request was sent to the lond; 0.0 if it was not.
        """
        self.count_lost(cause)
        now, log_of_requests = self._seconds(), self._dependencies.request_log
        since = request.since or sent or now
        if cause in OUT_OF_TIME:
            self.times.add_lost((sent or now) - since, now - sent if sent else 0.0)
        if now - since > log_of_requests.threshold:
            log_of_requests.note(
                self.host_id,
                max(0, request.asker.program),
                request.line,
                request.command,
                cause.value,
                queue=(sent or now) - since,
                lond=now - sent if sent else 0.0,
            )
        if self.debug_level >= 1:
            self.trace(1, "con_lost to {command}: {size}", request, cause.value)
        request.asker.lost(cause)

    def count_lost(self, cause: Cause) -> None:
        """Count a ``con_lost``."""
        self._con_lost[cause] = self._con_lost.get(cause, 0) + 1

    def count_refused(self, cause: Cause) -> None:
        """Count a request that was not accepted from its client, and its ``con_lost``."""
        self.requests += 1
        self.count_lost(cause)

    def trace(self, level: int, text: str, request: Request, size: object) -> None:
        """Log the progress of a request, at a debug level."""
        log.debug(text, command=request.command, size=size, debug_level=level, host_id=self.host_id)

    # ------------------------------------------------------------------ the lond

    @property
    def neighbours(self) -> list[str]:
        """The other ids that share its connections, except those being restarted."""
        members = self.machine.members.values()
        return [each.host_id for each in members if each is not self and not each.crashed]

    @property
    def alive(self) -> bool:
        """Whether requests are sent at present."""
        return not self._hold.holds and not self.machine.lond.health.dead

    def revived(self) -> None:
        """Note that the host is no longer DEAD, or is to be tried anew."""
        self._dependencies.revived(self.host_id)

    def set_served(self, served: bool) -> None:
        """Note whether any connection serves this id."""
        if served != self._hold.served:
            self._hold.served = served
            self._follow_hold()

    def distrust(self) -> None:
        """Probe the host, which was DEAD in the previous process."""
        self.machine.lond.distrust()

    def reset_retries(self) -> None:
        """Reset the host's retries (rows S17 and S18), and probe it if it was DEAD."""
        self.machine.lond.reset_retries()

    def close_connections(self) -> None:
        """Close all connections and start anew (rows S14 and F11); open requests are lost."""
        more = self._dependencies.clients.allow_line("close", self.host_id)
        if more is not None:
            what = "closing every connection on request{more}"
            log.critical(what, more=more, host_id=self.host_id)
        self.machine.start_afresh(self)

    # ------------------------------------------------------------------ pause

    def pause(self, pause: Pause, seconds: float) -> Deferred[None]:
        """
        Send nothing until :meth:`resume`.

        :param seconds: after which it ends by itself; 0.0 for never.
        :return: fires when no request is outstanding.
        """
        self._hold.pause(pause, seconds, self.resume)
        self._follow_hold()
        if pause.fail:
            self.machine.lose_waiting(self.host_id, Cause.PAUSED)
        return self._until_quiet()

    @property
    def paused(self) -> PauseStatus:
        """The fields of its `Pause`; empty if it is not paused."""
        return self._hold.status

    def _until_quiet(self) -> Deferred[None]:
        """Fire when no request is outstanding."""
        quiet: Deferred[None] = Deferred()
        self._quiet.append(quiet)
        self._reconsider()
        self.passed_on()
        return quiet

    def resume(self) -> None:
        """End a pause."""
        self._hold.resume()
        self._follow_hold()
        self.revived()

    def _follow_hold(self) -> None:
        """Apply a change of the hold."""
        self._reconsider()
        if not self._hold.stopping:
            self.machine.hold(self.host_id, self._hold.paused is not None)

    # ------------------------------------------------------------------ start, change and stop

    def startService(self) -> None:
        """
        Listen for clients.

        :raises lonc.transport.unix_socket.SocketError: the message contains the path.
        """
        super().startService()
        self.listen()

    def listen(self) -> None:
        """
        Listen on the socket according to the settings, if it is not already open.

        :raises lonc.transport.unix_socket.SocketError: the message contains the path.
        """
        settings = self._settings
        if settings.socket_names == "hostname":
            self._socket.close()
            return
        path = settings.socket_path(self.host_id)
        if self.host_id in settings.reserved_names:
            raise SocketError(f"{path}: the name is reserved for one of lonc's own files")
        self._socket.open(path, settings.socket_mode, settings.socket_group)

    @property
    def listening(self) -> bool:
        """Whether clients can reach the socket, if it is to exist: it may have been removed."""
        return self._settings.socket_names == "hostname" or self._socket.intact

    def reconfigure(self, host: Host, settings: Settings) -> None:
        """
        Apply a new row and new settings without disturbing open requests (row F13).

        Connections to a former address, or with a former host id or authentication mode, finish
        their requests and are not used again; clients notice nothing, and waiting requests are sent
        to the new address. The socket is changed if its path, mode or group has changed.

        :raises lonc.transport.unix_socket.SocketError: the socket cannot be changed.
        """
        self.host, self._settings = host, settings
        machine = self._every_machine.machine_of(host, settings)
        if machine is not self.machine:
            was_dead = self.machine.lond.health.dead
            waiting = self._leave_machine()
            self.machine, self._hold.served = machine, True
            self.machines = [each for each in self.machines if each.owes(self)]
            self.machines.append(machine)
            machine.add_member(self, host, settings)
            self._follow_hold()
            machine.requeue(each for each in waiting if not self._divert(each))
            if was_dead:
                self.revived()
        else:
            machine.reconfigure(host, settings)
        self.listen()

    def stopService(self) -> Deferred[None]:
        """
        Stop accepting clients, complete outstanding requests, end others with ``con_lost``, and
        close.

        It may be called again while stopping.

        :return: fires when all sockets are closed, after at most the drain timeout and a second.
        """
        super().stopService()
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop())
        stopped: Deferred[None] = Deferred()
        self._stopped.addBoth(lambda result: stopped.callback(result))
        return stopped

    async def _stop(self) -> None:
        self._hold.stopping = True
        self._hold.end_timer()
        self._follow_hold()
        closed = self._socket.close()
        for request in self._leave_machine():
            self.lose(request, Cause.CLOSED)
        late = self._dependencies.clock.callLater(self._settings.drain_timeout, self.end_drain)
        await self._until_quiet()
        if late.active():
            late.cancel()
        farewell = self._dependencies.clock.callLater(FAREWELL, self._abort)
        await self._socket.dismiss(closed)
        for machine in [each for each in self.machines if not each.members]:
            await machine.lond.all_closed()
        if farewell.active():
            farewell.cancel()

    def _leave_machine(self) -> list[Request]:
        waiting = self.machine.remove_member(self)
        if self.crashed or not self.machine.members:
            self._every_machine.close(self.machine)
        return waiting

    def end_drain(self) -> None:
        """Lose the outstanding requests: the drain timeout has expired."""
        for machine in self.machines:
            for request in machine.drop(self):
                self.lose(request, Cause.CLOSED)
        self.passed_on()

    def _abort(self) -> None:
        for machine in self.machines:
            if not machine.members:
                machine.lond.abort()

    def sweep(self, now: float) -> None:
        """Apply time limits for all hosts of all machines; called several times a second."""
        self._every_machine.sweep(now)

    # ------------------------------------------------------------------ reports

    @property
    def state(self) -> str:
        """The state as in :meth:`status`."""
        return "stopping" if self._hold.stopping else self.machine.lond.health.state.value

    @property
    def connections(self) -> int:
        """Connections, including those being made; counted for one host of a machine only."""
        return len(self.machine.pool) if self._is_first else 0

    @property
    def _is_first(self) -> bool:
        """Whether this host is the one for which shared figures of the machine are reported."""
        return next(iter(self.machine.members), "") == self.host_id

    def begin_slot(self) -> None:
        """Advance the five minutes for which durations are reported."""
        self.times.begin_slot()
        if self._is_first:
            self.machine.lond.handshake_times.begin_slot()

    @property
    def waiting(self) -> int:
        """The number of requests waiting for a connection."""
        return len(self.machine.waiting_since(self.host_id))

    @property
    def clients(self) -> int:
        """The number of clients connected to its socket."""
        return self._socket.clients

    def status(
        self,
        delayed: int,
        last_log: str,
        oldest_delayed: float = 0.0,
        lately: Lately = NOTHING_LATELY,
    ) -> HostStatus:
        """
        Return the status of the host.

        :param delayed: the number of its delayed requests on disk.
        :param last_log: its last log line.
        :param oldest_delayed: age of the oldest delayed request, in seconds.
        :param lately: figures of the last five minutes, which are costly to compute.
        """
        return host_status(self, self._dependencies, delayed, last_log, oldest_delayed, lately)

    @property
    def con_lost(self) -> Mapping[str, int]:
        """Requests that ended with ``con_lost``, by cause."""
        lost = {cause.value: count for cause, count in self._con_lost.items()}
        return {**_NONE_LOST, **lost} if lost else _NONE_LOST

    def connection_statuses(self) -> Iterator[ConnectionStatus]:
        """Yield the status of each connection to its machine's lond, in order of creation."""
        return connection_statuses(self, self._seconds())

    def counts(self) -> dict[str, int]:
        """Return the numbers of ``requests``, ``answers`` and ``con_lost``."""
        lost = sum(self._con_lost.values())
        return {"requests": self.requests, "answers": self.times.answers, "con_lost": lost}

    def totals(self) -> dict[str, Totals]:
        """Return the durations of its requests and its machine's handshakes."""
        return {**self.times.totals(), "handshake": self.machine.lond.handshake_times.totals()}
