"""
Failures of connections: whether they count against the host, and their reports (row F5).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from lonc.host.connection import LondConnection
from lonc.host.connection_states import Trouble
from lonc.host.health import Health, State
from lonc.host.lond_user import LondUser
from lonc.host.pool import ConnectionPool
from lonc.host.troubles import TroubleLog
from lonc.local.limits import Clients
from lonc.report.status import LastFailure

#: Failures that would occur again immediately, so that retrying would be an endless loop.
AT_ONCE_AGAIN: Final = (Trouble.NO_FILES, Trouble.LOOK_UP)


class Failures:
    """
    Counts the failures of one lond's connections, and keeps the last one.

    :ivar last: the last failure, for the status.
    :ivar last_pong: when the lond last answered ``ping``, in seconds of the clock; -1.0 for never.
    :ivar last_handshake: when it last completed a handshake, likewise.
    """

    def __init__(
        self,
        machine: LondUser,
        health: Health,
        pool: ConnectionPool,
        troubles: TroubleLog,
        clients: Clients,
        seconds: Callable[[], float],
    ) -> None:
        self.last = LastFailure()
        self.last_pong = self.last_handshake = self._last_counted = -1.0
        self._machine = machine
        self._health = health
        self._pool = pool
        self._troubles = troubles
        self._clients = clients
        self._seconds = seconds

    def charge(
        self, connection: LondConnection, trouble: Trouble, excused: bool
    ) -> tuple[bool, bool]:
        """
        Count the end of a connection against the host, if it is its fault.

        :param excused: whether it does not count in any case.
        :return: whether it counts, and whether it made the host DEAD.
        """
        if excused or not self._is_the_hosts(connection, trouble):
            return False, False
        left = self._health.left
        if trouble is Trouble.BROKEN:
            died = self._health.broke(connection.established)
        elif trouble is Trouble.TIMEOUT and connection.host_id:
            died = self._health.silence()
        else:
            died = self._health.failure()
        if self._health.left < left:
            self._last_counted = self._seconds()
        return True, died

    def _is_the_hosts(self, connection: LondConnection, trouble: Trouble) -> bool:
        """Return whether a failure counts against the host."""
        if not self._machine.members:
            return False
        if trouble is Trouble.NO_FILES:
            # This is our own lack, but a DEAD host still needs its next probe.
            return self._health.state is not State.UP
        if trouble is Trouble.LOOK_UP:
            # All connections waiting for one look-up fail together, which counts once; while a
            # connection is open, the host is reachable.
            return not self._pool or self._health.state is not State.UP
        if trouble is not Trouble.TIMEOUT:
            return True
        answered = max(self._machine.last_answer, self.last_pong)
        if not connection.host_id:  # its handshake is not complete
            heard = max(answered, self.last_handshake)
            return heard <= connection.since or self._health.state is not State.UP
        # Requests sent before a counted failure belong to that failure.
        return answered <= connection.since >= self._last_counted

    def note(self, at: str, trouble: Trouble, message: str, died: bool, was_away: bool) -> None:
        """
        Keep a failure for the status, and log it.

        :param at: the destination of the connection.
        :param died: whether it made the host DEAD, which was not away before.
        """
        self.last = {"what": f"{trouble.value}: {message}", "when": time.time()}
        if trouble is Trouble.NO_FILES:
            # Rate limited, since it may happen for every request.
            what = f"no connection attempted: {message}"
            self._clients.warn("files", self._troubles.host_id, what)
        elif died:
            self._troubles.tell_died(at, trouble, message)
        else:
            self._troubles.tell_failed(at, trouble, message, away=was_away)
