# Twisted's Failure has no annotations:
# mypy: allow-untyped-calls
"""
A connection to a lond: connecting, the handshake, then one request at a time.

It uses only the few methods of `Owner` (a :class:`lonc.host.lond.Lond`), and knows no clients.
Exactly one of :meth:`Owner.failed` and :meth:`LondConnection.close` ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, ITCPTransport, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.host.connection_states import ConnectionState, Trouble
from lonc.host.handshaker import Handshaker
from lonc.local.limits import UNCOUNTED
from lonc.wire.cipher import FrameError, SessionCipher
from lonc.wire.framing import NEWLINE, LineBuffer, LineTooLong
from lonc.wire.handshake import Handshake, LondFacts
from lonc.wire.request import PECULIAR, Cause, Nobody, Request, without_addressee

#: An encrypted line is a bit more than twice as long as its text: two hex digits per byte, at most
#: one block of padding, and ``enc:<length>:``.
_ENCIPHERED = b"enc:"
_FIRST = _ENCIPHERED[0]
_TO_ENCIPHER = b"encrypt:"
_INSIDE = len(_TO_ENCIPHER)
#: The request for a new key, which the lond uses from then on.
_NEW_KEY = b"ekey"
_TO_PREPARE = (_TO_ENCIPHER, b"sethost:", _NEW_KEY)
_FRAME_OVERHEAD = 64
#: The answer to ``sethost`` for a host that the lond does not serve.
_UNABLE = b"unable_to_set\n"
#: All possible first bytes of a request.
_EVERY = bytes(range(256))
#: The empty buffer of all connections without an incomplete answer. It is never changed.
_NO_LINES = LineBuffer(0)

#: Sent to check that the lond answers, and that its answers are in step.
PING: Final = b"ping\n"


# Module variables, for speed.
_INTRODUCING, _BUSY = ConnectionState.INTRODUCING, ConnectionState.BUSY
_PROVING, _CLOSED = ConnectionState.PROVING, ConnectionState.CLOSED


class Owner(Interface):
    """Is informed of what happens to a connection."""

    @property
    def replied(self) -> Callable[[LondConnection, Request, bytes], None]:
        """Called with the answer to a request, when the connection is free again."""

    def move(self, connection: LondConnection, state: ConnectionState) -> None:
        """Change the state of the connection."""

    def connected(self, connection: LondConnection) -> None:
        """Handle the beginning of the handshake."""

    def ready(self, connection: LondConnection, facts: LondFacts) -> None:
        """Handle the end of the handshake, with its result."""

    def proved(self, connection: LondConnection, reply: bytes) -> None:
        """Handle the answer to our ``ping``; the connection is free again."""

    def prove(self, connection: LondConnection) -> Deferred[bool]:
        """Fire with whether the connection is in step."""

    def introduced(self, connection: LondConnection, request: Request) -> None:
        """Send a request: the lond has accepted ``sethost`` for its host."""

    def not_served(self, connection: LondConnection, request: Request) -> None:
        """Lose a request: the lond has refused ``sethost`` for its host."""

    def failed(
        self, connection: LondConnection, trouble: Trouble, message: str, cause: Cause
    ) -> None:
        """Handle a failure; ``cause`` is that of the outstanding request, if any."""

    def socket_closed(self, connection: LondConnection) -> None:
        """Handle the closing of the socket, for any reason."""

    def count_unfinished(self, connection: LondConnection, size: int) -> None:
        """Record the size of an incomplete answer; 0 for too few bytes to be counted."""

    def free_memory(self, connection: LondConnection) -> None:
        """End it because its incomplete answer needs too much memory."""


@implementer(IProtocol)
class LondConnection:
    """
    A connection to a lond (protocol, sections 2 and 4).

    It relies only on the result of its own handshake: another connection may lead to another
    release.

    :ivar state: its state.
    :ivar address: its destination, once connecting.
    :ivar number: counts the connections to all londs since the start.
    :ivar request: the outstanding request, or the one to be sent after ``sethost``; `PROOF` while
        ``ping`` is outstanding.
    :ivar since: when its current phase (connecting, handshake, request, idle) began, in seconds of
        the reactor's clock.
    :ivar rested_since: the beginning of the idle phase before its last request; -1.0 before the
        first request.
    :ivar established: when its handshake was complete; 0.0 before.
    :ivar begun: when it was begun.
    :ivar connected_at: when its handshake began; 0.0 before.
    :ivar unchecked: number of answers since it was last known to be in step.
    :ivar pongs: its answers to ``ping`` since it was last known to be in step.
    :ivar proofs: fired with whether it is in step.
    :ivar beginning: connects and does the handshake; None once it is ready.
    :ivar host_id: the host id that applies to requests without a name, once it is ready.
    :ivar confirmed: the host ids accepted by a lond with several; each request names its own. None
        if requests are sent without a name, all for `host_id`.
    :ivar inspected: the first bytes of requests that may have to be changed for this connection.
    :ivar knows_sethost: whether the lond supports ``sethost`` in requests (section 5).
    """

    # There are thousands, so they have no __dict__; Twisted's Protocol would give them one.
    __slots__ = (
        "_counted",
        "_key",
        "_lines",
        "_made_cipher",
        "_max_line",
        "_owner",
        "_spoke_out",
        "_usual",
        "address",
        "beginning",
        "begun",
        "confirmed",
        "connected",
        "connected_at",
        "established",
        "host_id",
        "inspected",
        "knows_sethost",
        "number",
        "pongs",
        "proofs",
        "request",
        "rested_since",
        "since",
        "state",
        "transport",
        "unchecked",
    )

    transport: ITCPTransport

    def __init__(
        self,
        owner: Owner,
        handshake: Handshake,
        max_line: int,
        begun: float = 0.0,
        number: int = 0,
    ) -> None:
        self.number = number
        self._owner = owner
        self.beginning: Handshaker | None = Handshaker(self, handshake)
        self._key: bytes | None = None
        self._made_cipher: SessionCipher | None = None
        self._max_line = self._usual = max_line
        self.inspected = PECULIAR
        self._lines = _NO_LINES
        self._counted = False
        self._spoke_out = False
        self.connected = 0
        self.state = ConnectionState.CONNECTING
        self.address = ""
        self.request: Request | None = None
        self.since = begun
        self.rested_since = -1.0
        self.established = 0.0
        self.begun = begun
        self.connected_at = 0.0
        self.unchecked = 0
        self.pongs: tuple[bytes, ...] = ()
        self.proofs: tuple[Deferred[bool], ...] = ()
        self.host_id = ""
        self.knows_sethost = False
        self.confirmed: set[str] | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """Record that it is connected."""
        self.connected = 1
        self.transport = transport  # type: ignore[assignment]
        self.connectionMade()

    def connectionMade(self) -> None:
        """Start the handshake."""
        if self.state is _CLOSED:
            self.transport.abortConnection()
            return
        assert self.beginning is not None
        self._owner.connected(self)
        self.beginning.start()

    # Sending.

    def send(self, request: Request, now: float = 0.0) -> None:
        """
        Send a request; the connection must be free, and already in state ``BUSY``.

        :param now: see `since`.
        """
        self.request = request
        self.since = now
        line = request.line
        if line[0] in self.inspected:
            self.send_inspected(request, line)
        else:
            self.transport.write(line)

    def send_inspected(self, request: Request, line: bytes) -> None:
        """Send a request that may have to be changed."""
        if self.confirmed is not None:
            self._send_addressed(request, self.confirmed)
        elif line.startswith(_TO_ENCIPHER) and line[_INSIDE] not in PECULIAR:
            cipher = self._made_cipher or self._cipher
            self.transport.write(cipher.encrypt(line[_INSIDE:-1]) + b"\n")
        elif line.startswith(_TO_PREPARE):
            self.transport.write(self._prepared(line))
        else:
            self.transport.write(line)

    def _send_addressed(self, request: Request, confirmed: set[str]) -> None:
        """
        Send a request with the name of its host, so that it does not depend on earlier ones.

        Before the first one for a host, the lond must accept ``sethost``: some londs would
        otherwise use the previous host.
        """
        host_id = request.host.host_id
        name = b"sethost:" + host_id.encode()
        if host_id not in confirmed:
            self._owner.move(self, _INTRODUCING)
            self.transport.write(name + b"\n")
            return
        line = without_addressee(request.line)[1]
        # A request that only names its host is the same as ours.
        prefix = b"" if line.startswith(b"sethost:") else name + b":"
        self.transport.write(prefix + self._prepared(line))

    def ask_ping(self, now: float) -> None:
        """Send ``ping``; the connection must be free."""
        if self.state is _BUSY:
            self.state = _PROVING  # as `Owner.move` would
        else:
            self._owner.move(self, _PROVING)
        self.request = PROOF
        self._usual = 0
        self.since = now
        name = b"" if self.confirmed is None else b"sethost:" + self.host_id.encode() + b":"
        self.transport.write(name + PING)

    # Called by the owner, which also sets `since` and `unchecked` after an answer.

    def note_in_step(self, now: float) -> None:
        """Record that it is in step."""
        self.unchecked = 0
        self.pongs = ()
        self.since = now

    @property
    def is_unused(self) -> bool:
        """Whether it has had no request yet."""
        return self.rested_since < 0.0

    def prove(self) -> Deferred[bool]:
        """Fire with whether all answers so far belonged to their requests; False if unknown."""
        return self._owner.prove(self)

    def end_proofs(self, in_step: bool) -> None:
        """Fire the Deferreds that wait for whether it is in step."""
        proofs, self.proofs = self.proofs, ()
        for proof in proofs:
            proof.callback(in_step)

    def note_connected(self, now: float) -> None:
        """Record that it is connected."""
        self.connected_at = self.since = now

    def retire(self) -> None:
        """Serve no more requests: close it after an outstanding answer, or immediately."""
        if self.state is _BUSY:
            self._owner.move(self, ConnectionState.RETIRING)
        elif self.state is _INTRODUCING:
            request = self.give_up()
            self.close()
            assert request is not None
            request.host.resubmit(request)
        elif self.state is not ConnectionState.RETIRING:
            self.close()

    def forget_host(self, host_id: str) -> None:
        """Forget that the lond has accepted, or is about to accept, a host that leaves."""
        if self.confirmed is not None:
            self.confirmed.discard(host_id)
        if self._asks_for == host_id:
            self.retire()
        elif host_id == self.host_id:
            if self.confirmed:
                self.host_id = min(self.confirmed)
            else:
                self.retire()

    @property
    def _asks_for(self) -> str | None:
        """The host of an outstanding ``sethost``, or of an incomplete handshake."""
        if self.beginning is not None:
            return self.beginning.host_id
        if self.state is _INTRODUCING and self.request is not None:
            return self.request.host.host_id
        return None

    def give_up(self) -> Request | None:
        """Return the outstanding request, which will not be answered; None if there is none."""
        request, self.request = self.request, None
        return None if request is PROOF else request

    def _prepared(self, line: bytes) -> bytes:
        """Encrypt a request if necessary, and remove ``sethost`` if the lond lacks it."""
        prefix, line = without_addressee(line)
        if line.removeprefix(_TO_ENCIPHER).startswith(_NEW_KEY):
            # The lond could not decrypt requests of others any more.
            self._owner.move(self, ConnectionState.RETIRING)
        if line.startswith(_TO_ENCIPHER):
            line = self._cipher.encrypt(line[len(_TO_ENCIPHER) : -1]) + b"\n"
        return prefix + line if self.knows_sethost else line

    # Receiving.

    def dataReceived(self, data: bytes) -> None:
        """Handle data of the lond: for the handshake, or the outstanding answer."""
        # The usual case: a complete reply, without other data before or after it.
        if (
            (request := self.request) is not None
            and len(data) <= self._usual
            and (bare := data.removesuffix(b"\n")) is not data
            and NEWLINE not in bare
        ):
            if data[0] == _FIRST and bare.startswith(_ENCIPHERED):
                plain = self._deciphered(bare)
                if plain is None:
                    return
                data = plain
            self.request = None
            # Looked up and called apart: it is no method of the owner, and is found faster so.
            replied = self._owner.replied
            replied(self, request, data)
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        """Handle any other data."""
        if self.state is _CLOSED:
            return
        request = self.request
        if request is None:
            self._unasked(data)
            return
        if self._lines is _NO_LINES and data.find(b"\n") + 1 == len(data) <= self._max_line:
            reply: bytes | None = data
        else:
            reply = self._pieced(data)
        if reply is None:
            return
        if reply.startswith(_ENCIPHERED):
            reply = self._deciphered(reply[:-1])
            if reply is None:
                return
        self.request = None
        if self.state is _PROVING:
            self._usual = 0 if self.confirmed is not None else self._max_line
            self._owner.proved(self, reply)
        elif self.state is _INTRODUCING:
            self._introduced(request, reply)
        else:
            if self._lines.rest:
                # The answer is valid, but the surplus data would become the next answer.
                self.retire()
            if self.confirmed is not None and reply == _UNABLE:
                self.confirmed.discard(request.host.host_id)
                self._owner.not_served(self, request)
            else:
                self._owner.replied(self, request, reply)

    def _introduced(self, request: Request, reply: bytes) -> None:
        """Handle the answer to ``sethost`` for the host of a request."""
        assert self.confirmed is not None
        if self._lines.rest:
            self.request, self._spoke_out = request, True
            self._fail(Trouble.BROKEN, "the lond sent more than its answer", Cause.BROKEN)
        elif reply.rstrip(b"\r\n") == b"ok":
            self.confirmed.add(request.host.host_id)
            self._owner.introduced(self, request)
        else:
            self._owner.not_served(self, request)

    def _unasked(self, data: bytes) -> None:
        """Handle data without a request: for the handshake, or a violation (section 2)."""
        if self.beginning is None:
            self._spoke_out = True
            self._fail(Trouble.BROKEN, "the lond spoke out of turn", Cause.BROKEN)
        else:
            self.beginning.receive(data)

    def accepted(self, handshake: Handshake) -> None:
        """Handle the end of the handshake."""
        facts = handshake.facts
        self._key = handshake.key
        self.host_id, self.knows_sethost = facts.host_id, facts.knows_sethost
        if facts.names:
            # All requests and replies must be inspected.
            self.confirmed, self.inspected, self._usual = {facts.host_id}, _EVERY, 0
        self.beginning = None
        self._owner.ready(self, facts)

    def not_made(self, trouble: Trouble, message: str) -> None:
        """Handle a failure to connect, or in the handshake."""
        self._fail(trouble, message, Cause.UNREACHABLE)

    def _pieced(self, data: bytes) -> bytes | None:
        """Return the reply once it is complete."""
        if self._lines is _NO_LINES:
            self._lines = LineBuffer(self._max_line)
        try:
            reply = self._lines.push(data)
        except LineTooLong:
            reply = self._overlong()
        size = len(self._lines)
        if not size:
            self._lines = _NO_LINES
        self._usual = 0 if size or self.confirmed is not None else self._max_line
        if self._counted or (reply is None and size > UNCOUNTED):
            self._count(size if reply is None else 0)
        return reply

    def _count(self, size: int) -> None:
        """Record the memory of an incomplete answer; this may end the connection (F3)."""
        self._counted = size > UNCOUNTED and self.state is not _CLOSED
        self._owner.count_unfinished(self, size if self._counted else 0)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the outstanding answer."""
        return self.request is not None and isinstance(self.request.asker, Nobody)

    def free_memory(self) -> None:
        """Free the memory of its incomplete answer, which others need."""
        self._owner.free_memory(self)

    def _overlong(self) -> bytes | None:
        """Allow an encrypted reply the length of the longest plain text, and no other reply."""
        lines = self._lines
        if lines.limit == self._max_line and lines.begins_with(_ENCIPHERED):
            lines.limit = 2 * self._max_line + _FRAME_OVERHEAD
            try:
                return lines.take()
            except LineTooLong:
                pass
        self._fail_overlong()
        return None

    def _fail_overlong(self) -> None:
        message = f"a reply is longer than {self._max_line} bytes"
        self._fail(Trouble.BROKEN, message, Cause.TOO_LONG)

    @property
    def _cipher(self) -> SessionCipher:
        """The cipher, created on demand: most connections never need it."""
        if self._made_cipher is None:
            assert self._key is not None
            self._made_cipher = SessionCipher(self._key)
        return self._made_cipher

    def _deciphered(self, frame: bytes) -> bytes | None:
        """
        Return the reply in a frame, with its newline.

        If that fails, the key must be wrong, and the connection ends: None is returned.
        """
        try:
            plain = (self._made_cipher or self._cipher).decrypt(frame)
        except FrameError as error:
            self._fail(Trouble.BROKEN, f"an encrypted reply is wrong: {error}", Cause.BROKEN)
            return None
        if NEWLINE in plain:
            plain = plain.removesuffix(b"\n")
            if NEWLINE in plain and len(plain) <= self._max_line:
                # The client would take the second line as the answer to its next request.
                message = "an encrypted reply contains more than one line"
                self._fail(Trouble.BROKEN, message, Cause.BROKEN)
                return None
        if len(plain) > self._max_line:
            self._fail_overlong()
            return None
        return plain + b"\n"

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Handle the end of the connection by the lond or an error."""
        what = "closed by the lond"
        if reason is not None and not reason.check(ConnectionDone):
            what = reason.getErrorMessage().rstrip(".")
        if self.beginning is not None:
            self.not_made(Trouble.HANDSHAKE, f"{what} in state {self.beginning.stage}")
        else:
            self._fail(Trouble.BROKEN, what, Cause.BROKEN)
        self._owner.socket_closed(self)

    @property
    def surplus(self) -> bool:
        """Whether the lond sent more than the outstanding answer."""
        return self._spoke_out or (self.request is None and len(self._lines.rest) > 0)

    def expire(self, seconds: float) -> None:
        """End it because its handshake or answer took longer than these seconds."""
        if self.beginning is not None:
            message = f"no end of the handshake after {seconds:g} s"
            self.not_made(Trouble.TIMEOUT, f"{message} in state {self.beginning.stage}")
        else:
            what = "no answer to ping" if self.state is _PROVING else "no answer"
            self._fail(Trouble.TIMEOUT, f"{what} after {seconds:g} s", Cause.TIMEOUT)

    def _fail(self, trouble: Trouble, message: str, cause: Cause) -> None:
        if self.state is not _CLOSED:
            if self.beginning is not None:
                self.beginning.fail()
            proofs, self.proofs = self.proofs, ()
            self.close()
            self._owner.failed(self, trouble, message, cause)
            self.proofs = proofs  # fired after failed(), which decides whether ping is useful
            self.end_proofs(False)

    def close(self) -> None:
        """Close it; the owner is only informed of the state ``CLOSED``."""
        if self.state is _CLOSED:
            return
        self._owner.move(self, _CLOSED)
        self._usual = 0
        if self._counted:
            self._count(0)
        if self.beginning is not None:
            self.beginning.close()
        if self.connected:
            if self.request is None and self.beginning is None:
                self.transport.loseConnection()
            else:
                # Unsent data must not keep the descriptor open.
                self.transport.abortConnection()


#: The outstanding request while ``ping`` is outstanding, which belongs to no host.
PROOF = Request(PING, Nobody())
