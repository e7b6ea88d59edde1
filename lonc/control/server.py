# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
Managing a running lonc over AMP (row S18): the daemon's side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs
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
from lonc.control.access import Level, Visitor, is_encrypted, visitor_of
from lonc.control.boxes import BoundedAMP
from lonc.control.commands import (
    HOSTS,
    About,
    CloseConnections,
    HandOver,
    ListHosts,
    ManagementCommand,
    Reload,
    Report,
    RereadTable,
    ResetRetries,
    SetDebugLevel,
    Stop,
)
from lonc.control.daemon import Daemon
from lonc.control.errors import (
    BadArguments,
    BadLevel,
    InternalError,
    NotAllowed,
    NotDone,
    ReportFailed,
    UnknownHost,
)
from lonc.control.journal import Journal
from lonc.control.listings import Listings
from lonc.control.steering import Steered, Steering
from lonc.report.logs import PARENT

#: Bytes of a log line that are passed on; a page has room for many hosts that way.
LONGEST_TEXT: Final = 1000

#: Bytes of what is told of a change: AMP has no room for more.
LONGEST_MESSAGE: Final = 60_000

#: Bytes of a command at most; none that lonc knows needs a tenth of it.
LONGEST_BOX: Final = 65536

#: Commands of one connection that are not answered yet, at most.
MOST_COMMANDS: Final = 16

#: Commands of all connections of one level that are not answered yet, at most: two for each.
MOST_OF_A_LEVEL: Final = 64

#: TLS connections at most whose handshake is not complete, and seconds that it may take. Strangers
#: can begin as many as they like.
MOST_HANDSHAKES: Final = 32
HANDSHAKE_LIMIT: Final = 10.0

#: Each command by its name.
_COMMANDS: Final = {
    command.commandName: command
    for command in vars(commands).values()
    if isinstance(command, type) and issubclass(command, ManagementCommand)
}

#: What is told who may not have something, by the level that it takes.
_REFUSALS: Final = {
    Level.SEE: "may see nothing: it is not in loncManagementNames",
    Level.STEER: "may see, and not steer",
    Level.OWN: "may not see that: it is for lonc's own user and root",
}

_NOT_UNDERSTOOD: Final = (amp.UNHANDLED_ERROR_CODE, ManagementCommand.errors[BadArguments])

T = TypeVar("T")


class Places:
    """
    What those of one level share, so that they cannot keep others out.

    :ivar connections: those that are open.
    :ivar under_way: how many commands are not answered yet.
    """

    def __init__(self) -> None:
        self.connections: set[ManagementProtocol] = set()
        self.under_way = 0


@implementer(IHandshakeListener)
class ManagementProtocol(BoundedAMP, TimeoutMixin, Listings, Steering):
    """The daemon's side of one connection."""

    longest_box = LONGEST_BOX

    def __init__(self, factory: ManagementFactory) -> None:
        super().__init__()
        self._factory = factory
        self._daemon = factory.daemon
        self.clock = factory.clock
        self._places: Places | None = None
        self._ending = False
        self._under_way = 0
        self._has_asked = False
        self._silent_since = factory.clock.seconds()

    # AMP's own two would write a log line for each connection, and monitoring makes many.
    def makeConnection(self, transport: ITransport) -> None:
        """Begin; over TLS nobody is known, and gets a place, before the handshake is complete."""
        amp.BinaryBoxProtocol.makeConnection(self, transport)
        self._factory.connections.add(self)
        self.transport.registerProducer(self, True)  # who does not read is not read
        if is_encrypted(transport):
            self.setTimeout(HANDSHAKE_LIMIT)
            self._factory.begin_handshake(self)
        else:
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """Take a place among those who may do as much, with a time limit on silence."""
        self.setTimeout(self._factory.idle_limit)
        self._places = self._factory.admit(self, self._visitor.level)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget what the other side still waits for, and tell the factory."""
        self.setTimeout(None)
        amp.BinaryBoxProtocol.connectionLost(self, reason)
        self.stop_tracing()
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
        Of two connections the lesser one makes room: it ends, has nothing to do, has never asked
        anything, is silent.
        """
        return not self._ending, self._under_way > 0, self._has_asked, self._silent_since

    def resumeProducing(self) -> None:
        """The client has read what waited for it."""
        self._note_progress()
        super().resumeProducing()

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Take a command, and nothing else."""
        self._note_progress()
        if {amp.COMMAND, amp.ANSWER, amp.ERROR}.intersection(box) != {amp.COMMAND}:
            self.refuse("a box is no command")
        elif self._under_way >= MOST_COMMANDS:
            self.refuse(f"{MOST_COMMANDS} commands are under way, and there is another")
        else:
            super().ampBoxReceived(box)

    def refuse(self, why: str) -> None:
        """End the connection: the client does not speak AMP as lonc does."""
        if self.transport is not None and not self._ending:
            self._factory.note_closed(why, "refused")
            self.end()

    def end(self, limit: float = 1.0) -> None:
        """Close it once it has read what it is owed, at most ``limit`` seconds from now."""
        if self._ending:
            return
        self._ending = True
        self.paused = True  # nothing that has come is looked at any more
        self.setTimeout(limit)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def callLater(self, period: float, func: Any) -> IDelayedCall:
        """Time the silence by the factory's clock."""
        return self._factory.clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        """Give up: closing would wait for a client that does not read."""
        self.transport.abortConnection()

    def dispatchCommand(self, box: amp.AmpBox) -> Deferred[amp.AmpBox]:
        """Carry out one command; whatever fails becomes an error that can be sent."""
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
                self.require(command.level, command.__name__)
            except NotAllowed as error:
                code = ManagementCommand.errors[NotAllowed]
                raise amp.RemoteAmpError(code, str(error)) from None
        if self._places is not None and self._places.under_way > MOST_OF_A_LEVEL:
            told = f"{MOST_OF_A_LEVEL} commands of others are under way: try again"
            raise amp.RemoteAmpError(ManagementCommand.errors[NotDone], told)
        result: Deferred[amp.AmpBox] = super().dispatchCommand(box)
        return result

    @property
    def _visitor(self) -> Visitor:
        """Who is there: asked each time, for names in the settings may change."""
        return self._factory.visitor_of(self.transport)

    def require(self, level: Level, what: str) -> None:
        """
        See that whoever asks may have what is asked for.

        :raises lonc.control.errors.NotAllowed: that is not so.
        """
        visitor = self._visitor
        if visitor.level < level:
            self._factory.note_not_allowed(visitor.who, what)
            raise NotAllowed(f"{visitor.who} {_REFUSALS[level]} ({what})")

    def _done(self, result: T) -> T:
        assert self._places is not None
        self._places.under_way -= 1
        self._under_way -= 1
        self._note_progress()
        return result

    def locateResponder(self, name: bytes) -> Any:
        """
        Return what answers a command of lonc's.

        AMP's own would begin TLS, with no certificate that proves anything, and AMP stumbles over
        a name that is not ASCII.
        """
        return super().locateResponder(name) if name in _COMMANDS else None

    def unhandledError(self, failure: Failure) -> None:
        """A command that wants no answer has failed, or its answer cannot be sent."""
        if failure.check(amp.RemoteAmpError) is None:
            self._factory.note_fault(failure, b"with its answer")
        self.refuse("a command that wants no answer has failed")

    def _fit_to_send(self, failure: Failure, command: bytes) -> Failure:
        error = failure.value
        if isinstance(error, BadArguments):
            error = amp.RemoteAmpError(ManagementCommand.errors[BadArguments], str(error))
            failure = Failure(error)
        if isinstance(error, amp.RemoteAmpError):
            error.description = _cut(error.description)
            if error.errorCode in _NOT_UNDERSTOOD:
                self._factory.note_not_understood(error.description)
            return failure
        self._factory.note_fault(failure, command)
        told = "something is wrong inside lonc; its log says what"
        return Failure(amp.RemoteAmpError(ManagementCommand.errors[InternalError], told))

    def listed(self) -> Steered:
        """Return what the listings are of."""
        return self._daemon.operations

    steered = listed

    def chosen(self, host: str) -> str | None:
        """Return which host is meant."""
        if host and host not in self._daemon.host_ids():
            raise UnknownHost(f"no such host: {host}")
        return host or None

    def asked(self, asked: str, host: str = "") -> str | None:
        """Note what is asked for, and return which host is meant."""
        chosen = self.chosen(host)
        self._factory.note_asked(asked, host or PARENT, self._visitor.who)
        return chosen

    @About.responder
    def _about(self) -> dict[str, Any]:
        return attrs.asdict(self._daemon.about())

    @ListHosts.responder
    def _list_hosts(self, after: str) -> dict[str, Any]:
        coming = sorted(host_id for host_id in self._daemon.host_ids() if host_id > after)
        page: list[dict[str, Any]] = []
        size = 0
        for host_id in coming:
            status = self._daemon.status(host_id)
            status = attrs.evolve(status, last_log=_cut(status.last_log))
            host = attrs.asdict(status, recurse=False)
            # One host always fits: its id is a part of a UNIX socket's path.
            size += len(HOSTS.toStringProto([host], self))
            if size > amp.MAX_VALUE_LENGTH:
                break
            page.append(host)
        return {"hosts": page, "more": len(page) < len(coming)}

    @Report.responder
    def _report(self, host: str) -> dict[str, Any]:
        self.asked("report", host)
        try:
            self._daemon.report()
        except OSError as error:
            raise ReportFailed(f"the status file cannot be written: {error}") from error
        return {}

    @ResetRetries.responder
    def _reset_retries(self, host: str) -> dict[str, Any]:
        self._daemon.reset_retries(self.asked("reset retries", host))
        return {}

    @CloseConnections.responder
    def _close_connections(self, host: str) -> dict[str, Any]:
        self._daemon.close_connections(self.asked("close connections", host))
        return {}

    @SetDebugLevel.responder
    def _set_debug_level(self, host: str, level: int) -> dict[str, Any]:
        if not 0 <= level <= 9:
            raise BadLevel(f"{host or 'all hosts'}: {level} is no debug level from 0 to 9")
        self._daemon.set_debug(self.asked(f"debug level {level}", host), level)
        return {}

    @RereadTable.responder
    async def _reread_table(self) -> dict[str, Any]:
        self.asked("read the table again")
        return {"message": _cut(await self._daemon.reread_table(), LONGEST_MESSAGE)}

    @Reload.responder
    async def _reload(self) -> dict[str, Any]:
        self.asked("reload")
        return {"message": _cut(await self._daemon.reload(), LONGEST_MESSAGE)}

    @HandOver.responder
    async def _hand_over(self) -> dict[str, Any]:
        self.asked("hand over to a new process")
        return {"path": await self._daemon.hand_over()}

    @Stop.responder
    def _stop(self) -> dict[str, Any]:
        self.asked("stop")
        self._factory.clock.callLater(0, self._daemon.stop)  # the answer goes first
        return {}


class ManagementFactory(Factory, Journal):
    """
    The daemon's side: listen with it.

    :param daemon: what is managed.
    :param clock: the reactor.
    :param max_connections: open at a time of each level; for one more, one of the same level that
        has nothing to do makes room: that which was silent for longest.
    :param idle_limit: seconds after which a silent client is dropped.
    :param visitor_of: finds out who is at the other end of a connection.
    """

    noisy = False

    def __init__(
        self,
        daemon: Daemon,
        clock: IReactorTime,
        max_connections: int = 32,
        idle_limit: float = 300.0,
        visitor_of: Callable[[Any], Visitor] = visitor_of,
    ) -> None:
        super().__init__(clock)
        self.daemon = daemon
        self.clock = clock
        self.max_connections = max_connections
        self.idle_limit = idle_limit
        self.visitor_of = visitor_of
        self.connections: set[ManagementProtocol] = set()
        self._places = {level: Places() for level in Level}
        self._handshakes: dict[ManagementProtocol, str] = {}
        self._closing: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> ManagementProtocol:
        """Make a connection's protocol."""
        return ManagementProtocol(self)

    def begin_handshake(self, connection: ManagementProtocol) -> None:
        """
        Let a connection go through the handshake.

        For one too many the oldest goes, of the address from which most come.
        """
        if len(self._handshakes) >= MOST_HANDSHAKES:
            ((busiest, _),) = Counter(self._handshakes.values()).most_common(1)
            oldest = next(each for each, host in self._handshakes.items() if host == busiest)
            self.note_closed(f"{MOST_HANDSHAKES} TLS handshakes are under way", "handshakes")
            del self._handshakes[oldest]
            oldest.transport.abortConnection()
        self._handshakes[connection] = getattr(connection.transport.getPeer(), "host", "")

    def admit(self, connection: ManagementProtocol, level: Level) -> Places:
        """Give a connection a place among those of its level."""
        self._handshakes.pop(connection, None)
        places = self._places[level]
        if len(places.connections) >= self.max_connections:
            least = min(places.connections, key=lambda each: each.importance)
            self.note_closed(f"{self.max_connections} are open, and there is another", "full")
            places.connections.discard(least)  # it goes in the next turn
            least.transport.abortConnection()
        places.connections.add(connection)
        return places

    def forget(self, connection: ManagementProtocol) -> None:
        """Take note that a connection has gone."""
        self._handshakes.pop(connection, None)
        self.connections.discard(connection)
        if not self.connections:
            closing, self._closing = self._closing, []
            for waiting in closing:
                waiting.callback(None)

    def disconnect(self, limit: float = 1.0) -> Deferred[None]:
        """
        Close every connection; fires when all are closed. Stop listening before.

        :param limit: seconds for clients to read what they are owed.
        """
        closed: Deferred[None] = Deferred()
        if not self.connections:
            closed.callback(None)
            return closed
        self._closing.append(closed)
        for connection in list(self.connections):
            connection.end(limit)
        return closed


def _cut(text: str, limit: int = LONGEST_TEXT) -> str:
    data = text.encode("utf-8", "backslashreplace")
    return data[:limit].decode("utf-8", "ignore")
