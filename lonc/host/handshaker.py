"""
The beginning of a connection to a lond: connecting, and the handshake (protocol, section 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Interface

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport

from lonc.host.connection_states import Trouble
from lonc.wire.handshake import (
    TAKE_LIMIT,
    Handshake,
    HandshakeError,
    Omission,
    OtherLondError,
    State,
)

#: Seconds between checks whether a lond has deleted the key file after ``ok:local``.
_LOOK = 0.02


class Attempt(Interface):
    """Connects: :class:`lonc.host.connection_factory.LondConnectionFactory`."""

    clock: IReactorTime

    def give_up(self) -> None:
        """Stop trying."""


class Beginner(Interface):
    """The connection."""

    connected: int
    transport: ITCPTransport

    def accepted(self, handshake: Handshake) -> None:
        """Handle the end of the handshake."""

    def not_made(self, trouble: Trouble, message: str) -> None:
        """Handle a failure before that."""


class Handshaker:
    """
    Makes a connection ready for requests. It is dropped then, since there are thousands.

    :ivar attempt: connects.
    :ivar omission: the step that the next handshake should omit, after the lond failed at it.
    """

    def __init__(self, connection: Beginner, handshake: Handshake) -> None:
        self._connection = connection
        self._handshake = handshake
        self._look: IDelayedCall | None = None
        self.attempt: Attempt | None = None
        self.omission: Omission | None = None

    @property
    def host_id(self) -> str:
        """The host id that the lond is asked for."""
        return self._handshake.facts.host_id

    @property
    def stage(self) -> str:
        """The name of the handshake's state."""
        return self._handshake.state.value

    def start(self) -> None:
        """Start the handshake."""
        self._go_on(self._handshake.start)

    def receive(self, data: bytes) -> None:
        """Handle data of the lond."""
        self._go_on(lambda: self._handshake.receive(data))

    def _go_on(self, step: Callable[[], bytes], until: float = 0.0) -> None:
        """
        Perform a step of the handshake, which may be the last.

        :param until: the time limit for the lond to delete the key file after ``ok:local``.
        """
        transport = self._connection.transport
        try:
            answer = step()
        except HandshakeError as error:
            if error.farewell:
                transport.write(error.farewell)
            is_other = isinstance(error, OtherLondError)
            trouble = Trouble.OTHER_LOND if is_other else Trouble.HANDSHAKE
            self._connection.not_made(trouble, str(error))
            return
        if answer:
            transport.write(answer)
        if self._handshake.state is State.TAKING_KEY_FILE:
            self._await_key_file(until)
        if self._handshake.state is State.IDLE:
            self._connection.accepted(self._handshake)

    def _await_key_file(self, until: float) -> None:
        """Accept ``ok:local`` once the key file is gone: nobody else could have deleted it."""
        assert self.attempt is not None
        clock = self.attempt.clock
        until = until or clock.seconds() + TAKE_LIMIT
        if clock.seconds() >= until:
            message = "it says ok:local, but has not taken the key file"
            self._connection.not_made(Trouble.HANDSHAKE, message)
            return
        self._look = clock.callLater(_LOOK, self._go_on, self._handshake.check_key_file, until)

    def fail(self) -> None:
        """Determine what the next handshake should omit."""
        self.omission = self._handshake.fail()

    def close(self) -> None:
        """Stop connecting, and clean up a handshake that will not be completed."""
        self._handshake.close()
        if self._look is not None and self._look.active():
            self._look.cancel()
        if self.attempt is not None and not self._connection.connected:
            self.attempt.give_up()
