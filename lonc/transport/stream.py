# Twisted's Failure has no annotations:
# mypy: allow-untyped-calls
"""
A connected stream socket as a transport that sends immediately and buffers only the rest.

Twisted's own transports send in the next iteration of the reactor. The event loop is
:class:`lonc.transport.epoll_loop.SocketLoop`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet import error
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.report.events import Logger
from lonc.transport.socket_handle import SocketHandle

# Events of epoll.
IN, OUT, ERROR, HANG_UP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP
#: Reported together with `IN`, if requested: a mark for those whose data is delivered first.
READ_NORMAL = select.EPOLLRDNORM
#: What is reported where data has come to a transport with that mark, and nothing else.
FIRST_IN = IN | READ_NORMAL
_BESIDES_DATA = ~FIRST_IN
#: A transport is reported once for all that has come until then: to be reported until it is read
#: would cost the kernel a look at each socket more. A read that returns less than was asked for has
#: emptied the socket, except where the input ends or an urgent byte is in it, which is reported
#: with the data, and where a client passes descriptors, which none does.
EDGE, MORE_TO_READ = select.EPOLLET, select.EPOLLRDHUP | select.EPOLLPRI

#: Maximum bytes of the usual read: Python itself allocates up to 512 bytes, quickly.
READ_SIZE = 448

#: Maximum bytes of a read where more than `READ_SIZE` bytes have come at once. The buffer is
#: allocated before reading, by the C library, which becomes slow from 65536 bytes on.
MORE = 32768

_read, _write = os.read, os.write

#: What a transport that has ended has to send.
_NOTHING = bytearray()

_DONE = Failure(error.ConnectionDone())
_LOST = Failure(error.ConnectionLost())
_ABORTED = Failure(error.ConnectionAborted())

log = Logger()


class Loop(Protocol):
    """
    The part of the event loop used by transports.

    :ivar late: the last data of transports, which is passed to their `deliver_last` once the data
        of all others has been delivered.
    """

    late: dict[SocketTransport, bytes]

    def change(self, transport: SocketTransport, mask: int) -> None:
        """Change the events of a transport; what is there is reported anew."""

    def classify(self, transport: SocketTransport) -> None:
        """Note whether a transport is usual."""

    def end(self, transport: SocketTransport, reason: Failure) -> None:
        """Call its `disconnect` once the current events have been dispatched."""

    def close(self, descriptor: int) -> None:
        """Close a descriptor once the current events have been dispatched."""

    def unregister(self, descriptor: int) -> None:
        """Stop watching a descriptor."""


@implementer(ITCPTransport, IConsumer, IPushProducer, ISystemHandle)
class SocketTransport(SocketHandle):
    """
    A connected stream socket.

    Unlike Twisted's, it discards data written after `loseConnection`, does not support pull
    producers, and calls `connectionLost` of a half-close protocol when both directions are closed.
    The last data of a connection that another protocol has paused meanwhile may still be delivered.

    :param descriptor: of the socket; it must be non-blocking.
    :param then: called after `connectionLost` of the protocol.
    :param first: whether its data is delivered before that of others.
    :ivar connected: True until `connectionLost` of the protocol.
    :ivar much: whether more than `READ_SIZE` bytes have come at once, and no less since.
    :ivar disconnecting: whether it closes once everything is sent.
    """

    __slots__ = (
        "_loop",
        "_mask",
        "_producer",
        "_shutting",
        "_then",
        "_unsent",
        "disconnecting",
        "much",
        "protocol",
        "reading",
    )

    def __init__(
        self,
        loop: Loop,
        descriptor: int,
        protocol: IProtocol,
        then: Callable[[Failure], object] | None = None,
        first: bool = False,
    ) -> None:
        self._loop = loop
        self.descriptor = descriptor
        self.protocol = protocol
        self.much = False
        self._then = then
        # The events requested while reading; 0 when the other side has closed that direction.
        self.reading = (FIRST_IN if first else IN) | MORE_TO_READ | EDGE
        self._mask = self.reading  # the events currently requested
        self.connected = True
        self.disconnecting = False
        self._unsent: bytearray | None = None  # None as long as data can be sent directly
        self._shutting = False  # writing is no longer allowed
        self._producer: IPushProducer | None = None
        self._socket: socket.socket | None = None

    @property
    def disconnected(self) -> bool:
        """Whether `connectionLost` of the protocol has been called."""
        return not self.connected

    @property
    def unsent(self) -> int:
        """The number of bytes in the write buffer."""
        return len(self._unsent or b"")

    # ------------------------------------------------------------------ writing

    def write(self, data: bytes) -> None:
        """Send as much as possible, and buffer the rest."""
        if self._unsent is None:
            try:
                sent = _write(self.descriptor, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end(_LOST)
                return
            if sent == len(data):
                return
            self._unsent = bytearray(memoryview(data)[sent:])
            self._set_events(self._mask | OUT)
            if self._producer is not None:
                self._producer.pauseProducing()
        elif not (self._shutting or self.disconnecting):
            self._unsent += data

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write several pieces as one."""
        self.write(b"".join(iovec))

    def _flush(self) -> None:
        """Send buffered data, then continue with what waited for it."""
        producer = self._producer if self._unsent else None  # it is paused
        if self._unsent:
            try:
                sent = os.write(self.descriptor, self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self.disconnect(_LOST)
                return
            del self._unsent[:sent]
            if self._unsent:
                return
        self._set_events(self._mask & ~OUT)
        if not (self._shutting or self.disconnecting):
            self._unsent = None
        if producer is not None:
            producer.resumeProducing()
        if self._unsent:
            return  # the producer has written more
        if self.disconnecting:
            if self._producer is None:
                self.disconnect(_DONE)
        elif self._shutting:
            self._shut()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause and resume a push producer depending on the other side's reading."""
        if self._producer is not None:
            raise RuntimeError(f"there is a producer already: {self._producer!r}")
        if not streaming:
            raise ValueError("pull producers are not supported")
        if self.connected:
            self._producer = producer  # type: ignore[assignment]  # a push producer
            if self._unsent and self._producer is not None:
                self._producer.pauseProducing()
        else:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """Remove the producer; continue a close that waited for it."""
        self._producer = None
        if self.disconnecting and not self._unsent:
            self._end(_DONE)

    # ------------------------------------------------------------------ closing

    def loseConnection(self) -> None:
        """Send buffered data, then close; nothing more is read."""
        if self.disconnecting:
            return
        self.disconnecting = True
        self._stop_sending()
        if not self._unsent and self._producer is None:
            self._end(_DONE)
        else:
            self._set_events(self._mask & ~self.reading)

    def abortConnection(self) -> None:
        """Close, and discard unsent data."""
        self._end(_ABORTED)

    def loseWriteConnection(self) -> None:
        """Send buffered data, then close the sending direction."""
        if not self._shutting and not self.disconnecting:
            self._shutting = True
            self._stop_sending()
            self._set_events(self._mask | OUT)

    def _stop_sending(self) -> None:
        """Discard data written from now on."""
        if self._unsent is None:
            self._unsent = bytearray()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self.getHandle().shutdown(socket.SHUT_WR)
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.writeConnectionLost()

    def _end(self, reason: Failure) -> None:
        """Close, and inform the protocol after the current call."""
        if self.connected:
            self.disconnecting = True
            self._stop_sending()
            self._mask = 0
            self._loop.end(self, reason)

    # ------------------------------------------------------------------ reading

    def pauseProducing(self) -> None:
        """Stop reading until `resumeProducing`."""
        self._set_events(self._mask & ~self.reading)

    def resumeProducing(self) -> None:
        """Resume reading."""
        if not self.disconnecting:
            self._set_events(self._mask | self.reading)

    def read_last(self) -> bytes:
        """
        Shut down the receiving direction, and return the unread data, at most 1 MiB.

        Used before closing, so that data received since the last event is not missed.
        """
        pieces = [self._loop.late.pop(self, b"")]
        with contextlib.suppress(OSError):  # no more data, or disconnected
            self.getHandle().shutdown(socket.SHUT_RD)
            while len(pieces) < 16 and (data := os.read(self.descriptor, 65536)):
                pieces.append(data)
        return b"".join(pieces)

    @property
    def unread(self) -> int:
        """The number of bytes that the protocol has not got yet."""
        return super().unread + len(self._loop.late.get(self, b""))

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    def _set_events(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            self._loop.change(self, mask)

    # ------------------------------------------------------------------ events

    @property
    def usual(self) -> bool:
        """Whether it waits for little data, and for nothing else."""
        return self._mask == self.reading != 0 and not self.much

    def ready(self, mask: int) -> None:
        """Handle events while it is not `usual`."""
        try:
            if mask & OUT and self._mask & OUT:
                self._flush()
            elif self._mask & IN:
                try:
                    data = _read(self.descriptor, MORE)
                except OSError as problem:
                    self.read_failed(problem)
                    return
                size = len(data)
                if not size:
                    self.input_ended(mask)
                    return
                if size == MORE:
                    data += self.further_data()
                elif size < READ_SIZE:
                    self.much = False
                    self._loop.classify(self)
                if mask & _BESIDES_DATA:
                    self.received_last(data)
                else:
                    self.protocol.dataReceived(data)
            elif mask & (HANG_UP | ERROR):
                self.disconnect(_LOST if mask & ERROR else _DONE)
        except BaseException:
            self.protocol_failed()

    def further_data(self) -> bytes:
        """
        Return what else has come, at most 1 MiB.

        A protocol must get data that follows an expected line together with it: later, it would
        look like the next line.
        """
        if not self.much:
            self.much = True
            self._loop.classify(self)
        pieces = []
        with contextlib.suppress(OSError):  # no more data, or closed
            for _ in range(32):
                pieces.append(os.read(self.descriptor, MORE))
                if len(pieces[-1]) < MORE:
                    break
            else:
                self._look_again()
        return b"".join(pieces)

    def received_last(self, data: bytes) -> None:
        """
        Deliver data with which more than its arrival was reported: see `MORE_TO_READ`.

        That of a client comes late, because such events are sorted before those of londs.
        """
        if self.reading & READ_NORMAL:
            self.deliver_last(data)
        else:
            self._loop.late[self] = data

    def deliver_last(self, data: bytes) -> None:
        """Do so now, unless it has been closed in the meantime; what is left is reported anew."""
        if not self.disconnecting:
            self._look_again()
            try:
                self.protocol.dataReceived(data)
            except BaseException:
                self.protocol_failed()

    def _look_again(self) -> None:
        """Have what is left to read reported once more."""
        if self._mask:
            self._loop.change(self, self._mask)

    def read_failed(self, problem: OSError) -> None:
        """Handle an error of `read`, including EAGAIN."""
        if not isinstance(problem, BlockingIOError):
            self.disconnect(_LOST)

    def input_ended(self, mask: int) -> None:
        """Handle the end of input; with `HANG_UP` both directions are closed."""
        half = None if mask & HANG_UP else IHalfCloseableProtocol(self.protocol, None)
        if half is None:
            self.disconnect(_DONE)
            return
        self._set_events(self._mask & ~self.reading)
        self.reading = 0
        try:
            half.readConnectionLost()
        except BaseException:
            self.protocol_failed()

    def protocol_failed(self) -> None:
        """Log an exception of the protocol, and end this connection only."""
        reason = Failure()
        log.failure("a fault in {protocol}", reason, protocol=self.protocol)
        self.disconnect(reason)

    def disconnect(self, reason: Failure) -> None:
        """Close, and inform the protocol."""
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = True
        self._unsent = _NOTHING
        self._mask = 0
        if self._socket is not None:
            self._socket.detach()
        self._loop.close(self.descriptor)
        protocol, producer, then = self.protocol, self._producer, self._then
        ended: object = protocol
        # Avoids a reference cycle.
        del self.protocol
        self._producer = self._then = None
        if producer is not None and producer is not ended:
            _tell(producer.stopProducing)
        try:
            protocol.connectionLost(reason)
        except BaseException:
            log.failure("a fault in {protocol}", protocol=protocol)
        if then is not None:
            _tell(then, reason)

    def abandon(self) -> None:
        """Close our descriptor only: another process continues the connection."""
        self._loop.unregister(self.descriptor)
        self.disconnect(_DONE)

    def shut_down(self, reason: Failure) -> None:
        """Close the connection because the reactor stops."""
        self.disconnect(reason)


def _tell(call: Callable[..., object], *reason: Failure) -> None:
    try:
        call(*reason)
    except BaseException:
        log.failure("a fault in {call}", call=call)
