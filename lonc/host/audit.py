"""
Whether a connection's answers still belong to its requests (row F2).

A lond that says one line too many while its connection is never idle shifts every later answer to
the next request. Nothing in an answer tells: so a connection is asked something whose answer is
known, before too many can have gone wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from twisted.internet.defer import Deferred, succeed

from lonc.host.connection import PING, LondConnection
from lonc.host.connection_states import ConnectionState
from lonc.host.lond_user import LondUser
from lonc.host.pool import ConnectionPool
from lonc.host.troubles import TroubleLog
from lonc.wire.request import Request

#: Answers after which a connection is asked, at the latest: that many, and the one that was
#: shifted first, can go to the wrong client.
ROUND: Final = 63

#: Answers after which it is asked unless the last request was a `ping` itself: the answer to one
#: that is still to come would pass for the one that is asked for.
EARLIEST: Final = 56

#: Questions until two answers running have to be equal: lines that are still to come stand before
#: the first one.
TRIES: Final = 5

#: Questions running without an answer, with answers to requests between them, until it is given up
#: to ask: all else works, and only this does not.
SILENCES: Final = 2

#: Seconds of rest, at least, before a connection is asked whose last request may be a `ping`.
REST: Final = 0.25

#: The shortest limit for an answer to `ping`, in seconds, and how many times the usual answer to a
#: request it may take: a lond under load must not be taken for one that hangs.
SHORTEST: Final = 2.0
TIMES_USUAL: Final = 10

#: The shortest limit where delayed requests wait for the answer: they are sent again without it,
#: and a lond that has just come back, which gets them, is often slow for a while.
PATIENCE: Final = 10.0

#: Times that the known answer may become another, as when a lond is renewed in place, until it is
#: given up to learn it.
CHANGES: Final = 3


class Verdict(Enum):
    """What the answers to ping say about their connection."""

    IN_STEP = "in step"
    AGAIN = "to be asked once more"
    OUT_OF_STEP = "out of step"
    UNKNOWN = "they tell nothing"


class PingAnswer:
    """
    What one lond answers to ping, learned by asking twice.

    :ivar known: the answer, once it is known.
    :ivar hopeless: whether this lond gives no answer, or another now and then: so a connection
        serves one round only.
    """

    __slots__ = ("_changes", "_last", "_last_silence", "_silences", "hopeless", "known")

    def __init__(self) -> None:
        self.known: bytes | None = None
        self.hopeless = False
        self._last: bytes | None = None  # that was known
        self._changes = 0
        self._silences = 0
        self._last_silence = -1.0

    def judge(self, answers: Sequence[bytes]) -> Verdict:
        """Judge a connection by what it has answered to one ping after the other."""
        if self.known is None:
            if len(answers) < 2 or answers[-1] != answers[-2]:
                self.hopeless = self.hopeless or len(answers) == TRIES
                return Verdict.UNKNOWN if self.hopeless else Verdict.AGAIN
            self._learn(answers[-1])
        self._silences = 0
        right = all(answer == self.known for answer in answers)
        return Verdict.IN_STEP if right else Verdict.OUT_OF_STEP

    def _learn(self, answer: bytes) -> None:
        self._changes += self._last not in (None, answer)
        self.hopeless = self._changes >= CHANGES
        self.known = self._last = answer

    def note_wrong(self) -> None:
        """Take note of an answer that was wrong: it has to be learned anew."""
        self.known = None

    def note_silence(self, now: float, last_answer: float) -> None:
        """
        Take note of an answer that did not come.

        :param last_answer: when a request was answered last.
        """
        self.known = None
        if last_answer > self._last_silence:
            self._silences += 1
        self._last_silence = now
        # Where it never gave one, the next would only wait in vain.
        self.hopeless = self.hopeless or self._last is None or self._silences >= SILENCES


class Auditor:
    """
    Asks the connections to one lond for their ``ping``, and judges by the answers.

    At most a third of them are asked at a time: where ``ping`` hangs, the others have to go on.
    """

    def __init__(
        self,
        machine: LondUser,
        pool: ConnectionPool,
        troubles: TroubleLog,
        seconds: Callable[[], float],
    ) -> None:
        self._machine = machine
        self._pool = pool
        self._troubles = troubles
        self._seconds = seconds
        self._to_prove: dict[LondConnection, None] = {}  # once they owe nothing
        #: By the host id that a connection speaks for by itself: a lond may answer for each.
        self._answers: dict[str, PingAnswer] = {}

    def forget(self) -> None:
        """Learn the answers anew: it may be another lond from now on."""
        self._answers.clear()

    def _of(self, connection: LondConnection) -> PingAnswer:
        host_id = connection.host_id
        return self._answers.get(host_id) or self._answers.setdefault(host_id, PingAnswer())

    @property
    def knows(self) -> bool:
        """Whether it is known what the lond answers, for whomever it was asked."""
        known = (each.known is not None and not each.hopeless for each in self._answers.values())
        return bool(self._answers) and all(known)

    @property
    def _may_ask(self) -> bool:
        return len(self._pool.proving) < max(1, len(self._pool.everyone) // 3)

    def is_due(self, connection: LondConnection, request: Request) -> bool:
        """Return whether a connection has to be asked before its next request."""
        answers = connection.unchecked
        if answers < EARLIEST and not connection.proofs:
            return False
        return answers >= ROUND or (self._may_ask and not request.line.endswith(PING))

    def ask(self, connection: LondConnection) -> bool:
        """
        Ask a connection that owes nothing; return whether it may be asked, and is.

        It may, whatever others do, where delayed requests would be sent again.
        """
        asks = bool(self._may_ask or connection.proofs) and not self._of(connection).hopeless
        if asks:
            connection.ask_ping(self._seconds())
        return asks

    def prove(self, connection: LondConnection) -> Deferred[bool]:
        """Fire with whether a connection has been in step: see `Provable.prove`."""
        if not connection.unchecked:
            return succeed(True)  # others have asked since
        ending = connection.state in (ConnectionState.CLOSED, ConnectionState.RETIRING)
        if ending or self._of(connection).hopeless:
            return succeed(False)
        proof: Deferred[bool] = Deferred()
        connection.proofs += (proof,)
        if connection.state is not ConnectionState.PROVING:
            self._to_prove[connection] = None
            self._ask_for_proofs()
            self._machine.reconsider()  # it may never be idle
        return proof

    def _ask_for_proofs(self) -> None:
        for connection in list(self._to_prove):  # who hears of one may want another at once
            if not connection.proofs:  # it was asked for another reason meanwhile
                self._to_prove.pop(connection, None)
            elif (
                connection.state is ConnectionState.IDLE
                and self._may_ask
                and self._has_rested(connection)
            ):
                self._to_prove.pop(connection, None)
                if not self.ask(connection):
                    connection.end_proofs(False)

    def _has_rested(self, connection: LondConnection) -> bool:
        """Return whether the answer to a client's ``ping`` would be here, were it asked last."""
        if connection.unchecked == 1:
            return True  # it was not: the only answer is the one to be proven
        usual = TIMES_USUAL * self._machine.median_answer()
        return self._seconds() - connection.since >= min(max(REST, usual), SHORTEST)

    def sweep(self, now: float, longest: float) -> None:
        """
        End those whose answer does not come.

        :param longest: seconds that any answer may take.
        """
        if self._to_prove:
            self._ask_for_proofs()
        shortest = min(SHORTEST, longest)
        for connection in [x for x in self._pool.proving if now - x.since >= shortest]:
            usual = TIMES_USUAL * self._machine.median_answer()
            limit = min(max(PATIENCE if connection.proofs else SHORTEST, usual), longest)
            if now - connection.since >= limit:
                connection.expire(limit)

    @property
    def ping_tells(self) -> bool:
        """Whether the answers to ``ping`` tell anything, as far as is known."""
        return not any(each.hopeless for each in self._answers.values())

    def expects(self, connection: LondConnection, reply: bytes) -> bool:
        """Return whether a connection's first answer is the one that is known."""
        return not connection.pongs and self._of(connection).known == reply

    def judge(self, connection: LondConnection, reply: bytes) -> Verdict:
        """Judge a connection by what it has answered so far."""
        connection.pongs += (reply,)
        answer = self._of(connection)
        before = answer.hopeless
        verdict = answer.judge(connection.pongs)
        self._tell(answer, before)
        return verdict

    def note_wrong(self, connection: LondConnection) -> None:
        """Take note that a connection ended by a wrong answer."""
        self._of(connection).note_wrong()

    def note_silence(self, connection: LondConnection) -> None:
        """Take note that a connection ended while it was asked; see `PingAnswer`."""
        answer = self._of(connection)
        before = answer.hopeless
        answer.note_silence(self._seconds(), self._machine.last_answer)
        self._tell(answer, before)

    def _tell(self, answer: PingAnswer, before: bool) -> None:
        if answer.hopeless and not before:
            self._troubles.tell_cannot_be_asked(ROUND)
