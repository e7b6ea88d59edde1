"""
What the requests for one lond go through: the connections to it, and the queue for one.

Several host ids may live on one machine: they share its Dispatcher. A request's way is a straight
line: a host hands it over, an idle connection takes it or it waits in the queue, and the connection
hands the answer back. No Deferred, timer or log call stands on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.audit import EARLIEST, Auditor, Verdict
from lonc.host.connection import LondConnection, LondConnectionFactory, Trouble
from lonc.host.dependencies import HostDependencies
from lonc.host.health import Health
from lonc.host.pool import ConnectionPool, FairQueue, RequestQueue
from lonc.host.troubles import TroubleLog
from lonc.report.times import HostTimes, Times, Totals
from lonc.transport.keepalive import keep_alive
from lonc.wire.handshake import Handshake, LondTraits
from lonc.wire.request import Cause, Request

#: Seconds of idleness after which a firewall may have forgotten a connection: the shortest that
#: is met in practice.
LONG_REST = 60.0

#: Seconds for which a lond that broke when it was asked for its version is not asked again: it may
#: have been an accident, or be another release by then.
_VERSION_PAUSE = 3600.0

log = Logger()


class Member(Protocol):
    """What a Dispatcher tells a host id of its machine."""

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


@attrs.frozen
class LondStatus:
    """
    What there is to report of a lond (row S16): see :class:`lonc.report.status.HostStatus`.

    :ivar last_answer: when it last answered, in seconds of the clock; -1.0 when it never has.
    :ivar since: when it came to its state, likewise.
    """

    state: str
    last_answer: float
    since: float
    retries_left: int
    next_probe: float
    version: str
    mode: str
    last_failure: Mapping[str, str | float]
    handshakes: Mapping[str, int]
    handshaking: Totals


class Dispatcher:
    """
    Sends the requests for one machine (rows S8, S9, S11, S12, F1, F4 and F5); has its connections.

    :ivar name: of the machine, for people.
    :ivar pool: the connections.
    :param left: called when nothing of it is left: the last host has gone, and all is closed.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        dependencies: HostDependencies,
        left: Callable[[Dispatcher], None],
    ) -> None:
        self.name = f"{host.target}:{settings.lond_port}"
        self._target = host.target
        self._settings = settings
        self._dependencies = dependencies
        self._left = left
        self._members: dict[str, Member] = {}
        self._seconds = dependencies.clock.seconds
        self._log = dependencies.request_log
        self._modes = dependencies.auth_modes(host)
        self._ids = tuple(dependencies.ids(host))
        self._lond = self._unknown_lond()
        self._version_due = 0.0
        clock, random = dependencies.clock, dependencies.random
        self._health = Health(settings.retries, clock, random, self._probe)
        self.pool = ConnectionPool()
        self._queue = FairQueue()
        self._troubles = TroubleLog(host.id, clock)
        self._auditor = Auditor(self._troubles)
        self._handshaking = Times()
        self._last_failure: dict[str, str | float] = {}
        self._failed_handshakes = 0
        self._heard = 0
        self._last_answer = -1.0
        self._last_wait = self._seconds()
        self._last_prune = 0.0
        self._closing: set[LondConnection] = set()
        self._closed: Deferred[None] | None = None

    # ------------------------------------------------------------------ a request's way

    def start(self, connection: LondConnection, request: Request) -> None:
        """Send a request on an idle connection."""
        self.pool.move(connection, self.pool.busy)
        now = self._seconds()
        if connection.unproven and now - connection.since >= self._settings.request_timeout:
            connection.is_proven(connection.since)  # a line that is to come would have come
        connection.send(request, now, self._heard)

    def replied(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """Use the connection for who waits longest, and pass the answer on."""
        self._heard += 1
        if connection.audit is not None:
            self._audited(connection, reply)
            return
        host = request.host
        if host.debug_level >= 8:
            host.trace(8, "reply to {command}, {size} bytes", request, len(reply))
        self._last_answer = now = self._seconds()
        sent = connection.answered(now)
        if request.since:
            taken = now - request.since
            host.times.add_queue(sent - request.since)
            host.times.add_waited(now - sent)
        else:
            taken = now - sent
            host.times.add_direct(taken)
        if taken > self._log.threshold:
            self._note(connection, request, sent, now, len(reply))
        if not self._health.well:
            self._revive()
        if not connection.reusable:
            self._part_with(connection)
        elif connection.unproven >= EARLIEST and self._auditor.is_due(connection, request):
            self._audit(connection)
        elif self._queue.waiting:
            # It stays where it is, among the busy ones.
            connection.send(self._queue.take(), now, self._heard)
        else:
            self.pool.move(connection, self.pool.idle)
        request.asker.answered(reply)
        if host.awaits_quiet:
            host.passed_on()

    def _note(
        self, connection: LondConnection, request: Request, sent: float, now: float, size: int
    ) -> None:
        """Tell where the time of a request went that took long, or is watched."""
        since = request.since or sent
        shaking = connection.begun + connection.connecting
        self._log.note(
            request.host.host_id,
            max(0, request.asker.program),
            request.line,
            request.command,
            "answered",
            size,
            queue=sent - since,
            connecting=max(0.0, shaking - max(since, connection.begun)),
            handshake=max(0.0, connection.established - max(since, shaking)),
            lond=now - sent,
        )

    def wait(self, request: Request) -> None:
        """Let a request wait for a connection, and have one made if there is a place."""
        if self._health.dead:
            self._lose(request, Cause.DEAD)
            return
        self.keep(request)
        # One that is asked for its ping is free again in a moment, or else at the next sweep.
        is_room = self.pool.size < self._settings.max_connections
        if is_room and self._queue.waiting > self._auditor.under_way:
            self._assign(new=1)

    def keep(self, request: Request) -> None:
        """Let a request wait, as long as the settings allow."""
        self._last_wait = now = self._seconds()
        if not request.since:  # else it waits on, elsewhere
            request.since = now
        surplus = self._queue.put(request)
        if surplus is not None:
            size = self._settings.queue_limit
            what = f"{size} requests wait already: another gets con_lost"
            self._dependencies.clients.warn("queue", request.host.host_id, what)
            self._lose(surplus, Cause.QUEUE_FULL)

    def _assign(self, new: int) -> None:
        """
        Pair the requests that wait with connections.

        * An idle connection takes whose turn it is; the one used last goes first, so that others
          can grow old and be closed (row S9).
        * Where none is left, as many are made as are asked for, but no more than there are requests
          that wait and places.
        * A connection that answers while others wait takes the next one itself: see `replied`.

        :param new: connections to make at most.
        """
        while self._queue.waiting and self.pool.idle:
            self.start(self.pool.last_used(), self._queue.take())
        free = self._settings.max_connections - self.pool.size
        for _ in range(min(new, free, self._queue.waiting)):
            self._connect()

    def withdraw(self, request: Request) -> bool:
        """Forget a request that waits, for its client has gone; return whether it did."""
        return self._queue.drop(request)

    def has_waiting(self, request: Request) -> bool:
        """Return whether a request still waits for a connection."""
        return request in self._queue

    def queue_of(self, host_id: str) -> RequestQueue:
        """Return what waits for a host; nothing does for one that has left."""
        return self._queue.of(host_id)

    def _lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        request.host.lose(request, cause, sent)
        request.host.passed_on()

    # ------------------------------------------------------------------ a line too many

    def _audit(self, connection: LondConnection) -> None:
        """See whether a connection is in step: it has answered long without a proof (row F2)."""
        if self._auditor.can_ask(connection):
            self._auditor.ask(connection, self._seconds(), self._heard)
        else:
            self._replace(connection)

    def _audited(self, connection: LondConnection, reply: bytes) -> None:
        verdict = self._auditor.judge(connection, reply)
        if verdict is Verdict.OUT_OF_STEP or connection.surplus:
            connection.close()
            message = "its answer to ping is not the usual one"
            self._doubt(connection, message)
            self.failed(connection, Trouble.BROKEN, message, Cause.BROKEN)
            return
        if verdict is Verdict.AGAIN and connection.reusable:
            self._auditor.ask(connection, self._seconds(), self._heard)
            return
        self._auditor.end(connection)
        connection.is_proven(self._seconds())
        if verdict is Verdict.UNKNOWN:
            self._replace(connection)
        elif connection.reusable:
            self.pool.move(connection, self.pool.idle)
            self._assign(new=0)
        else:
            self._part_with(connection)

    def _replace(self, connection: LondConnection) -> None:
        """Close a connection that owes nothing; who waits gets another."""
        connection.close()
        self._drop(connection)
        self._assign(new=self._queue.waiting)

    def _doubt(self, connection: LondConnection, message: str) -> None:
        """Say how many answers may have reached the wrong clients."""
        idle = 0.0 if connection.request is not None else self._seconds() - connection.since
        # Later than any answer, it is but what some londs say before they hang up.
        if connection.unproven and idle < self._settings.request_timeout:
            self._troubles.out_of_step(connection.unproven, message)

    # ------------------------------------------------------------------ connections come and go

    def _connect(self) -> None:
        settings, shared = self._settings, self._dependencies
        if self._lond.breaks_at_version and self._seconds() >= self._version_due:
            self._lond.breaks_at_version = False
        first, *others = self._members
        handshake = Handshake(first, settings.host_id, self._modes, self._lond, others)
        now = self._seconds()
        connection = LondConnection(self, handshake, settings.max_line, self._heard, now)
        self.pool.move(connection, self.pool.connecting)
        for host in self._members.values():
            if host.debug_level >= 4:
                host_id = host.host_id
                log.debug("connecting to {at}", at=self._target, debug_level=4, host_id=host_id)
        factory = LondConnectionFactory(connection, shared.network, shared.look_up, shared.clock)
        factory.connect(self._target, settings.lond_port, settings.connect_timeout)

    def connected(self, connection: LondConnection) -> None:
        """Its handshake begins."""
        connection.begin_handshake(self._seconds())
        self.pool.move(connection, self.pool.handshaking)
        settings = self._settings
        keep_alive(
            connection.transport,
            settings.keepalive_time,
            settings.keepalive_interval,
            settings.keepalive_probes,
        )

    def gone(self, connection: LondConnection) -> None:
        """Its socket is closed."""
        self._closing.discard(connection)
        self._check_closed()

    def ready(self, connection: LondConnection, unserved: Sequence[str]) -> None:
        """Its handshake is complete: the host lives, and whose turn it is is served."""
        self._heard += 1
        now = self._seconds()
        self._handshaking.add(now - connection.since)
        connection.is_established(now, self._serves_several, self._lond.knows_sethost)
        came_back = self._health.away
        for host_id in unserved:
            self._refuse(host_id, "the lond does not speak for it")
        self._note_who_is_served()
        self.pool.move(connection, self.pool.idle)
        self._assign(new=0)
        if not came_back:  # which is a line of its own
            self._troubles.ready(len(self.pool))
        self._revive()

    @property
    def _serves_several(self) -> bool:
        return len(self._ids) > 1

    def _note_who_is_served(self) -> None:
        """Where the lond cannot be told which id is wanted, it serves the one that it names."""
        only = self._lond.only
        for host_id, host in list(self._members.items()):
            served = only in ("", host_id)
            if not served:
                self._refuse(host_id, f"the lond knows no sethost, and serves {only}")
            host.is_served(served)

    def _refuse(self, host_id: str, why: str) -> None:
        """Tell those who wait for a host that its lond does not speak for it."""
        what = f"requests get con_lost: {why}"
        self._dependencies.clients.warn("unserved", host_id, what)
        for request in self._queue.drain(host_id) if host_id in self._members else ():
            self._lose(request, Cause.WRONG_HOST)

    def not_served(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """The lond does not speak for the host of a request: that is no fault of the others."""
        self._heard += 1
        connection.is_proven(self._seconds())
        if connection.audit is not None:
            self._auditor.end(connection)
            self._replace(connection)
            return
        if connection.reusable:
            self.pool.move(connection, self.pool.idle)
            self._assign(new=0)
        else:
            self._part_with(connection)
        self._refuse(request.host.host_id, "the lond does not speak for it")
        self._lose(request, Cause.WRONG_HOST)

    def failed(
        self, connection: LondConnection, trouble: Trouble, message: str, cause: Cause
    ) -> None:
        """Count the failure once (row F5), and tell those who cannot be served any more."""
        self._drop(connection)
        if connection.has_other_way:
            if not self._health.away:
                self._troubles.other_way(message)
            self._version_due = self._seconds() + _VERSION_PAUSE
            if self._members:
                self._connect()
            return
        if not connection.established:
            self._failed_handshakes += bool(connection.connected)
        if connection.request is not None:
            self._close_forgotten(connection)
        elif connection.surplus:
            self._doubt(connection, message)
        counts, stay = self._counts(connection, trouble), connection.audit is not None
        if stay and self._members:
            self._auditor.failed(connection)
        request = connection.give_up()
        self._auditor.end(connection)
        was_away, left = self._health.away, self._health.left
        died = counts and (
            self._health.broke(connection.established)
            if trouble is Trouble.BROKEN
            else self._health.failure()
        )
        if self._health.left < left:
            # What was asked before says nothing that this failure has not said.
            for other in self.pool.busy:
                other.doubt_time_out()
        self._last_failure = {"what": f"{trouble.value}: {message}", "when": time.time()}
        if trouble is Trouble.NO_FILES:
            # Each request brings it about again: a line for each would fill the disk as well.
            what = f"no connection is made: {message}"
            self._dependencies.clients.warn("files", self._troubles.host_id, what)
        elif died and not was_away:
            self._troubles.died(self._target, trouble, message)
        else:
            self._troubles.failed(self._target, trouble, message, away=was_away)
        if died:
            self._bury()
        elif trouble is not Trouble.NO_FILES and (len(self.pool) or stay or not counts):
            # Those that are left may hang, and nobody else may come to have one made. Where there
            # are no descriptors, the next attempt would fail at once, and so on without an end.
            self._assign(new=1)
        elif len(self.pool) == 0:
            # Row S12: with the last connection goes the hope of all who wait.
            self.lose_waiting(None, Cause.UNREACHABLE)
        if request is not None:
            self._lose(request, cause, connection.since)
        self._check_closed()

    def _counts(self, connection: LondConnection, trouble: Trouble) -> bool:
        """Return whether a failure is the host's: a slow answer says nothing of the others."""
        if not self._members:
            return False
        if trouble is Trouble.NO_FILES:
            # The fault is ours; a DEAD host's next probe is due all the same.
            return self._health.away
        if connection.audit is not None and connection.request is None:
            return False  # what it said was wrong, but it lives
        if trouble is Trouble.TIMEOUT:
            return connection.heard == self._heard or self._health.away
        return True

    def _close_forgotten(self, connection: LondConnection) -> None:
        """
        Close what has been idle at least as long as a connection that turns out to be dead.

        A firewall that has forgotten the one has forgotten the others.
        """
        if connection.rested < LONG_REST:
            return
        idle_since = connection.since - connection.rested
        for other in [each for each in self.pool.idle if each.since <= idle_since]:
            self._drop(other)
            other.close()

    def _drop(self, connection: LondConnection) -> None:
        """Take a connection out of the pool."""
        self.pool.move(connection, None)

    def _part_with(self, connection: LondConnection) -> None:
        """Close a connection that has answered but may not be used again."""
        connection.close()
        if connection.surplus and self._members:
            message = "the lond sent more than its answer"
            self.failed(connection, Trouble.BROKEN, message, Cause.BROKEN)
            return
        self._drop(connection)
        self._assign(new=self._queue.waiting)
        self._check_closed()

    def lose_waiting(self, member: Member | None, cause: Cause) -> None:
        """Tell those who wait, for one host or all, that there will be no answer."""
        for request in self._queue.drain(None if member is None else member.host_id):
            self._lose(request, cause)

    # ------------------------------------------------------------------ DEAD, and back

    @property
    def dead(self) -> bool:
        """Whether the host is DEAD."""
        return self._health.dead

    def _bury(self) -> None:
        # What is idle is as doubtful as what failed; what owes an answer may still bring it.
        for connection in list(self.pool.idle):
            self._drop(connection)
            connection.close()
        self.lose_waiting(None, Cause.DEAD)

    def _probe(self) -> None:
        """See whether a host that is away completes a handshake (row F4)."""
        if self._members and not self.pool.connecting and not self.pool.handshaking:
            self._connect()

    def _revive(self) -> None:
        """A success: the host has all its retries again (row S10)."""
        if self._health.restore():
            log.info("host answers again", host_id=self._troubles.host_id, success=True)
            self._tell_revived()

    def _tell_revived(self) -> None:
        for host in list(self._members.values()):
            host.revived()

    def reset_retries(self) -> None:
        """Give the host its retries back (rows S17 and S18), and probe it if it was DEAD."""
        if self._health.forgive():
            self._tell_revived()
        if self._health.unproven and self._health.next_probe < 0:
            self._probe()

    def start_afresh(self, member: Member) -> None:
        """
        Retire every connection (rows S14 and F11).

        Requests for that host are lost, those for others on this machine end as they would.
        """
        lost = [*self._queue.drain(member.host_id), *self.drop(member)]
        self._retire_connections()
        self._forget_lond()
        for request in lost:
            self._lose(request, Cause.CLOSED)
        self.reset_retries()
        self._assign(new=self._queue.waiting)

    # ------------------------------------------------------------------ time limits

    def sweep(self, now: float) -> None:
        """End what is over its time; called several times a second (rows F1, S9 and S11)."""
        settings, pool, queue = self._settings, self.pool, self._queue
        if not pool.size and queue.empty:
            return  # as thousands of quiet hosts are
        for host in self._members.values():
            host.times.count_up()
        limit = settings.request_timeout
        for connection in [*pool.handshaking, *pool.busy]:
            if now - connection.since >= limit:
                connection.expire(limit)
        for request in queue.overdue(now - settings.queue_timeout):
            self._lose(request, Cause.QUEUE_TIMEOUT)
        if queue.waiting:
            # What is asked for its ping should have been free by now.
            beginning = len(pool.connecting) + len(pool.handshaking)
            if self._auditor.under_way and queue.waiting > beginning:
                self._assign(new=1)
        elif pool.idle and now - self._last_wait > settings.idle_timeout:
            self._prune(now)

    def _prune(self, now: float) -> None:
        """Close the idle connection that was used least lately, one each second (row S9)."""
        eldest = next(iter(self.pool.idle))
        if now - self._last_prune >= 1.0 and now - eldest.since > self._settings.idle_timeout:
            self._last_prune = now
            self._drop(eldest)
            eldest.close()
            log.info(
                "an idle connection is closed, {left} left",
                left=len(self.pool),
                host_id=self._troubles.host_id,
            )

    # ------------------------------------------------------------------ hosts come, change and go

    def join(self, member: Member, host: Host, settings: Settings) -> None:
        """
        Serve a host.

        Connections made for one id alone are used no more: they name none.
        """
        self._members[member.host_id] = member
        self._queue.join(member.host_id, settings.queue_limit)
        self.reconfigure(host, settings)
        self._note_who_is_served()

    def take_in(self, waiting: Iterable[Request]) -> None:
        """Let requests wait that have waited elsewhere."""
        for request in waiting:
            self.wait(request)
        self._assign(new=0)

    def leave(self, member: Member) -> list[Request]:
        """
        Serve a host no more; what is in flight may end.

        :return: what waited for it.
        """
        del self._members[member.host_id]
        waiting = self._queue.leave(member.host_id)
        self._troubles.host_id = next(iter(self._members), self._troubles.host_id)
        if not self._members:
            self._health.stop()
            self._closing |= {each for each in self.pool.all() if each.connected}
            self._retire_connections()
            self._check_closed()
        return waiting

    def owes(self, member: Member) -> bool:
        """Return whether an answer is owed to a host, one too that has left."""
        owing = (each.request for each in self.pool.busy)
        return any(request is not None and request.host is member for request in owing)

    def drop(self, member: Member) -> list[Request]:
        """Close the connections that owe an answer to a host; return what it will not get."""
        lost = []
        for connection in list(self.pool.busy):
            request = connection.request
            if request is not None and request.host is member:
                self._drop(connection)
                connection.close()
                connection.give_up()
                lost.append(request)
        self._assign(new=self._queue.waiting)
        return lost

    def hold(self, host_id: str, held: bool) -> None:
        """Send a host's requests out no more, or again."""
        if held != self._queue.is_held(host_id):
            self._queue.hold(host_id, held)
            self._assign(new=self._queue.waiting)

    def reconfigure(self, host: Host, settings: Settings) -> None:
        """Take over a row and settings; what is under way ends where it began."""
        before = self._place
        self._settings, self._modes = settings, self._dependencies.auth_modes(host)
        self._ids = tuple(self._dependencies.ids(host))
        self._lond.alone = not self._serves_several
        self._queue.of(host.id).size = settings.queue_limit
        self._health.set_retries(settings.retries)
        if before != self._place:
            self.moved()

    def moved(self) -> None:
        """Use connections no longer than for the answers that they owe: they lead elsewhere now."""
        self._retire_connections()
        self._forget_lond()
        self._assign(new=self._queue.waiting)
        self.reset_retries()

    @property
    def _place(self) -> tuple[object, ...]:
        """Where connections go to, as whom, in which ways, and if for one id only."""
        settings = self._settings
        several = self._serves_several
        return settings.lond_port, settings.host_id, self._modes, several

    def _unknown_lond(self) -> LondTraits:
        return LondTraits(alone=not self._serves_several)

    def _forget_lond(self) -> None:
        self._lond = self._unknown_lond()
        self._auditor.forget()
        self._health.stop()
        self._note_who_is_served()

    def _retire_connections(self) -> None:
        for connection in self.pool.all():
            if not connection.retire():
                self._drop(connection)

    def all_closed(self) -> Deferred[None]:
        """Return a Deferred that fires when all sockets are closed; after the last host left."""
        if not self._closing:
            return succeed(None)
        if self._closed is None:
            self._closed = Deferred()
        return self._closed

    def abort(self) -> None:
        """Close what has not closed yet, and drop what is unsent."""
        for connection in list(self._closing):
            connection.transport.abortConnection()

    def _check_closed(self) -> None:
        if self._members or self._closing or len(self.pool):
            return
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.callback(None)
        self._left(self)

    # ------------------------------------------------------------------ what is reported

    @property
    def members(self) -> list[Member]:
        """The hosts that share it."""
        return list(self._members.values())

    @property
    def state(self) -> str:
        """As the status has it: ``up``, ``DEAD`` or ``unproven``."""
        return self._health.state

    def turn(self) -> None:
        """Let the five minutes of which times are told move on."""
        self._handshaking.turn()

    def status(self) -> LondStatus:
        """Report."""
        handshaking = self._handshaking.totals()
        return LondStatus(
            state=self._health.state,
            last_answer=self._last_answer,
            since=self._health.since,
            retries_left=self._health.left,
            next_probe=self._health.next_probe,
            version=self._lond.version,
            mode=self._lond.mode,
            last_failure=self._last_failure,
            handshakes={"ready": sum(handshaking.counts), "failed": self._failed_handshakes},
            handshaking=handshaking,
        )
