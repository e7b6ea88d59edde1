"""
The local side: what speaks on the UNIX sockets (protocol, section 5).

A client has one request under way at a time; what it sends ahead waits in its line buffer, so its
answers come in its order (row F2). Nothing here knows a lond.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol as Interface

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.local.limits import LINES_A_TURN, TURNED_AWAY, UNCOUNTED, Clients
from lonc.transport.peer import UNKNOWN, Peer
from lonc.wire.framing import LineBuffer, LineTooLong
from lonc.wire.request import CON_LOST, Cause, Nobody, Request

#: As a request: close every connection to the host and start afresh (rows S14 and F11).
CLOSE_CONNECTIONS = b"close_connection_exit\n"

#: Bytes that a client may send ahead before it is no longer read; a few hundred usual requests.
MOST_AHEAD = 65536

_NOBODY = Nobody()

#: What a client has under way that has ended. It is never sent.
_NO_REQUEST = Request(b"", _NOBODY)

#: What a client has that has sent nothing ahead, or is not heard any more. It is never fed.
_NO_LINES = LineBuffer(0)


class State(Enum):
    """What a client and we are about."""

    READING = "reading"  #: its next request is awaited
    ASKED = "asked"  #: a request is under way, and all that it has sent
    AHEAD = "ahead"  #: a request is under way, and with the answer there is more to see to
    BLOCKED = "blocked"  #: it does not read its answer, or has had its share of the loop's turn
    LEAVING = "leaving"  #: it has its last answer, and what it still sends is thrown away


# One look-up for each, where requests pass.
READING, ASKED, AHEAD, BLOCKED, LEAVING = State
_UNDER_WAY = (ASKED, AHEAD)


class ClientTransport(ITCPTransport, IConsumer, IPushProducer):
    """What a client's transport can do."""


class RequestTaker(Interface):
    """What a client speaks to: its host."""

    host_id: str
    crashed: bool

    def submit(self, request: Request) -> None:
        """Take a request; its asker hears of it exactly once, perhaps before this returns."""

    def withdraw(self, request: Request) -> bool:
        """Forget a request that still waits; return whether it did."""

    def cut_off(self, request: Request) -> None:
        """Close the connection that owes the answer to a request; nobody is told."""

    def sent_at(self, request: Request) -> float:
        """Return when a request was sent to its lond; 0.0 while it waits for a connection."""

    def close_connections(self) -> None:
        """Close every connection to the host and start afresh."""

    def count_lost(self, cause: Cause) -> None:
        """Count a ``con_lost`` that the client gave by itself."""

    def count_refused(self, cause: Cause) -> None:
        """Count a request that was not taken from its client, and its ``con_lost``."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class ClientProtocol(Protocol):
    """
    One client on a host's socket (rows S5, F2, F3 and F16).

    It has one :class:`Request` of its own, which it uses again once that is answered.

    :ivar quiet_since: when it had its last answer, or came, by `Clients.now`.
    :ivar since: when it came.
    :ivar number: counts the clients since the start.
    :ivar requests: how many it has asked.
    :ivar known_program: `program`, once it has been asked for; 0 before.
    :ivar abandoned: whether nobody waits for its answers: see `lonc.local.limits.Holder`.
    """

    abandoned = False

    # There are thousands, and what is set outside of __init__ would make each a dict of its own.
    __slots__ = (
        "_clients",
        "_counted",
        "_dismissed",
        "_ended_input",
        "_host",
        "_lines",
        "_listener",
        "_paused",
        "_request",
        "_state",
        "_taking",
        "_usual",
        "connected",
        "known_program",
        "number",
        "quiet_since",
        "requests",
        "since",
        "transport",
    )

    transport: ClientTransport

    def __init__(self, host: RequestTaker, clients: Clients, factory: ClientListener) -> None:
        self.connected = 0
        self._host = host
        self._clients = clients
        self._listener = factory
        self._lines = _NO_LINES
        self._request = Request(b"", self)
        self._usual = clients.usual_size
        self._counted = False  # the bytes of its requests are
        self.known_program = 0
        self._taking = False  # lines are being taken from the buffer, further out on the stack
        self._state = READING
        self._paused = False  # we do not read the transport
        self._ended_input = False  # the client will send nothing more
        self._dismissed = False  # nobody answers here any more
        self.quiet_since = self.since = clients.now
        self.number = clients.next_number()
        self.requests = 0

    def connectionMade(self) -> None:
        """Count it in, or turn it away."""
        self._listener.clients[self] = None
        self.transport.registerProducer(self, True)
        if self._listener.finished:
            self.close_now()
        elif not self._clients.admit(self):
            self._host.count_refused(Cause.TOO_MANY_CLIENTS)  # it is about to ask
            self._close_gently()

    def dataReceived(self, data: bytes) -> None:
        """Take a request, or keep what was sent ahead."""
        # So nearly every request comes, and there is nothing to keep or to count.
        if (
            self._state is READING
            and data.find(b"\n") + 1 == len(data) <= self._usual
            and self._lines is _NO_LINES
        ):
            self._ask(data)
            return
        if self.leaving:
            return
        if self._state is ASKED:
            self._state = AHEAD
        lines = self._lines
        if lines is _NO_LINES:
            lines = self._lines = LineBuffer(self._clients.settings.max_line)
        lines.feed(data)
        if self._counted or len(lines.rest) > UNCOUNTED:
            self._count()
        if self._state is READING:
            self._ask_next()
        elif not self.leaving and len(lines.rest) > MOST_AHEAD and not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    def _count(self) -> None:
        """Note what the requests take in memory; this may turn the client away."""
        size = len(self._lines.rest)
        if self.asks:
            size += len(self._request.line)
        self._counted = size > UNCOUNTED
        self._clients.requests.note(self, size if self._counted else 0)

    def _ask(self, line: bytes) -> None:
        """Hand a request to the host; the answer may be there before this returns."""
        if line == CLOSE_CONNECTIONS:
            self._host.close_connections()
            self.answered(b"ok\n")
            self.finish()
            return
        self.requests += 1
        request = self._request
        request.line = line
        request.since = 0.0
        self._state = AHEAD if self._taking else ASKED
        try:
            self._host.submit(request)
        except Exception:
            self._host.crashed = True
            self._request, request.asker = Request(b"", self), _NOBODY
            self.requests -= 1  # which has had no answer
            if self.asks:
                self._state = READING
            raise

    def _ask_lines(self, line: bytes | None) -> None:
        """Ask this and what follows it in the buffer, as long as each is answered at once."""
        self._taking = True
        if line is not None and self._clients.unfinished:
            self._clients.unfinished.pop(self, None)
        left = LINES_A_TURN
        try:
            while line is not None:
                self._ask(line)
                if self._state is not READING:
                    break
                left -= 1
                if not left and self._lines.rest:
                    self._state = BLOCKED
                    self._clients.postpone(self)
                    break
                line = self._lines.take()
        except LineTooLong as error:
            self.give_up_line(str(error), Cause.TOO_LONG)
        finally:
            self._taking = False
        if not self._lines.rest:
            self._lines = _NO_LINES
        if self._paused:
            self._resume_reading()
        if not self.asks:
            self._note_progress()

    def _resume_reading(self) -> None:
        """Read again, if what was sent ahead has become less or was no whole line."""
        waits = self.asks or self._state is BLOCKED
        if not (self.leaving or (waits and len(self._lines.rest) > MOST_AHEAD)):
            self._paused = False
            self.transport.resumeProducing()

    def _note_progress(self) -> None:
        """Start or stop the time limit for a line that was begun, and end when all is said."""
        if self._state is not READING:
            return
        if self._ended_input:
            self.finish()
        elif self._lines.rest:
            self._clients.unfinished.setdefault(self, self._clients.seconds())

    def answered(self, reply: bytes) -> None:
        """Pass lond's answer on, and begin with what was sent ahead."""
        if self._state is ASKED:
            self._state = READING
            self._request.line = b""
            self.quiet_since = self._clients.now
            self.transport.write(reply)
        else:
            self._answered_ahead(reply)

    def _answered_ahead(self, reply: bytes) -> None:
        """Do so where there is more to see to."""
        if self._state is AHEAD:
            self._state = READING
        self._request.line = b""
        self.quiet_since = self._clients.now
        self.transport.write(reply)
        if self._counted:
            self._count()
        if self._state is READING and not self._taking and (self._lines.rest or self._ended_input):
            self._ask_next()

    def lost(self, cause: Cause) -> None:
        """Tell the client that there is no answer."""
        if self._dismissed:
            self._state = READING
            self._lose_all(1)
        else:
            self.answered(CON_LOST)

    def _ask_next(self) -> None:
        """Take what was sent ahead."""
        try:
            line = self._lines.take()
        except LineTooLong as error:
            self.give_up_line(str(error), Cause.TOO_LONG)
        else:
            self._ask_lines(line)

    def pauseProducing(self) -> None:
        """The client does not read fast enough: no further request until it has."""
        if self._state is READING:
            self._state = BLOCKED
            self._clients.note_unread(self)

    def resumeProducing(self) -> None:
        """The client has read what waited for it."""
        self._clients.note_read(self)
        self.next_turn()

    def next_turn(self) -> None:
        """Go on with what was sent ahead: what it waited for is over."""
        if self._state is BLOCKED:
            self._state = READING
            if not self._taking:
                self._ask_next()

    def stopProducing(self) -> None:
        """Do nothing: the transport is gone, and says so by `connectionLost`."""

    def readConnectionLost(self) -> None:
        """The client will send nothing more, but may still want its answer."""
        self._ended_input = True
        if self._state is ASKED:
            self._state = AHEAD
        elif self.leaving:
            self.transport.loseConnection()
        elif not self._taking:
            self._note_progress()

    def writeConnectionLost(self) -> None:
        """Our own doing: see `turn_away`."""

    def hang_up(self) -> None:
        """
        Answer what it has asked so far, and close it: another process serves who connects again.

        One that has asked nothing yet stays, for its request may be on its way.
        """
        if self.requests and not (self.leaving or self.unread):
            self.readConnectionLost()

    def take_back(self, most: int) -> bytes | None:
        """
        Take back what it has asked, for another process to do; the caller ends it here.

        :param most: bytes.
        :return: None where that cannot be: a lond has its request, it has not read its answers, or
            it has asked more than `most`.
        """
        request = self._request
        asked = bytes(self._lines.rest)
        if self.asks:
            asked = request.line + asked
        if self.leaving or self._taking or self.unsent or len(asked) > most:
            return None
        if self.asks:
            if not self._host.withdraw(request):
                return None
            self._state = READING
        return asked

    def give_up_line(self, why: str, cause: Cause) -> None:
        """Answer a request that cannot be taken with ``con_lost`` and close the client (F3)."""
        what = f"a client's request is given up with con_lost: {why}"
        self._clients.warn("line", self._host.host_id, what)
        self.turn_away(cause)

    def free_memory(self) -> None:
        """Free what its requests take, for others need it: they end with ``con_lost`` (F3)."""
        self._clients.released.note()
        self.give_up_line("the memory for requests is used up", Cause.MEMORY)

    def turn_away(self, cause: Cause) -> None:
        """Say ``con_lost`` as the last thing, and let the client find it before it is closed."""
        if cause is not Cause.MEMORY:  # that is told as such
            self._clients.cut_off.note()
        if self.asks:
            self._host.count_lost(cause)
        elif self._lines.rest:
            self._host.count_refused(cause)
        self._close_gently(at_once=cause is Cause.MEMORY)

    def _close_gently(self, at_once: bool = False) -> None:
        self._say_last(read_on=len(self._clients.leaving) < TURNED_AWAY, at_once=at_once)

    def dismiss(self) -> None:
        """
        Say ``con_lost`` to all that it has asked, for nobody answers here any more, and close it.

        One that has asked nothing yet hears it too: its request may be on its way. One that has
        had its answers is read until `close_now`, and gets a ``con_lost`` if it asks again.
        """
        if not self.leaving:
            self._dismissed = True
            self._lose_all(int(self.asks))

    @property
    def _heard(self) -> bool:
        """Whether it has had an answer."""
        return self.requests > self.asks

    def _lose_all(self, asked: int) -> None:
        """Say ``con_lost`` to so many requests, and to those that were sent ahead, as a last."""
        ahead = self._lines.rest
        asked += ahead.count(b"\n") + bool(ahead and not ahead.endswith(b"\n"))
        if asked or not self._heard:
            self._say_last(read_on=True, times=max(asked, 1))

    def close_now(self) -> None:
        """Close it now; what it has written last gets ``con_lost``, and who has heard nothing."""
        if not self.leaving:
            unread = getattr(self.transport, "read_last", bytes)()
            if unread or not self._heard:
                self.transport.write(CON_LOST)
        self._drop_requests()
        self.transport.abortConnection()

    def _say_last(self, read_on: bool, times: int = 1, at_once: bool = False) -> None:
        """
        Say ``con_lost`` and nothing after it.

        :param read_on: whether to read, and to throw away, what it still sends.
        :param times: how many requests it is the answer to.
        :param at_once: see `_drop_requests`.
        """
        clients = self._clients
        self._drop_requests(at_once)
        self.transport.write(CON_LOST * times)
        if read_on and not self._ended_input:
            clients.leaving[self] = clients.seconds()
            self.transport.unregisterProducer()
            # A client that still writes would get a broken pipe if we closed now.
            self.transport.loseWriteConnection()
            if self._paused:
                self._paused = False
                self.transport.resumeProducing()
        else:
            self._close()

    def finish(self) -> None:
        """Close it once it has read what it was sent."""
        self._state = LEAVING
        self._close()

    @property
    def program(self) -> int:
        """
        The process at the other end, by its id; else its user, by a negative number.

        The kernel tells no id for a process of another pid namespace, such as a container's: all
        of one user count as one, so that connecting again and again is worth nothing.
        """
        if not self.known_program:
            peer = getattr(self.transport, "peer", UNKNOWN)
            self.known_program = peer.pid or -2 - peer.uid
        return self.known_program

    @property
    def asks(self) -> bool:
        """Whether a request of it is under way."""
        return self._state in _UNDER_WAY

    @property
    def leaving(self) -> bool:
        """Whether it has its last answer, and what it still sends is thrown away."""
        return self._state is LEAVING

    @property
    def waits_for(self) -> tuple[str, float]:
        """What it waits for, ``queue``, ``lond`` or nothing, and since when by the clock."""
        if not self.asks:
            return "", 0.0
        sent = self._host.sent_at(self._request)
        return ("lond", sent) if sent else ("queue", self._request.since)

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        found: Peer = getattr(self.transport, "peer", UNKNOWN)
        return found

    @property
    def host_id(self) -> str:
        """The host whose socket it is on."""
        return self._host.host_id

    @property
    def silent(self) -> bool:
        """Whether it has asked nothing that is not answered and read; its socket may know more."""
        return self._state is READING and not self._lines.rest

    @property
    def unread(self) -> int:
        """How many bytes it has sent that are still in its socket; 0 where that is not told."""
        return getattr(self.transport, "unread", 0)

    @property
    def unsent(self) -> int:
        """How many bytes the client has not taken; 1 where the transport does not tell."""
        return getattr(self.transport, "unsent", 1)

    def abort(self) -> None:
        """Close it now."""
        self.transport.abortConnection()

    def _close(self) -> None:
        if self.unsent:  # it may never read that, which has a time limit too
            self._clients.close_when_read(self)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def disconnect(self, why: str) -> None:
        """Close it now: it does not read."""
        clients = self._clients
        clients.note_read(self)
        clients.cut_off.note()
        clients.warn("cut", self._host.host_id, f"a client is closed: {why}")
        self._state = LEAVING
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has gone: what it asked for is dropped, and its answer thrown away (F16)."""
        if self._state is READING and self._lines is _NO_LINES:
            self._request = _NO_REQUEST  # so that nobody has to look for circles
            self._state = LEAVING
        else:
            self._drop_requests()
        self._clients.forget(self)
        self._listener.forget(self)

    def _drop_requests(self, at_once: bool = False) -> None:
        """
        Drop what it asked for and what it sent.

        :param at_once: whether a request that a lond has ends too, with its connection.
        """
        asks, self._state = self.asks, LEAVING
        self._lines = _NO_LINES
        self._clients.unfinished.pop(self, None)
        if self._counted:
            self._counted = False
            self._clients.requests.note(self, 0)
        request, self._request = self._request, _NO_REQUEST
        if asks:
            waited = self._host.withdraw(request)
            request.asker = _NOBODY
            if waited:
                return
            if at_once:
                self._host.cut_off(request)
            elif len(request.line) > UNCOUNTED:
                request.asker = Abandoned(self._clients, self._host, request)


class Abandoned(Nobody):
    """The asker of a large request whose client has gone: it counts until it has ended (F3)."""

    abandoned = True

    def __init__(self, clients: Clients, host: RequestTaker, request: Request) -> None:
        self._memory = memory = clients.requests
        self._released = clients.released
        self._host = host
        self._request = request
        memory.note(self, len(request.line))

    def answered(self, reply: bytes) -> None:
        """Throw the reply away."""
        self._memory.note(self, 0)

    def lost(self, cause: Cause) -> None:
        """Count the request no more."""
        self._memory.note(self, 0)

    def free_memory(self) -> None:
        """End the request now."""
        self._released.note()
        self._host.cut_off(self._request)


class ClientListener(Factory):
    """
    Makes the clients of one host.

    :ivar clients: those that are connected.
    :ivar finished: whether nobody is served any more.
    """

    noisy = False

    def __init__(self, host: RequestTaker, shared: Clients) -> None:
        self._host = host
        self._shared = shared
        self._empty: Deferred[None] | None = None
        self.clients: dict[ClientProtocol, None] = {}  # takes less room than a set
        self.finished = False

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        """Return a new client's protocol."""
        return ClientProtocol(self._host, self._shared, self)

    def forget(self, client: ClientProtocol) -> None:
        """Forget a client that has disconnected."""
        self.clients.pop(client, None)
        if self._empty is not None and not self.clients:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def finish(self) -> Deferred[None]:
        """
        Dismiss all of them; fires when they have gone, for which `abort` is the limit.
        """
        self.finished = True
        if not self.clients:
            return succeed(None)
        self._empty = empty = Deferred[None]()
        for client in list(self.clients):
            client.dismiss()
        return empty

    def abort(self) -> None:
        """Close all of them now."""
        for client in list(self.clients):
            client.close_now()
