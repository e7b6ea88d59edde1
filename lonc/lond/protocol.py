"""The exchange as a lond sees it (protocol, sections 2 to 4 and 9), one connection at a time."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import attrs
from twisted.internet.defer import Deferred, succeed
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
from lonc.lond.faults import Faults, Step
from lonc.lond.reply_writer import ReplyWriter
from lonc.lond.store import Store
from lonc.report.events import Logger
from lonc.wire.cipher import FrameError, SessionCipher, session_key
from lonc.wire.framing import LineBuffer, LineTooLong
from lonc.wire.tls import TLSError, TLSPhase

log = Logger()

#: Bytes of a line, and seconds in all, before a caller has shown what it is.
_HANDSHAKE_LINE: Final = 4096
_HANDSHAKE_LIMIT: Final = 60.0
#: Bytes of a request: lonc's 16 MiB, encrypted.
LINE_LIMIT: Final = 33 * 1024 * 1024
#: Seconds without a byte from the caller: twice the hour after which a lonc closes.
IDLE_LIMIT: Final = 7200.0
#: Seconds that a caller may take over the last answer once the lond has hung up.
_CLOSE_LIMIT: Final = 5.0


class _Transport(ITCPTransport, IConsumer, IPushProducer):
    """What a connection needs of its transport."""


@implementer(IPushProducer)
class LondProtocol(TimeoutMixin, Protocol):
    """
    One connection: the handshake, then a line in and a line out, until somebody hangs up.

    A caller that takes no answers gets no more of them until it does; every wait has a limit, and
    a connection past its limit is cut.
    """

    transport: _Transport

    def __init__(self, factory: LondFactory) -> None:
        self._factory = factory
        self._lines = LineBuffer(_HANDSHAKE_LINE)
        self._work_on: Callable[[], bool] = self._take_line
        self._next: Callable[[bytes], None] = self._initialize
        self._caller = ""
        self._host_id = factory.host_id  # for whom it acts where a request names nobody
        self._challenge = b""
        self._cipher: SessionCipher | None = None
        self._tls: TLSPhase | None = None  # until plain lines follow
        self._closing = False

    def connectionMade(self) -> None:
        """Wait for ``init``."""
        factory = self._factory
        factory.connections.add(self)
        factory.accepted += 1
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # answers at once, and split where a fault splits
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
        self._factory.forget(self)

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """Run the mixin's time limit on the factory's clock."""
        return self._factory.clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        """End a wait that went on for too long."""
        log.info("{lond}: cut a connection at its time limit", lond=self._factory.host_id)
        self.transport.abortConnection()

    # What comes in.

    def dataReceived(self, data: bytes) -> None:
        """Take bytes, and answer the lines among them."""
        if self._closing:
            return
        if self._next == self._serve:  # a handshake's limit is for the whole of it
            self.resetTimeout()  # type: ignore[no-untyped-call]
        self._lines.feed(data)
        if self._replies.interrupted and len(self._lines) > self._lines.limit:
            self.transport.abortConnection()  # it talks on while it is owed an answer
        self._work()

    def _work(self) -> None:
        """Answer what has come, as long as nothing is in the way."""
        while not self._replies.busy and not self._closing and self._work_on():
            pass

    def _take_line(self) -> bool:
        """Answer a line; return whether there was one."""
        try:
            line = self._lines.take()
        except LineTooLong as error:
            self.transport.write(f"error:{error}\n".encode())
            self.close()
            return False
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
            self._tls = TLSPhase(factory.tls)
            self._work_on = self._establish_tls
            self._say(Step.SSL, b"ok:ssl")
        elif way.startswith(b"local:") and factory.revision and factory.key_folder:
            self._take_key_file(factory.key_folder, way.partition(b":")[2])
        else:
            # An answer of digits tells a caller that asked for another way in that this lond does
            # not have it (protocol, section 9).
            self._challenge = b"%016d" % secrets.randbelow(10**16)
            self._next = self._compare
            self._say(Step.INIT, self._challenge)

    def _take_key_file(self, folder: KeyFolder, path: bytes) -> None:
        try:
            key = folder.read_and_delete(path)
        except KeyFileError as error:
            self._refuse(f"names no key file: {error}")
            return
        self._enter(bytes.fromhex(key.decode()))
        self._say(Step.LOCAL, b"ok:local")

    # TLS, for the length of the key: three steps, and what follows.

    def _establish_tls(self) -> bool:
        assert self._tls is not None
        try:
            said = self._tls.receive(self._lines.drain())
        except TLSError as error:
            self._fail_tls(error)
            return False
        if self._tls.established:
            self._work_on = self._say_key
        if said:
            self._replies.say(Step.TLS, said)
        return self._tls.established

    def _fail_tls(self, error: TLSError) -> None:
        log.warn(
            "{lond}: TLS with a caller failed: {error}", lond=self._factory.host_id, error=error
        )
        self.transport.write(error.farewell)
        self.close()

    def _say_key(self) -> bool:
        assert self._tls is not None
        key = secrets.token_hex(16)
        self._enter(bytes.fromhex(key))
        self._work_on = self._end_tls
        self._replies.say(Step.TLS_KEY, key.encode() + b"\n", wrap=self._tls.send)
        return True

    def _end_tls(self) -> bool:
        assert self._tls is not None
        self._work_on = self._await_lines
        if self._factory.close_notify:
            self.transport.write(self._tls.close())
        self._replies.say(Step.TLS_END, b"")
        return True

    def _await_lines(self) -> bool:
        """Go back to lines once one has begun: a caller may say first that TLS is over."""
        assert self._tls is not None
        try:
            self._tls.receive(self._lines.drain())
        except TLSError as error:
            self._fail_tls(error)
            return False
        rest = self._tls.rest()
        if rest:
            self._tls = None
            self._lines.feed(rest)
            self._work_on = self._take_line
        return len(rest) > 0

    # The way in that every lond has.

    def _compare(self, line: bytes) -> None:
        if line != self._challenge:
            self._refuse("does not send the challenge back")
            return
        self._enter()
        self._say(Step.CHALLENGE, b"ok")

    def _enter(self, key: bytes | None = None) -> None:
        """Let the caller ask, from now on."""
        if key is not None:
            self._cipher = SessionCipher(key)
        self._next = self._serve
        self._lines.limit = self._factory.line_limit
        self.setTimeout(self._factory.idle_limit)  # type: ignore[no-untyped-call]

    def _refuse(self, why: str) -> None:
        log.warn("{lond}: refused a caller that {why}", lond=self._factory.host_id, why=why)
        self.transport.write(b"refused\n")
        self.close()

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
            # It could store a value that breaks another request's answer in two.
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

    # What goes out.

    def _say(self, step: Step, answer: bytes, command: bytes = b"") -> None:
        self._replies.say(step, answer + b"\n", command)

    def pauseProducing(self) -> None:
        """Say nothing and take nothing in: the caller does not read."""
        self._replies.choked = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on: the caller reads again."""
        self._replies.choked = False
        self.transport.resumeProducing()
        self._replies.resume()

    def stopProducing(self) -> None:
        """Stop: the transport is gone."""
        self.close()

    def close(self) -> None:
        """Hang up once what was said is on its way, which has a limit too."""
        if self._closing:
            return
        self._closing = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self.setTimeout(_CLOSE_LIMIT)  # type: ignore[no-untyped-call]


@attrs.define(eq=False, slots=False)
class LondFactory(ServerFactory):
    """
    A lond: what its connections have in common.

    :param clock: the reactor, or a test's clock.
    :param host_id: its own host id; the first one where it serves several.
    :param caller: the host id of whoever calls; or the host ids by address, and a caller from
        any other address is refused.
    :param store: its data; in memory when None. Whoever made it closes it.
    :param others: the other host ids that it serves, each with its data, where it knows
        ``sethost``.
    :param faults: what it does wrong; may change at any time.
    :param revision: what it says it is; a lond of loncnew's time, which knows neither
        ``version`` nor ``sethost`` nor another way in than the one, when None.
    :param knows_sethost: whether one that tells its version knows ``sethost`` too.
    :param tls: its certificates and those that it accepts; without them it has no TLS.
    :param key_folder: where the key files are that it takes, of a lonc on the same machine.
    :param close_notify: whether it says when TLS is over, as londs do not.
    :param witness: is told every request, deciphered and without its newline.
    :param line_limit: bytes of a request.
    :param idle_limit: seconds without a byte from the caller before it is cut.

    :ivar commands: what it answers, for each host id.
    :ivar connections: those that are open.
    :ivar accepted: connections since the start.
    :ivar requests: requests since the start, those that met a fault included.
    """

    noisy = False

    clock: IReactorTime
    host_id: str
    _caller: str | Mapping[str, str]
    _store: Store | None = None
    _others: Mapping[str, Store] = attrs.field(kw_only=True, factory=dict)
    faults: Faults = attrs.field(kw_only=True, factory=Faults)
    revision: str | None = attrs.field(kw_only=True, default="1.0")
    _knows_sethost: bool = attrs.field(kw_only=True, default=True)
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
    _closed: list[Deferred[None]] = attrs.field(init=False, factory=list)

    @commands.default
    def _make_commands(self) -> Mapping[str, Commands]:
        stores = {self.host_id: self._store or Store(":memory:"), **self._others}
        return {each: Commands(each, store) for each, store in stores.items()}

    @property
    def knows_sethost(self) -> bool:
        """Whether a request may say for which host id it is."""
        return self._knows_sethost and self.revision is not None

    def buildProtocol(self, addr: IAddress | None) -> LondProtocol:
        """Return the lond's side of a new connection."""
        return LondProtocol(self)

    def caller_at(self, peer: IAddress) -> str | None:
        """Return the host id of the lonc at an address, or None when it is unknown."""
        if isinstance(self._caller, str):
            return self._caller
        return self._caller.get(getattr(peer, "host", ""))

    def forget(self, connection: LondProtocol) -> None:
        """Take note that a connection is no more."""
        self.connections.discard(connection)
        if not self.connections:
            closed, self._closed = self._closed, []
            for deferred in closed:
                deferred.callback(None)

    def close_connections(self) -> Deferred[None]:
        """Hang up on everybody; fires once all connections are gone."""
        if not self.connections:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._closed.append(deferred)
        for connection in list(self.connections):
            connection.close()
        return deferred
