"""
The connections to one lond, by what each of them is doing (row S8).

Every connection is in exactly one state, and one method moves it, but for the two moves that each
request brings: `Machine` makes these itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lonc.host.connection import LondConnection
from lonc.host.connection_states import ConnectionState

#: Connections in the order in which they came to this state.
Collection = dict[LondConnection, None]

_IDLE, _BUSY, _CLOSED = ConnectionState.IDLE, ConnectionState.BUSY, ConnectionState.CLOSED

#: The states in which the answer to a request is owed.
_OWING: Final = (ConnectionState.INTRODUCING, ConnectionState.BUSY, ConnectionState.RETIRING)


class ConnectionPool:
    """
    A lond's connections by state.

    :ivar everyone: all of them, in the order in which they were made.
    :ivar idle: ready and owing nothing; the one used last is at the end.
    :ivar connecting: being looked up or connected.
    :ivar handshaking: connected, not yet ready.
    :ivar proving: owing the answer to a ``ping`` of ours.
    """

    __slots__ = ("_seldom", "connecting", "everyone", "handshaking", "idle", "proving")

    def __init__(self) -> None:
        self.everyone: Collection = {}
        self.idle: list[LondConnection] = []
        self.connecting: Collection = {}
        self.handshaking: Collection = {}
        self.proving: Collection = {}
        self._seldom: dict[int, Collection] = {
            ConnectionState.CONNECTING: self.connecting,
            ConnectionState.HANDSHAKING: self.handshaking,
            ConnectionState.PROVING: self.proving,
        }

    def add(self, connection: LondConnection) -> None:
        """Take in a connection that is being made."""
        self.everyone[connection] = self.connecting[connection] = None

    def move(self, connection: LondConnection, state: ConnectionState) -> None:
        """Bring a connection to a state; one that is closed leaves the pool."""
        before, connection.state = connection.state, state
        if before is _IDLE:
            self.idle.remove(connection)
        elif before in self._seldom:
            del self._seldom[before][connection]
        if state is _IDLE:
            self.idle.append(connection)
        elif state in self._seldom:
            self._seldom[state][connection] = None
        elif state is _CLOSED:
            del self.everyone[connection]

    def shrink(self) -> None:
        """Give the room back that empty collections keep, as they seldom have something."""
        for collection in self._seldom.values():
            if not collection:
                collection.clear()

    def __len__(self) -> int:
        return len(self.everyone)

    @property
    def owing(self) -> list[LondConnection]:
        """Those that owe the answer to a request, as a list that stays as it is."""
        return [each for each in self.everyone if each.state in _OWING]

    def all(self) -> list[LondConnection]:
        """Return every connection, as a list that stays as it is while they are moved."""
        return list(self.everyone)

    # ------------------------------------------------------------------ used no more

    def retire_all(self, which: Callable[[LondConnection], object] = lambda each: True) -> None:
        """Use no connection, or none of a kind, for more than the answer that it owes."""
        # What has not been sent yet goes elsewhere, and must not find one that is next to retire.
        introducing = ConnectionState.INTRODUCING
        for each in sorted(self.everyone, key=lambda each: each.state is introducing):
            if which(each):
                each.retire()

    def retire_nameless(self, newest: LondConnection) -> None:
        """A lond may know sethost now, or serve another id: older connections may not stand in."""
        self.retire_all(
            lambda each: (
                each.host_id
                and each.confirmed is None
                and (newest.confirmed is not None or newest.host_id != each.host_id)
            )
        )

    def make_room(self) -> None:
        """
        Retire a connection, so that another can be made; but none that is itself being made.

        What waits for a proof would be sent again: it is another connection if there is one.
        """
        usable = [*self.idle, *self.owing, *self.proving]
        for each in sorted(usable, key=lambda each: bool(each.proofs))[:1]:
            each.retire()

    def close_idle(self, since: float) -> None:
        """Close what has been idle since then, or longer."""
        for each in [each for each in self.idle if each.since <= since]:
            each.close()
