"""
What a host's requests go through: the connections to its lond, and the queue for one.

A request's way is a straight line: a client submits it, an idle connection takes it or it waits in
the queue, and the connection hands the answer back. No Deferred, timer or log call stands on it.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.connection import LondConnection, LondConnectionFactory, Trouble
from lonc.host.dependencies import HostDependencies
from lonc.host.health import Health
from lonc.host.pool import ConnectionPool, RequestQueue
from lonc.local.protocol import CLOSE_CONNECTIONS
from lonc.wire.handshake import Handshake, LondTraits
from lonc.wire.request import (
    ADDRESSED,
    PECULIAR,
    Cause,
    Request,
    Waiter,
    addressee,
    without_addressee,
)

#: Seconds without use after which a connection may be dead by that: no usual firewall forgets one
#: sooner. If one is, so are those that were idle as long.
LONG_REST = 60.0

#: What `LondConnection.heard` is for a request whose failure a later one has counted for already.
NEVER = -1

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
        self._lond = LondTraits()
        self._seconds = around.clock.seconds
        self._health = Health(settings.retries, around.clock, around.random, self._probe)
        self._pool = ConnectionPool()
        self._queue = RequestQueue(size=settings.queue_limit)
        self._requests = 0
        self._heard = 0
        self._ready = 0
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
        if line[0] in PECULIAR and line.startswith(ADDRESSED) and not self._is_meant(request):
            return
        pool = self._pool
        if pool.idle:
            self._start(pool.last_used(), request)
        else:
            self._wait(request)

    def _is_meant(self, request: Request) -> bool:
        """
        See whether a request that may name a host names this one; otherwise it ends here.

        What names another is not sent: to a lond that serves several ids it would be a request to
        that one, and an answer of our own would look like a lond's.
        """
        if addressee(request.line) not in (None, self.host_id):
            what = "a request names a host that this socket does not serve: it gets con_lost"
            self._around.clients.warn("host", self.host_id, what)
            self._lose(request, Cause.WRONG_HOST)
            return False
        if without_addressee(request.line)[1] == CLOSE_CONNECTIONS:
            self.close_connections()
            request.asker.answered(b"ok\n")
            return False
        return True

    def _start(self, connection: LondConnection, request: Request) -> None:
        self._pool.move(connection, self._pool.busy)
        now = self._seconds()
        connection.rest = now - connection.since
        connection.since = now
        connection.heard = self._heard
        connection.send(request)

    def replied(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """Use the connection for who waits longest, and pass the answer on."""
        self._heard += 1
        if self.debug_level >= 8:
            self._trace(8, "reply to {command}, {size} bytes", request, len(reply))
        if self._health.left != self._health.retries:
            self._revive()
        if not connection.reusable:
            self._part_with(connection)
        elif self._queue.waiting:
            # It stays where it is, among the busy ones.
            connection.rest = 0.0
            connection.since = self._seconds()
            connection.heard = self._heard
            connection.send(self._queue.take())
        else:
            self._pool.move(connection, self._pool.idle)
        request.asker.answered(reply)
        if self.stopping:
            self._check_drained()

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
        if self._pool.size < self._settings.max_connections:
            self._connect()

    def withdraw(self, request: Request) -> bool:
        """Forget a request that waits, for its client has gone; return whether it did."""
        return self._queue.drop(request)

    def ask(self, line: bytes) -> Deferred[bytes]:
        """
        Ask for one who wants a Deferred.

        :param line: a request with its newline.
        :return: fires with the reply; fails with :exc:`lonc.wire.request.ConLost`.
        """
        waiter = Waiter()
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

    # ------------------------------------------------------------------ connections come and go

    def _connect(self) -> None:
        settings, around, target = self._settings, self._around, self.host.target
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

    def gone(self, connection: LondConnection) -> None:
        """Its socket is closed."""
        self._closing.discard(connection)
        if self._closed is not None and not self._closing:
            closed, self._closed = self._closed, None
            closed.callback(None)

    def ready(self, connection: LondConnection) -> None:
        """Its handshake is complete: the host lives, and who waits longest is served."""
        self._heard += 1
        self._ready += 1
        connection.established = self._seconds()
        connection.knows_sethost = self._lond.knows_sethost
        log.info(
            "connection {count} is ready", count=len(self._pool), success=True, host_id=self.host_id
        )
        if self._queue.waiting:
            self._start(connection, self._queue.take())
        else:
            self._pool.move(connection, self._pool.idle)
        self._revive()

    def failed(
        self, connection: LondConnection, trouble: Trouble, message: str, cause: Cause
    ) -> None:
        """Count the failure once (row F5), and tell those who cannot be served any more."""
        self._pool.move(connection, None)
        if connection.has_other_way:
            log.warn(
                "the lond does not go along, another way in is tried: {reason}",
                reason=message,
                host_id=self.host_id,
            )
            self._connect()
            return
        request, connection.request = connection.request, None
        if connection.rest >= LONG_REST and request is not None and not self.stopping:
            self._close_rested(connection.rest)
        slow = trouble is Trouble.TIMEOUT and connection.heard != self._heard
        died = not self.stopping and self._count(connection, trouble, slow)
        if trouble is Trouble.NO_FILES:
            # Each request brings it about again: a line for each would fill the disk as well.
            self._around.clients.warn("files", self.host_id, f"no connection is made: {message}")
        else:
            log.warn(
                "connection to {at} {trouble}: {reason}",
                at=self.host.target,
                trouble=trouble.value,
                reason=message,
                host_id=self.host_id,
            )
        if died:
            self._bury()
        elif slow and self._queue.waiting and self.alive:
            self._connect()
        elif len(self._pool) == 0:
            # Row S12: with the last connection goes the hope of all who wait.
            self._lose_waiting(Cause.UNREACHABLE)
        elif self._queue.waiting and trouble is not Trouble.NO_FILES:
            # Those that are left may hang, and nobody else may come to have one made. Where there
            # are no descriptors, the next attempt would fail at once, and so on without an end.
            self._connect()
        if request is not None:
            self._lose(request, cause)
        if self.stopping:
            self._check_drained()

    def _count(self, connection: LondConnection, trouble: Trouble, slow: bool) -> bool:
        """
        Count a failure against the host, if it is one; return whether the host is DEAD by it.

        :param slow: whether it is a time-out, and the host has been heard since it began.
        """
        health = self._health
        before = health.left
        if trouble is Trouble.BROKEN:
            died = health.broke(connection.established)
        elif (slow or trouble is Trouble.NO_FILES) and not health.dead:
            # The host lives, or the fault is ours; a DEAD host's next probe is due all the same.
            died = False
        else:
            died = health.failure()
        if health.left < before:
            # What was asked before says nothing that this failure has not said.
            for other in self._pool.busy:
                other.heard = NEVER
        return died

    def _close_rested(self, rest: float) -> None:
        """Close what has been idle as long as a connection that proved dead when it was used."""
        before = self._seconds() - rest
        for connection in [each for each in self._pool.idle if each.since <= before]:
            self._pool.move(connection, None)
            connection.close()

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
        log.critical(
            "host marked dead: con_lost at once until it answers a probe", host_id=self.host_id
        )
        # What is idle is as doubtful as what failed; what owes an answer may still bring it.
        for connection in list(self._pool.idle):
            self._pool.move(connection, None)
            connection.close()
        self._lose_waiting(Cause.DEAD)

    def _probe(self) -> None:
        """See whether a DEAD host completes a handshake (row F4)."""
        if not self._pool.connecting and not self._pool.handshaking:
            self._connect()

    def _revive(self) -> None:
        """A success: the host has all its retries again (row S10)."""
        if self._health.restore():
            log.info("host answers again", host_id=self.host_id, success=True)
            self._around.revived(self.host_id)

    def reset_retries(self) -> None:
        """Give the host its retries back, DEAD or not (rows S17 and S18)."""
        if self._health.restore():
            self._around.revived(self.host_id)

    def close_connections(self) -> None:
        """Close every connection and start afresh (rows S14 and F11); open requests are lost."""
        log.critical("closing every connection on request", host_id=self.host_id)
        waiting = self._queue.drain()
        self._drop_connections()
        self._lond = LondTraits()
        for request in waiting:
            self._lose(request, Cause.CLOSED)
        self.reset_retries()

    def _drop_connections(self) -> None:
        owed = []
        for connection in self._pool.all():
            self._pool.move(connection, None)
            connection.close()
            request, connection.request = connection.request, None
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
        limit = settings.request_timeout
        for connection in [*pool.handshaking, *pool.busy]:
            if now - connection.since >= limit:
                connection.expire(limit)
        if self._queue.waiting:
            for request in self._queue.overdue(now - settings.queue_timeout):
                self._lose(request, Cause.QUEUE_TIMEOUT)
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
        self._queue.size = settings.queue_limit
        self._health.set_retries(settings.retries)
        if before != self._place:
            self.moved()

    def moved(self) -> None:
        """Use connections no longer than for the answers that they owe: they lead elsewhere now."""
        self._lond = LondTraits()
        self._retire_connections()
        self._connect_for_waiting()
        self.reset_retries()

    @property
    def _place(self) -> tuple[object, ...]:
        """Where connections go to, as whom and in which ways."""
        settings = self._settings
        return self.host.target, settings.lond_port, settings.host_id, self._ways

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
