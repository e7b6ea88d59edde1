"""
Whether a host is worth a try: its retries, DEAD, and the probes that find its way back.

Rows S10, F4 and F5.
"""

from __future__ import annotations

from collections.abc import Callable
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


class Health:
    """
    One host's retries.

    :ivar retries: failures that make a host DEAD.
    :ivar left: how many of them are left.
    :ivar dead: whether the host is DEAD: requests fail at once and `probe` is called now and then.
    :ivar unproven: whether it was DEAD, got its retries back, and has not answered since.
    :ivar since: when it came to its state, in seconds of the clock.
    :ivar well: whether nothing has failed since its last answer.
    """

    __slots__ = (
        "_clock",
        "_last_break",
        "_probes",
        "dead",
        "left",
        "retries",
        "since",
        "unproven",
        "well",
    )

    def __init__(
        self, retries: int, clock: IReactorTime, random: Random, probe: Callable[[], None]
    ) -> None:
        self.retries = retries
        self.left = retries
        self.dead = False
        self.unproven = False
        self.well = True
        self.since = clock.seconds()
        self._clock = clock
        self._probes = Pauses(clock, random, probe)
        self._last_break = _NEVER

    @property
    def away(self) -> bool:
        """Whether it was DEAD and has not answered since."""
        return self.dead or self.unproven

    @property
    def state(self) -> str:
        """As the status has it: ``up``, ``DEAD`` or ``unproven``."""
        return "DEAD" if self.dead else "unproven" if self.unproven else "up"

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
        self.left = max(1, self.left + retries - self.retries) if self.left else 0
        self.retries = retries
        self.well = self.left == retries and not self.unproven

    def failure(self) -> bool:
        """Count one failure; return whether it made the host DEAD."""
        self.well = False
        self.left = max(0, self.left - 1)
        died = self.left == 0 and not self.dead
        if died:
            if not self.unproven:
                self._probes.reset()
            self.dead, self.unproven = True, False
            self.since = self._clock.seconds()
        if self.away:
            self._probes.start()
        return died

    def restore(self) -> bool:
        """Give all retries back, for the host has answered; return whether it was away."""
        was_away = self.away
        if was_away:
            self.since = self._clock.seconds()
        self.dead = self.unproven = False
        self.left = self.retries
        self.well = True
        self.stop()
        return was_away

    def forgive(self) -> bool:
        """
        Give all retries back on request; return whether the host was DEAD.

        Then it is unproven, and should be probed at once. The pauses between probes go on where
        they were, for this may be asked for often.
        """
        was_dead = self.dead
        if was_dead:
            self.since = self._clock.seconds()
        self.unproven = self.away
        self.dead = False
        self.left = self.retries
        self.well = not self.unproven
        if was_dead:
            self.stop()
        return was_dead

    def distrust(self) -> None:
        """Take it that the host is DEAD: a process before this one has found it so."""
        self.dead, self.well = True, False

    def stop(self) -> None:
        """Probe no more."""
        self._probes.stop()

    @property
    def next_probe(self) -> float:
        """Seconds until the next probe, -1.0 when none is due."""
        return self._probes.left
