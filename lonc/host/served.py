"""
Which host ids of a machine its lond serves, according to its latest answers.
"""

from __future__ import annotations

from collections.abc import Iterable

from lonc.host.connection import LondConnection
from lonc.host.health import Pauses
from lonc.host.lond_user import LondUser
from lonc.local.limits import Clients
from lonc.wire.handshake import LondFacts
from lonc.wire.request import Cause

_NOT_SERVED = "the lond does not serve it"


class ServedIds:
    """
    Which ids are served, and which are to be tried again.

    :ivar refused: the host ids that the lond does not serve, with the reason. They are reported and
        tried again; requests are not held back.
    :ivar only: the only id that the lond serves, if it has several but the last handshake found no
        ``sethost``. Then such connections may coexist with others.
    :param ask_again: starts a handshake after a delay.
    """

    def __init__(self, machine: LondUser, clients: Clients, ask_again: Pauses) -> None:
        self.refused: dict[str, str] = {}
        self.only = ""
        self._judged = ""  # the effective `only` of the last `judge`
        self._machine = machine
        self._clients = clients
        self._ask_again = ask_again

    def learn(self, facts: LondFacts, connections: Iterable[LondConnection]) -> None:
        """Record the result of a handshake."""
        self.refused = {}
        self._set_only(facts.only)
        for host_id in facts.unserved:
            self.refuse(host_id)
        self.judge(connections)
        if not self.refused:
            self._ask_again.stop()
            self._ask_again.reset()

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
            self._ask_again.start()
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
