"""
The connections to one lond, by what each of them is doing (row S8).

Every connection is in exactly one collection, and one method moves it: so a connection that owes
an answer cannot be found among the idle ones.
"""

from __future__ import annotations

from itertools import chain

from lonc.host.connection import ConnectionState, LondConnection

#: Connections in the order in which they came to this state.
Collection = dict[LondConnection, None]

_CONNECTING, _HANDSHAKING, _IDLE, _BUSY = (
    ConnectionState.CONNECTING,
    ConnectionState.HANDSHAKING,
    ConnectionState.IDLE,
    ConnectionState.BUSY,
)
_PROVING, _CLOSED = ConnectionState.PROVING, ConnectionState.CLOSED

#: The states of which one holds most of the time: the others' collections are often empty.
_SELDOM = [state for state in ConnectionState if state not in (_IDLE, _BUSY, _CLOSED)]

#: The states in which the answer to a request is owed.
_OWING = (ConnectionState.INTRODUCING, ConnectionState.BUSY, ConnectionState.RETIRING)


class ConnectionPool:
    """
    A lond's connections by state.

    :ivar connecting: being looked up or connected.
    :ivar handshaking: connected, not yet ready.
    :ivar idle: ready; the one used last is at the end.
    :ivar busy: owing the answer to a request, and to be used again.
    :ivar proving: owing the answer to a ``ping`` of ours.
    :ivar size: how many there are in all.
    """

    __slots__ = ("_by_state", "busy", "connecting", "handshaking", "idle", "proving", "size")

    def __init__(self) -> None:
        self._by_state: tuple[Collection, ...] = tuple(
            {} for state in ConnectionState if state is not _CLOSED
        )
        self.connecting = self._by_state[_CONNECTING]
        self.handshaking = self._by_state[_HANDSHAKING]
        self.idle = self._by_state[_IDLE]
        self.busy = self._by_state[_BUSY]
        self.proving = self._by_state[_PROVING]
        self.size = 0

    def add(self, connection: LondConnection) -> None:
        """Take in a connection that is being made."""
        self.connecting[connection] = None
        self.size += 1

    def move(self, connection: LondConnection, state: ConnectionState) -> None:
        """Put a connection at the end of a collection; one that is closed leaves the pool."""
        before, connection.state = connection.state, state
        del self._by_state[before][connection]
        if state is _CLOSED:
            self.size -= 1
        else:
            self._by_state[state][connection] = None

    def use(self) -> LondConnection:
        """
        Move the idle connection used last to the busy ones, and return it.

        So the others can grow old and be closed (row S9).
        """
        connection, _ = self.idle.popitem()
        connection.state = _BUSY
        self.busy[connection] = None
        return connection

    def shrink(self) -> None:
        """Give the room back that empty collections keep, as they seldom have something."""
        for state in _SELDOM:
            if not self._by_state[state]:
                self._by_state[state].clear()

    def __len__(self) -> int:
        return self.size

    @property
    def owing(self) -> list[LondConnection]:
        """Those that owe the answer to a request, as a list that stays as it is."""
        return list(chain.from_iterable(self._by_state[state] for state in _OWING))

    def all(self) -> list[LondConnection]:
        """Return every connection, as a list that stays as it is while they are moved."""
        return list(chain.from_iterable(self._by_state))
