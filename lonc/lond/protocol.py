"""The server side of the protocol between lonc and lond (protocol, sections 2 to 4 and 9)."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.config.key_files import KeyFileError, KeyFolder
from lonc.lond.commands import SECRET, Commands
from lonc.lond.faults import Faults, ReplyWriter, Step
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
#: Seconds for a caller to read the last answer after the lond has closed the connection.
_CLOSE_LIMIT: Final = 5.0


class _Transport(ITCPTransport, IConsumer, IPushProducer):
    """The interfaces of its transport that a connection needs."""


@implementer(IPushProducer)
class LondProtocol(TimeoutMixin, Protocol):
    """
    One connection: the handshake, then requests and replies until one side closes it.

    While a caller does not read, no more replies are sent. Every wait has a time limit, after which
    the connection is aborted.
    """

    transport: _Transport

    def __init__(self, factory: LondFactory) -> None:
        self._factory = factory
        self._lines = LineBuffer(_HANDSHAKE_LINE)
        self._work_on: Callable[[], bool] = self._take_line
        self._next: Callable[[bytes], None] = self._initialize
        self._caller = ""
        self._host_id = factory.host_id  # of requests that name none
        self._cipher: SessionCipher | None = None
        self._closing = False
        self.closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Wait for ``init``."""
        factory = self._factory
        factory.connections.add(self)
        factory.accepted += 1
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(
                True
            )  # send immediately, and separately if a fault demands it
        self._replies = ReplyWriter(
            factory.faults, factory.clock, self.transport.write, self.close, self._work
        )
        self.transport.registerProducer(self, True)
        self.setTimeout(_HANDSHAKE_LIMIT)  # type: ignore[no-untyped-call]
        self._replies.say(Step.CONNECT, b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        self._closing = True
        self._replies.stop()
        self._factory.connections.discard(self)
        self.closed.callback(None)

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """Use the factory's clock for the mixin's time limit."""
        return self._factory.clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        """Abort the connection at its time limit."""
        log.info("{lond}: cut a connection at its time limit", lond=self._factory.host_id)
        self.transport.abortConnection()

    # Receiving.

    def dataReceived(self, data: bytes) -> None:
        """Handle data, and answer the lines in it."""
        if self._closing:
            return
        if self._next == self._serve:  # the limit of the handshake is for all of it
            self.resetTimeout()  # type: ignore[no-untyped-call]
        self._lines.feed(data)
        if self._replies.interrupted and len(self._lines) > self._lines.limit:
            self.transport.abortConnection()  # too much data sent before the answer
        self._work()

    def _work(self) -> None:
        """Answer received data as long as possible."""
        try:
            while not self._replies.busy and not self._closing and self._work_on():
                pass
        except LineTooLong as error:
            self._end(f"error:{error}\n".encode())
        except TLSError as error:
            host_id = self._factory.host_id
            log.warn("{lond}: TLS with a caller failed: {error}", lond=host_id, error=error)
            self._end(error.farewell)

    def _take_line(self) -> bool:
        """Answer a line; return whether there was one."""
        line = self._lines.take()
        if line is not None:
            self._next(line[:-1])
        return line is not None

    def _initialize(self, line: bytes) -> None:
        factory = self._factory
        caller = factory.caller_at(self.transport.getPeer())
        word, _, way = line.partition(b":")
        if caller is None or word != b"init":
            self._refuse("does not begin with init" if caller else "comes from an unknown address")
            return
        self._caller = caller
        if way == b"ssl" and factory.revision and factory.tls is not None:
            self._work_on = partial(self._establish_tls, TLSPhase(factory.tls))
            self._say(Step.SSL, b"ok:ssl")
        elif way.startswith(b"local:") and factory.revision and factory.key_folder:
            self._take_key_file(factory.key_folder, way.partition(b":")[2])
        else:
            # A challenge also tells the caller that this lond does not support the authentication
            # mode that it asked for (protocol, section 9).
            challenge = b"%016d" % secrets.randbelow(10**16)
            self._next = partial(self._compare, challenge)
            self._say(Step.INIT, challenge)

    def _take_key_file(self, folder: KeyFolder, path: bytes) -> None:
        try:
            key = folder.read_and_delete(path)
        except KeyFileError as error:
            self._refuse(f"names no key file: {error}")
            return
        self._enter(bytes.fromhex(key.decode()))
        self._say(Step.LOCAL, b"ok:local")

    # TLS for the key: three steps, and the following lines.

    def _establish_tls(self, tls: TLSPhase) -> bool:
        said = tls.receive(self._lines.drain())
        if tls.established:
            self._work_on = partial(self._say_key, tls)
        if said:
            self._replies.say(Step.TLS, said)
        return tls.established

    def _say_key(self, tls: TLSPhase) -> bool:
        key = secrets.token_hex(16)
        self._enter(bytes.fromhex(key))
        self._work_on = partial(self._end_tls, tls)
        self._replies.say(Step.TLS_KEY, key.encode() + b"\n", wrap=tls.send)
        return True

    def _end_tls(self, tls: TLSPhase) -> bool:
        self._work_on = partial(self._await_lines, tls)
        if self._factory.close_notify:
            self.transport.write(tls.close())
        self._replies.say(Step.TLS_END, b"")
        return True

    def _await_lines(self, tls: TLSPhase) -> bool:
        """Return to plain lines when one begins: the caller may send close_notify before."""
        tls.receive(self._lines.drain())
        rest = tls.rest()
        if rest:
            self._lines.feed(rest)
            self._work_on = self._take_line
        return len(rest) > 0

    # The insecure mode, which every lond supports.

    def _compare(self, challenge: bytes, line: bytes) -> None:
        if line != challenge:
            self._refuse("does not send the challenge back")
            return
        self._enter()
        self._say(Step.CHALLENGE, b"ok")

    def _enter(self, key: bytes | None = None) -> None:
        """Accept requests from now on."""
        if key is not None:
            self._cipher = SessionCipher(key)
        self._next = self._serve
        self._lines.limit = self._factory.line_limit
        self.setTimeout(self._factory.idle_limit)  # type: ignore[no-untyped-call]

    def _refuse(self, why: str) -> None:
        log.warn("{lond}: refused a caller that {why}", lond=self._factory.host_id, why=why)
        self._end(b"refused\n")

    def _serve(self, line: bytes) -> None:
        factory, host_id = self._factory, self._host_id
        word, _, rest = line.partition(b":")
        if word == b"sethost" and factory.knows_sethost:
            name, is_request, request = rest.partition(b":")
            host_id = name.decode("latin-1")
            if host_id not in factory.commands:
                self._say(Step.SETHOST, b"unable_to_set")
                return
            if not is_request:
                self._host_id = host_id
                self._say(Step.SETHOST, b"ok")
                return
            line, word = request, request.partition(b":")[0]
        if line == b"ekey":
            buildkey = secrets.token_hex(16).upper().encode()
            self._cipher = SessionCipher(session_key(host_id, self._caller, buildkey))
            self._say(Step.KEY, buildkey)
        elif line == b"version" and factory.revision:
            self._say(Step.VERSION, f"$Revision: {factory.revision} $".encode())
        elif word == b"enc":
            self._decipher(line, host_id)
        else:
            self._request(line, host_id)

    def _decipher(self, frame: bytes, host_id: str) -> None:
        if self._cipher is None:
            self._say(Step.REQUEST, b"error:no_key")
            return
        try:
            request = self._cipher.decrypt(frame).removesuffix(b"\n")
        except FrameError as error:
            self._say(Step.REQUEST, f"error:{error}".encode())
            return
        if b"\n" in request:
            # It could store a value that splits the answer to another request.
            self._say(Step.REQUEST, b"error:more than one line in a frame")
            return
        self._request(request, host_id)

    def _request(self, request: bytes, host_id: str) -> None:
        factory = self._factory
        factory.requests += 1
        factory.witness(request)
        word = request.partition(b":")[0]
        if word in SECRET and self._cipher is None:
            answer = b"error:no_key"
        else:
            answer = factory.commands[host_id].answer(request, self._caller)
        if word in SECRET and self._cipher is not None and not answer.startswith(b"error:"):
            answer = self._cipher.encrypt(answer)
        self._say(Step.REQUEST, answer, word)

    # Sending.

    def _say(self, step: Step, answer: bytes, command: bytes = b"") -> None:
        self._replies.say(step, answer + b"\n", command)

    def _end(self, farewell: bytes) -> None:
        self.transport.write(farewell)
        self.close()

    def pauseProducing(self) -> None:
        """Stop sending and receiving, since the caller does not read."""
        self._replies.choked = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Continue, since the caller reads again."""
        self._replies.choked = False
        self.transport.resumeProducing()
        self._replies.resume()

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
        self.setTimeout(_CLOSE_LIMIT)  # type: ignore[no-untyped-call]


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
        self.knows_sethost = self.knows_sethost and self.revision is not None

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
