"""
What lonc remembers about a lond between connections: for the next handshake and the status, and
which host ids it serves.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from lonc.host.connection import LondConnection
from lonc.host.health import Backoff
from lonc.host.lond_user import LondUser
from lonc.local.limits import Clients
from lonc.wire.handshake import LondFacts, Omission
from lonc.wire.request import Cause

#: Seconds for which a step of the handshake is omitted after a lond failed at it: the cause may
#: have been temporary, or the lond may be replaced by another release. Facts about a lond without
#: connections are kept as long.
MEMORY: Final = 3600.0

_NOT_SERVED: Final = "the lond does not serve it"


#: Before the first handshake; shared by all londs, and replaced as a whole.
_NO_FACTS: Final = LondFacts("")


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
        self.facts = _NO_FACTS
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


class ServedIds:
    """
    Which host ids of a machine its lond serves, according to its latest answers.

    :ivar refused: the host ids that the lond does not serve, with the reason. They are reported and
        tried again; requests are not held back.
    :ivar only: the only id that the lond serves, if it has several but the last handshake found no
        ``sethost``. Then such connections may coexist with others.
    :ivar backoff: starts handshakes that ask for refused ids again, after pauses.
    """

    __slots__ = ("_clients", "_judged", "_machine", "backoff", "only", "refused")

    def __init__(self, machine: LondUser, clients: Clients, backoff: Backoff) -> None:
        self.refused: dict[str, str] = {}
        self.only = ""
        self._judged = ""  # the effective `only` of the last `judge`
        self._machine = machine
        self._clients = clients
        self.backoff = backoff

    def learn(self, facts: LondFacts, connections: Iterable[LondConnection]) -> None:
        """Record the result of a handshake."""
        self.refused = {}
        self._set_only(facts.only)
        for host_id in facts.unserved:
            self.refuse(host_id)
        self.judge(connections)
        if not self.refused:
            self.backoff.stop()
            self.backoff.reset()

    def forget(self) -> None:
        """Forget what is known: it may be another lond from now on."""
        self._set_only("")
        self.judge(())

    def _set_only(self, only: str) -> None:
        self.only = only
        self._machine.reconsider()  # before the next request

    def judge(self, connections: Iterable[LondConnection]) -> None:
        """Without ``sethost``, mark only the id that the lond names as served."""
        only = self.only
        if only and any(each.confirmed is not None for each in connections):
            only = ""  # these connections serve the others
        before, self._judged = self._judged, only
        if not before and not only:
            return  # no change: skips what may be thousands of ids
        for host_id, host in list(self._machine.members.items()):
            served = only in ("", host_id)
            if not served:
                self.refuse(host_id, f"the lond does not support sethost, and serves {only}")
            host.set_served(served)

    def refuse(self, host_id: str, why: str = _NOT_SERVED) -> None:
        """Report waiting requests for a host as not served, and try again later."""
        if host_id in self._machine.members:
            self.refused[host_id] = why
            self.backoff.start()
            self._clients.warn("unserved", host_id, f"requests get con_lost: {why}")
            self._machine.lose_waiting(host_id, Cause.NOT_SERVED)

    def accept(self, host_id: str) -> None:
        """Record that the lond serves a host."""
        if self.refused.pop(host_id, None) is not None:
            self.tell_served([host_id])

    def tell_served(self, host_ids: Iterable[str]) -> None:
        """Inform hosts that were not served that they are now."""
        for host_id in host_ids:
            if host_id in self._machine.members and host_id not in self.refused:
                self._machine.members[host_id].revived()

    def may_carry(self, connection: LondConnection, host_id: str) -> bool:
        """Return whether a connection may carry requests for a host."""
        return not self.only or connection.confirmed is not None or connection.host_id == host_id
