# Twisted's Failure has no annotations:
# mypy: allow-untyped-calls
"""
A listening UNIX socket on the epoll of lonc, and its file, which may be removed or replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from twisted.internet import error
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.report.events import Logger
from lonc.transport.epoll_loop import SocketLoop
from lonc.transport.stream import IN, SocketTransport

#: Clients that are accepted at a time on one port.
ACCEPTS = 64

#: Seconds without accepting when there is no descriptor for another client.
ACCEPT_PAUSE = 0.5

#: How often a port that stops waits so: other clients have left by then, with their descriptors.
LAST_PAUSES = 20

#: Errors by which the kernel says that the lack is ours.
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Who connects to a UNIX socket has no name.
_NAMELESS = UNIXAddress(None)

log = Logger()


class SocketFile:
    """The file of a UNIX socket that has just been made: others may remove or replace it."""

    __slots__ = ("_inode", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._inode = self._found()

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @property
    def intact(self) -> bool:
        """Whether it is there, and no other in its place."""
        return self._inode is not None and self._found() == self._inode

    def remove(self) -> None:
        """Remove it if it is there; it is no longer ours."""
        if self.intact:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.disown()

    def disown(self) -> None:
        """Forget the file, which belongs to another process now."""
        self._inode = None


@implementer(IListeningPort)
class Port:
    """
    A UNIX socket that listens.

    :ivar factory: makes the protocols of its clients.
    """

    def __init__(
        self, loop: SocketLoop, path: str, factory: Factory, backlog: int, mode: int
    ) -> None:
        self._loop = loop
        self._path = path
        self.factory = factory
        self._backlog = backlog
        self._mode = mode
        self._socket: socket.socket | None = None
        self._file: SocketFile | None = None
        self._pause: IDelayedCall | None = None
        self._refused = False  # the last client could not be accepted
        self._pauses = -1  # how many are left; -1: it does not stop
        self._closed = Deferred[None]()

    def startListening(self) -> None:
        """Listen; raises :exc:`twisted.internet.error.CannotListenError`."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        file = None
        try:
            listening.setblocking(False)
            # Linux makes the file with the socket's own mode: it is at no time more open.
            os.fchmod(listening.fileno(), self._mode)
            listening.bind(self._path)
            file = SocketFile(self._path)
            os.chmod(self._path, self._mode)  # whatever the umask
            listening.listen(self._backlog)
            self._loop.register(listening.fileno(), self, IN)
        except OSError as problem:
            listening.close()
            if file is not None:
                file.remove()
            raise error.CannotListenError(None, self._path, problem) from problem
        self._socket, self._file = listening, file
        self._pauses, self._closed = -1, Deferred()
        self.factory.doStart()

    def resume(self, listening: socket.socket) -> None:
        """Take over a socket on which another process has listened."""
        listening.setblocking(False)
        os.chmod(self._path, self._mode)
        listening.listen(self._backlog)  # this process is the one that clients see now
        self._loop.register(listening.fileno(), self, IN)
        self._socket, self._file = listening, SocketFile(self._path)
        self._pauses, self._closed = -1, Deferred()
        self.factory.doStart()

    def fileno(self) -> int:
        """Return its descriptor, -1 once it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def stop_accepting(self) -> None:
        """Accept nobody any more; the socket and its file are for another process."""
        if self._file is not None:
            self._file.disown()
        self._close()

    def ready(self, mask: int) -> None:
        """Accept the clients that wait."""
        self._accept()

    def _accept(self) -> bool:
        """Accept at most `ACCEPTS` clients; return whether there may be more."""
        assert self._socket is not None
        # What socket.accept() is made of: a socket object for each client would cost 2 µs.
        accept = self._socket._accept  # type: ignore[attr-defined]
        for _ in range(ACCEPTS):
            try:
                descriptor, _ = accept()
            except BlockingIOError:
                return False
            except OSError as problem:
                if problem.errno in NO_DESCRIPTORS:
                    self._wait(problem)
                return False  # otherwise the client has gone already
            self._refused = False
            os.set_blocking(descriptor, False)
            try:
                protocol = self.factory.buildProtocol(_NAMELESS)
            except Exception:
                log.failure("a fault in {factory}", factory=self.factory)
                protocol = None
            if protocol is None:
                os.close(descriptor)
                continue
            self._loop.start(SocketTransport(self._loop, descriptor, protocol))
            self._loop.read_soon(descriptor)
        return True

    def serve(self, descriptor: int, data: bytes) -> None:
        """Serve a client that another process has accepted, and of which it has read this."""
        protocol = self.factory.buildProtocol(_NAMELESS)
        if protocol is None:
            os.close(descriptor)
            return
        self._loop.adopt(socket.socket(fileno=descriptor), protocol)
        if data:
            protocol.dataReceived(data)

    def _wait(self, problem: OSError) -> None:
        """Leave clients waiting until there are descriptors again."""
        if not self._refused:
            log.warn("{path}: cannot accept clients: {why}", path=self._path, why=problem.strerror)
        self._refused = True
        assert self._socket is not None
        self._loop.set_events(self._socket.fileno(), 0)
        self._pause = self._loop.reactor.callLater(ACCEPT_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        assert self._socket is not None
        if self._pauses < 0:
            self._loop.set_events(self._socket.fileno(), IN)
        else:
            self._accept_last()

    def stopListening(self) -> Deferred[None]:
        """
        Refuse new clients, accept those that have connected, and stop.

        Closing the socket would end those connections without a word; the kernel made them, so
        these clients take themselves for served. It takes a while when there are no descriptors.

        :return: fires when the socket is closed.
        """
        if self._socket is not None and self._pauses < 0:
            self._remove_file()
            # Refuses those who found the path before it was removed.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)
            self._pauses = LAST_PAUSES
            self._accept_last()
        stopped = Deferred[None]()
        self._closed.addBoth(lambda _: stopped.callback(None))
        return stopped

    def _accept_last(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        while self._accept():
            pass
        self._pauses -= 1
        if self._pause is None or self._pauses < 0:
            self._close()

    def _close(self) -> None:
        listening, self._socket = self._socket, None
        if listening is None:
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._remove_file()
        # Another process may have it open, and then closing alone would not end the events.
        self._loop.unregister(listening.fileno())
        self._loop.close(listening.detach())
        self.factory.doStop()
        self._loop.when_closed().chainDeferred(self._closed)

    def _remove_file(self) -> None:
        if self._file is not None:
            self._file.remove()

    def shut_down(self, reason: Failure) -> None:
        """Stop listening, for the reactor stops."""
        self._close()

    def getHost(self) -> UNIXAddress:
        """Return the address of the socket."""
        return UNIXAddress(self._path)
