"""
Taking the steps of a plan (:mod:`lonc.client.exchange`): one way blocks, the other is Twisted's.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from lonc.client.exchange import Broken, Connect, HangUp, Late, Receive, Send, Step, Work
from lonc.config.settings import SettingsError
from lonc.delayed.outbox import NotStored
from lonc.disk.threads import Disk, NoPlace, Stuck

#: Bytes that are read at a time.
CHUNK = 65536

#: Why something was not even begun.
NO_PLACE = "other disk calls hang"


def _broken(error: Exception) -> Broken:
    """Say for a person what went wrong on a disk."""
    if isinstance(error, OSError) and error.filename is not None:
        return Broken(f"{error.filename}: {error.strerror}")
    if isinstance(error, OSError | NotStored | SettingsError):
        return Broken(str(error))
    return Broken(f"{type(error).__name__}: {error}")


class BlockingSteps:
    """
    Takes steps, and waits for each.

    :param places: for calls to disks; what hangs keeps its place.
    """

    def __init__(self, places: threading.Semaphore) -> None:
        self._places = places
        self._socket: socket.socket | None = None

    def take(self, step: Step) -> bytes:
        """Take a step; Broken, Late: it failed."""
        if isinstance(step, Work):
            self._work(step.call, step.limit)
            return b""
        try:
            return self._talk(step)
        except TimeoutError:
            raise Late from None
        except OSError as error:
            raise Broken(error.strerror or str(error)) from None

    def _talk(self, step: Connect | Send | Receive | HangUp) -> bytes:
        if isinstance(step, Connect | HangUp):
            self.close()
        if isinstance(step, Connect):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(step.limit)
            self._socket.connect(step.path)
        elif isinstance(step, Send | Receive):
            assert self._socket is not None
            self._socket.settimeout(step.limit)
            if isinstance(step, Send):
                self._socket.sendall(step.data)
            else:
                return self._receive(self._socket)
        return b""

    def _receive(self, from_lonc: socket.socket) -> bytes:
        try:
            return from_lonc.recv(CHUNK)
        except BlockingIOError:  # that was only a look
            raise Late from None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _work(self, call: Callable[[], object], limit: float) -> None:
        """Do it in a thread: nothing else can end a wait for a disk."""
        if not self._places.acquire(timeout=limit):
            raise Broken(NO_PLACE)
        outcome: SimpleQueue[Exception | None] = SimpleQueue()

        def work() -> None:
            error = None
            try:
                call()
            except Exception as raised:
                error = raised
            self._places.release()
            outcome.put(error)

        try:
            threading.Thread(target=work, name="lonc disk", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            self._places.release()
            raise _broken(error) from error
        try:
            fault = outcome.get(timeout=limit)
        except Empty:
            raise Late from None
        if fault is not None:
            raise _broken(fault) from fault


class TwistedSteps:
    """
    Takes steps, and lets others go on meanwhile.

    :param reactor: connects (``connectUNIX``), and has the time.
    """

    def __init__(self, reactor: Any, disk: Disk) -> None:
        self._reactor = reactor
        self._disk = disk
        self._peer = _Peer()

    async def take(self, step: Step) -> bytes:
        """Take a step; Broken, Late: it failed."""
        match step:
            case Connect(path, limit):
                self.close()
                await self._connect(path, limit)
            case Send(data):
                self._peer.send(data)
            case Receive(limit):
                try:
                    return await self._peer.receive().addTimeout(limit, self._reactor)
                except defer.TimeoutError:
                    raise Late from None
            case HangUp():
                self.close()
            case Work(call, limit):
                try:
                    await self._disk.run("", limit, call)
                except defer.CancelledError:
                    raise
                except NoPlace:
                    raise Broken(NO_PLACE) from None
                except Stuck:
                    raise Late from None
                except Exception as error:
                    raise _broken(error) from error
        return b""

    async def _connect(self, path: str, limit: float) -> None:
        endpoint: Any = UNIXClientEndpoint(self._reactor, path, timeout=limit)  # type: ignore[no-untyped-call]
        try:
            self._peer = await endpoint.connect(Factory.forProtocol(_Peer))
        except ConnectTimeout:
            raise Late from None
        except ConnectingCancelledError:
            raise defer.CancelledError from None  # the same as at every other step
        except ConnectError as error:
            raise Broken(str(error)) from None

    def close(self) -> None:
        """Close the connection, also when lonc does not read."""
        self._peer.close()


class _Peer(Protocol):
    """What lonc says on one connection, kept until it is asked for."""

    transport: ITCPTransport | None = None

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self._waiting: Deferred[bytes] | None = None

    def send(self, data: bytes) -> None:
        """Send bytes, when there is a connection."""
        if self.transport is not None:
            self.transport.write(data)

    def receive(self) -> Deferred[bytes]:
        """Fire with what has come or comes next, or with nothing at the end."""
        self._waiting = waiting = Deferred[bytes]()
        self._tell()
        return waiting

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.transport is not None:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Keep it, and wake who waits."""
        self._data += data
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        if self._waiting is not None and (self._data or self._ended):
            waiting, self._waiting = self._waiting, None
            data, self._data = bytes(self._data), bytearray()
            waiting.callback(data)
