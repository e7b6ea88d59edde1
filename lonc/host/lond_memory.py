"""
What is remembered of a lond between its connections: for the next handshake, and for the status.
"""

from __future__ import annotations

from math import inf
from typing import Final

from lonc.wire.handshake import LondFacts, Omission

#: Seconds for which something at which a lond failed is left out: it may have been an accident, or
#: be another release by then. For so long, too, something is remembered of one that has no
#: connection.
MEMORY: Final = 3600.0


class LondMemory:
    """
    What the connections to a lond have shown of it. Each of them acts by its own handshake alone.

    :param now: in seconds of the clock.
    :ivar facts: what the last handshake has shown.
    :ivar answers_ping: whether it answers ``ping``; None where that is not known.
    :ivar last_connected: when it last had a connection, in seconds of the clock.
    """

    __slots__ = ("_first_silence", "_left_out", "answers_ping", "facts", "last_connected")

    def __init__(self, now: float) -> None:
        self.facts = LondFacts("")
        self.answers_ping: bool | None = None
        self.last_connected = now
        self._first_silence = 0.0
        self._left_out: dict[Omission, float] = {}  # and until when

    def is_of_another(self, facts: LondFacts) -> bool:
        """Return whether a handshake shows another release than the one before."""
        before = self.facts
        other = facts.knows_version and facts.version != before.version
        return bool(before.mode) and (other or facts.knows_sethost != before.knows_sethost)

    def learn(self, facts: LondFacts) -> None:
        """Take over what a handshake has shown."""
        self.facts = facts
        if facts.only:
            self.answers_ping = True
        if facts.knows_version is False:
            self._left_out[Omission.VERSION] = inf

    def note_no_pong(self, asked: float) -> None:
        """Take note that a ``ping`` of then was not answered: perhaps none ever is."""
        if self.answers_ping is None:
            self.answers_ping, self._first_silence = False, asked

    def note_silence(self, last_answer: float) -> None:
        """Take note that a request was not answered: so it is not that only ``ping`` never is."""
        if self.answers_ping is False and last_answer < self._first_silence:
            self.answers_ping = True

    def leave_out(self, omission: Omission, now: float) -> None:
        """Leave something out for a while, at which the lond has failed."""
        self._left_out[omission] = now + MEMORY

    def omissions(self, now: float) -> list[Omission]:
        """Return what the next handshake leaves out."""
        return [what for what, until in self._left_out.items() if now < until]

    def retries_key_files(self, now: float) -> bool:
        """Return whether key files, which were left out, are to be tried again."""
        return bool(self._left_out) and now >= self._left_out.get(Omission.KEY_FILES, inf)

    def forget(self) -> None:
        """Leave nothing out any more."""
        self._left_out.clear()
