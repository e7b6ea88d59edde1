"""
What a host's requests go through: the connections to its lond, and the queue for one.

A request's way is a straight line: a client submits it, an idle connection takes it or it waits in
the queue, and the connection hands the answer back. No Deferred, timer or log call stands on it.
"""

from __future__ import annotations

import time

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.audit import EARLIEST, PING, ROUND, PingAnswer, Verdict
from lonc.host.connection import LondConnection, LondConnectionFactory, Trouble
from lonc.host.dependencies import HostDependencies
from lonc.host.health import Health
from lonc.host.pool import ConnectionPool, RequestQueue
from lonc.host.troubles import TroubleLog
from lonc.local.protocol import CLOSE_CONNECTIONS
from lonc.report.times import HostTimes
from lonc.transport.keepalive import keep_alive
from lonc.wire.handshake import Handshake, LondTraits
from lonc.wire.request import (
    PECULIAR,
    PREFIXED,
    Cause,
    Nobody,
    Request,
    Waiter,
    addressee,
    has_control_byte,
    is_plain,
    without_addressee,
)

#: Seconds of idleness after which a firewall may have forgotten a connection: the shortest that
#: is met in practice.
LONG_REST = 60.0

#: What `LondConnection.heard` is for a request whose time-out would tell nothing new.
NEVER = -1
#: Seconds for which a lond that broke when it was asked for its version is not asked again: it may
#: have been an accident, or be another release by then.
_VERSION_PAUSE = 3600.0

log = Logger()


class Dispatcher:
    """
    Sends one host's requests (rows S8 to S12, F1 to F5); owns its connections.

    :ivar host: the host's row of the table.
    :ivar host_id: its id.
    :ivar debug_level: 0 to 9 (row S20).
    :ivar crashed: whether a fault inside lonc showed here: it has to be started again (row S19).
    :ivar stopping: whether it begins nothing new.
    """

    def __init__(self, host: Host, settings: Settings, around: HostDependencies) -> None:
        self.host_id = host.id
        self.debug_level = 0
        self.crashed = False
        self.stopping = False
        self.host = host
        self._settings = settings
        self._around = around
        self._ways = around.ways(host)
        self._lond = self._unknown_lond()
        self._version_due = 0.0
        self._seconds = around.clock.seconds
        self._health = Health(settings.retries, around.clock, around.random, self._probe)
        self._pool = ConnectionPool()
        self._queue = RequestQueue(size=settings.queue_limit)
        self._ping = PingAnswer()
        self.times = HostTimes()
        self._last_answer = -1.0
        self._last_failure: dict[str, str | float] = {}
        self._failed_handshakes = 0
        self._audits = 0
        self._troubles = TroubleLog(host.id, around.clock)
        self._heard = 0
        self._requests = 0
        self._answers = 0
        self._con_lost = dict.fromkeys(Cause, 0)
        self._last_wait = self._seconds()
        self._last_prune = 0.0
        self._drained: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._closing: set[LondConnection] = set()
        self._closed: Deferred[None] | None = None

    # ------------------------------------------------------------------ a request's way

    def submit(self, request: Request) -> None:
        """Send a request on the idle connection used last, or let it wait for one (row S8)."""
        self._requests += 1
        if self.debug_level >= 6:
            self._trace(6, "request {command}, {size} bytes", request, len(request.line))
        line = request.line
        peculiar = (line[0] in PECULIAR and line.startswith(PREFIXED)) or not is_plain(line)
        if peculiar and not self._may_go(request):
            return
        pool = self._pool
        if pool.idle:
            self._start(pool.last_used(), request)
        else:
            self._wait(request)

    def _may_go(self, request: Request) -> bool:
        """
        See whether a request is what it seems, and names this host if any; otherwise it ends here.

        What names another is not sent: to a lond that serves several ids it would be a request to
        that one, and an answer of our own would look like a lond's.
        """
        if has_control_byte(request.line):
            what = "a request's command holds a control byte: it gets con_lost"
            self._around.clients.warn("control byte", self.host_id, what)
            self._lose(request, Cause.CONTROL_BYTE)
            return False
        if addressee(request.line) not in (None, self.host_id):
            what = "a request names a host that this socket does not serve: it gets con_lost"
            self._around.clients.warn("host", self.host_id, what)
            self._lose(request, Cause.WRONG_HOST)
            return False
        if not self._around.enciphers and without_addressee(request.line)[1].startswith(
            b"encrypt:"
        ):
            self._lose(request, Cause.NO_CIPHER)  # never in the clear; the log said so at the start
            return False
        if without_addressee(request.line)[1] == CLOSE_CONNECTIONS:
            self.close_connections()
            request.asker.answered(b"ok\n")
            return False
        return True

    def _start(self, connection: LondConnection, request: Request) -> None:
        """Send a request on a connection that is idle, or just ready."""
        self._pool.move(connection, self._pool.busy)
        now = self._seconds()
        connection.rested = now - connection.since
        if connection.rested >= self._settings.request_timeout:
            connection.unproven = 0  # a line that is still to come would have come
        connection.since = now
        connection.heard = self._heard
        connection.send(request)

    def replied(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """Use the connection for who waits longest, and pass the answer on."""
        self._heard += 1
        if connection.audit is not None:
            self._audited(connection, connection.audit, reply)
            return
        self._answers += 1
        if self.debug_level >= 8:
            self._trace(8, "reply to {command}, {size} bytes", request, len(reply))
        if not self._health.well:
            self._revive()
        connection.unproven += 1
        sent = connection.since
        self._last_answer = connection.since = now = self._seconds()
        if request.since:
            self._count_waited(request.since, sent, now)
        else:
            self.times.direct.add(now - sent)
        if not connection.reusable:
            self._part_with(connection)
        elif connection.unproven >= EARLIEST and (
            connection.unproven >= ROUND or not request.line.endswith(PING)
        ):
            self._audit(connection)
        elif self._queue.waiting:
            # It stays where it is, among the busy ones.
            connection.rested = 0.0
            connection.heard = self._heard
            connection.send(self._queue.take())
        else:
            self._pool.move(connection, self._pool.idle)
        request.asker.answered(reply)
        if self.stopping:
            self._check_drained()

    def _count_waited(self, since: float, sent: float, now: float) -> None:
        times = self.times
        times.queue.add(sent - since)
        times.waited.add(now - sent)
        times.whole.add(now - since)

    def _go_on(self, connection: LondConnection) -> None:
        """Let a busy connection that owes nothing serve who waits longest, or be idle."""
        self._pool.move(connection, self._pool.idle)
        if self._queue.waiting:
            self._start(connection, self._queue.take())

    def _wait(self, request: Request) -> None:
        if self.stopping:
            self._lose(request, Cause.CLOSED)
            return
        if self._health.dead:
            self._lose(request, Cause.DEAD)
            return
        request.since = self._last_wait = self._seconds()
        surplus = self._queue.put(request)
        if surplus is not None:
            what = f"{self._queue.size} requests wait already: another gets con_lost"
            self._around.clients.warn("queue", self.host_id, what)
            self._lose(surplus, Cause.QUEUE_FULL)
        # One that is asked for its ping is free again in a moment, or else at the next sweep.
        free = self._pool.size < self._settings.max_connections
        if free and self._queue.waiting > self._audits:
            self._connect()

    def withdraw(self, request: Request) -> bool:
        """Forget a request that waits, for its client has gone; return whether it did."""
        return self._queue.drop(request)

    def has_waiting(self, request: Request) -> bool:
        """Return whether a request still waits for a connection."""
        return request in self._queue

    def ask(self, line: bytes) -> Deferred[bytes]:
        """
        Ask for one who wants a Deferred.

        :param line: a request with its newline.
        :return: fires with the reply; fails with :exc:`lonc.wire.request.ConLost`.
        """
        waiter = Waiter(self.host_id)
        self.submit(Request(line, waiter))
        return waiter.outcome

    def _lose(self, request: Request, cause: Cause) -> None:
        self.count_lost(cause)
        if self.debug_level >= 1:
            self._trace(1, "con_lost to {command}: {size}", request, cause.value)
        request.asker.lost(cause)

    def count_lost(self, cause: Cause) -> None:
        """Count a ``con_lost``."""
        self._con_lost[cause] += 1

    def _lose_waiting(self, cause: Cause) -> None:
        for request in self._queue.drain():
            self._lose(request, cause)

    def _trace(self, level: int, text: str, request: Request, size: object) -> None:
        log.debug(text, command=request.command, size=size, debug_level=level, host_id=self.host_id)

    # ------------------------------------------------------------------ a line too many

    def _audit(self, connection: LondConnection) -> None:
        """See whether a connection is in step: it has answered long without a proof (row F2)."""
        if self._ping.hopeless:
            self._replace(connection)
            return
        connection.audit = []
        self._audits += 1
        self._ask_ping(connection)

    def _ask_ping(self, connection: LondConnection) -> None:
        connection.since = self._seconds()
        connection.rested = 0.0
        connection.heard = self._heard
        connection.send(Request(PING, Nobody()))

    def _audited(self, connection: LondConnection, answers: list[bytes], reply: bytes) -> None:
        answers.append(reply)
        hopeless = self._ping.hopeless
        verdict = self._ping.judge(answers)
        if self._ping.hopeless and not hopeless:
            self._troubles.cannot_be_asked(ROUND)
        if verdict is Verdict.OUT_OF_STEP or connection.surplus:
            connection.close()
            message = "its answer to ping is not the usual one"
            self._doubt(connection, message)
            self.failed(connection, Trouble.BROKEN, message, Cause.BROKEN)
            return
        if verdict is Verdict.AGAIN and connection.reusable:
            self._ask_ping(connection)
            return
        self._end_audit(connection)
        connection.unproven = 0
        if verdict is Verdict.UNKNOWN:
            self._replace(connection)
        elif connection.reusable:
            connection.since = self._seconds()
            self._go_on(connection)
        else:
            self._part_with(connection)
        if self.stopping:
            self._check_drained()

    def _replace(self, connection: LondConnection) -> None:
        """Close a connection that owes nothing; who waits gets another."""
        connection.close()
        self._pool.move(connection, None)
        self._connect_for_waiting()

    def _end_audit(self, connection: LondConnection) -> None:
        self._audits -= 1
        connection.audit = None

    def _doubt(self, connection: LondConnection, message: str) -> None:
        """Say how many answers may have reached the wrong clients."""
        idle = 0.0 if connection.request is not None else self._seconds() - connection.since
        # Later than any answer, it is but what some londs say before they hang up.
        if connection.unproven and idle < self._settings.request_timeout:
            self._troubles.out_of_step(connection.unproven, message)

    # ------------------------------------------------------------------ connections come and go

    def _connect(self) -> None:
        settings, around, target = self._settings, self._around, self.host.target
        if self._lond.breaks_at_version and self._seconds() >= self._version_due:
            self._lond.breaks_at_version = False
        handshake = Handshake(self.host_id, settings.host_id, self._ways, self._lond)
        connection = LondConnection(self, handshake, settings.max_line)
        connection.heard = self._heard
        self._pool.move(connection, self._pool.connecting)
        if self.debug_level >= 4:
            log.debug("connecting to {at}", at=target, debug_level=4, host_id=self.host_id)
        factory = LondConnectionFactory(connection, around.network, around.look_up, around.clock)
        factory.connect(target, settings.lond_port, settings.connect_timeout)

    def connected(self, connection: LondConnection) -> None:
        """Its handshake begins."""
        connection.since = self._seconds()
        self._pool.move(connection, self._pool.handshaking)
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
        if self._closed is not None and not self._closing:
            closed, self._closed = self._closed, None
            closed.callback(None)

    def ready(self, connection: LondConnection) -> None:
        """Its handshake is complete: the host lives, and who waits longest is served."""
        self._heard += 1
        now = self._seconds()
        self.times.handshaking.add(now - connection.since)
        connection.established = connection.since = now
        connection.knows_sethost = self._lond.knows_sethost
        came_back = self._health.away
        if self._queue.waiting:
            self._start(connection, self._queue.take())
        else:
            self._pool.move(connection, self._pool.idle)
        if not came_back:  # which is a line of its own
            self._troubles.ready(len(self._pool))
        self._revive()

    def failed(
        self, connection: LondConnection, trouble: Trouble, message: str, cause: Cause
    ) -> None:
        """Count the failure once (row F5), and tell those who cannot be served any more."""
        self._pool.move(connection, None)
        if connection.has_other_way:
            if not self._health.away:
                self._troubles.other_way(message)
            self._version_due = self._seconds() + _VERSION_PAUSE
            self._connect()
            return
        if not connection.established:
            self._failed_handshakes += bool(connection.connected)
        if connection.request is not None:
            self._close_forgotten(connection)
        elif connection.surplus:
            self._doubt(connection, message)
        counts, stay = self._counts(connection, trouble), connection.audit is not None
        if stay and not self.stopping:
            hopeless = self._ping.hopeless
            self._ping.failed()
            if self._ping.hopeless and not hopeless:
                self._troubles.cannot_be_asked(ROUND)
        request = self._owed(connection)
        was_away, left = self._health.away, self._health.left
        if not counts:
            died = False
        elif trouble is Trouble.BROKEN:
            died = self._health.broke(connection.established)
        else:
            died = self._health.failure()
        if self._health.left < left:
            # What was asked before says nothing that this failure has not said.
            for other in self._pool.busy:
                other.heard = NEVER
        self._last_failure = {"what": f"{trouble.value}: {message}", "when": time.time()}
        if trouble is Trouble.NO_FILES:
            # Each request brings it about again: a line for each would fill the disk as well.
            self._around.clients.warn("files", self.host_id, f"no connection is made: {message}")
        elif died and not was_away:
            self._troubles.died(self.host.target, trouble, message)
        else:
            self._troubles.failed(self.host.target, trouble, message, away=was_away)
        if died:
            self._bury()
        elif (
            self._queue.waiting
            and trouble is not Trouble.NO_FILES
            and (len(self._pool) or stay or not counts)
        ):
            # Those that are left may hang, and nobody else may come to have one made. Where there
            # are no descriptors, the next attempt would fail at once, and so on without an end.
            self._connect()
        elif len(self._pool) == 0:
            # Row S12: with the last connection goes the hope of all who wait.
            self._lose_waiting(Cause.UNREACHABLE)
        if request is not None:
            self._lose(request, cause)
        if self.stopping:
            self._check_drained()

    def _owed(self, connection: LondConnection) -> Request | None:
        """Take from a connection what it owes to a client, for it will not answer any more."""
        request, connection.request = connection.request, None
        if connection.audit is None:
            return request
        self._end_audit(connection)
        return None

    def _counts(self, connection: LondConnection, trouble: Trouble) -> bool:
        """Return whether a failure is the host's: a slow answer says nothing of the others."""
        if self.stopping:
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
        for other in [each for each in self._pool.idle if each.since <= idle_since]:
            self._pool.move(other, None)
            other.close()

    def _part_with(self, connection: LondConnection) -> None:
        """Close a connection that has answered but may not be used again."""
        connection.close()
        if connection.surplus and not self.stopping:
            message = "the lond sent more than its answer"
            self.failed(connection, Trouble.BROKEN, message, Cause.BROKEN)
            return
        self._pool.move(connection, None)
        self._connect_for_waiting()

    def _connect_for_waiting(self) -> None:
        free = self._settings.max_connections - len(self._pool)
        for _ in range(min(free, self._queue.waiting)):
            self._connect()

    # ------------------------------------------------------------------ DEAD, and back

    @property
    def alive(self) -> bool:
        """Whether a request has a chance."""
        return not self._health.dead and not self.stopping

    def _bury(self) -> None:
        # What is idle is as doubtful as what failed; what owes an answer may still bring it.
        for connection in list(self._pool.idle):
            self._pool.move(connection, None)
            connection.close()
        self._lose_waiting(Cause.DEAD)

    def _probe(self) -> None:
        """See whether a host that is away completes a handshake (row F4)."""
        if not self._pool.connecting and not self._pool.handshaking:
            self._connect()

    def _revive(self) -> None:
        """A success: the host has all its retries again (row S10)."""
        if self._health.restore():
            log.info("host answers again", host_id=self.host_id, success=True)
            self._around.revived(self.host_id)

    def reset_retries(self) -> None:
        """Give the host its retries back (rows S17 and S18), and probe it if it was DEAD."""
        if self._health.forgive():
            self._around.revived(self.host_id)
        if self._health.unproven and self._health.next_probe < 0 and not self.stopping:
            self._probe()

    def close_connections(self) -> None:
        """Close every connection and start afresh (rows S14 and F11); open requests are lost."""
        more = self._around.clients.may_log("close", self.host_id)
        if more is not None:
            what = "closing every connection on request{more}"
            log.critical(what, more=more, host_id=self.host_id)
        waiting = self._queue.drain()
        self._drop_connections()
        self._lond, self._ping = self._unknown_lond(), PingAnswer()
        self._health.stop()
        for request in waiting:
            self._lose(request, Cause.CLOSED)
        self.reset_retries()

    def _drop_connections(self) -> None:
        owed = []
        for connection in self._pool.all():
            self._pool.move(connection, None)
            connection.close()
            request = self._owed(connection)
            if request is not None:
                owed.append(request)
        for request in owed:
            self._lose(request, Cause.CLOSED)
        if self.stopping:
            self._check_drained()

    # ------------------------------------------------------------------ time limits

    def sweep(self, now: float) -> None:
        """End what is over its time; called several times a second (rows F1, S9 and S11)."""
        settings, pool = self._settings, self._pool
        if not pool.size and not self._queue.waiting:
            return  # as thousands of quiet hosts are
        limit = settings.request_timeout
        for connection in [*pool.handshaking, *pool.busy]:
            if now - connection.since >= limit:
                connection.expire(limit)
        if self._queue.waiting:
            for request in self._queue.overdue(now - settings.queue_timeout):
                self._lose(request, Cause.QUEUE_TIMEOUT)
            # What is asked for its ping should have been free by now.
            beginning = len(pool.connecting) + len(pool.handshaking)
            free = pool.size < settings.max_connections
            if free and self._audits and self._queue.waiting > beginning:
                self._connect()
        elif pool.idle and now - self._last_wait > settings.idle_timeout:
            self._prune(now)

    def _prune(self, now: float) -> None:
        """Close the idle connection that was used least lately, one each second (row S9)."""
        eldest = next(iter(self._pool.idle))
        if now - self._last_prune >= 1.0 and now - eldest.since > self._settings.idle_timeout:
            self._last_prune = now
            self._pool.move(eldest, None)
            eldest.close()
            log.info(
                "an idle connection is closed, {left} left",
                left=len(self._pool),
                host_id=self.host_id,
            )

    # ------------------------------------------------------------------ change and stop

    def reconfigure(self, host: Host, settings: Settings) -> None:
        """Take over a new row and new settings; what is under way ends where it began."""
        before = self._place
        self.host, self._settings, self._ways = host, settings, self._around.ways(host)
        self._lond.alone = self._is_alone
        self._queue.size = settings.queue_limit
        self._health.set_retries(settings.retries)
        if before != self._place:
            self.moved()

    def moved(self) -> None:
        """Use connections no longer than for the answers that they owe: they lead elsewhere now."""
        self._lond, self._ping = self._unknown_lond(), PingAnswer()
        self._retire_connections()
        self._health.stop()
        self._connect_for_waiting()
        self.reset_retries()

    @property
    def _place(self) -> tuple[object, ...]:
        """Where connections go to, as whom, in which ways, and if only to this host."""
        settings, lond = self._settings, self._lond
        is_sure = lond.knows_sethost or lond.alone
        return self.host.target, settings.lond_port, settings.host_id, self._ways, is_sure

    @property
    def _is_alone(self) -> bool:
        return len(self._around.ids(self.host)) <= 1

    def _unknown_lond(self) -> LondTraits:
        return LondTraits(alone=self._is_alone)

    def _retire_connections(self) -> None:
        for connection in self._pool.all():
            if connection.request is not None:
                connection.reusable = False
            else:
                self._pool.move(connection, None)
                connection.close()

    def drain(self) -> Deferred[None]:
        """
        Begin nothing new, let what is in flight end, and tell the rest ``con_lost``.

        :return: fires when no answer is owed any more, after at most the drain timeout.
        """
        self.stopping = True
        self._health.stop()
        self._closing = {each for each in self._pool.all() if each.connected}
        self._retire_connections()
        self._lose_waiting(Cause.CLOSED)
        if not self._pool.busy:
            return succeed(None)
        self._drained = drained = Deferred[None]()
        self._deadline = self._around.clock.callLater(
            self._settings.drain_timeout, self._drop_connections
        )
        return drained

    def all_closed(self) -> Deferred[None]:
        """Return a Deferred that fires when all sockets are closed; after `drain`."""
        if not self._closing:
            return succeed(None)
        self._closed = Deferred()
        return self._closed

    def abort(self) -> None:
        """Close what has not closed yet, and drop what is unsent."""
        for connection in list(self._closing):
            connection.transport.abortConnection()

    def _check_drained(self) -> None:
        if not self._pool.busy and self._drained is not None:
            drained, self._drained = self._drained, None
            if self._deadline is not None and self._deadline.active():
                self._deadline.cancel()
            drained.callback(None)
