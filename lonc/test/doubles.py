# Twisted's testing module has no annotations:
# mypy: allow-untyped-calls
"""
A network in memory, a lond that does as it is told, and clients: what the tests of a request's way
stand on.

All time is a Clock's, and nothing arrives before the Clock's next turn, as with real sockets.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHalfCloseableProtocol,
    IListeningPort,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.cipher import SessionCipher, session_key
from lonc.hosts import Host
from lonc.request import Cause
from lonc.settings import Settings

#: The own host id, and that of the lond, in all these tests.
OWN = "l1"
LOND = "l2"
BUILD_KEY = b"0123456789ABCDEF0123456789ABCDEF"
CHALLENGE = b"1234567890"

#: An address, where one is asked for and nobody looks at it.
NOWHERE = UNIXAddress(None)

#: Bytes that one read takes at most.
READ_SIZE = 65536


def a_host(host_id: str = LOND, address: str | None = "127.0.0.2", name: str = "l2.test") -> Host:
    """Return a row of the table."""
    return Host(id=host_id, domain="d", role="library", name=name, address=address, line=1)


def some_settings(folder: str = "/nowhere", **changes: Any) -> Settings:
    """Return settings whose folders are all the same one."""
    folders = dict.fromkeys(("tab_dir", "sock_dir", "daemons_dir", "doc_root"), folder)
    return Settings(**{"config_file": "loncapa.conf", "host_id": OWN, **folders, **changes})


class Wire(StringTransport):
    """
    Our end of a connection. The other end is the test.

    :ivar room: bytes that the other end's buffers still take.
    :ivar pause_above: bytes of it that are let pass before the producer is paused.
    :ivar aborted: whether our side cut it.
    :ivar half_closed: whether our side has said all.
    :ivar closed: whether the connection is no more.
    :ivar heard: is told what arrives at the other end, a turn later.
    """

    def __init__(self, clock: Clock, protocol: Protocol, room: float = float("inf")) -> None:
        super().__init__()
        self._clock = clock
        self._protocol = protocol
        self.room = room
        self._unsent = b""
        self.pause_above = 0
        self.aborted = False
        self.half_closed = False
        self.closed = False
        self.heard: Callable[[bytes], None] = lambda data: None
        self._asked_to_pause = False
        self._on_its_way = bytearray()
        self._inbox = bytearray()
        self._ended = False

    # Our side.

    @property
    def unsent(self) -> int:
        """How many bytes did not fit."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """
        Send what there is room for; ask the producer to pause when too much is left.

        What is written after `loseConnection` is dropped.
        """
        if self.disconnecting or self.half_closed:
            return
        self._unsent += data
        self._flush()
        too_much = len(self._unsent) > self.pause_above
        if too_much and self.producer is not None and not self._asked_to_pause:
            self._asked_to_pause = True
            self.producer.pauseProducing()

    def _flush(self) -> None:
        size = int(min(len(self._unsent), self.room))
        sent, self._unsent = self._unsent[:size], self._unsent[size:]
        self.room -= size
        if sent:
            super().write(sent)
            if not self._on_its_way:
                self._clock.callLater(0, self._arrive)
            self._on_its_way += sent

    def _arrive(self) -> None:
        sent = bytes(self._on_its_way)
        self._on_its_way.clear()
        self.heard(sent)

    def loseConnection(self) -> None:
        """Close once all is sent."""
        if not self.disconnecting:
            self.disconnecting = True
            if not self._unsent and self.producer is None:
                self._clock.callLater(0, self.end, ConnectionDone())

    def loseWriteConnection(self) -> None:
        """Say that nothing more will be sent."""
        self.half_closed = True

    def abortConnection(self) -> None:
        """Close now."""
        if not self.aborted:
            self.aborted = self.disconnecting = True
            self._unsent = b""
            self._clock.callLater(0, self.end, ConnectionAborted())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing waits here."""

    def unregisterProducer(self) -> None:
        """Forgive a second call, as Twisted's transports do; a close that waited goes on."""
        self.producer = None
        if self.disconnecting and not self._unsent:
            self._clock.callLater(0, self.end, ConnectionDone())

    def resumeProducing(self) -> None:
        """Read on, at the next turn."""
        super().resumeProducing()
        self._clock.callLater(0, self._deliver)

    # The other side.

    @property
    def unread(self) -> int:
        """Bytes that arrived and that our side has not read."""
        return len(self._inbox)

    def deliver(self, data: bytes) -> None:
        """Let bytes arrive at our side."""
        self._inbox += data
        self._deliver()

    def finish(self) -> None:
        """Let the end of the other side's bytes arrive."""
        self._ended = True
        self._deliver()

    def _deliver(self) -> None:
        if self.disconnecting or self.closed or self.producerState == "paused":
            return
        data = bytes(self._inbox[:READ_SIZE])
        del self._inbox[:READ_SIZE]
        if data:
            self._protocol.dataReceived(data)
        if self._inbox:
            self._clock.callLater(0, self._deliver)
        if self._ended and not self._inbox and self.producerState == "producing":
            self._ended = False
            if self.closed or self.disconnecting:
                return
            if IHalfCloseableProtocol.providedBy(self._protocol):
                self._protocol.readConnectionLost()
            else:
                self.end(ConnectionDone())

    def take(self, size: float = float("inf")) -> None:
        """Let the other side read so many bytes, and so make room."""
        self.room += size
        self._flush()
        if not self._unsent and not self.closed:
            if self.producer is not None and self._asked_to_pause:
                self._asked_to_pause = False
                self.producer.resumeProducing()
            elif self.disconnecting and self.producer is None:
                self._clock.callLater(0, self.end, ConnectionDone())

    def end(self, error: Exception | None = None) -> None:
        """Let the connection be lost."""
        if not self.closed:
            self.closed = self.disconnecting = True
            self._protocol.connectionLost(Failure(error or ConnectionLost()))


class ScriptedLond:
    """
    A lond's end of one connection: it speaks the handshake as one of the seed's time does, and
    answers as it is told.

    :ivar asked: the requests that came, with their newlines, deciphered.
    :ivar raw: all lines that came.
    :ivar answer: request -> what to say to it; None: nothing, the test will speak.
    """

    def __init__(self, wire: Wire, own_id: str = LOND, caller: str = OWN) -> None:
        self.wire = wire
        wire.heard = self._hear
        self.asked: list[bytes] = []
        self.raw: list[bytes] = []
        self.answer: Callable[[bytes], bytes | None] = lambda request: None
        self.stalls_at = b""  # the line of the handshake that it does not answer
        self.cipher = SessionCipher(session_key(own_id, caller, BUILD_KEY))
        self._script = {
            b"init\n": CHALLENGE,
            b"init": CHALLENGE,  # and whatever follows it
            CHALLENGE + b"\n": b"ok",
            b"version\n": b"unknown_cmd",
            b"sethost": b"unknown_cmd",
            b"ekey\n": BUILD_KEY,
        }
        self._data = b""

    def know_hosts(self) -> None:
        """Be a lond of later releases, that can serve several host ids."""
        self._script |= {b"version\n": b"$Revision: 1.400 $", b"sethost": b"ok"}

    def _hear(self, data: bytes) -> None:
        *lines, self._data = (self._data + data).split(b"\n")
        for line in lines:
            self._line(line + b"\n")

    def _line(self, line: bytes) -> None:
        self.raw.append(line)
        step = self._script.pop(line, None) or self._script.pop(line.partition(b":")[0], None)
        if line == b"ekey\n":
            self._script.clear()
        if line == self.stalls_at:
            return
        if step is not None:
            self.say(step + b"\n")
            return
        if line.startswith(b"enc:"):
            line = b"encrypt:" + self.cipher.decrypt(line[:-1]) + b"\n"
        self.asked.append(line)
        answer = self.answer(line)
        if answer is not None:
            self.say(answer)

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.wire.deliver(data)

    def close(self) -> None:
        """Hang up."""
        self.wire.end(ConnectionDone())


def echo(request: bytes) -> bytes:
    """Answer a request with itself, so that nobody can mistake it for another's."""
    return b"re:" + request


@implementer(IConnector)
class Attempt:
    """
    A connection that is asked for.

    :ivar over: whether it was made, failed, or was given up.
    :ivar given_up: whether our side gave it up.
    """

    def __init__(
        self, network: FakeNetwork, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> None:
        self._network = network
        self._factory = factory
        self.host = host
        self.port = port
        self.timeout = timeout
        self.over = False
        self.given_up = False
        self._timer = network.clock.callLater(timeout, self.fail, TimeoutError())

    def accept(self) -> ScriptedLond:
        """Make the connection."""
        self._end()
        protocol = self._factory.buildProtocol(NOWHERE)
        assert isinstance(protocol, Protocol)
        wire = Wire(self._network.clock, protocol)
        lond = ScriptedLond(wire)
        self._network.londs.append(lond)
        self._network.prepare(lond)
        protocol.makeConnection(wire)
        return lond

    def fail(self, error: Exception) -> None:
        """Let it fail."""
        self._end()
        self._factory.clientConnectionFailed(self, Failure(error))

    def refuse(self) -> None:
        """Nobody listens."""
        self.fail(ConnectionRefusedError())

    def _end(self) -> None:
        assert not self.over
        self.over = True
        if self._timer.active():
            self._timer.cancel()

    def disconnect(self) -> None:
        """Give it up."""
        if not self.over:
            self.given_up = True
            self.fail(UserError())

    def stopConnecting(self) -> None:
        """Give it up."""
        self.disconnect()

    def connect(self) -> None:
        """Not used."""

    def getDestination(self) -> IAddress:
        """Not used."""
        return NOWHERE


@implementer(IListeningPort)
class FakePort:
    """
    A listening UNIX socket: the file is real, the clients are the test's.

    :ivar factory: makes the protocols of its clients.
    :ivar closed: whether it has stopped.
    """

    def __init__(self, network: FakeNetwork, path: str, factory: Factory, mode: int) -> None:
        self.factory = factory
        self.path = path
        self.closed = False
        self._network = network
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        os.chmod(path, mode)
        self._socket.listen()
        self._inode = os.stat(path).st_ino

    def startListening(self) -> None:
        """It does already."""

    def stopListening(self) -> Deferred[None]:
        """Stop at the next turn, as a reactor does; the file goes then, if it is the port's own."""
        stopped: Deferred[None] = Deferred()
        self._network.clock.callLater(0, self._stop, stopped)
        return stopped

    def _stop(self, stopped: Deferred[None]) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        self.let_go()
        stopped.callback(None)

    def let_go(self) -> None:
        """Close the socket without a word."""
        self._socket.close()
        self.closed = True

    def getHost(self) -> IAddress:
        """Not used."""
        return NOWHERE


class FakeNetwork:
    """
    Listens and connects in memory.

    :ivar ports: every socket that was listened on, the latest last.
    :ivar backlogs: of each of them.
    :ivar attempts: every connection that was asked for, in order.
    :ivar londs: those that were made.
    :ivar on_connect: what becomes of an attempt, a turn later: by default it is accepted.
    :ivar prepare: is shown each new lond before anything passes.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ports: list[FakePort] = []
        self.backlogs: list[int] = []
        self.attempts: list[Attempt] = []
        self.londs: list[ScriptedLond] = []
        self.on_connect: Callable[[Attempt], object] = Attempt.accept
        self.prepare: Callable[[ScriptedLond], None] = lambda lond: None

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> FakePort:
        """Listen."""
        port = FakePort(self, path, factory, mode)
        self.ports.append(port)
        self.backlogs.append(backlog)
        return port

    def connectTCP(self, host: str, port: int, factory: ClientFactory, timeout: float) -> Attempt:
        """Connect."""
        attempt = Attempt(self, host, port, factory, timeout)
        self.attempts.append(attempt)
        self.clock.callLater(0, self._decide, attempt)
        return attempt

    def _decide(self, attempt: Attempt) -> None:
        if not attempt.over:
            self.on_connect(attempt)

    @property
    def open_londs(self) -> list[ScriptedLond]:
        """The connections to londs that neither side has closed."""
        return [lond for lond in self.londs if not lond.wire.disconnecting]


def leave_pending(attempt: Attempt) -> None:
    """Let an attempt hang until its time is over: for `on_connect`."""


class FakeClient:
    """A client of a listener. Whatever happens in its protocol's methods happens at once."""

    def __init__(self, clock: Clock, factory: Factory, room: float = float("inf")) -> None:
        protocol = factory.buildProtocol(NOWHERE)
        assert isinstance(protocol, Protocol)
        self.wire = Wire(clock, protocol, room)
        protocol.makeConnection(self.wire)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.wire.deliver(data)

    def half_close(self) -> None:
        """Say that nothing more will come, and stay."""
        self.wire.finish()

    def hang_up(self) -> None:
        """Go."""
        self.wire.end(ConnectionDone())

    @property
    def read(self) -> bytes:
        """All that it could read so far."""
        value: bytes = self.wire.value()
        return value

    @property
    def answers(self) -> list[bytes]:
        """What it could read so far, by lines."""
        *lines, rest = self.read.split(b"\n")
        return [line + b"\n" for line in lines] + ([rest] if rest else [])

    @property
    def closed(self) -> bool:
        """Whether its connection is no more."""
        return self.wire.closed


class NotedAsker:
    """An asker that notes how its request ended, every time it is told."""

    def __init__(self) -> None:
        self.outcomes: list[bytes | Cause] = []

    def answered(self, reply: bytes) -> None:
        self.outcomes.append(reply)

    def lost(self, cause: Cause) -> None:
        self.outcomes.append(cause)


class NoJitter(Random):
    """Chance without chance: always the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b
