# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
``--take-over``: a new process takes everything over from the old one on the same folders.

The new process asks over the management port. The old one ends its delayed work and names a socket
at which its own user and root get what there is: the listening sockets, the lock of the pid file
and the pauses. Once the new process has its ports as well it says so, and the old one that it goes;
from then on the folders are the new one's. Until both have been said the old one goes on as before.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import _parse
from twisted.logger import Logger
from twisted.python.failure import Failure

from lonc.control.errors import NotDone
from lonc.disk.threads import InThread
from lonc.transport.endpoint_port import PortError

#: Seconds for each step between two processes of one machine.
LIMIT: Final = 10.0

#: Seconds in which delayed requests that are in flight have their answers or their time is over.
ENDED: Final = 600.0

#: Descriptors in a message; the kernel allows 253.
_BATCH: Final = 200

#: Says on either side that it stays so.
_AGREED: Final = b"!"

log = Logger()


class TakeOverError(Exception):
    """The old process goes on; the message says why, for a person."""


@attrs.frozen
class Estate:
    """
    What passes from the old process to the new one.

    :ivar sockets: the descriptors of the listening sockets, by the names under which they are kept.
    :ivar lock: the descriptor of the pid file, with its lock.
    :ivar pauses: host id -> the fields of :class:`lonc.host.service.Pause`.
    :ivar giver: leads to the old process, which waits to hear of the new one; None in the old one.
    """

    sockets: Mapping[str, int]
    lock: int
    pauses: Mapping[str, Mapping[str, Any]]
    giver: socket.socket | None = None

    def decline(self) -> None:
        """Let the old process go on, unless it has gone."""
        if self.giver is not None:
            self.giver.close()

    def confirm(self) -> None:
        """
        Tell the old process that this one serves from now on.

        :raises TakeOverError: the old one goes on.
        """
        assert self.giver is not None
        try:
            with self.giver:
                self.giver.sendall(_AGREED)
                agreed = self.giver.recv(1) == _AGREED
        except OSError as error:
            raise TakeOverError(f"cannot take over: the old process goes on: {error}") from None
        if not agreed:
            raise TakeOverError("cannot take over: the old process goes on")

    def close(self) -> None:
        """Close all of its descriptors."""
        for descriptor in (self.lock, *self.sockets.values()):
            os.close(descriptor)


# ---------------------------------------------------------------------- the old process


class HandOver:
    """
    The old process's side.

    :param in_thread: runs what waits for the new process.
    :param path: gives where to make the socket.
    :param estate: copies what there is to hand over.
    :param services: stop before, and start again if nothing comes of it.
    :param running: tells whether lonc does not stop anyway.
    :param handed_over: is called when the new process has everything: this one ends.
    """

    def __init__(
        self,
        in_thread: InThread,
        path: Callable[[], str],
        estate: Callable[[], Estate],
        services: Sequence[Service],
        running: Callable[[], bool],
        handed_over: Callable[[], None],
    ) -> None:
        self._in_thread = in_thread
        self._path = path
        self._estate = estate
        self._services = services
        self._running = running
        self._handed_over = handed_over
        self._offered = False

    async def offer(self) -> str:
        """
        Be ready to hand everything over, for a while.

        :return: the path of the socket to come to.
        :raises NotDone: another process takes over, or lonc stops, or there is no socket.
        """
        if self._offered or not self._running():
            raise NotDone("another process takes over, or lonc stops")
        self._offered = True
        path = self._path()
        try:
            for each in self._services:
                await maybeDeferred(each.stopService)
            estate = self._estate()
            try:
                listening = _listen(path)
            except OSError:
                estate.close()
                raise
        except OSError as error:
            self._go_on()
            raise NotDone(f"{path}: {error.strerror}") from None
        except Exception:
            self._go_on()
            raise
        given = self._in_thread(partial(_give, listening, path, estate))
        given.addBoth(self._given, estate)
        return path

    def _given(self, heir: socket.socket | Failure | None, estate: Estate) -> None:
        estate.close()
        if isinstance(heir, socket.socket):
            with heir, contextlib.suppress(OSError):
                if self._running():
                    heir.sendall(_AGREED)
                    log.critical("a new process has taken over: this one ends")
                    self._handed_over()
                    return
        if self._running():
            log.critical("no process has taken over: all goes on as before")
        self._go_on()

    def _go_on(self) -> None:
        self._offered = False
        if not self._running():
            return
        for each in self._services:
            try:
                each.startService()
            except PortError as error:  # somebody has been quicker; it is tried again
                log.critical("{error}", error=error, event="port-not-restored")


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(listening.fileno(), 0o600)  # before there is a file
        listening.bind(path)
        listening.listen(1)
    except OSError:
        listening.close()
        raise
    return listening


def _give(listening: socket.socket, path: str, estate: Estate) -> socket.socket | None:
    """Give everything to who comes; return its connection when it has confirmed that."""
    heir: socket.socket | None = None
    try:
        with listening:
            listening.settimeout(LIMIT)
            heir, _ = listening.accept()
        heir.settimeout(LIMIT)
        credentials = heir.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", credentials)[1] not in (0, os.geteuid()):
            heir.close()
            return None
        told = json.dumps({"sockets": list(estate.sockets), "pauses": estate.pauses}).encode()
        heir.sendall(struct.pack("!I", len(told)) + told)
        descriptors = [estate.lock, *estate.sockets.values()]
        for first in range(0, len(descriptors), _BATCH):
            socket.send_fds(heir, [b"."], descriptors[first : first + _BATCH])
        if heir.recv(1) == _AGREED:
            return heir
    except OSError:
        pass  # it came not, or has gone
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    if heir is not None:
        heir.close()
    return None


# ---------------------------------------------------------------------- the new process


def take_over(management: str) -> Estate | None:
    """
    Take everything over; it waits as long as that takes.

    :param management: the description of the management port.
    :return: None when no lonc is there.
    :raises TakeOverError: the old process goes on.
    """
    kind, *arguments = _parse(management)[0]
    if kind != "unix":
        raise TakeOverError(f"cannot take over by {management}: it is no UNIX socket")
    path = _parse(management)[1].get("address", "".join(arguments[:1]))
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(ENDED)
            try:
                asking.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            where = _ask(asking)
        giver = socket.socket(socket.AF_UNIX)
        try:
            giver.settimeout(LIMIT)
            giver.connect(where)
            return receive(giver)
        except BaseException:
            giver.close()
            raise
    except (OSError, ValueError) as error:
        raise TakeOverError(f"cannot take over from the lonc at {path}: {error}") from None


def _ask(asking: socket.socket) -> str:
    # Whoever takes nothing over does without AMP's two megabytes.
    from twisted.protocols import amp

    from lonc.control.commands import HandOver as Command

    box = amp.AmpBox({amp.COMMAND: Command.commandName, amp.ASK: b"1"})
    asking.sendall(box.serialize())
    said = b""
    while not said.endswith(b"\0\0"):
        more = asking.recv(65536)
        if not more:
            raise TakeOverError("cannot take over: the old process has said nothing")
        said += more
    answer = amp.parseString(said)[0]
    if amp.ERROR in answer:
        raise TakeOverError(f"cannot take over: {answer[amp.ERROR_DESCRIPTION].decode()}")
    where: str = answer[b"path"].decode()
    return where


def receive(giver: socket.socket) -> Estate:
    """
    Get everything from the old process, which goes on until that is confirmed.

    :param giver: is connected to the socket that it named.
    :raises TakeOverError: it goes on.
    :raises OSError: likewise.
    """
    told = json.loads(_exactly(giver, struct.unpack("!I", _exactly(giver, 4))[0]))
    names = told["sockets"]
    descriptors: list[int] = []
    while len(descriptors) < 1 + len(names):
        data, received, _, _ = socket.recv_fds(giver, 1, _BATCH)
        if not data:
            raise TakeOverError("cannot take over: the old process has gone")
        descriptors += received
    for each in descriptors:
        os.set_inheritable(each, False)
    lock, *sockets = descriptors
    return Estate(dict(zip(names, sockets, strict=True)), lock, told["pauses"], giver)


def _exactly(giver: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = giver.recv(size - len(data))
        if not more:
            raise TakeOverError("cannot take over: the old process has gone")
        data += more
    return data
