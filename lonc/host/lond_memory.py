"""
What lonc remembers about a lond between connections: for the next handshake and the status.
"""

from __future__ import annotations

from math import inf
from typing import Final

from lonc.wire.handshake import LondFacts, Omission

#: Seconds for which a step of the handshake is omitted after a lond failed at it: the cause may
#: have been temporary, or the lond may be replaced by another release. Facts about a lond without
#: connections are kept as long.
MEMORY: Final = 3600.0


class LondMemory:
    """
    What the connections to a lond revealed. Each connection relies on its own handshake only.

    :param now: in seconds of the clock.
    :ivar facts: the result of the last handshake.
    :ivar answers_ping: whether it answers ``ping``; None if unknown.
    :ivar last_connected: when it last had a connection, in seconds of the clock.
    """

    __slots__ = ("_first_silence", "_left_out", "answers_ping", "facts", "last_connected")

    def __init__(self, now: float) -> None:
        self.facts = LondFacts("")
        self.answers_ping: bool | None = None
        self.last_connected = now
        self._first_silence = 0.0
        self._left_out: dict[Omission, float] = {}  # until when

    def is_of_another(self, facts: LondFacts) -> bool:
        """Return whether a handshake reveals another release than the previous one."""
        before = self.facts
        other = facts.knows_version and facts.version != before.version
        return bool(before.mode) and (other or facts.knows_sethost != before.knows_sethost)

    def learn(self, facts: LondFacts) -> None:
        """Record the result of a handshake."""
        self.facts = facts
        if facts.only:
            self.answers_ping = True
        if facts.knows_version is False:
            self._left_out[Omission.VERSION] = inf

    def note_no_pong(self, asked: float) -> None:
        """Record that a ``ping`` of that time was not answered: perhaps none is."""
        if self.answers_ping is None:
            self.answers_ping, self._first_silence = False, asked

    def note_silence(self, last_answer: float) -> None:
        """Record an unanswered request: then the silence is not specific to ``ping``."""
        if self.answers_ping is False and last_answer < self._first_silence:
            self.answers_ping = True

    def leave_out(self, omission: Omission, now: float) -> None:
        """Omit a step for a while, because the lond failed at it."""
        self._left_out[omission] = now + MEMORY

    def omissions(self, now: float) -> list[Omission]:
        """Return the steps that the next handshake omits."""
        return [what for what, until in self._left_out.items() if now < until]

    def retries_key_files(self, now: float) -> bool:
        """Return whether key files, omitted so far, are due to be tried again."""
        if not self._left_out:
            return False
        return Omission.KEY_FILES in self._left_out and now >= self._left_out[Omission.KEY_FILES]

    def forget(self) -> None:
        """Omit nothing any more."""
        self._left_out.clear()
