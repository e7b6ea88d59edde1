# Twisted's processes, endpoints and services have no annotations:
# mypy: allow-untyped-calls
"""
The whole daemon in a child process, for tests: a folder, a `twistd` in it, and clients.

Everything that runs in the folder is killed when the test ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import lonc
from lonc.lond.faults import STALL, Step
from lonc.lond.protocol import LondFactory

reactor: Any = global_reactor

#: The folder that `lonc` is imported from, and what stands beside it in the source.
SOURCE = os.path.dirname(os.path.dirname(lonc.__file__))
MANAGE = os.path.join(SOURCE, "docs", "examples", "manage.py")
TAC = os.path.join(SOURCE, "tap", "lonc.tac")

TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")

#: Runs `twistd` as a user without privileges would, root or not: first a hard limit of open files
#: (0 leaves it), then the arguments. It gives up every capability, so permissions count.
UNPRIVILEGED = """
import ctypes, resource, sys
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, nothing) == 0
files = int(sys.argv.pop(1))
if files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
from twisted.scripts.twistd import run
run()
"""

#: Runs `twistd` where looking up l1.example.org never ends.
NO_ANSWER = """
import socket, threading
real = socket.getaddrinfo
def look_up(host, *more, **others):
    if host == "l1.example.org":
        threading.Event().wait()
    return real(host, *more, **others)
socket.getaddrinfo = look_up
from twisted.scripts.twistd import run
run()
"""

HOSTS = """\
l1:msu:library:l1.example.org:127.0.0.1
l2:msu:access:l2.example.org:127.0.0.2
"""


async def gone(pid: int) -> None:
    """Wait for the end of a process that need not be a child."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended: Deferred[None] = Deferred()
    reader = _Readable(end, ended)
    reactor.addReader(reader)
    try:
        await ended
    finally:
        reactor.removeReader(reader)
        os.close(end)


class _Readable:
    """Fires once a descriptor can be read."""

    def __init__(self, descriptor: int, fires: Deferred[None]) -> None:
        self._descriptor = descriptor
        self._fires = fires

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "end of a process"

    def doRead(self) -> None:
        reactor.removeReader(self)
        self._fires.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""


class Child(ProcessProtocol):
    """
    A process and what it said.

    :ivar out: what came from its stdout so far.
    :ivar err: what came from its stderr.
    :ivar status: its exit status, or the negative number of a signal; None while it runs.
    """

    def __init__(self) -> None:
        self.out = ""
        self.err = ""
        self.status: int | None = None
        self._awaited: list[tuple[str, int, Deferred[None]]] = []
        self._ends: list[Deferred[None]] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        pid: int = self.transport.pid  # type: ignore[union-attr]
        return pid

    @property
    def title(self) -> str:
        """Its process title, or its command line as long as it has none."""
        with open(f"/proc/{self.pid}/cmdline", encoding="utf-8") as file:
            return file.read()

    def outReceived(self, data: bytes) -> None:
        """Take what it says."""
        self.out += data.decode()
        ready = [each for each in self._awaited if each[0] in self.out[each[1] :]]
        for each in ready:
            self._awaited.remove(each)
            each[2].callback(None)

    def errReceived(self, data: bytes) -> None:
        """Take what it complains of."""
        self.err += data.decode()

    def processEnded(self, reason: Failure) -> None:
        """Tell how it ended."""
        awaited, self._awaited = self._awaited, []
        for text, _, said in awaited:
            said.errback(AssertionError(f"ended without saying {text!r}: {self.out}{self.err}"))
        ended: Any = reason.value
        self.status = ended.exitCode if ended.signal is None else -ended.signal
        ends, self._ends = self._ends, []
        for ended in ends:
            ended.callback(None)

    async def ended(self) -> int:
        """Wait for its end; return its exit status."""
        if self.status is None:
            ended: Deferred[None] = Deferred()
            self._ends.append(ended)
            await ended
        assert self.status is not None
        return self.status

    def mark(self) -> int:
        """Return where the output is now: `says` may begin to look there."""
        return len(self.out)

    async def says(self, text: str, since: int = 0) -> None:
        """Wait until its stdout has a text, behind a mark."""
        if text not in self.out[since:]:
            said: Deferred[None] = Deferred()
            self._awaited.append((text, since, said))
            await said

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def end(self, number: signal.Signals) -> int:
        """Send it a signal that ends it; return its exit status."""
        self.kill(number)
        return await self.ended()


class Client(LineOnlyReceiver):
    """A program that asks a host."""

    delimiter = b"\n"
    MAX_LENGTH = 2**24

    def __init__(self) -> None:
        self._owed: deque[Deferred[str]] = deque()
        self.closed: Deferred[None] = Deferred()

    def ask(self, request: str) -> Deferred[str]:
        """Write a request; fires with the answer, or fails when there will be none."""
        self.sendLine(request.encode())
        answer: Deferred[str] = Deferred()
        self._owed.append(answer)
        return answer

    def lineReceived(self, line: bytes) -> None:
        """Take an answer."""
        self._owed.popleft().callback(line.decode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing more will come."""
        while self._owed:
            self._owed.popleft().errback(ConnectionLost())
        self.closed.callback(None)

    async def close(self) -> None:
        """Hang up, and want no answer any more."""
        self._owed.clear()
        self.transport.abortConnection()  # type: ignore[union-attr]
        await self.closed


@attrs.define
class Lond:
    """
    A lond in the test's process.

    :ivar requests: what it was asked.
    """

    factory: LondFactory
    requests: list[str]
    address: str
    port: int
    _listener: Any = None
    _witnessed: Deferred[None] | None = None

    def listen(self) -> None:
        """Take calls."""
        self._listener = reactor.listenTCP(self.port, self.factory, interface=self.address)
        self.port = self._listener.getHost().port

    def witness(self, request: bytes) -> None:
        """Note a request."""
        self.requests.append(request.decode())
        if self._witnessed is not None:
            witnessed, self._witnessed = self._witnessed, None
            witnessed.callback(None)

    async def asked(self, request: str, times: int = 1) -> None:
        """Wait until it has been asked something."""
        while self.requests.count(request) < times:
            self._witnessed = Deferred()
            await self._witnessed

    def say(self, line: str) -> None:
        """Say a line on the one connection that is open, asked or not."""
        (connection,) = self.factory.connections
        connection.transport.write(f"{line}\n".encode())

    def hold(self, command: str) -> None:
        """Leave the next request with this command unanswered; `say` is the answer."""
        self.factory.faults.order(Step.REQUEST, STALL, times=1, command=command.encode())

    async def close(self) -> None:
        """Take no calls and hang up."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.stopListening()
        await self.factory.close_connections()


class DaemonTestCase(TestCase):
    """
    A test of the daemon in a folder of its own.

    :ivar folder: the folder, whose name is short: a socket's path has not much room.
    """

    timeout = 30

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="lonc-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.work = self.path("work")
        os.mkdir(self.work)
        self.children: list[Child] = []
        self.clients: list[Client] = []
        self.londs: list[Lond] = []
        self._over = False
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end()))

    async def _end(self) -> None:
        self._over = True
        for client in self.clients:
            if not client.closed.called:
                await client.close()
        self._kill_all()
        for child in self.children:
            await child.ended()
        for lond in self.londs:
            await lond.close()

    def _kill_all(self) -> None:
        """Kill what runs in the folder; one in the background has no other mark that stays."""
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/cwd").startswith(self.folder + os.sep):
                    os.kill(int(name), signal.SIGKILL)

    # ------------------------------------------------------------------ files

    def path(self, *names: str) -> str:
        """Return a path inside the folder."""
        return os.path.join(self.folder, *names)

    def write(self, text: str, *names: str) -> str:
        """Write a file inside the folder."""
        path = self.path(*names)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def read(self, *names: str) -> str:
        """Return what a file inside the folder holds."""
        with open(self.path(*names), encoding="utf-8") as file:
            return file.read()

    def left_in(self, *names: str) -> list[str]:
        """Return what is in a folder but for folders."""
        with os.scandir(self.path(*names)) as found:
            return [each.name for each in found if not each.is_dir()]

    def socket(self, host_id: str) -> str:
        """Return the path of a host's socket."""
        return self.path("sock", host_id)

    def configure(self, port: int, hosts: str = HOSTS, **variables: str) -> str:
        """Write ``loncapa.conf`` and ``hosts.tab``, and make the folders; return the first."""
        for name in ("tabs", "sock", "daemons/logs", "html"):
            os.makedirs(self.path(name), exist_ok=True)
        self.write(hosts, "tabs", "hosts.tab")
        given = {
            "lonHostID": "l1",
            "lonTabDir": self.path("tabs"),
            "lonSockDir": self.path("sock"),
            "lonDaemons": self.path("daemons"),
            "lonDocRoot": self.path("html"),
            "londPort": str(port),
        } | variables
        lines = "".join(f'PerlSetVar {name} "{value}"\n' for name, value in given.items() if value)
        return self.write(lines, "loncapa.conf")

    # ------------------------------------------------------------------ processes

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what nothing but looking tells; the test's time limit is the limit."""
        while not condition():
            if self._over or (self.children and self.children[-1].status):
                raise AssertionError(f"nothing more to wait for: {self.children[-1].err}")
            await deferLater(reactor, 0.02)

    def spawn(self, command: list[str], **environment: str) -> Child:
        """Start a process in the folder ``work``."""
        child = Child()
        environ = {**os.environ, "PYTHONPATH": SOURCE, **environment}
        reactor.spawnProcess(child, command[0], command, env=environ, path=self.work)
        self.children.append(child)
        return child

    async def rounds(self, lonc: Child, count: int) -> None:
        """Wait for so many of lonc's rounds, one a second: each ends with a new process title."""
        titles = {lonc.title}

        def enough() -> bool:
            titles.add(lonc.title)
            return len(titles) > count

        await self.until(enough)

    def twistd(self, *arguments: str, **environment: str) -> Child:
        """Start `twistd` with these arguments."""
        return self.spawn([sys.executable, TWISTD, *arguments], **environment)

    def unprivileged(self, *arguments: str, files: int = 0) -> Child:
        """Start `twistd` without root's rights; with a hard limit of open files unless 0."""
        return self.spawn([sys.executable, "-c", UNPRIVILEGED, str(files), *arguments])

    def without_names(self, *arguments: str) -> Child:
        """Start `twistd` where looking up l1.example.org never ends."""
        return self.spawn([sys.executable, "-c", NO_ANSWER, *arguments])

    def standalone(self, *options: str) -> Child:
        """Start lonc with an embedded cluster in the folder, in the foreground."""
        return self.twistd("-n", "lonc", "--standalone", self.folder, *options)

    def lonc(self, *options: str) -> Child:
        """Start lonc in the foreground with the ``loncapa.conf`` that is in the folder."""
        return self.twistd("-n", "lonc", "--config", self.path("loncapa.conf"), *options)

    async def manage(self, *arguments: str) -> str:
        """Run the documentation's management program; return its output and fail if it fails."""
        if not os.path.exists(MANAGE):
            self.skipTest("lonc is installed without its documentation")
        endpoint = f"unix:{self.socket('lonc.amp')}"
        out, err, status = await getProcessOutputAndValue(
            sys.executable, [MANAGE, endpoint, *arguments], {**os.environ, "PYTHONPATH": SOURCE}
        )
        self.assertEqual((status, err), (0, b""))
        return str(out.decode())

    def assert_no_traceback(self, *children: Child) -> None:
        """Nowhere in what was said or logged is a traceback."""
        for child in children:
            self.assertNotIn("Traceback", child.out + child.err)
        log = self.path("daemons", "logs", "lonc.log")
        if os.path.exists(log):
            self.assertNotIn("Traceback", self.read(log))

    # ------------------------------------------------------------------ clients and londs

    async def client(self, host_id: str) -> Client:
        """Connect to a host's socket, once it is there."""
        endpoint = UNIXClientEndpoint(reactor, self.socket(host_id))
        client = Client()
        while client.transport is None:
            await self.until(lambda: os.path.exists(self.socket(host_id)))
            try:
                await connectProtocol(endpoint, client)
            except ConnectError:  # a crash left the file there
                await deferLater(reactor, 0.02)
        self.clients.append(client)
        return client

    async def ask(self, host_id: str, request: str) -> str:
        """Ask a host once, as soon as it serves; once it has answered, signals are taken too."""
        client = await self.client(host_id)
        answer = await client.ask(request)
        await client.close()
        return answer

    def lond(self, host_id: str, address: str, port: int = 0, listen: bool = True) -> Lond:
        """Make a lond in this process, at a port of its own where none is given."""
        requests: list[str] = []
        factory = LondFactory(reactor, host_id, "l1", witness=lambda line: lond.witness(line))
        lond = Lond(factory, requests, address, port)
        self.londs.append(lond)
        if listen:
            lond.listen()
        return lond


def free_port(*addresses: str) -> int:
    """Return a TCP port that is free at all of some addresses."""
    while True:
        with contextlib.ExitStack() as held:
            port = 0
            try:
                for address in addresses:
                    listener = held.enter_context(socket.socket())
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.bind((address, port))
                    port = listener.getsockname()[1]
            except OSError:
                continue
            return port
