# Twisted's MemoryReactor and trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""Where the management port listens."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.management.client import ManagementClient
from lonc.management.port import ManagementPort, ManagementPortError
from lonc.test.management.test_server import NotedDaemon


class NotedPort:
    """A port whose end the test decides."""

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()
        self.stopping = False

    def stopListening(self) -> Deferred[None]:
        """Begin to close."""
        self.stopping = True
        return self.closed


class PortsReactor(MemoryReactorClock):
    """
    A reactor in memory.

    :ivar ports: what it listens on, in order: description of the place -> port.
    :ivar taken: TCP ports that are in use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[object, NotedPort] = {}
        self.taken: set[int] = set()

    def listenTCP(self, port: int, *args: Any, **kwargs: Any) -> NotedPort:
        """Listen."""
        if port in self.taken:
            raise CannotListenError("", port, OSError("it is taken"))
        return self.ports.setdefault(port, NotedPort())

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> NotedPort:
        """Listen."""
        return self.ports.setdefault((address, mode), NotedPort())


class ManagementPortTests(SynchronousTestCase):
    """S18: opening, moving and closing the port."""

    def setUp(self) -> None:
        self.reactor = PortsReactor()

    def started(self, description: str) -> ManagementPort:
        """Return a port that has been started."""
        port = ManagementPort(self.reactor, NotedDaemon(), description)
        port.startService()
        return port

    def refusal(self, description: str) -> str:
        """Return why it does not start."""
        with self.assertRaises(ManagementPortError) as caught:
            self.started(description)
        return str(caught.exception)

    def test_anywhere(self) -> None:
        """S18: it listens on whatever endpoint is described; the default is a socket's path."""
        self.started("tcp:7000:interface=127.0.0.1")
        self.started("unix:/sockets/lonc.amp:mode=600")
        self.started(r"unix:address=/a\:b\\c\=d/lonc.amp:mode=640")
        places = [7000, ("/sockets/lonc.amp", 0o600), (r"/a:b\c=d/lonc.amp", 0o640)]
        self.assertEqual(list(self.reactor.ports), places)

    def test_nonsense(self) -> None:
        """Section 8: a description that cannot be used is told with what is wrong with it."""
        for description in ("tcp", "tcp:http-alt-x", "no:such", "ssl:7000", "tcp:1:2:3:4"):
            told = self.refusal(description)
            self.assertTrue(told.startswith(f"management port {description}: "), told)
            self.assertNotIn("\n", told)

    def test_in_use(self) -> None:
        """Section 8: a port in use is named with the reason."""
        self.reactor.taken.add(7000)
        self.assertEqual(self.refusal("tcp:7000"), "management port tcp:7000: it is taken")

    def test_stops(self) -> None:
        """Stopping waits for the port's end."""
        port = self.started("tcp:7000")
        stopped = port.stopService()
        self.assertNoResult(stopped)
        self.reactor.ports[7000].closed.callback(None)
        self.successResultOf(stopped)

    def test_moves(self) -> None:
        """F13: the old place is left first, which may be the same path; then the new one is had."""
        port = self.started("unix:/lonc.amp:mode=600")
        moved = Deferred.fromCoroutine(port.move("unix:/lonc.amp:mode=660"))
        self.assertEqual(list(self.reactor.ports), [("/lonc.amp", 0o600)])
        self.reactor.ports[("/lonc.amp", 0o600)].closed.callback(None)
        self.successResultOf(moved)
        self.assertEqual(list(self.reactor.ports)[1:], [("/lonc.amp", 0o660)])
        self.assertEqual(port.description, "unix:/lonc.amp:mode=660")

    def test_moves_nowhere(self) -> None:
        """F13: where it is already, nothing happens."""
        port = self.started("tcp:7000")
        self.successResultOf(Deferred.fromCoroutine(port.move("tcp:7000")))
        self.assertFalse(self.reactor.ports[7000].stopping)

    def test_cannot_move(self) -> None:
        """F13: where the new place cannot be had, the old one is kept; a later try may work."""
        self.reactor.taken.add(7001)
        port = self.started("tcp:7000")
        old = self.reactor.ports.pop(7000)
        old.closed.callback(None)
        moved = Deferred.fromCoroutine(port.move("tcp:7001"))
        error = self.failureResultOf(moved, ManagementPortError)
        self.assertEqual(str(error.value), "management port tcp:7001: it is taken")
        self.assertEqual((list(self.reactor.ports), port.description), ([7000], "tcp:7000"))

        self.reactor.taken.clear()
        self.reactor.ports[7000].closed.callback(None)
        self.successResultOf(Deferred.fromCoroutine(port.move("tcp:7001")))
        self.assertEqual(port.description, "tcp:7001")

    def test_moves_one_after_the_other(self) -> None:
        """F13: a second move waits for the first."""
        port = self.started("tcp:7000")
        first = Deferred.fromCoroutine(port.move("tcp:7001"))
        second = Deferred.fromCoroutine(port.move("tcp:7002"))
        self.reactor.ports[7000].closed.callback(None)
        self.successResultOf(first)
        self.assertEqual(list(self.reactor.ports), [7000, 7001])
        self.reactor.ports[7001].closed.callback(None)
        self.successResultOf(second)
        self.assertEqual(list(self.reactor.ports), [7000, 7001, 7002])


class RealSocketTests(TestCase):
    """S18: with the reactor's own sockets."""

    timeout = 10

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="lonc-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "lonc.amp")
        self.daemon = NotedDaemon()
        self.port = ManagementPort(reactor, self.daemon, f"unix:{self.path}:mode=600")

    def stale(self) -> None:
        """Leave behind what a crash leaves, with a lock whose number is a living process's."""
        with socket.socket(socket.AF_UNIX) as crashed:
            crashed.bind(self.path)
        os.symlink(str(os.getppid()), f"{self.path}.lock")

    async def test_after_a_crash(self) -> None:
        """S3, S18: what a crash left behind stops nothing; mode 600; closing clears all away."""
        self.stale()
        self.port.startService()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        client = await ManagementClient.connect(reactor, f"unix:{self.path}")
        await client.report()
        self.assertEqual(self.daemon.asked, [("report",)])
        await client.close()
        await self.port.stopService()
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])

    async def test_in_use(self) -> None:
        """S3: another process's port is not taken away, and the process is named."""
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen()
            error = self.assertRaises(ManagementPortError, self.port.startService)
        self.assertIn(f"{self.path}: process {os.getpid()} listens there already", str(error))

    async def test_open_connections(self) -> None:
        """Stopping closes the connections that are open, and waits for that."""
        self.port.startService()
        closed: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionLost(self, reason: object = None) -> None:
                closed.callback(None)

        await connectProtocol(UNIXClientEndpoint(reactor, self.path), Silent())
        await self.port.stopService()
        await closed

    async def test_not_started(self) -> None:
        """What was never started can be stopped."""
        await self.port.stopService()
        self.assertFalse(os.path.exists(self.path))
