# Twisted's Failure has no annotations:
# mypy: allow-untyped-calls
"""
A listening UNIX socket on lonc's epoll instance.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from functools import cached_property

from twisted.internet import error
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.report.events import Logger
from lonc.transport.epoll_loop import SocketLoop
from lonc.transport.stream import IN
from lonc.transport.unix_socket import SocketFile

#: Clients accepted per event of one port.
ACCEPTS = 64

#: Seconds before accepting again after running out of descriptors.
ACCEPT_PAUSE = 0.5

#: How many times a stopping port waits so for other clients to release their descriptors.
LAST_PAUSES = 20

#: Errors of accept() which mean that this process or system lacks resources.
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Clients of a UNIX socket have no address.
_NAMELESS = UNIXAddress(None)

log = Logger()


@implementer(IListeningPort)
class Port:
    """
    A listening UNIX socket.

    :ivar factory: creates the protocols of its clients.
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
        self._pauses = -1  # remaining; -1: not stopping

    @cached_property
    def _closed(self) -> Deferred[None]:
        """Fires when the socket is closed; made on demand, because there are thousands of ports."""
        return Deferred()

    def startListening(self) -> None:
        """Listen; raises :exc:`twisted.internet.error.CannotListenError`."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        file = None
        try:
            listening.setblocking(False)
            # Linux creates the file with the socket's mode, so access is never wider than that.
            os.fchmod(listening.fileno(), self._mode)
            listening.bind(self._path)
            file = SocketFile(self._path)
            os.chmod(self._path, self._mode)  # whatever the umask
            self._begin(listening, file)
        except OSError as problem:
            listening.close()
            if file is not None:
                file.remove()
            raise error.CannotListenError(None, self._path, problem) from problem

    def resume(self, listening: socket.socket) -> None:
        """Take over a socket on which another process was listening."""
        listening.setblocking(False)
        os.chmod(self._path, self._mode)
        self._begin(listening, SocketFile(self._path))

    def _begin(self, listening: socket.socket, file: SocketFile) -> None:
        listening.listen(self._backlog)  # SO_PEERCRED of clients shows this process
        self._loop.register(listening.fileno(), self, IN)
        self._socket, self._file = listening, file
        self.factory.doStart()

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def stop_accepting(self) -> None:
        """Stop accepting; the socket and its file are left to another process."""
        if self._file is not None:
            self._file.disown()
        self._close()

    def ready(self, mask: int) -> None:
        """Accept waiting clients."""
        self._accept()

    def _accept(self) -> bool:
        """Accept at most `ACCEPTS` clients; return whether there may be more."""
        assert self._socket is not None
        # The lower half of socket.accept(): a socket object for each client would cost 2 µs.
        accept = self._socket._accept  # type: ignore[attr-defined]
        loop, build_protocol = self._loop, self.factory.buildProtocol
        set_blocking = os.set_blocking
        for _ in range(ACCEPTS):
            try:
                descriptor, _ = accept()
            except BlockingIOError:
                return False
            except OSError as problem:
                if problem.errno in NO_DESCRIPTORS:
                    self._wait(problem)
                return False  # otherwise the client has already disconnected
            self._refused = False
            set_blocking(descriptor, False)
            try:
                protocol = build_protocol(_NAMELESS)
            except Exception:
                log.failure("a fault in {factory}", factory=self.factory)
                protocol = None
            if protocol is None:
                os.close(descriptor)
                continue
            loop.accept(descriptor, protocol)
        return True

    def serve(self, descriptor: int, data: bytes) -> None:
        """Serve a client accepted by another process, which has read `data` from it."""
        protocol = self.factory.buildProtocol(_NAMELESS)
        if protocol is None:
            os.close(descriptor)
            return
        self._loop.adopt(socket.socket(fileno=descriptor), protocol)
        if data:
            protocol.dataReceived(data)

    def _wait(self, problem: OSError) -> None:
        """Leave clients waiting until descriptors may be available again."""
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
        Refuse new clients, accept those already connected, and stop.

        Closing the socket would reset connections that the kernel has already established. Stopping
        takes a while if there are no descriptors.

        :return: fires when the socket is closed.
        """
        if self._socket is not None and self._pauses < 0:
            self._remove_file()
            # Refuses clients that opened the path before it was removed.
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
        # Closing alone would not end the events if another process has the socket open.
        self._loop.unregister(listening.fileno())
        self._loop.close(listening.detach())
        self.factory.doStop()
        self._loop.when_closed().chainDeferred(self._closed)

    def _remove_file(self) -> None:
        if self._file is not None:
            self._file.remove()

    def shut_down(self, reason: Failure) -> None:
        """Stop listening because the reactor stops."""
        self._close()

    def getHost(self) -> UNIXAddress:
        """Return the address of the socket."""
        return UNIXAddress(self._path)
