"""
Checks that the answers on a connection still belong to its requests (row F2).

If a lond sends a surplus line on a connection that is never idle, every later answer is shifted to
the next request. This cannot be seen from the answers, so from time to time a request with a known
answer is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from twisted.internet.defer import Deferred, succeed

from lonc.host.connection import PING, LondConnection
from lonc.host.connection_states import ConnectionState, Trouble
from lonc.host.lond_user import LondUser
from lonc.host.pool import ConnectionPool
from lonc.host.troubles import TroubleLog
from lonc.wire.request import Request

#: Number of answers after which a connection is checked at the latest. At most that many, and the
#: surplus line itself, can reach the wrong clients.
ROUND: Final = 63

#: Number of answers after which it is checked, unless the last request was a client's `ping`, whose
#: late answer would be taken for that of the check.
EARLIEST: Final = 56

#: Number of pings within which two consecutive answers must be equal; surplus lines may precede the
#: first one.
TRIES: Final = 5

#: Number of consecutive unanswered pings, while requests are answered, after which checks are given
#: up.
SILENCES: Final = 2

#: Minimum idle seconds before checking a connection whose last request may have been a `ping`.
REST: Final = 0.25

#: The minimum time limit for the answer to `ping`, in seconds, and as a multiple of the median time
#: of answers: a lond under load must not be considered hanging.
SHORTEST: Final = 2.0
TIMES_USUAL: Final = 10

#: The minimum time limit if delayed requests wait for the check, because they would be sent again
#: without it, and for probes of a DEAD host: a lond that has just come back is often slow.
PATIENCE: Final = 10.0

#: Number of changes of the known answer (as when a lond is upgraded) after which checks are given
#: up.
CHANGES: Final = 3


class Verdict(Enum):
    """The result of a check."""

    IN_STEP = "in step"
    AGAIN = "to be asked once more"
    OUT_OF_STEP = "out of step"
    UNKNOWN = "they tell nothing"


class PingAnswer:
    """
    A lond's answer to ping, learned from two equal answers.

    :ivar known: the answer, once known.
    :ivar hopeless: whether the lond does not answer, or with varying answers. Then a connection is
        only used for one round.
    """

    __slots__ = ("_changes", "_last", "_last_silence", "_silences", "hopeless", "known")

    def __init__(self) -> None:
        self.known: bytes | None = None
        self.hopeless = False
        self._last: bytes | None = None  # the previous `known`
        self._changes = 0
        self._silences = 0
        self._last_silence = -1.0

    def judge(self, answers: Sequence[bytes]) -> Verdict:
        """Return the verdict on a connection from its consecutive answers to ping."""
        if self.known is None:
            if len(answers) < 2 or answers[-1] != answers[-2]:
                self.hopeless = self.hopeless or len(answers) == TRIES
                return Verdict.UNKNOWN if self.hopeless else Verdict.AGAIN
            self._learn(answers[-1])
        self._silences = 0
        right = answers.count(self.known) == len(answers)
        return Verdict.IN_STEP if right else Verdict.OUT_OF_STEP

    def _learn(self, answer: bytes) -> None:
        self._changes += self._last not in (None, answer)
        self.hopeless = self._changes >= CHANGES
        self.known = self._last = answer

    def note_silence(self, now: float, last_answer: float) -> None:
        """
        Handle a missing answer.

        :param last_answer: when a request was last answered.
        """
        self.known = None
        if last_answer > self._last_silence:
            self._silences += 1
        self._last_silence = now
        # If ping was never answered, it probably never is.
        self.hopeless = self.hopeless or self._last is None or self._silences >= SILENCES


class Auditor:
    """
    Checks the connections to one lond with ``ping``.

    At most a third of them are checked at a time, so that the others continue if ``ping`` hangs.

    :ivar request_timeout: the setting, in seconds.
    :ivar astray: number of answers that may have reached the wrong clients.
    :ivar last_astray: when they last may have, in seconds of the clock; -1.0 for never.
    """

    def __init__(
        self,
        machine: LondUser,
        pool: ConnectionPool,
        troubles: TroubleLog,
        seconds: Callable[[], float],
        request_timeout: float,
    ) -> None:
        self.request_timeout = request_timeout
        self.astray, self.last_astray = 0, -1.0
        self._machine = machine
        self._pool = pool
        self._troubles = troubles
        self._seconds = seconds
        self._to_prove: dict[LondConnection, None] = {}  # when they are idle
        #: By the connection's `host_id`, on which the answer may depend.
        self._answers: dict[str, PingAnswer] = {}

    def forget(self) -> None:
        """Forget the known answers: it may be another lond from now on."""
        self._answers.clear()

    def _of(self, connection: LondConnection) -> PingAnswer:
        host_id = connection.host_id
        return self._answers.get(host_id) or self._answers.setdefault(host_id, PingAnswer())

    @property
    def knows(self) -> bool:
        """Whether the lond's answers are known, for all host ids asked."""
        known = (each.known is not None and not each.hopeless for each in self._answers.values())
        return bool(self._answers) and all(known)

    @property
    def _may_ask(self) -> bool:
        return len(self._pool.proving) < max(1, len(self._pool.everyone) // 3)

    def check(self, connection: LondConnection, request: Request) -> bool:
        """
        Check a free connection, if that is due (row F2).

        :param request: the last one answered on it.
        :return: whether the connection is not available for other requests now.
        """
        answers = connection.unchecked
        if answers < EARLIEST and not connection.proofs:
            return False
        may_ask = self._may_ask
        if answers < ROUND and (not may_ask or request.line.endswith(PING)):
            return False
        # For delayed requests it is always checked, since they would be sent again.
        if (may_ask or connection.proofs) and not self._of(connection).hopeless:
            connection.ask_ping(self._seconds())
        else:
            self._replace(connection)
        return True

    def _replace(self, connection: LondConnection) -> None:
        """Close a free connection, and make another for waiting requests."""
        connection.close()
        self._machine.pair(new=self._machine.waiting)

    def proved(self, connection: LondConnection, reply: bytes) -> None:
        """Handle the answer to ``ping`` on a connection that has carried requests."""
        connection.pongs += (reply,)
        answer = self._of(connection)
        before = answer.hopeless
        verdict = answer.judge(connection.pongs)
        self._tell(answer, before)
        if verdict is Verdict.OUT_OF_STEP or connection.surplus:
            connection.close()
            message = "its answer to ping is unexpected"
            self.tell_out_of_step(connection, message)
            answer.known = None  # to be learned again
            self._troubles.tell_failed(Trouble.BROKEN, message)
            self._machine.pair(new=1)
        elif verdict is Verdict.AGAIN:
            connection.ask_ping(self._seconds())
        elif verdict is Verdict.UNKNOWN:
            self._replace(connection)
        else:
            connection.note_in_step(self._seconds())
            self._machine.use(connection)
            if connection.proofs:
                connection.end_proofs(True)

    def tell_out_of_step(self, connection: LondConnection, message: str) -> None:
        """Log how many answers may have reached the wrong clients."""
        idle = 0.0 if connection.request is not None else self._seconds() - connection.since
        # After that time it is only what some londs send before they disconnect.
        if connection.unchecked and idle < self.request_timeout:
            self._troubles.tell_out_of_step(connection.unchecked, message)
            self.astray += connection.unchecked
            self.last_astray = self._seconds()

    def prove(self, connection: LondConnection) -> Deferred[bool]:
        """Fire with whether a connection is in step: see `Provable.prove`."""
        if not connection.unchecked:
            return succeed(True)  # it has been checked since
        ending = connection.state in (ConnectionState.CLOSED, ConnectionState.RETIRING)
        if ending or self._of(connection).hopeless:
            return succeed(False)
        proof: Deferred[bool] = Deferred()
        connection.proofs += (proof,)
        if connection.state is not ConnectionState.PROVING:
            self._to_prove[connection] = None
            self._ask_for_proofs()
            self._machine.reconsider()  # it may never become idle
        return proof

    def _ask_for_proofs(self) -> None:
        for connection in list(self._to_prove):  # callbacks may add others
            if not connection.proofs:  # it has been checked meanwhile
                self._to_prove.pop(connection, None)
            elif (
                connection.state is ConnectionState.IDLE
                and self._may_ask
                and self._has_rested(connection)
            ):
                self._to_prove.pop(connection, None)
                if self._of(connection).hopeless:
                    connection.end_proofs(False)
                else:
                    connection.ask_ping(self._seconds())

    def _has_rested(self, connection: LondConnection) -> bool:
        """Return whether a late answer to a client's ``ping`` would have arrived."""
        if connection.unchecked == 1:
            return True  # the only request was the delayed one
        usual = TIMES_USUAL * self._machine.median_answer()
        return self._seconds() - connection.since >= min(max(REST, usual), SHORTEST)

    def sweep(self, now: float, dead: bool) -> None:
        """
        Apply time limits to checks, and start those waiting.

        :param dead: whether these are probes of a DEAD host, for which no client waits.
        """
        if self._to_prove:
            self._ask_for_proofs()
        shortest = min(SHORTEST, self.request_timeout)
        for connection in [x for x in self._pool.proving if now - x.since >= shortest]:
            usual = TIMES_USUAL * self._machine.median_answer()
            least = PATIENCE if dead or connection.proofs else SHORTEST
            limit = min(max(least, usual), self.request_timeout)
            if now - connection.since >= limit:
                connection.expire(limit)

    @property
    def ping_tells(self) -> bool:
        """Whether ``ping`` is useful for checks, as far as is known."""
        return not any(each.hopeless for each in self._answers.values())

    def note_silence(self, connection: LondConnection) -> None:
        """Handle the end of a connection without an answer to ping; see `PingAnswer`."""
        answer = self._of(connection)
        before = answer.hopeless
        answer.note_silence(self._seconds(), self._machine.last_answer)
        self._tell(answer, before)

    def _tell(self, answer: PingAnswer, before: bool) -> None:
        if answer.hopeless and not before:
            self._troubles.tell_cannot_be_asked(ROUND)
