"""
The lond of a machine: its connections, what is known about it, and its health.

:mod:`lonc.host.machine` handles the requests on its connections.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from math import inf
from typing import Final

from twisted.internet.defer import Deferred, succeed

from lonc.config.hosts import Host, normal_target
from lonc.config.settings import Settings
from lonc.host.audit import Auditor
from lonc.host.connection import PROOF, LondConnection
from lonc.host.connection_factory import LondConnectionFactory
from lonc.host.connection_states import ConnectionState, Trouble
from lonc.host.dependencies import HostDependencies
from lonc.host.health import Backoff, Health, State
from lonc.host.lond_memory import MEMORY, LondMemory, ServedIds
from lonc.host.lond_user import LondUser
from lonc.host.pool import ConnectionPool
from lonc.host.troubles import TroubleLog
from lonc.report.events import Logger
from lonc.report.times import Times
from lonc.transport.tcp import keep_alive
from lonc.wire.handshake import Handshake, LondFacts, Omission
from lonc.wire.request import Cause, Request

#: Seconds of idleness after which a firewall may have dropped a connection: the shortest time limit
#: found in practice.
LONG_REST: Final = 60.0

#: Failures that would occur again immediately, so that retrying would be an endless loop.
AT_ONCE_AGAIN: Final = (Trouble.NO_FILES, Trouble.LOOK_UP)

log = Logger()


class Lond:
    """
    The connections to one lond, from which its health is derived (S10, S12, F2, F4, F5).

    Each connection relies on the result of its own handshake. For the next handshake and the
    status, `LondMemory`, `ServedIds` and `Auditor` keep what the connections revealed. They forget
    it when all connections have ended by failures, when a handshake reveals another release, after
    an hour without connections, and when the table or a command demands new connections.

    :ivar pool: the connections.
    :ivar health: the state of the lond.
    :ivar served: the host ids that it serves.
    :ivar auditor: checks that the connections are in step.
    :ivar memory: what is remembered for the next handshake and the status.
    :ivar troubles: the log messages, and the last failure.
    :ivar handshake_times: the durations of the handshakes.
    :ivar failed_handshakes: the number of those that failed.
    """

    def __init__(
        self,
        machine: LondUser,
        host: Host,
        settings: Settings,
        dependencies: HostDependencies,
    ) -> None:
        self._machine = machine
        self._target = normal_target(host.target)
        self._settings = settings
        self._dependencies = dependencies
        self._seconds = dependencies.seconds
        self._modes = dependencies.auth_modes(host)
        self._ids = tuple(dependencies.ids(host))
        clock, random = dependencies.clock, dependencies.random
        self.health = Health(settings.retries, clock, random, self._probe, machine.reconsider)
        self.troubles = TroubleLog(host.id, self._target, clock, dependencies.clients)
        self.memory = LondMemory(self._seconds())
        self.handshake_times = Times()
        self.failed_handshakes = 0
        self._place_before = self._place
        self._closing: dict[LondConnection, None] = {}  # needs less memory than a set
        self._closed: Deferred[None] | None = None
        self.pool = ConnectionPool()
        self.auditor = Auditor(
            machine, self.pool, self.troubles, self._seconds, settings.request_timeout
        )
        backoff = Backoff(clock, random, self._ask_for_refused)
        self.served = ServedIds(machine, dependencies.clients, backoff)
        self.replied: Callable[[LondConnection, Request, bytes], None] = machine.replied

    @property
    def name(self) -> str:
        """The readable name of the machine, unique among those with own connections."""
        certificate = f" ({self._modes.name})" if self._modes.name else ""
        return f"{self._target}:{self._settings.lond_port}{certificate}"

    # ------------------------------------------------------------------ new connections

    @property
    def _now(self) -> float:
        """The time of the event being handled: one number for all connections that it concerns."""
        return self._dependencies.moment.now or self._seconds()

    def connect(self) -> None:
        """Start connecting."""
        settings, shared, now = self._settings, self._dependencies, self._now
        if not self.pool and now - self.memory.last_connected >= MEMORY:
            self._forget()
        members = self._machine.members
        if not members:
            return
        # Members no longer in the table's list are about to leave; refused ids are tried first.
        wanted = [each for each in members if each in self._ids] or list(members)
        first, *others = sorted(wanted, key=lambda each: each not in self.served.refused)
        omissions = self.memory.omissions(now)
        handshake = Handshake(first, settings.host_id, self._modes, others, self.several, omissions)
        number = next(shared.connection_numbers)
        connection = LondConnection(self, handshake, settings.max_line, now, number)
        self.pool.add(connection)
        for host_id, host in members.items():
            if host.debug_level >= 4:
                log.debug("connecting to {at}", at=self._target, debug_level=4, host_id=host_id)
        at, limit = settings.lond_port, settings.connect_timeout
        factory = LondConnectionFactory(
            connection, shared.network, shared.look_up, shared.clock, at, limit
        )
        factory.connect(self._target)

    def connected(self, connection: LondConnection) -> None:
        """Handle the beginning of the handshake."""
        connection.note_connected(self._now)
        self.move(connection, ConnectionState.HANDSHAKING)
        settings = self._settings
        keep_alive(
            connection.transport,
            settings.keepalive_time,
            settings.keepalive_interval,
            settings.keepalive_probes,
        )

    def ready(self, connection: LondConnection, facts: LondFacts) -> None:
        """Handle the end of a handshake; if in doubt, check the lond with ``ping`` as well."""
        self.health.last_handshake = now = self._seconds()
        self.handshake_times.add(now - connection.since)
        connection.established = connection.since = now
        before = set(self.served.refused)
        self.pool.retire_nameless(connection)  # before refused ids can be requested again
        if self.memory.is_of_another(facts):
            self._forget()
            self.memory.answers_ping = None
        self.memory.learn(facts)
        # A lond that never answers ping is tried with a request instead, and so is no longer DEAD.
        no_ping = self._answers_no_ping
        if no_ping and self.health.dead and self.health.reset_retries():
            self._tell_revived()
        proving = self.health.doubtful and not (no_ping and self._machine.waiting)
        if proving:
            connection.ask_ping(now)
        else:
            self.move(connection, ConnectionState.IDLE)
        self.served.learn(facts, self.pool.all())
        if not proving:
            self._welcome(self.health.away)
        self.served.tell_served(before)

    def proved(self, connection: LondConnection, reply: bytes) -> None:
        """Handle the answer to ``ping`` on a connection."""
        self.health.last_pong = now = self._seconds()
        self.memory.answers_ping = True
        came_back = self.health.away
        if not self.health.well:
            self.revive()
        if connection.unchecked or connection.surplus:
            self.auditor.proved(connection, reply)
            return
        # A new connection, asked only whether the lond is alive: any answer will do.
        self.move(connection, ConnectionState.IDLE)
        connection.note_in_step(now)
        self._welcome(came_back)

    def prove(self, connection: LondConnection) -> Deferred[bool]:
        """Fire with whether a connection is in step: see `Provable.prove`."""
        return self.auditor.prove(connection)

    def _welcome(self, came_back: bool) -> None:
        """Use a new connection; unless there is doubt, the lond is up then."""
        if not came_back:  # this is logged by revive()
            self.troubles.tell_ready(len(self.pool))
        self._machine.pair(new=0)
        if not self.health.doubtful:
            self.revive()

    @property
    def _answers_no_ping(self) -> bool:
        """Whether it has answered requests but never ``ping``: then requests serve as checks."""
        return self.memory.answers_ping is False and self._machine.last_answer >= 0.0

    def move(self, connection: LondConnection, state: ConnectionState) -> None:
        """Change the state of a connection."""
        self.pool.move(connection, state)
        if state is ConnectionState.RETIRING:
            self._machine.reconsider()  # its answer needs attention
        elif state is ConnectionState.CLOSED:
            connection.end_proofs(False)
            self._machine.queue.close_room()  # there is room for another connection
            if not self.pool:
                self.memory.last_connected = self._seconds()
            if self.served.only:
                self.served.judge(self.pool.all())

    def socket_closed(self, connection: LondConnection) -> None:
        """Handle the closing of a connection's socket."""
        self._closing.pop(connection, None)
        self.check_closed()

    # ------------------------------------------------------------------ served host ids

    @property
    def _names(self) -> frozenset[str]:
        """The ids of the machine according to the table, and members that have not left yet."""
        return frozenset([*self._ids, *self._machine.members])

    @property
    def several(self) -> bool:
        """Whether it has several host ids."""
        return len(self._ids) > 1 or len(self._machine.members) > 1 or len(self._names) > 1

    def _forget(self) -> None:
        """Forget what is known about the lond: it may be another from now on."""
        self.memory.forget()
        self.auditor.forget()
        self.served.forget()

    def _ask_for_refused(self) -> None:
        """Check again whether the lond serves refused ids."""
        if not self.served.refused.keys() & self._machine.members.keys():
            return
        self.served.backoff.start()
        if self.health.dead or self.pool.connecting or self.pool.handshaking:
            return
        if len(self.pool) >= self._settings.max_connections:
            self.pool.make_room()
        if len(self.pool) < self._settings.max_connections:
            self.connect()

    def introduced(self, connection: LondConnection, request: Request) -> None:
        """Send a request after the lond has accepted ``sethost`` for its host."""
        self.served.accept(request.host.host_id)
        self.move(connection, ConnectionState.BUSY)
        connection.send(request, connection.since)

    def not_served(self, connection: LondConnection, request: Request) -> None:
        """Lose a request after the lond has refused ``sethost`` for its host."""
        self._machine.last_answer = connection.since = self._seconds()
        connection.unchecked += 1  # it may be the answer to an earlier request
        if connection.state is ConnectionState.RETIRING:
            self.close_retired(connection)
        else:
            self.move(connection, ConnectionState.IDLE)
            self._machine.pair(new=0)
        self.served.refuse(request.host.host_id)
        self._machine.lose(request, Cause.NOT_SERVED)

    # ------------------------------------------------------------------ failures

    def failed(
        self, connection: LondConnection, trouble: Trouble, message: str, cause: Cause
    ) -> None:
        """Count the failure once (row F5), and lose requests that cannot be served."""
        beginning = connection.beginning
        if beginning is not None and beginning.omission is not None:
            self._leave_out(beginning.omission, message)
            return
        proving = connection.request is PROOF
        # An unanswered ping is no failure if none is ever answered, or while requests are answered.
        excused = proving and (
            self._answers_no_ping or (trouble is Trouble.TIMEOUT and connection.unchecked > 0)
        )
        self._learn_from_failure(connection, message)
        request = connection.give_up()
        was_away, answered = self.health.away, self._machine.last_answer
        counts = bool(self._machine.members) and not excused
        counts = counts and self.health.is_to_blame(connection, trouble, answered, not self.pool)
        died = counts and self.health.charge(connection, trouble)
        if counts and request is not None and trouble is Trouble.TIMEOUT:
            self.memory.note_silence(answered)
        self.troubles.tell_failed(trouble, message, died=died, away=was_away)
        self._probe_later()
        if died:
            self.pool.close_idle(inf)  # probably broken, too; busy ones may still answer
            self._machine.lose_waiting(None, Cause.DEAD)
        elif trouble not in AT_ONCE_AGAIN and (self.pool or proving or not counts):
            # The remaining ones may hang, and there may be no other occasion to connect.
            self._machine.pair(new=1)
        elif not self.pool:
            # Row S12: without connections, waiting requests are lost.
            self._machine.lose_waiting(None, Cause.UNREACHABLE)
        if not self.pool and not (proving and trouble is Trouble.TIMEOUT):
            # If ping hangs, the lond has not gone; its silence must be remembered.
            self._forget()
        if request is not None:
            self._machine.lose(request, cause, connection.since)
        self.check_closed()

    def _learn_from_failure(self, connection: LondConnection, message: str) -> None:
        """Note what the end of a connection says about its answers, other connections and ping."""
        if not connection.host_id:  # its handshake is not complete
            self.failed_handshakes += bool(connection.connected)
        if connection.surplus:
            self.auditor.tell_out_of_step(connection, message)
        elif (
            connection.request is not None
            and connection.since - connection.rested_since >= LONG_REST
        ):
            # A firewall that dropped this connection has dropped the others, too.
            self.pool.close_idle(connection.rested_since)
        if connection.request is PROOF:
            self.memory.note_no_pong(connection.since)
            if connection.unchecked:
                self.auditor.note_silence(connection)

    def _leave_out(self, omission: Omission, message: str) -> None:
        """Connect again without the step that the lond failed at."""
        if not self.health.away:
            self.troubles.tell_other_way(message)
        self.memory.leave_out(omission, self._seconds())
        self.connect()

    def close_retired(self, connection: LondConnection) -> None:
        """Close a connection after its answer, because it may not be used again."""
        connection.close()
        if connection.surplus and self._machine.members:
            message = "the lond sent more than its answer"
            self.failed(connection, Trouble.BROKEN, message, Cause.BROKEN)
            return
        self.cut_off(connection)

    def count_unfinished(self, connection: LondConnection, size: int) -> None:
        """Record the size of an incomplete answer, which may end this connection or another."""
        self._dependencies.clients.replies.note(connection, size)

    def free_memory(self, connection: LondConnection) -> None:
        """End a connection whose incomplete answer needs too much memory (row F3)."""
        what = "the memory for answers is used up: the connection of the longest one is closed"
        self._dependencies.clients.warn("answers", self.troubles.host_id, what)
        self._dependencies.clients.released.note()
        request, since = self.cut_off(connection), connection.since
        if request is not None:
            self._machine.lose(request, Cause.MEMORY, since)

    def cut_off(self, connection: LondConnection) -> Request | None:
        """
        Close a connection without blaming the host, and make another for waiting requests.

        :return: its outstanding request.
        """
        connection.close()
        request = connection.give_up()
        self._machine.pair(new=self._machine.waiting)
        self._probe_later()
        self.check_closed()
        return request

    # ------------------------------------------------------------------ probes

    def _probe(self) -> None:
        """Probe a host that is not up by connecting to it (row F4)."""
        pool = self.pool
        if len(pool) >= self._settings.max_connections:
            self.health.probes.start()
        elif not pool.connecting and not pool.handshaking and not pool.proving:
            self.connect()

    def _probe_later(self) -> None:
        """Schedule a probe if it is not up: the ended connection may have been the probe."""
        if self.health.state is not State.UP and self._machine.members:
            self.health.probes.start()

    def revive(self) -> None:
        """Handle a success: the host has all its retries again (row S10)."""
        if self.health.success():
            log.info("host answers again", host_id=self.troubles.host_id, success=True)
            self._tell_revived()

    def _tell_revived(self) -> None:
        for host in list(self._machine.members.values()):
            host.revived()

    def reset_retries(self) -> None:
        """Reset the retries of the host (rows S17 and S18), and probe it if it was DEAD."""
        if self.health.reset_retries():
            self._tell_revived()
        if self.health.state is State.UNPROVEN and self.health.probes.left < 0:
            self._probe()

    def distrust(self) -> None:
        """Probe it immediately as unproven: it was DEAD in the previous process."""
        if self._machine.last_answer < 0.0:
            self.health.set_dead()
            self.reset_retries()

    # ------------------------------------------------------------------ time limits

    def sweep(self, now: float) -> None:
        """Apply time limits (rows F1 and S11)."""
        limit = self._settings.request_timeout
        for connection in [*self.pool.handshaking, *self.pool.owing]:
            if now - connection.since >= limit:
                connection.expire(limit)
        self.auditor.sweep(now, self.health.dead)

    def retry_key_files(self, now: float) -> None:
        """Try key files again: a temporary failure must not leave the lond without them forever."""
        if self.memory.retries_key_files(now):
            self.connect_anew()

    def close_eldest(self) -> None:
        """Close the least recently used idle connection (row S9)."""
        self.pool.idle[0].close()
        log.info(
            "idle connection closed, {left} left",
            left=len(self.pool),
            host_id=self.troubles.host_id,
        )

    # ------------------------------------------------------------------ changes and end

    def reconfigure(self, host: Host, settings: Settings) -> None:
        """Apply a row and settings; outstanding requests are not affected."""
        self._settings, self._modes = settings, self._dependencies.auth_modes(host)
        self._ids = tuple(self._dependencies.ids(host))
        self.health.set_retries(settings.retries)
        self.auditor.request_timeout = settings.request_timeout
        self.follow_members()

    def follow_members(self) -> None:
        """Make new connections if existing ones do not match the members and settings."""
        self.troubles.host_id = next(iter(self._machine.members), self.troubles.host_id)
        before, self._place_before = self._place_before, self._place
        if before != self._place:
            self.connect_anew()
        self.served.judge(self.pool.all())

    @property
    def _place(self) -> tuple[object, ...]:
        """What new connections depend on: port, own id, modes, and the id if there is one only."""
        settings = self._settings
        alone = None if self.several else next(iter(self._names), None)
        return settings.lond_port, settings.host_id, self._modes, alone

    def member_left(self, host_id: str) -> None:
        """Handle the departure of a member; after the last one, close everything."""
        self.served.refused.pop(host_id, None)
        if not self._machine.members:
            self._closing |= dict.fromkeys(each for each in self.pool.all() if each.connected)
        for connection in self.pool.all():
            connection.forget_host(host_id)
        if self._machine.members:
            self.follow_members()
            self._machine.pair(new=self._machine.waiting)
            self._probe_later()
            return
        self.forget()
        self.served.backoff.stop()
        self.pool.retire_all()
        self.check_closed()

    def connect_anew(self) -> None:
        """Retire all connections after their outstanding answers, and make new ones."""
        self.forget()
        self.memory.answers_ping = None
        self.served.refused.clear()
        self.pool.retire_all()
        self._machine.pair(new=self._machine.waiting)
        self.reset_retries()

    def retire_from(self, gone: Set[str]) -> None:
        """Retire connections to these addresses after their outstanding answers."""
        if gone >= {each.address for each in self.pool.all()}:
            self.connect_anew()
            return
        self.pool.retire_all(lambda each: each.address in gone)
        self._machine.pair(new=self._machine.waiting)
        self.reset_retries()

    def forget(self) -> None:
        """Forget what is known about the lond, and stop probing it."""
        self._forget()
        self.health.probes.stop()

    def all_closed(self) -> Deferred[None]:
        """Fire when all sockets are closed, after the last host has left."""
        if not self._closing:
            return succeed(None)
        if self._closed is None:
            self._closed = Deferred()
        return self._closed

    def abort(self) -> None:
        """Abort connections that have not closed yet."""
        for connection in list(self._closing):
            connection.transport.abortConnection()

    def check_closed(self) -> None:
        """Check whether the last host has left and everything is closed."""
        if self._machine.members or self._closing or self.pool:
            return
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.callback(None)
        self._machine.ended()
