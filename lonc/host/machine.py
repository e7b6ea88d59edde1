"""
What the requests for one lond go through: the connections to it, and the queue for one.

Several host ids may live on one machine: they share its Machine. A request's way is a straight
line: a host hands it over, an idle connection takes it or it waits in the queue, and the connection
hands the answer back. No Deferred, timer or log call stands on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs
from twisted.logger import Logger

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.audit import EARLIEST
from lonc.host.connection import LondConnection
from lonc.host.dependencies import HostDependencies
from lonc.host.lond import Lond
from lonc.host.machines import Member
from lonc.host.pool import RequestQueue
from lonc.report.times import Totals
from lonc.wire.request import Cause, Request

log = Logger()


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


class Machine(Lond):
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
        left: Callable[[Machine], None],
    ) -> None:
        super().__init__(host, settings, dependencies)
        self._left = left
        self._log = dependencies.request_log
        self._last_answer = -1.0
        self._last_wait = self._seconds()
        self._last_prune = 0.0

    # ------------------------------------------------------------------ a request's way

    def start(self, request: Request) -> None:
        """Send a request on an idle connection; there has to be one."""
        connection = self.pool.use()
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
        sent, connection.since = connection.since, now
        connection.unproven += 1
        if request.since:
            taken = now - request.since
            host.times.queue.append(sent - request.since)
            host.times.waited.append(now - sent)
        else:
            taken = now - sent
            host.times.direct.append(taken)
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
            self.start(self._queue.take())
        free = self._settings.max_connections - self.pool.size
        for _ in range(min(new, free, self._queue.waiting)):
            self._connect()

    def withdraw(self, request: Request) -> bool:
        """Forget a request that waits, for its client has gone; return whether it did."""
        return self._queue.drop(request)

    def cut_off(self, request: Request) -> None:
        """Close the connection that owes the answer to a request; nobody is told."""
        for connection in self.pool.busy:
            if connection.request is request:
                self._release(connection)
                return

    def count_unfinished(self, connection: LondConnection, size: int) -> None:
        """Count what an unfinished answer takes, which may end this connection or another."""
        self._dependencies.clients.replies.note(connection, size)

    def release(self, connection: LondConnection) -> None:
        """End a connection whose unfinished answer takes too much memory (row F3)."""
        what = "the memory for answers is used up: the longest loses its connection"
        self._dependencies.clients.warn("answers", self._troubles.host_id, what)
        self._dependencies.clients.released.note()
        request, since = self._release(connection), connection.since
        if request is not None:
            self._lose(request, Cause.MEMORY, since)

    def _release(self, connection: LondConnection) -> Request | None:
        """Close a connection, which is no fault of the host's; return what it owes an answer to."""
        connection.close()
        self._drop(connection)
        request = connection.give_up()
        self._auditor.end(connection)
        self._assign(new=self._queue.waiting)
        self._check_closed()
        return request

    def has_waiting(self, request: Request) -> bool:
        """Return whether a request still waits for a connection."""
        return request in self._queue

    def queue_of(self, host_id: str) -> RequestQueue:
        """Return what waits for a host; nothing does for one that has left."""
        return self._queue.of(host_id)

    def _lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        request.host.lose(request, cause, sent)
        request.host.passed_on()

    def lose_waiting(self, member: Member | None, cause: Cause) -> None:
        """Tell those who wait, for one host or all, that there will be no answer."""
        for request in self._queue.drain(None if member is None else member.host_id):
            self._lose(request, cause)

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
            self._closing |= dict.fromkeys(each for each in self.pool.all() if each.connected)
            self._retire_connections()
            self._check_closed()
        else:
            self._follow()
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
        self._settings, self._modes = settings, self._dependencies.auth_modes(host)
        self._ids = tuple(self._dependencies.ids(host))
        self._queue.of(host.id).size = settings.queue_limit
        self._health.set_retries(settings.retries)
        self._follow()

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
        """Report on the lond, and on what is known of it."""
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

    def _ended(self) -> None:
        self._left(self)
