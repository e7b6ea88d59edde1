"""
The connections to one lond: made, asked whether they are in step, lost, and made again.

What they carry is :mod:`lonc.host.machine`'s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.audit import Auditor, Verdict
from lonc.host.connection import LondConnection, Trouble
from lonc.host.connection_factory import LondConnectionFactory
from lonc.host.dependencies import HostDependencies
from lonc.host.health import Health
from lonc.host.machines import Member
from lonc.host.pool import ConnectionPool, FairQueue
from lonc.host.troubles import TroubleLog
from lonc.report.times import Times
from lonc.transport.keepalive import keep_alive
from lonc.wire.handshake import Handshake, LondTraits
from lonc.wire.request import Cause, Request

#: Seconds of idleness after which a firewall may have forgotten a connection: the shortest that
#: is met in practice.
LONG_REST = 60.0

#: What would end the next attempt at once, and so on without an end.
AT_ONCE_AGAIN = (Trouble.NO_FILES, Trouble.LOOK_UP)

#: Seconds for which a lond that broke when it was asked for its version is not asked again: it may
#: have been an accident, or be another release by then.
_VERSION_PAUSE = 3600.0


log = Logger()


class Lond:
    """
    Has the connections to one machine, and judges by them how its lond is (S10, S12, F2, F4, F5).

    :ivar pool: the connections.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        dependencies: HostDependencies,
    ) -> None:
        self._target = host.target
        self._settings = settings
        self._dependencies = dependencies
        self._members: dict[str, Member] = {}
        self._seconds = dependencies.clock.seconds
        self._modes = dependencies.auth_modes(host)
        self._ids = tuple(dependencies.ids(host))
        self._lond = self._unknown_lond()
        self._place_before = self._place
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
        self._closing: dict[LondConnection, None] = {}  # takes less room than a set
        self._closed: Deferred[None] | None = None

    @property
    def name(self) -> str:
        """Of the machine, for people: one for each that has connections of its own."""
        certificate = f" ({self._modes.name})" if self._modes.name else ""
        return f"{self._target}:{self._settings.lond_port}{certificate}"

    # ------------------------------------------------------------------ what else there is

    def _assign(self, new: int) -> None:
        """Pair the requests that wait with connections, and make so many at most."""
        raise NotImplementedError

    def _lose(self, request: Request, cause: Cause, sent: float = 0.0) -> None:
        """Tell who asked that there is no answer."""
        raise NotImplementedError

    def lose_waiting(self, member: Member | None, cause: Cause) -> None:
        """Tell those who wait, for one host or all, that there will be no answer."""
        raise NotImplementedError

    def replied(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """Pass an answer on; see :class:`lonc.host.connection.Owner`."""
        raise NotImplementedError

    def count_unfinished(self, connection: LondConnection, size: int) -> None:
        """Count what an unfinished answer takes in memory."""
        raise NotImplementedError

    def release(self, connection: LondConnection) -> None:
        """End a connection whose unfinished answer takes too much memory."""
        raise NotImplementedError

    def _ended(self) -> None:
        """Nothing of it is left."""

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
        # One that the table has elsewhere by now is about to leave.
        first, *others = [each for each in self._members if each in self._ids] or self._members
        handshake = Handshake(first, settings.host_id, self._modes, self._lond, others)
        now = self._seconds()
        number = next(shared.connection_numbers)
        connection = LondConnection(self, handshake, settings.max_line, self._heard, now, number)
        self.pool.move(connection, self.pool.connecting)
        for host in self._members.values():
            if host.debug_level >= 4:
                host_id = host.host_id
                log.debug("connecting to {at}", at=self._target, debug_level=4, host_id=host_id)
        factory = LondConnectionFactory(connection, shared.network, shared.look_up, shared.clock)
        factory.connect(self._target, settings.lond_port, settings.connect_timeout)

    def connected(self, connection: LondConnection) -> None:
        """Note that a connection is made, and its handshake begins."""
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
        """Note that the socket of a connection is closed."""
        self._closing.pop(connection, None)
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
        self._retire_nameless(connection)
        self._note_who_is_served()
        self.pool.move(connection, self.pool.idle)
        self.pool.shrink()
        self._assign(new=0)
        if not came_back:  # which is a line of its own
            self._troubles.ready(len(self.pool))
        self._revive()

    def _retire_nameless(self, newest: LondConnection) -> None:
        """A lond may know sethost now, or serve another id: older connections may not stand in."""
        for each in [*self.pool.idle, *self.pool.busy]:
            stands_in = newest.confirmed is None and newest.host_id == each.host_id
            if each.confirmed is None and not stands_in and not each.retire():
                self._drop(each)

    @property
    def _names(self) -> frozenset[str]:
        """The ids of the machine, by the table, and those that have not left it yet."""
        return frozenset([*self._ids, *self._members])

    @property
    def _serves_several(self) -> bool:
        return len(self._names) > 1

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
            self._lose(request, Cause.NOT_SERVED)

    def not_served(self, connection: LondConnection, request: Request, reply: bytes) -> None:
        """The lond does not speak for the host of a request: that is no fault of the others."""
        self._heard += 1
        if connection.audit is not None:
            self._audited(connection, reply)
            return
        connection.since = self._seconds()
        connection.unproven += 1  # for it may be the answer to what was asked before
        if connection.reusable:
            self.pool.move(connection, self.pool.idle)
            self._assign(new=0)
        else:
            self._part_with(connection)
        self._refuse(request.host.host_id, "the lond does not speak for it")
        self._lose(request, Cause.NOT_SERVED)

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
        if connection.surplus:
            self._doubt(connection, message)
        elif connection.request is not None:
            self._close_forgotten(connection)
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
        elif trouble not in AT_ONCE_AGAIN and (len(self.pool) or stay or not counts):
            # Those that are left may hang, and nobody else may come to have one made.
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
        if trouble is Trouble.LOOK_UP:
            # Those who wait for one look-up fail with it, and it is one failure; where a connection
            # stands, the host is there.
            return len(self.pool) == 0 or self._health.away
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

    # ------------------------------------------------------------------ elsewhere, and the end

    def moved(self) -> None:
        """Use connections no longer than for the answers that they owe: they lead elsewhere now."""
        self._retire_connections()
        self._forget_lond()
        self._assign(new=self._queue.waiting)
        self.reset_retries()

    def readdress(self, gone: Set[str]) -> None:
        """Use what leads to these addresses no longer than for the answers that it owes."""
        if gone >= {each.address for each in self.pool.all()}:
            self.moved()
            return
        for each in self.pool.all():
            if each.address in gone and not each.retire():
                self._drop(each)
        self._assign(new=self._queue.waiting)
        self.reset_retries()

    def _follow(self) -> None:
        """See whether connections would be made otherwise than those that there are."""
        before, self._place_before = self._place_before, self._place
        if before != self._place:
            self.moved()

    @property
    def _place(self) -> tuple[object, ...]:
        """Where connections go to, as whom, in which ways, and for which id if for one only."""
        settings = self._settings
        alone = None if self._serves_several else self._names
        return settings.lond_port, settings.host_id, self._modes, alone

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
        self._ended()
