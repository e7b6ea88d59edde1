"""
The health of a host: which failures count, its retries, the state DEAD, and probes.

Rows S10, F4 and F5.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lonc.host.connection import LondConnection
from lonc.host.connection_states import Trouble

#: Seconds before the first probe of a DEAD host, and the maximum interval. A restarted lond is
#: noticed within a second or two; one that stays down costs an attempt per minute.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

_NEVER: Final = -1.0


class Backoff:
    """
    Calls a function after a pause, which doubles each time up to a maximum.

    The jitter avoids that the machines of a network connect at the same moment.
    """

    __slots__ = ("_act", "_clock", "_pause", "_random", "_timer")

    def __init__(self, clock: IReactorTime, random: Random, act: Callable[[], None]) -> None:
        self._clock = clock
        self._random = random
        self._act = act
        self._pause = FIRST_PAUSE
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Start a pause, unless one is running."""
        if self._timer is None:
            pause = self._pause * self._random.uniform(0.8, 1.0)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._timer = self._clock.callLater(pause, self._end)

    def _end(self) -> None:
        self._timer = None
        self._act()

    def stop(self) -> None:
        """Cancel the pause; the length of the next one is kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reset(self) -> None:
        """Return to short pauses."""
        self._pause = FIRST_PAUSE

    @property
    def left(self) -> float:
        """Seconds until the next call, -1.0 if none is due."""
        return -1.0 if self._timer is None else self._timer.getTime() - self._clock.seconds()


class State(Enum):
    """The state of a host, as shown in the status."""

    UP = "up"
    UNPROVEN = "unproven"
    DEAD = "DEAD"


class Health:
    """
    The state and retries of one host.

    ============  ================================  ================================================
    State         Event                             New state
    ============  ================================  ================================================
    ``UP``        a request is not answered         ``UNPROVEN``, doubtful, one retry less
    any           any other failure                 unchanged, one retry less
    not ``DEAD``  no retries left                   ``DEAD``
    ``DEAD``      its retries are reset             ``UNPROVEN``
    any           it answers                        ``UP``, with all retries, not doubtful
    not doubtful  it completes a handshake          ``UP``, with all retries
    doubtful      it completes a handshake          unchanged: a hanging lond can do that, too
    ============  ================================  ================================================

    It is probed periodically when not ``UP``.

    :ivar retries: number of failures that make a host DEAD.
    :ivar left: the remaining retries.
    :ivar state: see the table.
    :ivar doubtful: whether a handshake is not enough to make it ``UP``.
    :ivar dead: whether it is ``DEAD``: requests fail immediately.
    :ivar away: whether it was DEAD and has not been UP since.
    :ivar since: when it entered its state, in seconds of the clock.
    :ivar well: whether it is ``UP`` with all retries.
    :ivar probes: the pauses before probes.
    :ivar last_pong: when it last answered ``ping``, in seconds of the clock; -1.0 for never.
    :ivar last_handshake: when it last completed a handshake, likewise.
    :param changed: called when `well` changes.
    """

    __slots__ = (
        "_changed",
        "_clock",
        "_last_break",
        "_last_counted",
        "away",
        "dead",
        "doubtful",
        "last_handshake",
        "last_pong",
        "left",
        "probes",
        "retries",
        "since",
        "state",
        "well",
    )

    def __init__(
        self,
        retries: int,
        clock: IReactorTime,
        random: Random,
        probe: Callable[[], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.retries = retries
        self.left = retries
        self.state = State.UP
        self.doubtful = False
        self.away = False
        self.dead = False
        self.well = True
        self.since = clock.seconds()
        self._changed = changed
        self._clock = clock
        self.probes = Backoff(clock, random, probe)
        self.last_pong = self.last_handshake = _NEVER
        self._last_break = self._last_counted = _NEVER

    def _set_state(self, state: State, left: int) -> None:
        """Set the state and the remaining retries."""
        if state is not self.state:
            self.state, self.since = state, self._clock.seconds()
        self.left, self.dead = left, state is State.DEAD
        well, self.well = self.well, left == self.retries and state is State.UP
        if well is not self.well:
            self._changed()

    def is_to_blame(
        self, connection: LondConnection, trouble: Trouble, last_answer: float, is_last: bool
    ) -> bool:
        """
        Return whether the end of a connection counts against the host.

        :param last_answer: when a request was last answered, in seconds of the clock.
        :param is_last: whether there is no other connection.
        """
        up = self.state is State.UP
        if trouble is Trouble.NO_FILES:
            # This is our own lack, but a DEAD host still needs its next probe.
            return not up
        if trouble is Trouble.LOOK_UP:
            # All connections waiting for one look-up fail together, which counts once; while a
            # connection is open, the host is reachable.
            return is_last or not up
        if trouble is not Trouble.TIMEOUT:
            return True
        answered = max(last_answer, self.last_pong)
        if not connection.host_id:  # its handshake is not complete
            return max(answered, self.last_handshake) <= connection.since or not up
        # Requests sent before a counted failure belong to that failure.
        return answered <= connection.since >= self._last_counted

    def charge(self, connection: LondConnection, trouble: Trouble) -> bool:
        """Count the end of a connection; return whether it made the host DEAD."""
        if trouble is Trouble.BROKEN:
            return self.broke(connection.established)
        if trouble is Trouble.TIMEOUT and connection.host_id:
            return self.silence()
        return self.failure()

    def broke(self, established: float) -> bool:
        """
        Count the break of a ready connection; return whether it made the host DEAD.

        When a lond goes down, all its connections break: those established before the first break
        count as the same failure.

        :param established: when its handshake was complete, in seconds of the clock.
        """
        if established <= self._last_break:
            return False
        self._last_break = self._clock.seconds()
        return self.failure()

    def set_retries(self, retries: int) -> None:
        """Change the number of retries; those used remain used."""
        left = max(1, self.left + retries - self.retries) if self.left else 0
        self.retries = retries
        self._set_state(self.state, left)

    def silence(self) -> bool:
        """Count an unanswered request; return whether it made the host DEAD."""
        self.doubtful = True
        if self.state is State.UP:
            self._set_state(State.UNPROVEN, self.left)
        return self.failure()

    def failure(self) -> bool:
        """Count a failure; return whether it made the host DEAD."""
        if self.left:
            self._last_counted = self._clock.seconds()
        left = max(0, self.left - 1)
        died = left == 0 and not self.dead
        if died:
            if not self.away:
                self.probes.reset()
            self.away = True
        self._set_state(self.state if left else State.DEAD, left)
        if self.state is not State.UP:
            self.probes.start()
        return died

    def success(self) -> bool:
        """Restore all retries after a success; return whether it was away."""
        was_away, self.away = self.away, False
        self.doubtful = False
        self._set_state(State.UP, self.retries)
        self.probes.stop()
        if not was_away:
            self.probes.reset()
        return was_away

    def reset_retries(self) -> bool:
        """
        Reset the retries on request; return whether the host was DEAD.

        If so, it is unproven, and should be probed immediately. The pauses between probes are not
        shortened, since this may be requested often.
        """
        was_dead = self.dead
        if was_dead:
            self.probes.stop()
        self._set_state(State.UNPROVEN if was_dead else self.state, self.retries)
        return was_dead

    def set_dead(self) -> None:
        """Set the host DEAD, as in the previous process."""
        self.away = True
        self._set_state(State.DEAD, 0)
