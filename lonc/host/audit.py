"""
Whether a connection's answers still belong to its requests (row F2).

A lond that says one line too many while its connection is never idle shifts every later answer to
the next request. Nothing in an answer tells: so a connection is asked something whose answer is
known, before too many can have gone wrong.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

#: Answers without a rest after which a connection is asked: at most that many, and the one that
#: was shifted first, can go to the wrong client.
ROUND: Final = 63

#: Seconds of rest in which a line too many would have come: far more than a lond's usual answer
#: takes, so that connections in light use are never asked. No proof, for an answer may take longer;
#: the next round is.
REST: Final = 5.0

#: What is asked; each lond has an answer of its own.
PING: Final = b"ping\n"

#: Times that a lond may answer ping in two ways until it is given up to learn its answer.
TRIES: Final = 3


class Verdict(Enum):
    """What an answer to ping says about its connection."""

    IN_STEP = "in step"
    AGAIN = "to be asked once more"
    OUT_OF_STEP = "out of step"


class PingAnswer:
    """
    What one lond answers to ping, learned by asking twice.

    :ivar known: the answer, once it is known.
    """

    __slots__ = ("_failed", "known")

    def __init__(self) -> None:
        self.known: bytes | None = None
        self._failed = 0

    @property
    def hopeless(self) -> bool:
        """Whether this lond never says the same twice: then a connection serves one round only."""
        return self._failed >= TRIES

    def judge(self, before: bytes | None, answer: bytes) -> Verdict:
        """
        Judge a connection by an answer to ping.

        :param before: what the same connection answered just before, None where that was not asked.
        """
        expected = self.known if self.known is not None else before
        if expected is None:
            return Verdict.AGAIN
        if answer != expected:
            return Verdict.OUT_OF_STEP
        self.known, self._failed = answer, 0
        return Verdict.IN_STEP

    def failed(self) -> None:
        """Take note of an answer that was wrong, or did not come: it has to be learned anew."""
        self.known = None
        self._failed += 1
