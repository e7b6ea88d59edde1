# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
The daemon's side of the management port, over AMP (row S18).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols import amp
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.control import commands
from lonc.control.access import Caller, Level, ManagementLog, Visitor, is_encrypted, visitor_of
from lonc.control.commands import BoundedAMP, ManagementCommand
from lonc.control.errors import BadArguments, InternalError, NotAllowed, NotDone
from lonc.control.responders import Responders, cut
from lonc.disk.files import is_replaced

#: Maximum size of a command in bytes; lonc's commands need less than a tenth of it.
LONGEST_BOX: Final = 65536

#: Maximum number of unanswered commands of one connection.
MOST_COMMANDS: Final = 16

#: Maximum number of unanswered commands of all connections of one level: two for each.
MOST_OF_A_LEVEL: Final = 64

#: Maximum number of incomplete TLS handshakes, which anyone can begin, and their time limit in
#: seconds.
MOST_HANDSHAKES: Final = 64
HANDSHAKE_LIMIT: Final = 10.0

#: The commands by name.
_COMMANDS: Final = {
    command.commandName: command
    for command in vars(commands).values()
    if isinstance(command, type) and issubclass(command, ManagementCommand)
}

_NOT_UNDERSTOOD: Final = (amp.UNHANDLED_ERROR_CODE, ManagementCommand.errors[BadArguments])

T = TypeVar("T")


class Places:
    """
    The slots of one access level, separate so that one level cannot block another.

    :ivar connections: open connections.
    :ivar under_way: number of unanswered commands.
    """

    def __init__(self) -> None:
        self.connections: set[ManagementProtocol] = set()
        self.under_way = 0


@implementer(IHandshakeListener)
class ManagementProtocol(BoundedAMP, TimeoutMixin):
    """
    The daemon's side of one connection.

    :param make_responders: creates the responders for a caller.
    """

    longest_box = LONGEST_BOX

    def __init__(
        self, factory: ManagementFactory, make_responders: Callable[[Caller], Responders]
    ) -> None:
        # Identified each time, because the names in the settings may change.
        self._caller = Caller(lambda: factory.visitor_of(self.transport), factory.log)
        self._responders = make_responders(self._caller)
        super().__init__(locator=self._responders)
        self._factory = factory
        self._places: Places | None = None
        self._ending = False
        self._under_way = 0
        self._has_asked = False
        self._silent_since = factory.clock.seconds()

    # AMP's versions of these two would log each connection, and monitoring makes many.
    def makeConnection(self, transport: ITransport) -> None:
        """Begin; with TLS the client is only known, and gets a slot, after the handshake."""
        amp.BinaryBoxProtocol.makeConnection(self, transport)
        self._factory.connections.add(self)
        self.transport.registerProducer(self, True)  # do not read from a client that does not read
        if is_encrypted(transport):
            self.setTimeout(HANDSHAKE_LIMIT)
            self._factory.begin_handshake(self)
        else:
            self.handshakeCompleted()

    @property
    def has_begun_tls(self) -> bool:
        """Whether the client has sent any part of its handshake, as far as is known."""
        return getattr(self.transport, "has_begun", False)

    def handshakeCompleted(self) -> None:
        """Take a slot of the caller's level, and start the idle timeout."""
        self.setTimeout(self._factory.idle_limit)
        self._places = self._factory.admit(self, self._caller.level)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Clean up, and notify the factory."""
        self.setTimeout(None)
        amp.BinaryBoxProtocol.connectionLost(self, reason)
        self._responders.close()
        self.transport = None
        if self._places is not None:
            self._places.connections.discard(self)
        self._factory.forget(self)

    def _note_progress(self) -> None:
        if not self._ending:
            self._silent_since = self._factory.clock.seconds()
            self.resetTimeout()

    @property
    def importance(self) -> tuple[bool, bool, bool, float]:
        """
        A sort key: to free a slot, the connection with the smallest is closed. In order of
        precedence: one that is ending, has no command in progress, has never sent one, has been
        silent for longest.
        """
        return not self._ending, self._under_way > 0, self._has_asked, self._silent_since

    def resumeProducing(self) -> None:
        """The client has read buffered data."""
        self._note_progress()
        super().resumeProducing()

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Handle a command; anything else is refused."""
        self._note_progress()
        if {amp.COMMAND, amp.ANSWER, amp.ERROR}.intersection(box) != {amp.COMMAND}:
            self.refuse("a box that is not a command")
        elif self._under_way >= MOST_COMMANDS:
            self.refuse(f"{MOST_COMMANDS} commands are under way, and there is another")
        else:
            super().ampBoxReceived(box)

    def refuse(self, why: str) -> None:
        """Close the connection, because of a violation of the protocol."""
        if self.transport is not None and not self._ending:
            self._factory.log.tell_closed(why, "refused")
            self.end()

    def end(self, limit: float = 1.0) -> None:
        """Close it once the client has read its answers, after at most ``limit`` seconds."""
        if self._ending:
            return
        self._ending = True
        self.paused = True  # ignore data that was already received
        self.setTimeout(limit)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """Use the factory's clock for the timeout."""
        return self._factory.clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        """Abort: closing would wait for a client that does not read."""
        self.transport.abortConnection()

    def dispatchCommand(self, box: amp.AmpBox) -> Deferred[amp.AmpBox]:
        """Execute a command; any exception becomes an error that can be sent."""
        assert self._places is not None
        self._places.under_way += 1
        self._under_way += 1
        self._has_asked = True
        result: Deferred[amp.AmpBox] = maybeDeferred(self._dispatch, box)
        result.addBoth(self._done)
        return result.addErrback(self._fit_to_send, box[amp.COMMAND])

    def _dispatch(self, box: amp.AmpBox) -> Deferred[amp.AmpBox]:
        command = _COMMANDS.get(box[amp.COMMAND])
        if command is not None:
            try:
                self._caller.require(command.level, command.__name__)
            except NotAllowed as error:
                code = ManagementCommand.errors[NotAllowed]
                raise amp.RemoteAmpError(code, str(error)) from None
        if self._places is not None and self._places.under_way > MOST_OF_A_LEVEL:
            told = f"{MOST_OF_A_LEVEL} commands of others are under way: try again"
            raise amp.RemoteAmpError(ManagementCommand.errors[NotDone], told)
        result: Deferred[amp.AmpBox] = super().dispatchCommand(box)
        return result

    def _done(self, result: T) -> T:
        assert self._places is not None
        self._places.under_way -= 1
        self._under_way -= 1
        self._note_progress()
        return result

    def unhandledError(self, failure: Failure) -> None:
        """Handle the failure of a command without an answer, or of sending an answer."""
        if failure.check(amp.RemoteAmpError) is None:
            self._factory.log.tell_fault(failure, b"with its answer")
        self.refuse("a command without an answer has failed")

    def _fit_to_send(self, failure: Failure, command: bytes) -> Failure:
        error = failure.value
        if isinstance(error, BadArguments):
            error = amp.RemoteAmpError(ManagementCommand.errors[BadArguments], str(error))
            failure = Failure(error)
        if isinstance(error, amp.RemoteAmpError):
            error.description = cut(error.description)
            if error.errorCode in _NOT_UNDERSTOOD:
                message = "Management command not understood: {why}{more}"
                self._factory.log.tell_refused("not understood", message, why=error.description)
            return failure
        self._factory.log.tell_fault(failure, command)
        told = "internal error of lonc; see its log"
        if is_replaced():
            told = "lonc has been reinstalled since it started: restart it"
        return Failure(amp.RemoteAmpError(ManagementCommand.errors[InternalError], told))


class ManagementFactory(Factory):
    """
    The server factory of the management port.

    :param make_responders: creates the responders for a caller.
    :param clock: the reactor.
    :param max_connections: maximum number of open connections of each level; for another one, the
        least important one of that level is closed.
    :param idle_limit: seconds after which a silent client is closed.
    :param visitor_of: identifies the client of a connection.
    """

    noisy = False

    def __init__(
        self,
        make_responders: Callable[[Caller], Responders],
        clock: IReactorTime,
        max_connections: int = 32,
        idle_limit: float = 300.0,
        visitor_of: Callable[[ITransport], Visitor] = visitor_of,
    ) -> None:
        super().__init__()
        self._make_responders = make_responders
        self.log = ManagementLog(clock)
        self.clock = clock
        self.max_connections = max_connections
        self.idle_limit = idle_limit
        self.visitor_of = visitor_of
        self.connections: set[ManagementProtocol] = set()
        self._places = {level: Places() for level in Level}
        self._handshakes: dict[ManagementProtocol, str] = {}
        self._closing: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> ManagementProtocol:
        """Create the protocol of a connection."""
        return ManagementProtocol(self, self._make_responders)

    def begin_handshake(self, connection: ManagementProtocol) -> None:
        """
        Register a connection whose TLS handshake begins.

        If there are too many, another one is closed: first those that have sent nothing, then those
        of the address with the most, then the oldest.
        """
        if len(self._handshakes) >= MOST_HANDSHAKES:
            counts = Counter(self._handshakes.values())
            least = min(
                self._handshakes,
                key=lambda each: (each.has_begun_tls, -counts[self._handshakes[each]]),
            )
            self.log.tell_closed(f"{MOST_HANDSHAKES} TLS handshakes are under way", "handshakes")
            del self._handshakes[least]
            least.transport.abortConnection()
        self._handshakes[connection] = getattr(connection.transport.getPeer(), "host", "")

    def admit(self, connection: ManagementProtocol, level: Level) -> Places:
        """Give a connection a slot of its level."""
        self._handshakes.pop(connection, None)
        places = self._places[level]
        if len(places.connections) >= self.max_connections:
            least = min(places.connections, key=lambda each: each.importance)
            self.log.tell_closed(f"{self.max_connections} are open, and there is another", "full")
            places.connections.discard(least)  # connectionLost follows in the next iteration
            least.transport.abortConnection()
        places.connections.add(connection)
        return places

    def forget(self, connection: ManagementProtocol) -> None:
        """Remove a connection that has ended."""
        self._handshakes.pop(connection, None)
        self.connections.discard(connection)
        if not self.connections:
            closing, self._closing = self._closing, []
            for waiting in closing:
                waiting.callback(None)

    def disconnect(self, limit: float = 1.0) -> Deferred[None]:
        """
        Close all connections; fires when they are closed. Stop listening first.

        :param limit: seconds for clients to read their answers.
        """
        closed: Deferred[None] = Deferred()
        if not self.connections:
            closed.callback(None)
            return closed
        self._closing.append(closed)
        for connection in list(self.connections):
            connection.end(limit)
        return closed
