"""
Whether a host is worth a try: its retries, DEAD, and the probes that find its way back.

Rows S10, F4 and F5.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds before the first probe of a DEAD host, and the longest pause between two. A lond that
#: was restarted is back within a second or two; one that stays away costs one attempt a minute.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

_NEVER: Final = -1.0


class Pauses:
    """
    Has something done after a pause, which grows each time until it is stopped.

    The jitter keeps the machines of a network from knocking at the same moment.
    """

    __slots__ = ("_act", "_clock", "_pause", "_random", "_timer")

    def __init__(self, clock: IReactorTime, random: Random, act: Callable[[], None]) -> None:
        self._clock = clock
        self._random = random
        self._act = act
        self._pause = FIRST_PAUSE
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Wait for the next time, if nobody waits yet."""
        if self._timer is None:
            pause = self._pause * self._random.uniform(0.8, 1.0)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._timer = self._clock.callLater(pause, self._end)

    def _end(self) -> None:
        self._timer = None
        self._act()

    def stop(self) -> None:
        """Wait no more; the pauses stay as long as they are."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._pause = FIRST_PAUSE

    @property
    def left(self) -> float:
        """Seconds until the next time, -1.0 when none is due."""
        return -1.0 if self._timer is None else self._timer.getTime() - self._clock.seconds()


class State(Enum):
    """How a host is, in the words of the status."""

    UP = "up"
    UNPROVEN = "unproven"
    DEAD = "DEAD"


class Health:
    """
    One host's retries.

    ============  ================================  ================================================
    In the state  when                              it comes to
    ============  ================================  ================================================
    ``UP``        a request is met with silence     ``UNPROVEN``, in doubt, and a retry is taken
    any           anything else fails               as it was, and a retry is taken
    not ``DEAD``  the last retry is taken           ``DEAD``
    ``DEAD``      its retries are given back        ``UNPROVEN``
    any           it answers                        ``UP``, with all retries and no doubt
    not in doubt  it completes a handshake          ``UP``, with all retries
    in doubt      it completes a handshake          as it was: others that hang do that too
    ============  ================================  ================================================

    Where it is not ``UP`` it is probed now and then.

    :ivar retries: failures that make a host DEAD.
    :ivar left: how many of them are left.
    :ivar state: as the table has it.
    :ivar doubtful: whether only an answer proves that it lives.
    :ivar dead: whether it is ``DEAD``: requests fail at once.
    :ivar away: whether it was DEAD and has not been UP since.
    :ivar since: when it came to its state, in seconds of the clock.
    :ivar well: whether nothing has failed since its last answer.
    :param changed: called when that is so no more, or again.
    """

    __slots__ = (
        "_changed",
        "_clock",
        "_last_break",
        "_probes",
        "away",
        "dead",
        "doubtful",
        "left",
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
        self._probes = Pauses(clock, random, probe)
        self._last_break = _NEVER

    def _come_to(self, state: State, left: int) -> None:
        """Be in a state, with so many retries left."""
        if state is not self.state:
            self.state, self.since = state, self._clock.seconds()
        self.left, self.dead = left, state is State.DEAD
        well, self.well = self.well, left == self.retries and state is State.UP
        if well is not self.well:
            self._changed()

    def broke(self, established: float) -> bool:
        """
        Count the break of a connection that was ready; return whether it made the host DEAD.

        When a lond goes, all its connections break: those that stood before the first of them
        broke are part of the same failure.

        :param established: when its handshake was complete, in seconds of the clock.
        """
        if established <= self._last_break:
            return False
        self._last_break = self._clock.seconds()
        return self.failure()

    def set_retries(self, retries: int) -> None:
        """Take over another number of retries; those that were lost stay lost."""
        left = max(1, self.left + retries - self.retries) if self.left else 0
        self.retries = retries
        self._come_to(self.state, left)

    def silence(self) -> bool:
        """Count a request that nobody answered; return whether it made the host DEAD."""
        self.doubtful = True
        if self.state is State.UP:
            self._come_to(State.UNPROVEN, self.left)
        return self.failure()

    def failure(self) -> bool:
        """Count one failure; return whether it made the host DEAD."""
        left = max(0, self.left - 1)
        died = left == 0 and not self.dead
        if died:
            if not self.away:
                self._probes.reset()
            self.away = True
        self._come_to(self.state if left else State.DEAD, left)
        if self.state is not State.UP:
            self._probes.start()
        return died

    def success(self) -> bool:
        """Give all retries back, for the host lives; return whether it was away."""
        was_away, self.away = self.away, False
        self.doubtful = False
        self._come_to(State.UP, self.retries)
        self._probes.stop()
        if not was_away:
            self._probes.reset()
        return was_away

    def forgive(self) -> bool:
        """
        Give all retries back on request; return whether the host was DEAD.

        Then it is unproven, and should be probed at once. The pauses between probes go on where
        they were, for this may be asked for often.
        """
        was_dead = self.dead
        if was_dead:
            self._probes.stop()
        self._come_to(State.UNPROVEN if was_dead else self.state, self.retries)
        return was_dead

    def distrust(self) -> None:
        """Take it that the host is DEAD: a process before this one has found it so."""
        self.away = True
        self._come_to(State.DEAD, 0)

    def probe_later(self) -> None:
        """Probe after the next pause, for there was no room now."""
        self._probes.start()

    def stop(self) -> None:
        """Probe no more."""
        self._probes.stop()

    @property
    def next_probe(self) -> float:
        """Seconds until the next probe, -1.0 when none is due."""
        return self._probes.left
