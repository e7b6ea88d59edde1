"""
``--take-over``, the side of the process that has been running: it hands everything over and goes.

====  ==================  =====================================  ===================================
step  what is said        who serves if the old process ends     who serves if the new process ends
====  ==================  =====================================  ===================================
1     new: ``HandOver``   new, by a start as after a crash       old
2     old: its holdings   new, with these                        old
3     new: serves         new                                    old
4     old: goes           new                                    nobody, as after any crash
5     old: its clients    new; the connections are closed        nobody
====  ==================  =====================================  ===================================

The new process asks over the management port. The old one ends its delayed work, closes the ports
that cannot be shared, and names a socket where the rest is handed over: listening sockets, the lock
of the pid file, and what it knows (pauses and the like). Up to step 3 it serves clients as before.
The new process says that it serves when it listens on every socket, has the lock and has written
its number to the pid file. The old one alone decides: it says that it goes, or that it stays, as it
does when step 3 takes too long. A connection that ends without a word is the end of its process.
What is stopped (SIGSTOP) before step 3 has run out of time when it goes on, and gives way; an old
process that does not answer in step 4 is killed, for two would send the same delayed requests.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
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
from lonc.transport.peer import peer_of
from lonc.transport.stream import SocketTransport
from lonc.wire.request import Cause

#: Seconds for each step between two processes of one machine.
LIMIT: Final = 10.0

#: Seconds in which the new process listens on every socket: 5,000 hosts take some 3 s.
SERVING: Final = 60.0

#: What is said in steps 3 and 4.
SERVES: Final = b"serves"
GOES: Final = b"goes"
STAYS: Final = b"stays"

#: Descriptors in a message; the kernel allows 253.
BATCH: Final = 200

#: Bytes of a message at most: the kernel's usual buffer of a socket has room for more than two.
LONGEST: Final = 80_000

#: Bytes that a client has asked and that are handed over; of one that has sent more, none.
ASKED: Final = 32_768

#: Seconds between two tries to hand a client over when the new process has not read the last ones.
PAUSE: Final = 0.02

log = Logger()

#: What a process knows: kind -> key -> anything that JSON can say.
Knowledge = Mapping[str, Mapping[str, Any]]


@attrs.frozen
class Holdings:
    """
    What passes from the old process to the new one.

    :ivar pid_file: its path.
    :ivar lock: its descriptor, with the lock.
    :ivar sockets: the descriptors of the listening sockets, by the names under which they are kept.
    """

    pid_file: str
    lock: int
    sockets: Mapping[str, int]
    knowledge: Knowledge

    def close(self) -> None:
        """Close all of its descriptors."""
        for descriptor in (self.lock, *self.sockets.values()):
            os.close(descriptor)

    def messages(self) -> Iterator[tuple[Mapping[str, object], Sequence[int]]]:
        """Return what is sent, with the descriptors that go along."""
        yield {"pid_file": self.pid_file}, [self.lock]
        names = list(self.sockets)
        for first in range(0, len(names), BATCH):
            batch = names[first : first + BATCH]
            yield {"sockets": batch}, [self.sockets[name] for name in batch]
        for kind, entries in self.knowledge.items():
            for key, value in entries.items():
                yield {"kind": kind, "key": key, "value": value}, ()
        yield {"complete": True}, ()


class HandOver:
    """
    The old process's side.

    :param clock: the reactor's time.
    :param in_thread: runs what waits for the new process.
    :param path: gives where to make the socket.
    :param holdings: copies what there is to hand over; raises OSError.
    :param services: stop before, and start again if nothing comes of it.
    :param resume: is called when nothing comes of it.
    :param retire: is called when the new process serves: this one ends.
    :ivar under_way: from the first word until all goes on as before, or for good.
    """

    def __init__(
        self,
        clock: IReactorTime,
        in_thread: InThread,
        path: Callable[[], str],
        holdings: Callable[[], Holdings],
        services: Sequence[Service],
        resume: Callable[[], None],
        retire: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._in_thread = in_thread
        self._path = path
        self._holdings = holdings
        self._services = services
        self._resume = resume
        self._retire = retire
        self.under_way = False
        self._stopping = False
        self._given: Deferred[object] = succeed(None)
        self._successor: socket.socket | None = None
        self._unheard: list[socket.socket] = []

    async def offer(self) -> str:
        """
        Be ready to hand everything over, for a while.

        :return: the path of the socket to come to.
        :raises NotDone: another process takes over, or lonc stops, or there is no socket.
        """
        if self.under_way or self._stopping:
            raise NotDone("another process takes over, or lonc stops")
        self.under_way = True
        path = self._path()
        try:
            for each in self._services:
                await maybeDeferred(each.stopService)
            if self._stopping:
                raise NotDone("lonc stops")
            listening = _listen(path)
            try:
                holdings = self._holdings()
            except BaseException:
                listening.close()
                os.unlink(path)
                raise
        except OSError as error:
            self._go_on()
            raise NotDone(f"{path}: {error.strerror}") from None
        except BaseException:
            self._go_on()
            raise
        self._given = self._in_thread(partial(self._give, listening, path, holdings))
        self._given.addBoth(self._decide, holdings)
        self._given.addErrback(lambda failure: log.failure("a fault inside lonc", failure))
        return path

    def _give(
        self, listening: socket.socket, path: str, holdings: Holdings
    ) -> tuple[socket.socket, str] | None:
        """Give everything to who comes; return its connection and pid when it serves."""
        try:
            with listening:
                listening.settimeout(LIMIT)
                successor, _ = listening.accept()
        except OSError:
            return None  # nobody came
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
        try:
            successor.settimeout(LIMIT)
            if peer_of(successor).uid == os.geteuid():
                for message, descriptors in holdings.messages():
                    send(successor, message, descriptors)
                successor.settimeout(SERVING)
                said = successor.recv(LONGEST)
                if said.startswith(SERVES):
                    return successor, said.removeprefix(SERVES).decode().strip()
        except Exception as error:
            log.warn("a new process could not take over: {error}", error=error)
        self._refuse(successor)
        return None

    def _refuse(self, successor: socket.socket) -> None:
        successor.setblocking(False)
        try:
            successor.send(STAYS)
        except OSError:
            # It reads nothing, or has gone. Closed without a word, it would be taken for our end.
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
        log.critical("no process has taken over: all goes on as before")
        self._go_on()

    def _go_on(self) -> None:
        self.under_way = False
        if self._stopping:
            return
        self._resume()
        for each in self._services:
            try:
                each.startService()  # type: ignore[no-untyped-call]
            except PortError as error:  # somebody has been quicker; it is tried again
                log.critical("{error}", error=error, event="port-not-restored")

    def stop(self) -> Deferred[None]:
        """
        Lonc stops: no process takes over from now on.

        :return: fires when one that has been given everything serves or has gone.
        """
        self._stopping = True
        decided: Deferred[None] = Deferred()
        self._given.addBoth(lambda _: decided.callback(None))
        return decided

    async def pass_on(self, clients: Iterable[tuple[str, ClientProtocol]]) -> None:
        """
        Let the new process serve the clients for which nothing is in flight; they notice nothing.

        :param clients: each with the name of the socket that it came through.
        """
        successor, self._successor = self._successor, None
        if successor is None:
            return
        until = self._clock.seconds() + LIMIT
        with successor:
            for name, client in clients:
                while not _has_room(successor):
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


def _has_room(connected: socket.socket) -> bool:
    """Return whether a message can be sent without waiting."""
    poll = select.poll()
    poll.register(connected, select.POLLOUT)
    return bool(poll.poll(0))


def send(
    connected: socket.socket,
    message: Mapping[str, object],
    descriptors: Sequence[int],
    data: bytes = b"",
) -> None:
    """
    Send a message: a line of JSON, bytes behind it, and descriptors.

    :raises OSError: it cannot be sent.
    """
    line = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    socket.send_fds(connected, [line, data], descriptors)


def received(connected: socket.socket) -> tuple[Mapping[str, Any], list[int], bytes]:
    """
    Return a message, its descriptors, which are the caller's, and what is behind it.

    :raises EOFError: the other side has closed the connection.
    :raises OSError: nothing comes.
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
        os.fchmod(listening.fileno(), 0o600)  # before there is a file
        listening.bind(path)
        listening.listen(1)
    except OSError:
        listening.close()
        raise
    return listening
