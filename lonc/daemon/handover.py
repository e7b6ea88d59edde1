"""
The old process's side of ``--take-over``: it hands everything over to a new process and ends.

====  ==================  =====================================  ===================================
step  message             who serves if the old process ends     who serves if the new process ends
====  ==================  =====================================  ===================================
1     new: ``HandOver``   new, by a start as after a crash       old
2     old: its holdings   new, with these                        old
3     new: serves         new                                    old
4     old: goes           new                                    nobody, as after any crash
5     old: its clients    new; the connections are closed        nobody
====  ==================  =====================================  ===================================

The new process asks over the management port. The old one finishes its delayed requests, closes the
ports that two processes cannot share, and names a socket through which it hands over the rest: the
listening sockets, the lock of the pid file, and its knowledge (pauses and the like). Until step 3
it serves clients as before. The new process says that it serves once it listens on every socket,
holds the lock and has written its process id to the pid file. Only the old process decides: it
answers that it goes, or that it stays, which it does if step 3 takes too long. A connection that is
closed without an answer means that the process has died. A process that is stopped (SIGSTOP) before
step 3 finds that its time is up when it is continued, and gives way. An old process that does not
answer in step 4 is killed, because two processes would send the same delayed requests.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from lonc.control.errors import NotDone
from lonc.disk.threads import InThread
from lonc.local.protocol import ClientProtocol
from lonc.report.events import Logger
from lonc.transport.endpoint_port import PortError
from lonc.transport.stream import SocketTransport
from lonc.transport.unix_socket import peer_of
from lonc.wire.request import Cause

#: Seconds for each step: both processes are on one machine. Also how long the old process waits for
#: the new one to serve if it has to stop meanwhile.
LIMIT: Final = 10.0

#: Seconds the new process gets to listen on every socket: 5,000 hosts take about 1 s.
SERVING: Final = 60.0

#: The messages of steps 3 and 4.
SERVES: Final = b"serves"
GOES: Final = b"goes"
STAYS: Final = b"stays"

#: Descriptors per message; the kernel allows 253.
BATCH: Final = 200

#: Bytes per message at most: the default socket buffer of the kernel has room for two of them.
LONGEST: Final = 80_000

#: Bytes of a client's requests that are passed on; a client that has sent more is not.
ASKED: Final = 32_768

#: Seconds between two attempts to pass a client on while the new process has not read the last
#: ones, and between two checks for a message.
PAUSE: Final = 0.02

log = Logger()

#: State of a process: kind -> key -> a JSON value.
Knowledge = Mapping[str, Mapping[str, Any]]


@attrs.frozen
class Holdings:
    """
    What the new process gets from the old one.

    :ivar pid_file: the path of the pid file.
    :ivar lock: the descriptor of the pid file, which holds the lock.
    :ivar sockets: the descriptors of the listening sockets, by the names they are stored under.
    """

    pid_file: str
    lock: int
    sockets: Mapping[str, int]
    knowledge: Knowledge

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in (self.lock, *self.sockets.values()):
            os.close(descriptor)

    def messages(self) -> Iterator[tuple[Mapping[str, object], Sequence[int]]]:
        """Return the messages to send, each with its descriptors."""
        yield {"pid_file": self.pid_file}, [self.lock]
        names = list(self.sockets)
        for first in range(0, len(names), BATCH):
            batch = names[first : first + BATCH]
            yield {"sockets": batch}, [self.sockets[name] for name in batch]
        for kind, entries in self.knowledge.items():
            for key, value in entries.items():
                yield {"kind": kind, "key": key, "value": value}, ()
        yield {"complete": True}, ()


@attrs.define(eq=False)
class HandOver:
    """
    The old process's side.

    :param clock: the reactor's clock.
    :param in_thread: runs the function that waits for the new process.
    :param path: returns the path of the socket to create.
    :param holdings: copies what is handed over; raises OSError.
    :param services: stopped first, and started again if the hand-over fails.
    :param resume: called if it fails.
    :param retire: called once the new process serves, to end this one.
    :ivar under_way: whether a hand-over has begun and has not failed.
    """

    _clock: IReactorTime
    _in_thread: InThread
    _path: Callable[[], str]
    _holdings: Callable[[], Holdings]
    _services: Sequence[Service]
    _resume: Callable[[], None]
    _retire: Callable[[], None]
    under_way: bool = attrs.field(init=False, default=False)
    _stopping: bool = attrs.field(init=False, default=False)
    _until: float = attrs.field(init=False, default=inf)  # time limit for the new process
    _given: Deferred[object] = attrs.field(init=False, factory=lambda: succeed(None))
    _successor: socket.socket | None = attrs.field(init=False, default=None)
    _unheard: list[socket.socket] = attrs.field(init=False, factory=list)

    async def offer(self) -> str:
        """
        Wait for the new process, for a limited time.

        :return: the path of the socket that it has to connect to.
        :raises NotDone: another process is taking over, lonc is stopping, or the socket cannot be
            created.
        """
        if self.under_way or self._stopping:
            raise NotDone("another process takes over, or lonc stops")
        self.under_way = True
        path = self._path()
        with contextlib.ExitStack() as undo:
            undo.callback(self._go_on)
            try:
                for each in self._services:
                    await maybeDeferred(each.stopService)
                if self._stopping:
                    raise NotDone("lonc stops")
                listening = undo.enter_context(_listen(path))
                undo.callback(os.unlink, path)
                holdings = self._holdings()
            except OSError as error:
                raise NotDone(f"{path}: {error.strerror}") from None
            undo.pop_all()
        self._given = self._in_thread(partial(self._give, listening, path, holdings))
        self._given.addBoth(self._decide, holdings)
        self._given.addErrback(lambda failure: log.failure("a fault inside lonc", failure))
        return path

    def _give(
        self, listening: socket.socket, path: str, holdings: Holdings
    ) -> tuple[socket.socket, str] | None:
        """Send everything; return the connection and process id of the new process if it serves."""
        try:
            with listening:
                if not self._speaks(listening, LIMIT):
                    return None  # no connection
                successor, _ = listening.accept()
        except OSError:
            return None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
        try:
            successor.settimeout(LIMIT)
            if peer_of(successor).uid == os.geteuid():
                for message, descriptors in holdings.messages():
                    send(successor, message, descriptors)
                said = successor.recv(LONGEST) if self._speaks(successor, SERVING) else b""
                if said.startswith(SERVES):
                    return successor, said.removeprefix(SERVES).decode().strip()
        except Exception as error:
            log.warn("a new process could not take over: {error}", error=error)
        self._refuse(successor)
        return None

    def _speaks(self, connected: socket.socket, limit: float) -> bool:
        """Wait for data, at most ``limit`` seconds, and less if a stop demands it."""
        until = self._clock.seconds() + limit
        while not _is_ready(connected, select.POLLIN, PAUSE):
            if self._clock.seconds() >= min(until, self._until):
                return False
        return True

    def _refuse(self, successor: socket.socket) -> None:
        successor.setblocking(False)
        try:
            successor.send(STAYS)
        except OSError:
            # It does not read, or has died. It would take a closed connection for our death.
            self._unheard.append(successor)
        else:
            successor.close()

    def _decide(
        self, given: tuple[socket.socket, str] | Failure | None, holdings: Holdings
    ) -> None:
        holdings.close()
        if isinstance(given, tuple):
            successor, pid = given
            try:
                successor.setblocking(False)
                successor.send(GOES)
            except OSError:
                self._refuse(successor)  # it has died since
            else:
                self._successor = successor
                log.critical("process {pid} has taken over: this one ends", pid=pid)
                self._retire()
                return
        log.critical("no process has taken over: continuing as before")
        self._go_on()

    def _go_on(self) -> None:
        self.under_way = False
        if self._stopping:
            return
        self._resume()
        for each in self._services:
            try:
                each.startService()  # type: ignore[no-untyped-call]
            except PortError as error:  # another process took it; it is tried again
                log.critical("{error}", error=error, event="port-not-restored")

    def stop(self) -> Deferred[None]:
        """
        Refuse hand-overs from now on, because lonc is stopping.

        :return: fires once the one in progress, if any, has succeeded or failed, soon.
        """
        self._stopping = True
        self._until = self._clock.seconds() + LIMIT
        decided: Deferred[None] = Deferred()
        self._given.addBoth(lambda _: decided.callback(None))
        return decided

    def hurry(self) -> None:
        """Also refuse the one in progress, unless the new process serves: a second stop."""
        self._until = 0.0

    async def pass_on(self, clients: Iterable[tuple[str, ClientProtocol]]) -> None:
        """
        Pass on the connections of clients without a request in flight, transparently.

        :param clients: each with the name of the listening socket that it connected to.
        """
        successor, self._successor = self._successor, None
        if successor is None:
            return
        until = self._clock.seconds() + LIMIT
        with successor:
            for name, client in clients:
                while not _is_ready(successor, select.POLLOUT):
                    if self._clock.seconds() > until:
                        return
                    await deferLater(self._clock, PAUSE)
                transport = client.transport
                if not isinstance(transport, SocketTransport) or not transport.connected:
                    continue
                asked = client.take_back(ASKED)
                if asked is None:
                    continue
                try:
                    send(successor, {"client": name}, [transport.descriptor], asked)
                except OSError:
                    client.turn_away(Cause.CLOSED)
                else:
                    transport.abandon()


def _is_ready(connected: socket.socket, event: int, seconds: float = 0.0) -> bool:
    """Return whether a message can be sent or received without blocking, within some seconds."""
    poll = select.poll()
    poll.register(connected, event)
    return bool(poll.poll(1000 * seconds))


def send(
    connected: socket.socket,
    message: Mapping[str, object],
    descriptors: Sequence[int],
    data: bytes = b"",
) -> None:
    """
    Send a message: a line of JSON, more bytes, and descriptors.

    :raises OSError: it cannot be sent.
    """
    line = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    socket.send_fds(connected, [line, data], descriptors)


def received(connected: socket.socket) -> tuple[Mapping[str, Any], list[int], bytes]:
    """
    Receive a message; return its JSON, its descriptors, which the caller owns, and the other bytes.

    :raises EOFError: the other side has closed the connection.
    :raises OSError: nothing can be received.
    """
    data, descriptors, _, _ = socket.recv_fds(connected, 2 * LONGEST, BATCH)
    for each in descriptors:
        os.set_inheritable(each, False)
    if not data:
        raise EOFError
    line, _, rest = data.partition(b"\n")
    return json.loads(line.decode("utf-8", "surrogatepass")), descriptors, rest


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        os.fchmod(listening.fileno(), 0o600)  # before the file exists
        listening.bind(path)
        listening.listen(1)
    except OSError:
        listening.close()
        raise
    return listening
