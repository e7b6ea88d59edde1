"""
Requests for one machine: they are sent on its lond's connections, or wait for one in a queue.

Several host ids may share a machine. The path of a request is short: its host passes it on, an idle
connection sends it or it waits in the queue, and the connection passes the answer back, without any
Deferred, timer or log call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.audit import EARLIEST
from lonc.host.connection import LondConnection
from lonc.host.connection_states import ConnectionState
from lonc.host.dependencies import HostDependencies
from lonc.host.lond import Lond
from lonc.host.lond_user import Member
from lonc.host.request_queue import FairQueue
from lonc.report.events import Logger
from lonc.wire.request import Cause, Request

log = Logger()

#: Seconds between closing idle connections, and between closings of all connections on request.
APART = 1.0

#: Durations of a host from which they are counted up before the sweep, after the next answer that
#: needs attention: as few as this are in the processor's caches still.
MANY = 128

_IDLE, _BUSY = ConnectionState.IDLE, ConnectionState.BUSY
_RETIRING = ConnectionState.RETIRING


class Machine:
    """
    Sends the requests for one machine (rows S8, S9, S11, S12, F1 and F4).

    :ivar lond: the machine's lond.
    :ivar pool: its connections.
    :ivar idle: its idle connections, the most recently used one at the end.
    :ivar queue: the requests waiting for a connection.
    :ivar seldom: whether requests need additional work, because a host is paused or watched, the
        lond has failed or serves only one of several ids, or a connection is retired or to be
        proven.
    :ivar last_answer: when its lond last answered, in seconds of the clock; -1.0 for never.
    :ivar members: its hosts, by id.
    :param left: called when the last host has left and everything is closed.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        dependencies: HostDependencies,
        left: Callable[[Machine], None],
    ) -> None:
        self._settings = settings
        self._clients = dependencies.clients
        self._seconds = dependencies.seconds
        self._moment = dependencies.moment
        self._log = dependencies.request_log
        self._left = left
        self.queue = FairQueue()
        self._firsts: list[Request] = []  # each must be the first one on its connection
        self._arrivals = self.queue.arrivals
        self._last_wait = self._seconds()
        self._last_prune = 0.0
        self._last_afresh = -APART
        self.members: dict[str, Member] = {}
        self.seldom = False
        self._unattended = EARLIEST  # the first number of answers that needs attention
        self.last_answer = -1.0
        self.lond = Lond(self, host, settings, dependencies)
        self.pool, self._health = self.lond.pool, self.lond.health
        self.idle, self._connections = self.pool.idle, self.pool.everyone

    # ------------------------------------------------------------------ requests

    def start(self, connection: LondConnection, request: Request) -> None:
        """Send a request on a connection that was idle, and is no longer in `idle`."""
        connection.state = _BUSY
        connection.rested_since = rested_since = connection.since
        now = self._moment.now or self._seconds()
        if connection.unchecked and now - rested_since >= self._settings.request_timeout:
            connection.note_in_step(rested_since)  # a surplus line would have arrived by now
        connection.send(request, now)

    def wait(self, request: Request, connect: bool = True) -> None:
        """
        Let a request wait for a connection, within the queue timeout.

        :param connect: whether to make a new connection if possible.
        """
        if self._health.dead:
            self.lose(request, Cause.DEAD)
            return
        request.since = request.since or self._moment.now or self._seconds()
        surplus = self.queue.put(request)
        if surplus is not None:
            self._refuse(surplus)
        elif len(self._connections) < self._settings.max_connections:
            if connect:
                # A connection in state PROVING is usually free soon; otherwise see sweep().
                self.pair(new=int(self.queue.waiting > len(self.pool.proving)))
        elif not self.seldom:
            self.queue.open_room()

    def _refuse(self, request: Request) -> None:
        """Lose a request because the queue is full."""
        size = self._settings.queue_limit
        what = f"{size} requests are already waiting: another gets con_lost"
        self._clients.warn("queue", request.host.host_id, what)
        self.lose(request, Cause.QUEUE_FULL)

    def replied(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """Use the connection for the next waiting request, and deliver the answer."""
        self.last_answer = now = self._moment.now or self._seconds()
        times = request.host.times
        if since := request.since:
            times.queue.append(connection.since - since)
            times.waited.append(took := now - since)
        else:
            times.direct.append(took := now - connection.since)
        if took > self._log.threshold:
            self._note(connection, request, now, len(reply))
        connection.unchecked = unchecked = connection.unchecked + 1
        if unchecked >= self._unattended:
            connection.since = now
            self._replied_seldom(connection, request, reply)
            return
        if arrivals := self._arrivals:
            # The same as `LondConnection.send`, which is not called to save time.
            connection.request = following = arrivals.pop(0)
            connection.since = now
            line = following.line
            if line[0] in connection.inspected:
                connection.send_inspected(following, line)
            else:
                connection.transport.write(line)
        elif self.queue.turns:
            connection.send(self.queue.take(), now)
        else:
            connection.state = _IDLE
            connection.since = now
            self.idle.append(connection)
        request.asker.answered(reply)

    def _replied_seldom(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """Do the same with the additional work of `seldom`, or what is due after many answers."""
        host, lond = request.host, self.lond
        if len(host.times.waited) >= MANY or len(host.times.direct) >= MANY:
            host.times.count_up()
        if self.seldom and host.debug_level >= 8:
            host.trace(8, "reply to {command}, {size} bytes", request, len(reply))
        if not self._health.well:
            lond.revive()
        if connection.state is not _BUSY:
            lond.close_retired(connection)
        elif not lond.auditor.check(connection, request):
            self.use(connection)
        request.asker.answered(reply)
        if host.awaits_answers:
            host.note_answered(connection, request)

    def use(self, connection: LondConnection) -> None:
        """Send the next waiting request on a free connection, or leave that idle."""
        following = self._next_for(connection)
        if following is None:
            self.pool.move(connection, _IDLE)
        else:
            connection.state = _BUSY
            connection.rested_since = connection.since
            connection.send(following, connection.since)

    def reconsider(self) -> None:
        """Determine again, after a change, whether requests need additional work."""
        self.seldom = bool(
            self.lond.served.only
            or not self._health.well
            or any(each.is_watched for each in self.members.values())
            or any(each.request and each.request.host.awaits_answers for each in self.pool.owing)
            or any(each.proofs or each.state is _RETIRING for each in self.pool.everyone)
        )
        self._unattended = 0 if self.seldom else EARLIEST
        if self.seldom:
            self.queue.close_room()

    def _note(self, connection: LondConnection, request: Request, now: float, size: int) -> None:
        """Log the durations of a request that took long, or is watched."""
        sent = connection.since
        since = request.since or sent
        shaking = connection.connected_at
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

    def deliver(self, request: Request) -> None:
        """Send a delayed request as the first one on a connection."""
        if self._health.dead:
            self.lose(request, Cause.DEAD)
            return
        request.since = self._moment.now or self._seconds()
        self._firsts.append(request)
        self._send_firsts()
        if request in self._firsts:
            if len(self.pool) >= self._settings.max_connections:
                self.pool.make_room()
            self.pair(new=1)

    def _send_firsts(self) -> None:
        """Send requests that must be the first ones, on unused connections."""
        for request in self._firsts[:]:
            host_id = request.host.host_id
            if self.queue.is_held(host_id):
                continue
            for connection in self.pool.idle:
                if connection.is_unused and self.lond.served.may_carry(connection, host_id):
                    self._firsts.remove(request)
                    self.pool.idle.remove(connection)
                    self.start(connection, request)
                    break

    def _take_firsts(self, host_id: str | None) -> list[Request]:
        """Remove and return the requests waiting for unused connections, for one host or all."""
        taken = [x for x in self._firsts if host_id in (None, x.host.host_id)]
        self._firsts = [x for x in self._firsts if x not in taken]
        return taken

    def pair(self, new: int) -> None:
        """
        Assign waiting requests to connections.

        * An idle connection gets the next request; the most recently used ones are used first, so
          that others can be closed when idle for long (row S9).
        * A connection that serves only one of several ids gets a request for that id.
        * If there are not enough, new ones are made: at most `new`, one per waiting request, and up
          to the maximum.
        * After an answer, a connection gets the next request directly: see `replied`.

        :param new: maximum number of new connections.
        """
        queue, pool = self.queue, self.pool
        if self._firsts:
            self._send_firsts()
        if self.lond.served.only:
            for connection in pool.idle[::-1]:
                request = self._next_for(connection) if connection.state is _IDLE else None
                if request is not None:
                    pool.idle.remove(connection)
                    self.start(connection, request)
        else:
            while pool.idle and (queue.arrivals or queue.turns):
                self.start(pool.idle.pop(), queue.take())
        free = self._settings.max_connections - len(pool)
        for _ in range(min(new, free, self.waiting) if new else 0):
            self.lond.connect()

    def _next_for(self, connection: LondConnection) -> Request | None:
        """Return the next waiting request that a connection may carry."""
        if self.lond.served.only and connection.confirmed is None:
            return self.queue.take_of(connection.host_id)
        queue = self.queue
        return queue.take() if queue.arrivals or queue.turns else None

    def start_where_served(self, request: Request) -> None:
        """Send a request on an idle connection that serves its host, or let it wait."""
        for connection in reversed(self.idle):
            if self.lond.served.may_carry(connection, request.host.host_id):
                self.idle.remove(connection)
                self.start(connection, request)
                return
        self.wait(request)

    def withdraw(self, request: Request) -> bool:
        """Remove a waiting request of a disconnected client; return whether it was waiting."""
        return self.queue.drop(request)

    def cut_off(self, request: Request) -> None:
        """Close the connection on which a request is outstanding, without reporting it."""
        for connection in self.pool.owing:
            if connection.request is request:
                self.lond.cut_off(connection)
                return

    def sent_at(self, request: Request) -> float:
        """Return when an outstanding request was sent; 0.0 if it is not outstanding."""
        owing = (each.since for each in self.pool.owing if each.request is request)
        return next(owing, 0.0)

    def waiting_since(self, host_id: str) -> list[float]:
        """Return the times since when requests wait for a host; none if that has left."""
        return self.queue.since(host_id)

    @property
    def waiting(self) -> int:
        """The number of requests waiting for a connection that are not held back."""
        return self.queue.waiting + len(self._firsts)

    def median_answer(self) -> float:
        """Return the median time of its answers, in seconds."""
        durations = [host.times.answered() for host in self.members.values()]
        return sum(durations[1:], durations[0]).median() if durations else 0.0

    def lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """Report a lost request to its asker."""
        host = request.host  # the client may reuse the object immediately
        host.lose(request, cause, sent)
        host.passed_on()

    def lose_waiting(self, host_id: str | None, cause: Cause) -> None:
        """Report waiting requests as lost, for one host or all."""
        for request in [*self.queue.drain(host_id), *self._take_firsts(host_id)]:
            self.lose(request, cause)

    def start_afresh(self, member: Member) -> None:
        """
        Retire all connections (rows S14 and F11).

        Requests for that host are lost; those for other hosts of this machine, and handshakes, are
        completed. It takes effect at most once a second, since it affects the other hosts.
        """
        now, host_id = self._seconds(), member.host_id
        if now - self._last_afresh < APART or host_id not in self.members:
            return
        self._last_afresh = now
        lost = [*self.queue.drain(host_id), *self._take_firsts(host_id), *self.drop(member)]
        self.lond.forget()
        self.pool.retire_all(lambda each: each.host_id)  # those with a completed handshake
        for request in lost:
            self.lose(request, Cause.CLOSED)
        self.lond.reset_retries()
        self.pair(new=self.waiting)

    # ------------------------------------------------------------------ time limits

    def sweep(self, now: float) -> None:
        """Apply time limits; called several times a second (rows F1, S9 and S11)."""
        settings, pool, queue = self._settings, self.pool, self.queue
        rests = len(self.idle) == len(self._connections) and queue.empty and not self._firsts
        if rests and not self.idle:
            return  # saves time for thousands of idle hosts
        for host in self.members.values():
            host.times.count_up()
        self.lond.retry_key_files(now)
        if rests and not self.seldom:
            if self.idle and now - self._last_wait > settings.idle_timeout:
                self._prune(now)
            return
        if self.seldom:
            self.reconsider()
        self.lond.sweep(now)
        for request in queue.overdue(now - settings.queue_timeout):
            self.lose(request, Cause.QUEUE_TIMEOUT)
        queue.review(now)
        if self._firsts and self._firsts[0].since <= now - settings.queue_timeout:
            self.lose(self._firsts.pop(0), Cause.QUEUE_TIMEOUT)
        may_go = any(not queue.is_held(each.host.host_id) for each in self._firsts)
        if may_go and pool.idle and len(pool) >= settings.max_connections:
            self.pool.make_room()  # idle ones have all been used
            self.pair(new=1)
        if queue.waiting:
            self._last_wait = now
            # Connections in state PROVING should have been free by now.
            beginning = len(pool.connecting) + len(pool.handshaking)
            if pool.proving and queue.waiting > beginning and not self._health.doubtful:
                self.pair(new=1)
        elif pool.idle and now - self._last_wait > settings.idle_timeout:
            self._prune(now)

    def _prune(self, now: float) -> None:
        """Close the least recently used idle connection, one per second (row S9)."""
        eldest = self.idle[0]
        if now - self._last_prune >= APART and now - eldest.since > self._settings.idle_timeout:
            self._last_prune = now
            self.lond.close_eldest()

    # ------------------------------------------------------------------ hosts

    def add_member(self, member: Member, host: Host, settings: Settings) -> None:
        """
        Add a host.

        Connections made for a single id are retired, since they do not name hosts.
        """
        self.members[member.host_id] = member
        self.reconfigure(host, settings)

    def requeue(self, waiting: Iterable[Request]) -> None:
        """Enqueue requests that were waiting elsewhere."""
        for request in waiting:
            self.wait(request)
        self.pair(new=0)

    def remove_member(self, member: Member) -> list[Request]:
        """
        Remove a host; its outstanding requests may end.

        :return: its waiting requests.
        """
        del self.members[member.host_id]
        self.lond.member_left(member.host_id)
        for request in self._take_firsts(member.host_id):
            self.lose(request, Cause.CLOSED)
        return self.queue.remove_host(member.host_id)

    def ended(self) -> None:
        """Note that the last host has left and everything is closed."""
        self._left(self)

    def owes(self, member: Member) -> bool:
        """Return whether a request of a host, current or former, is outstanding."""
        return bool(self.owing_to(member))

    def owing_to(self, member: Member) -> list[LondConnection]:
        """Return the connections with outstanding requests of a host."""
        owing = ((each, each.request) for each in self.pool.owing)
        return [each for each, request in owing if request and request.host is member]

    def drop(self, member: Member) -> list[Request]:
        """Close the connections with outstanding requests of a host; return these."""
        lost = []
        for connection in self.owing_to(member):
            connection.close()
            request = connection.give_up()
            lost += [] if request is None else [request]
        self.pair(new=self.waiting)
        return lost

    def hold(self, host_id: str, held: bool) -> None:
        """Hold a host's requests back, or send them again."""
        if held != self.queue.is_held(host_id):
            self.queue.hold(host_id, held)
            self.pair(new=self.waiting)

    def reconfigure(self, host: Host, settings: Settings) -> None:
        """Apply a row and settings; outstanding requests are not affected."""
        self._settings = settings
        self.queue.resize(settings.queue_limit)
        self.lond.reconfigure(host, settings)
