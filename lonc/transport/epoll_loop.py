# Twisted's Failure has no annotations:
# mypy: allow-untyped-calls
"""
Event dispatch for all sockets on one epoll instance, which the reactor watches as a single reader.

With Twisted's own transports the reactor handles each socket itself; here `SocketLoop.doRead`
dispatches everything that has arrived. It follows three rules:

* `connectionLost` is never called while a protocol calls its transport, but after the current
  events have been dispatched.
* No descriptor is closed while events are dispatched, so that its number is not reused and an event
  of the old socket cannot reach a new one.
* An ordinary read or write creates no Deferred, timer or log message.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from operator import itemgetter
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.report.events import Logger
from lonc.transport.stream import EDGE, FIRST_IN, IN, OUT, READ_SIZE, SocketTransport

#: Maximum events per poll.
EVENTS = 256

#: Maximum polls per iteration of the reactor, which itself costs 3 µs. At most some 2,000 events,
#: about 10 ms, are handled per iteration.
LOOKS = 8

_mask_of = itemgetter(1)

log = Logger()


class Watched(Protocol):
    """Handles the events of a descriptor."""

    def ready(self, mask: int) -> None:
        """Handle the epoll events in this mask."""

    def shut_down(self, reason: Failure) -> None:
        """Close the descriptor because the reactor stops."""


class Reactor(Protocol):
    """The part of the reactor used here."""

    def addReader(self, reader: IReadDescriptor) -> object:
        """Watch a descriptor."""

    def removeReader(self, reader: IReadDescriptor) -> object:
        """Stop watching it."""

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object
    ) -> IDelayedCall:
        """Call a function after a delay in seconds."""

    def seconds(self) -> float:
        """Return the time."""


class Moment:
    """
    The time of the events being handled.

    One poll returns many events, and reading the clock for each would cost as much as a call.

    :ivar now: in seconds of the reactor's clock while events are handled, else 0.0.
    """

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0.0


@implementer(IReadDescriptor)
class SocketLoop:
    """
    The sockets of one epoll instance, which is registered with the reactor while there are any.

    :param reactor: watches the epoll descriptor, and provides the time.
    :ivar moment: the time of the events being handled.
    :ivar late: the last data of clients, which is delivered after the data of all others.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.moment = Moment()
        self._epoll: select.epoll | None = None
        #: By descriptor, those that only wait for little data.
        self._usual: list[SocketTransport | None] = []
        self._others: dict[int, Watched] = {}
        self._events: list[tuple[int, int]] = []  # current
        self.late: dict[SocketTransport, bytes] = {}
        self._ending: list[tuple[SocketTransport, Failure]] = []
        self._closing: list[int] = []
        self._closed: list[Deferred[None]] = []
        self._busy = False  # `_settle` will be called in this iteration
        self._called = False  # `_settle_now` is scheduled

    # ------------------------------------------------------------------ registration

    def adopt(self, connected: socket.socket, protocol: IProtocol) -> SocketTransport:
        """Take over a connected stream socket; its object is detached."""
        connected.setblocking(False)
        transport = SocketTransport(self, connected.detach(), protocol)
        self.start(transport)
        return transport

    def accept(self, descriptor: int, protocol: IProtocol) -> None:
        """Serve a new client, and try to read after the current events."""
        self.start(SocketTransport(self, descriptor, protocol))
        self._events.append((descriptor, IN))  # it has usually sent its request

    def start(self, transport: SocketTransport) -> None:
        """Connect a transport with its protocol, and start reading."""
        descriptor = transport.descriptor
        try:
            (self._epoll or self._begin()).register(descriptor, transport.reading)
        except OSError:
            os.close(descriptor)
            raise
        usual = self._usual
        if descriptor >= len(usual):
            self._reserve(descriptor)
        usual[descriptor] = transport
        try:
            transport.protocol.makeConnection(transport)
        except BaseException:
            transport.protocol_failed()

    def register(self, descriptor: int, watched: Watched, mask: int) -> None:
        """Register an object for events of a descriptor."""
        (self._epoll or self._begin()).register(descriptor, mask)
        self._reserve(descriptor)
        self._others[descriptor] = watched

    def set_events(self, descriptor: int, mask: int) -> None:
        """Change the events of a descriptor; 0 for none."""
        assert self._epoll is not None
        self._epoll.modify(descriptor, mask)

    def unregister(self, descriptor: int) -> None:
        """Stop watching a descriptor, even if another process keeps it open."""
        assert self._epoll is not None
        self._others.pop(descriptor, None)
        self._epoll.unregister(descriptor)

    def change(self, transport: SocketTransport, mask: int) -> None:
        """Change the events of a transport; what is there is reported anew."""
        # With two kinds of events only one of them is handled at a time.
        self.set_events(transport.descriptor, mask & ~EDGE if mask & OUT else mask)
        self.classify(transport)

    def classify(self, transport: SocketTransport) -> None:
        """Note whether a transport is usual."""
        descriptor = transport.descriptor
        if transport.usual:
            self._others.pop(descriptor, None)
            self._usual[descriptor] = transport
        else:
            self._usual[descriptor] = None
            self._others[descriptor] = transport

    def _reserve(self, descriptor: int) -> None:
        """Make room for a descriptor in the list."""
        missing = descriptor + 1 - len(self._usual)
        if missing > 0:
            self._usual.extend([None] * missing)

    def _begin(self) -> select.epoll:
        """Create the epoll instance for the first socket."""
        epoll = self._epoll = select.epoll()
        self.reactor.addReader(self)
        return epoll

    def _rest(self) -> None:
        """Close the epoll instance when there are no sockets."""
        rests = not (self._others or self._ending or self._closing or any(self._usual))
        if self._epoll and rests:
            self.reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # ------------------------------------------------------------------ events

    @property
    def behind(self) -> bool:
        """Whether there are unhandled events."""
        if self._epoll is None:
            return False
        waiting = select.poll()  # epoll itself would report them only now
        waiting.register(self._epoll, select.POLLIN)
        return bool(waiting.poll(0))

    def doRead(self) -> None:
        """Dispatch events."""
        if self._epoll is None:
            return
        poll, read = self._epoll.poll, os.read
        usual, others = self._usual, self._others
        seconds = self.reactor.seconds
        self._busy = True
        try:
            for _ in range(LOOKS):
                events = self._events = poll(0, EVENTS)
                if not events:
                    break
                self.moment.now = seconds()
                # READ_NORMAL first: unrequested data of a lond is noticed before a client's request
                # can use that connection. What is higher is the end of input: see received_last().
                if len(events) > 1:
                    events.sort(key=_mask_of, reverse=True)
                for descriptor, mask in events:
                    transport = usual[descriptor]
                    if transport is None:
                        watched = others.get(descriptor)
                        if watched is not None:  # otherwise it has ended since the poll
                            try:
                                watched.ready(mask)
                            except BaseException:
                                log.failure("a fault in the events of {watched}", watched=watched)
                        continue
                    try:
                        data = read(descriptor, READ_SIZE)
                    except OSError as problem:
                        transport.read_failed(problem)
                        continue
                    if not data:
                        transport.input_ended(mask)
                        continue
                    if len(data) == READ_SIZE:
                        data += transport.further_data()
                    try:
                        # Separate calls for each kind, so that Python can specialise them.
                        if mask == IN:  # noqa: SIM114
                            transport.protocol.dataReceived(data)
                        elif mask == FIRST_IN:
                            transport.protocol.dataReceived(data)
                        else:
                            transport.received_last(data)
                    except BaseException:
                        transport.protocol_failed()
                if self.late:
                    self._deliver_late()
                if self._ending or self._closing:
                    self._settle()
                if self._epoll is None:  # a protocol has stopped the reactor
                    break
        finally:
            self._busy = False
            self.moment.now = 0.0
        self._rest()

    def connectionLost(self, reason: Failure) -> None:
        """End all transports because the reactor stops."""
        self._busy = True
        for watched in [*filter(None, self._usual), *self._others.values()]:
            watched.shut_down(reason)
        self._settle_now()

    def fileno(self) -> int:
        """Return the epoll descriptor."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """Return the prefix of log messages written during `doRead`."""
        return "sockets"

    def _deliver_late(self) -> None:
        while self.late:
            transport = next(iter(self.late))
            transport.deliver_last(self.late.pop(transport))

    # ------------------------------------------------------------------ closing

    def end(self, transport: SocketTransport, reason: Failure) -> None:
        """Disconnect a transport once the current events have been dispatched."""
        self._usual[transport.descriptor] = None
        self._others.pop(transport.descriptor, None)
        self._ending.append((transport, reason))
        if not self._busy:
            self._settle_soon()

    def close(self, descriptor: int) -> None:
        """Close a descriptor once the current events have been dispatched."""
        usual = self._usual
        if descriptor < len(usual) and usual[descriptor] is not None:
            usual[descriptor] = None
        else:
            self._others.pop(descriptor, None)
        self._closing.append(descriptor)
        if not self._busy:
            self._settle_soon()

    def when_closed(self) -> Deferred[None]:
        """Fire when everything to be closed is closed."""
        closed = Deferred[None]()
        self._closed.append(closed)
        return closed

    def _settle_soon(self) -> None:
        if not self._called:
            self._called = True
            self.reactor.callLater(0, self._settle_now)

    def _settle_now(self) -> None:
        self._called = False
        self._busy = True
        try:
            self._settle()
        finally:
            self._busy = False
        self._rest()

    def _settle(self) -> None:
        """Disconnect transports, then close descriptors."""
        while self._ending or self._closing or self._closed:
            ending, self._ending = self._ending, []
            for transport, reason in ending:
                transport.disconnect(reason)
            closing, self._closing = self._closing, []
            for descriptor in closing:
                try:
                    os.close(descriptor)
                except OSError:
                    log.failure("descriptor {descriptor} is not ours", descriptor=descriptor)
            closed, self._closed = self._closed, []
            for waiting in closed:
                waiting.callback(None)
