"""
The connections to one lond, by state (row S8).

Every connection is in exactly one state, changed by `ConnectionPool.move`; for speed, `Machine` and
`LondConnection.ask_ping` set those between which `idle` stays as it is themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from lonc.host.connection import LondConnection
from lonc.host.connection_states import ConnectionState

_IDLE, _PROVING = ConnectionState.IDLE, ConnectionState.PROVING
_CLOSED = ConnectionState.CLOSED


class ConnectionPool:
    """
    A lond's connections by state. They are few, so those in a state are looked for.

    :ivar everyone: all, in the order of creation.
    :ivar idle: ready, without an outstanding request; the most recently used one at the end.
    """

    __slots__ = ("everyone", "idle")

    def __init__(self) -> None:
        self.everyone: list[LondConnection] = []
        self.idle: list[LondConnection] = []

    def add(self, connection: LondConnection) -> None:
        """Add a new connection."""
        self.everyone.append(connection)

    def move(self, connection: LondConnection, state: ConnectionState) -> None:
        """Change the state of a connection; a closed one is removed from the pool."""
        before, connection.state = connection.state, state
        if before is _IDLE:
            self.idle.remove(connection)
        if state is _IDLE:
            self.idle.append(connection)
        elif state is _CLOSED:
            self.everyone.remove(connection)

    def __len__(self) -> int:
        return len(self.everyone)

    def _in(self, *states: ConnectionState) -> list[LondConnection]:
        return [each for each in self.everyone if each.state in states]

    @property
    def connecting(self) -> list[LondConnection]:
        """Those looking up the name, or connecting."""
        return self._in(ConnectionState.CONNECTING)

    @property
    def handshaking(self) -> list[LondConnection]:
        """Those that are connected, but not ready."""
        return self._in(ConnectionState.HANDSHAKING)

    @property
    def owing(self) -> list[LondConnection]:
        """Those with an outstanding request."""
        return self._in(ConnectionState.INTRODUCING, ConnectionState.BUSY, ConnectionState.RETIRING)

    @property
    def proving(self) -> list[LondConnection]:
        """Those with an outstanding ``ping`` of ours."""
        # Once for some sixty answers of a busy lond: without a call for each connection.
        return [each for each in self.everyone if each.state is _PROVING]

    def all(self) -> list[LondConnection]:
        """Return all connections, as a new list."""
        return list(self.everyone)

    # ------------------------------------------------------------------ retiring

    def retire_all(self, which: Callable[[LondConnection], object] = lambda each: True) -> None:
        """Retire all connections, or those of a kind, after their outstanding answers."""
        # Their unsent requests must not be sent on connections that are retired next.
        introducing = ConnectionState.INTRODUCING
        for each in sorted(self.everyone, key=lambda each: each.state is introducing):
            if which(each):
                each.retire()

    def retire_nameless(self, newest: LondConnection) -> None:
        """Retire older connections without names if the newest differs in that or its id."""
        self.retire_all(
            lambda each: (
                each.host_id
                and each.confirmed is None
                and (newest.confirmed is not None or newest.host_id != each.host_id)
            )
        )

    def make_room(self) -> None:
        """
        Retire a connection, so that another can be made; but none that is being made.

        If possible, it is one that no delayed request waits to be proven on.
        """
        usable = [*self.idle, *self.owing, *self.proving]
        for each in sorted(usable, key=lambda each: bool(each.proofs))[:1]:
            each.retire()

    def close_idle(self, since: float) -> None:
        """Close connections that have been idle since then or longer."""
        for each in [each for each in self.idle if each.since <= since]:
            each.close()
