# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
The new process's side of ``--take-over``: it gets everything from the running process.

The steps are described in :mod:`lonc.daemon.handover`. The new process blocks in its start until
the old one has decided, so it has accepted and sent nothing by then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from lonc.daemon.handover import (
    LIMIT,
    LONGEST,
    SERVES,
    STAYS,
    Holdings,
    received,
)
from lonc.report.events import Logger
from lonc.transport.endpoint import Endpoint
from lonc.transport.unix_socket import peer_of

#: Seconds within which delayed requests in flight are answered or time out.
ENDED = 600.0

log = Logger()


class TakeOverError(Exception):
    """The old process continues; the message says why."""


class Predecessor:
    """
    The process that this one takes over from.

    :param connection: leads to the old process.
    :ivar pid: the old process's id.
    :ivar holdings: what it has handed over.
    """

    def __init__(self, connection: socket.socket, holdings: Holdings) -> None:
        self._connection = connection
        self.pid = peer_of(connection).pid
        self.holdings = holdings

    def relieve(self) -> None:
        """
        Tell the old process that this one serves; return once it ends, or has died.

        :raises TakeOverError: it continues.
        """
        self._connection.settimeout(LIMIT)
        # It may have closed the connection already; its answer can still be read.
        with contextlib.suppress(OSError):
            # twistd has gone into the background: the process id is not the one that connected.
            self._connection.send(b"%b %d" % (SERVES, os.getpid()))
        said = b""
        try:
            said = self._connection.recv(LONGEST)
        except TimeoutError:
            self._kill()
        except OSError:
            pass  # it has ended
        if said == STAYS:
            raise TakeOverError(f"cannot take over: process {self.pid} continues running")
        log.critical("taken over from process {pid}", pid=self.pid)

    def _kill(self) -> None:
        """Kill a process that does not answer: it was stopped, or hangs."""
        log.critical("process {pid} does not answer: killing it", pid=self.pid)
        try:
            if not self.pid:  # in another pid namespace; for kill(), 0 is our own process group
                raise OSError("its process id is not known")
            os.kill(self.pid, signal.SIGKILL)
            self._connection.recv(LONGEST)
        except (ProcessLookupError, ConnectionError):
            pass  # it has ended
        except OSError as error:
            raise TakeOverError(
                f"cannot take over: process {self.pid} does not answer and cannot be ended: "
                f"{error.strerror or error}"
            ) from None

    def close(self) -> None:
        """Close the connection: the old process continues, unless it has ended."""
        self._connection.close()

    def decline(self) -> None:
        """Close the connection and all descriptors that were handed over."""
        self.close()
        self.holdings.close()

    def serve_clients(
        self, reactor: IReactorFDSet, serve: Callable[[str, int, bytes], None]
    ) -> None:
        """
        Serve the clients that the old process passes on, until it closes the connection.

        :param serve: gets the name of the listening socket, the client's descriptor, and what the
            client has sent.
        """
        self._connection.setblocking(False)
        reactor.addReader(_Clients(reactor, self._connection, serve))


@implementer(IReadDescriptor)
@attrs.define(eq=False)
class _Clients:
    _reactor: IReactorFDSet
    _connection: socket.socket
    _serve: Callable[[str, int, bytes], None]

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._connection.fileno()

    def logPrefix(self) -> str:
        """Return a name for log lines."""
        return "clients of the old process"

    def doRead(self) -> None:
        """Serve the next client."""
        try:
            message, descriptors, asked = received(self._connection)
        except BlockingIOError:
            return
        except (EOFError, OSError):
            self._reactor.removeReader(self)
            self.connectionLost()
            return
        for descriptor in descriptors:  # empty if this process is out of descriptors
            self._serve(message["client"], descriptor, asked)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Close the connection; the reactor calls it too, when it stops."""
        self._connection.close()


def take_over(management: str, pid_file: str) -> Predecessor | None:
    """
    Get everything from the old process, which serves until this one does. This blocks.

    :param management: the description of the management port.
    :param pid_file: the path of the pid file.
    :return: None if no lonc is running, or it has died; the lock on the pid file shows which.
    :raises TakeOverError: the old process continues.
    """
    path = Endpoint.parse(management).unix_path
    if path is None:
        raise TakeOverError(f"cannot take over through {management}: it is not a UNIX socket")
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(ENDED)
            asking.connect(path)
            _check_user(path, peer_of(asking).uid)
            where = _ask(asking)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(LIMIT)
            connection.connect(where)
            return Predecessor(connection, receive(connection, pid_file))
        except BaseException:
            connection.close()
            raise
    except (EOFError, FileNotFoundError, ConnectionError):
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise TakeOverError(
            f"cannot take over: the lonc at {path} continues running: {why}"
        ) from None


def _check_user(path: str, uid: int) -> None:
    if uid != os.geteuid():
        raise TakeOverError(
            f"cannot take over: the lonc at {path} runs as user {uid}, this one as {os.geteuid()}: "
            "start it as that user, or as root with --uid"
        )


def _ask(asking: socket.socket) -> str:
    # Imported only here, because AMP takes two megabytes.
    from twisted.protocols import amp

    from lonc.control.commands import HandOver as Command

    box = amp.AmpBox({amp.COMMAND: Command.commandName, amp.ASK: b"1"})
    asking.sendall(box.serialize())
    said = b""
    while not said.endswith(b"\0\0"):
        more = asking.recv(65536)
        if not more:
            raise EOFError
        said += more
    answer = amp.parseString(said)[0]
    if amp.ERROR in answer:
        raise TakeOverError(f"cannot take over: {answer[amp.ERROR_DESCRIPTION].decode()}")
    where: str = answer[b"path"].decode()
    return where


def receive(connection: socket.socket, pid_file: str) -> Holdings:
    """
    Receive everything.

    :raises EOFError: the old process has died.
    :raises OSError: it sends nothing.
    :raises TakeOverError: it has another pid file.
    """
    sockets: dict[str, int] = {}
    knowledge: dict[str, dict[str, object]] = {}
    taken: list[int] = []
    try:
        while True:
            message, descriptors, _ = received(connection)
            taken += descriptors
            if os.path.realpath(message.get("pid_file", pid_file)) != os.path.realpath(pid_file):
                raise TakeOverError(
                    f"cannot take over: the running lonc has {message['pid_file']}, not "
                    f"{pid_file}: to change lonDaemons, stop lonc and start it again"
                )
            if "sockets" in message:
                sockets.update(zip(message["sockets"], descriptors, strict=True))
            elif "kind" in message:
                knowledge.setdefault(message["kind"], {})[message["key"]] = message["value"]
            elif "complete" in message:
                break
        return Holdings(pid_file, taken[0], sockets, knowledge)
    except BaseException:
        for each in taken:
            os.close(each)
        raise
