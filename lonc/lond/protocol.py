# Twisted's TimeoutMixin has no annotations:
# mypy: allow-untyped-calls
"""The server side of the protocol between lonc and lond (protocol, sections 2 to 4 and 9)."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.config.key_files import KeyFileError, KeyFolder
from lonc.lond.commands import SECRET, CommandError, Commands
from lonc.lond.faults import Close, Fault, Faults, Step
from lonc.lond.store import Store
from lonc.report.events import Logger
from lonc.wire.cipher import FrameError, SessionCipher, session_key
from lonc.wire.framing import LineBuffer, LineTooLong
from lonc.wire.tls import TLSError, TLSPhase

log = Logger()

#: Bytes of a line and total seconds of the handshake.
_HANDSHAKE_LINE: Final = 4096
_HANDSHAKE_LIMIT: Final = 60.0
#: Bytes of a request: lonc's 16 MiB, encrypted.
LINE_LIMIT: Final = 33 * 1024 * 1024
#: Seconds without a byte from the caller: twice the hour after which a lonc closes.
IDLE_LIMIT: Final = 7200.0
_NO_FAULT: Final = Fault()
#: Seconds for a caller to read the last answer after the lond has closed the connection.
_CLOSE_LIMIT: Final = 5.0


class _Transport(ITCPTransport, IConsumer, IPushProducer):
    """The interfaces of its transport that a connection needs."""


class _Ended(Exception):
    """
    The lond ends the connection.

    :ivar farewell: what it sends before.
    """

    def __init__(self, farewell: bytes = b"") -> None:
        super().__init__()
        self.farewell = farewell


@implementer(IPushProducer)
class LondProtocol(TimeoutMixin, Protocol):
    """
    One connection: the handshake, then requests and replies until one side closes it.

    The conversation is a coroutine, which waits for data, for the pauses of faults, and for a
    caller that does not read its replies. Every wait has a time limit, after which the connection
    is aborted.

    :ivar closed: fires when the connection is closed.
    """

    transport: _Transport

    def __init__(self, factory: LondFactory) -> None:
        self._factory = factory
        self._lines = LineBuffer(_HANDSHAKE_LINE)
        self._caller = ""
        self._host_id = factory.host_id  # of requests that name none
        self._cipher: SessionCipher | None = None
        self._entered = False  # the handshake is complete
        self._choked = False  # the caller does not read
        self._closing = False
        self._changed: Deferred[None] | None = None  # awaited by the conversation
        self.closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Begin the conversation."""
        factory = self._factory
        factory.connections.add(self)
        factory.accepted += 1
        if ITCPTransport.providedBy(self.transport):
            # Send immediately, and separately if a fault demands it.
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.setTimeout(_HANDSHAKE_LIMIT)
        self._conversation = Deferred.fromCoroutine(self._converse())
        self._conversation.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        """Abort the connection, unless it was lost."""
        if not failure.check(CancelledError):
            log.failure("a fault in {lond}", failure, lond=self._factory.host_id)
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the conversation."""
        self.setTimeout(None)
        self._closing = True
        self._conversation.cancel()
        self._factory.connections.discard(self)
        self.closed.callback(None)

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """Use the factory's clock for the mixin's time limit."""
        return self._factory.clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        """Abort the connection at its time limit."""
        log.info("{lond}: cut a connection at its time limit", lond=self._factory.host_id)
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Handle data, and answer the lines in it."""
        if self._closing:
            return
        if self._entered:  # the limit of the handshake is for all of it
            self.resetTimeout()
        self._lines.feed(data)
        if self._changed is None and len(self._lines) > self._lines.limit:
            self.transport.abortConnection()  # too much data sent before the answer
        self._go_on()

    def pauseProducing(self) -> None:
        """Stop sending and receiving, since the caller does not read."""
        self._choked = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Continue, since the caller reads again."""
        self._choked = False
        self.transport.resumeProducing()
        self._go_on()

    def stopProducing(self) -> None:
        """Stop, since the transport is closed."""
        self.close()

    def close(self) -> None:
        """Close the connection once all data is sent, within a time limit."""
        if self._closing:
            return
        self._closing = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self.setTimeout(_CLOSE_LIMIT)

    # What the conversation waits for, and what it sends.

    async def _change(self) -> None:
        """Wait until data arrives, or the caller reads again."""
        self._changed = Deferred()
        await self._changed

    def _go_on(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.callback(None)

    @property
    def _held(self) -> bool:
        """Whether nothing may be done for the caller now."""
        return self._choked or self._closing

    async def _line(self) -> bytes:
        """Return the next line, without its newline."""
        while self._held or (line := self._lines.take()) is None:
            await self._change()
        return line[:-1]

    async def _data(self) -> bytes:
        """Return what has arrived, when no line follows."""
        while self._held or not self._lines:
            await self._change()
        return self._lines.drain()

    async def _say(self, step: Step, answer: bytes, command: bytes = b"") -> None:
        await self._send(step, answer + b"\n", command)

    async def _send(
        self,
        step: Step,
        said: bytes,
        command: bytes = b"",
        wrap: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """
        Send a reply, with a fault if one applies.

        :param command: the command word of the request.
        :param wrap: applied to each piece before it is sent.
        """
        fault = self._factory.faults.next_fault(step, command) or _NO_FAULT
        for act in fault.acts(said):
            if isinstance(act, bytes):
                self.transport.write(wrap(act))
            elif isinstance(act, Close):
                raise _Ended
            else:
                await deferLater(self._factory.clock, act)
                while self._choked:
                    await self._change()

    # The conversation.

    async def _converse(self) -> None:
        try:
            await self._handshake()
            while True:
                await self._say(*self._answer(await self._line()))
        except _Ended as end:
            farewell = end.farewell
        except LineTooLong as error:
            farewell = f"error:{error}\n".encode()
        except TLSError as error:
            host_id = self._factory.host_id
            log.warn("{lond}: TLS with a caller failed: {error}", lond=host_id, error=error)
            farewell = error.farewell
        self.transport.write(farewell)
        self.close()

    async def _handshake(self) -> None:
        factory = self._factory
        await self._send(Step.CONNECT, b"")
        word, _, way = (await self._line()).partition(b":")
        caller = factory.caller_at(self.transport.getPeer())
        if caller is None or word != b"init":
            self._refuse("does not begin with init" if caller else "comes from an unknown address")
        self._caller = caller
        if way == b"ssl" and factory.revision and factory.tls is not None:
            await self._say(Step.SSL, b"ok:ssl")
            await self._send_key(TLSPhase(factory.tls))
        elif way.startswith(b"local:") and factory.revision and factory.key_folder:
            try:
                key = factory.key_folder.read_and_delete(way.partition(b":")[2])
            except KeyFileError as error:
                self._refuse(f"names no key file: {error}")
            self._enter(key)
            await self._say(Step.LOCAL, b"ok:local")
        else:
            # A challenge also tells the caller that this lond does not support the authentication
            # mode that it asked for (protocol, section 9).
            challenge = b"%016d" % secrets.randbelow(10**16)
            await self._say(Step.INIT, challenge)
            if await self._line() != challenge:
                self._refuse("does not send the challenge back")
            self._enter()
            await self._say(Step.CHALLENGE, b"ok")

    def _refuse(self, why: str) -> NoReturn:
        log.warn("{lond}: refused a caller that {why}", lond=self._factory.host_id, why=why)
        raise _Ended(b"refused\n")

    async def _send_key(self, tls: TLSPhase) -> None:
        """Send a key inside TLS, and return to plain lines."""
        while not tls.established:
            if said := tls.receive(await self._data()):
                await self._send(Step.TLS, said)
        key = secrets.token_hex(16).encode()
        self._enter(key)
        await self._send(Step.TLS_KEY, key + b"\n", wrap=tls.send)
        if self._factory.close_notify:
            self.transport.write(tls.close())
        await self._send(Step.TLS_END, b"")
        # Plain lines return when one begins: the caller may send close_notify before.
        while not (rest := tls.rest()):
            tls.receive(await self._data())
        self._lines.feed(rest + self._lines.drain())

    def _enter(self, key: bytes | None = None) -> None:
        """
        Accept requests from now on.

        :param key: the session key in hex digits, if there is one already.
        """
        if key is not None:
            self._cipher = SessionCipher(bytes.fromhex(key.decode()))
        self._entered = True
        self._lines.limit = self._factory.line_limit
        self.setTimeout(self._factory.idle_limit)

    def _answer(self, line: bytes) -> tuple[Step, bytes, bytes]:
        """Return the answer to a line, as `_say` takes it."""
        factory, host_id = self._factory, self._host_id
        word, _, rest = line.partition(b":")
        if word == b"sethost" and factory.knows_sethost and factory.revision is not None:
            name, is_request, request = rest.partition(b":")
            host_id = name.decode("latin-1")
            if host_id not in factory.commands:
                return Step.SETHOST, b"unable_to_set", b""
            if not is_request:
                self._host_id = host_id
                return Step.SETHOST, b"ok", b""
            line, word = request, request.partition(b":")[0]
        if line == b"ekey":
            buildkey = secrets.token_hex(16).upper().encode()
            self._cipher = SessionCipher(session_key(host_id, self._caller, buildkey))
            return Step.KEY, buildkey, b""
        if line == b"version" and factory.revision:
            return Step.VERSION, f"$Revision: {factory.revision} $".encode(), b""
        if word == b"enc":
            try:
                line = self._decipher(line)
            except (CommandError, FrameError) as error:
                return Step.REQUEST, f"error:{error}".encode(), b""
        return Step.REQUEST, self._reply(line, host_id), line.partition(b":")[0]

    def _decipher(self, frame: bytes) -> bytes:
        if self._cipher is None:
            raise CommandError("no_key")
        request = self._cipher.decrypt(frame).removesuffix(b"\n")
        if b"\n" in request:
            # It could store a value that splits the answer to another request.
            raise CommandError("more than one line in a frame")
        return request

    def _reply(self, request: bytes, host_id: str) -> bytes:
        factory = self._factory
        factory.requests += 1
        factory.witness(request)
        is_secret = request.partition(b":")[0] in SECRET
        if is_secret and self._cipher is None:
            return b"error:no_key"
        answer = factory.commands[host_id].answer(request, self._caller)
        if is_secret and self._cipher is not None and not answer.startswith(b"error:"):
            return self._cipher.encrypt(answer)
        return answer


@attrs.define(eq=False, slots=False)
class LondFactory(ServerFactory):
    """
    A lond.

    :param clock: the reactor, or a test's clock.
    :param host_id: its host id; the first one if it serves several.
    :param caller: the host id of any caller; or a mapping from addresses to host ids, and callers
        from other addresses are refused.
    :param store: its data, closed by the caller; in memory if None.
    :param others: further host ids that it serves by ``sethost``, each with its data.
    :param faults: may change at any time.
    :param revision: its version; None: a lond of loncnew's time, which supports neither
        ``version`` nor ``sethost``, and the insecure mode only.
    :param knows_sethost: whether a lond with a version supports ``sethost``.
    :param tls: its certificate and the accepted authority; without it, TLS is not supported.
    :param key_folder: the folder of key files of a lonc on the same machine.
    :param close_notify: whether it sends close_notify at the end of TLS; londs do not.
    :param witness: called with every request, decrypted and without its newline.
    :param line_limit: maximum bytes of a request.
    :param idle_limit: seconds without data from the caller before the connection is aborted.

    :ivar commands: the commands of each host id.
    :ivar connections: the open connections.
    :ivar accepted: number of connections since the start.
    :ivar requests: number of requests since the start, including those with faults.
    """

    noisy = False

    clock: IReactorTime
    host_id: str
    _caller: str | Mapping[str, str]
    _store: Store | None = None
    _others: Mapping[str, Store] = attrs.field(kw_only=True, factory=dict)
    faults: Faults = attrs.field(kw_only=True, factory=Faults)
    revision: str | None = attrs.field(kw_only=True, default="1.0")
    knows_sethost: bool = attrs.field(kw_only=True, default=True)
    tls: ssl.SSLContext | None = attrs.field(kw_only=True, default=None)
    key_folder: KeyFolder | None = attrs.field(kw_only=True, default=None)
    close_notify: bool = attrs.field(kw_only=True, default=False)
    witness: Callable[[bytes], object] = attrs.field(kw_only=True, default=lambda request: None)
    line_limit: int = attrs.field(kw_only=True, default=LINE_LIMIT)
    idle_limit: float = attrs.field(kw_only=True, default=IDLE_LIMIT)
    connections: set[LondProtocol] = attrs.field(init=False, factory=set)
    accepted: int = attrs.field(init=False, default=0)
    requests: int = attrs.field(init=False, default=0)
    commands: Mapping[str, Commands] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        stores = {self.host_id: self._store or Store(":memory:"), **self._others}
        self.commands = {each: Commands(each, store) for each, store in stores.items()}

    def buildProtocol(self, addr: IAddress | None) -> LondProtocol:
        """Return the protocol of a new connection."""
        return LondProtocol(self)

    def caller_at(self, peer: IAddress) -> str | None:
        """Return the host id of the lonc at an address, or None if unknown."""
        if isinstance(self._caller, str):
            return self._caller
        return self._caller.get(getattr(peer, "host", ""))

    def close_connections(self) -> Deferred[None]:
        """Close all connections; fires when done."""
        connections = list(self.connections)
        for connection in connections:
            connection.close()
        return DeferredList([each.closed for each in connections]).addCallback(lambda _: None)
