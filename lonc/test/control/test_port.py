"""The management port."""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import Protocol
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.control.client import ManagementClient
from lonc.control.port import ManagementPort, ManagementPortError
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.management import NotedDaemon, PortsReactor, warnings
from lonc.transport.network import network


class ManagementPortTests(SynchronousTestCase):
    """S18: opening, moving and closing it."""

    def setUp(self) -> None:
        self.reactor: Any = PortsReactor()  # which is a network, too

    def started(self, description: str) -> ManagementPort:
        """Return a port that has been started."""
        port = ManagementPort(self.reactor, self.reactor, NotedDaemon().parts, description)
        port.startService()
        return port

    def refusal(self, description: str) -> str:
        """Return why it does not start."""
        with self.assertRaises(ManagementPortError) as caught:
            self.started(description)
        return str(caught.exception)

    def test_nonsense(self) -> None:
        """Section 8: an invalid description is refused with the reason."""
        for description in ("tcp", "tcp:http-alt-x", "no:such", "ssl:7000", "tcp:1:2:3:4"):
            told = self.refusal(description)
            self.assertTrue(told.startswith(f"management port {description}: "), told)
            self.assertNotIn("\n", told)

    def test_wrong_options(self) -> None:
        """A wrong option of ``unix:`` is refused with the same words as by Twisted."""
        for description in ("unix:/m:bogus=1", "unix:/m:600:mode=600", "unix:/m:reactor=1"):
            with self.assertRaises(TypeError) as caught:
                serverFromString(None, description)
            told = self.refusal(description)
            self.assertEqual(told, f"management port {description}: {caught.exception}")

    def test_interfaces(self) -> None:
        """S18: TCP is accepted on loopback only, however it is described."""
        with capturedLogs() as events:
            self.started("tcp:7000:interface=127.0.0.9")
        self.assertIn("every local user may see, and nobody may steer", warnings(events)[0])
        self.started(r"tcp6:7001:interface=\:\:1")
        self.started("tcp:7002:interface=localhost")
        for description in (
            "tcp:7000",
            "tcp:7000:interface=",
            "tcp:7000:interface=0.0.0.0",
            "tcp:7000:interface=192.0.2.1",
            "tcp:port=7000:interface=l1.example.org",
            "tcp6:7000",
            r"tcp6:7000:interface=\:\:",
            r"tcp6:7000:interface=2001\:db8\:\:1",
            "haproxy:tcp:7000",
        ):
            told = self.refusal(description)
            self.assertIn("use an interface of this machine only", told)
            self.assertNotIn("\n", told)
        self.assertEqual(list(self.reactor.ports), [7000, 7001, 7002])

    def test_without_a_mode(self) -> None:
        """S18: a socket without an explicit mode is for lonc's own user only."""
        for description, mode in (
            ("unix:/lonc.amp", 0o600),
            (r"unix:/a\:666/lonc.amp", 0o600),
            ("unix:address=/lonc.amp:backlog=666", 0o600),
            ("haproxy:unix:/lonc.amp", 0o600),
            ("unix:/lonc.amp:mode=666", 0o666),
            ("unix:/lonc.amp:0666", 0o666),
            ("unix:mode=660:address=/lonc.amp", 0o660),
            (r"unix:address=/a\:b\\c\=d/lonc.amp:mode=640", 0o640),
        ):
            self.reactor.ports.clear()
            self.started(description)
            self.assertEqual([at[1] for at in self.reactor.ports], [mode], description)
        self.assertEqual(list(self.reactor.ports), [(r"/a:b\c=d/lonc.amp", 0o640)])

    def test_cannot_move(self) -> None:
        """F13: if the new port cannot be opened, the old one is opened again, with the reason."""
        self.reactor.taken.add(7001)
        port = self.started("tcp:7000:interface=127.0.0.1")
        old = self.reactor.ports.pop(7000)
        old.closed.callback(None)
        moved = Deferred.fromCoroutine(port.relocate("tcp:7001:interface=127.0.0.1"))
        error = self.failureResultOf(moved, ManagementPortError)
        told = "management port tcp:7001:interface=127.0.0.1: it is taken"
        self.assertEqual(str(error.value), told)
        self.assertEqual(list(self.reactor.ports), [7000])
        self.assertEqual(port.description, "tcp:7000:interface=127.0.0.1")

        self.reactor.taken.clear()
        self.reactor.ports[7000].closed.callback(None)
        self.successResultOf(Deferred.fromCoroutine(port.relocate("tcp:7001:interface=127.0.0.1")))
        self.assertEqual(port.description, "tcp:7001:interface=127.0.0.1")

    def test_moves(self) -> None:
        """
        F13: the old port is closed first, because the new one may have the same path. A second move
        waits for the first, one to the same place does nothing, and stopping waits for the port.
        """
        port = self.started("unix:/lonc.amp:mode=600")
        first = Deferred.fromCoroutine(port.relocate("unix:/lonc.amp:mode=660"))
        second = Deferred.fromCoroutine(port.relocate("tcp:7002:interface=127.0.0.1"))
        places: list[Any] = [("/lonc.amp", 0o600), ("/lonc.amp", 0o660), 7002]
        for number, moved in enumerate((first, second), 1):
            self.assertEqual(list(self.reactor.ports), places[:number])
            self.reactor.ports[places[number - 1]].closed.callback(None)
            self.successResultOf(moved)
        self.assertEqual(list(self.reactor.ports), places)
        self.assertEqual(port.description, "tcp:7002:interface=127.0.0.1")
        self.successResultOf(Deferred.fromCoroutine(port.relocate(port.description)))
        self.assertFalse(self.reactor.ports[7002].stopping)
        stopped = port.stopService()
        self.assertNoResult(stopped)
        self.reactor.ports[7002].closed.callback(None)
        self.successResultOf(stopped)


class RealSocketTests(TestCase):
    """S18: the reactor's own sockets."""

    timeout = 600

    def setUp(self) -> None:
        folder = short_folder(self)
        self.path = os.path.join(folder, "lonc.amp")
        self.daemon = NotedDaemon()
        self.port = ManagementPort(
            reactor, network(reactor), self.daemon.parts, f"unix:{self.path}:mode=600"
        )

    async def test_after_a_crash(self) -> None:
        """
        S3, S18: a stale socket is replaced; the mode is 600; the log names the client's process,
        which is the owner; stopping removes the socket.
        """
        with socket.socket(socket.AF_UNIX) as crashed:
            crashed.bind(self.path)
        self.port.startService()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        client = await ManagementClient.connect(reactor, f"unix:{self.path}")
        with capturedLogs() as events:
            await client.report()
        self.assertIn(f"(process {os.getpid()})", str(events[0]["who"]))
        self.assertEqual(self.daemon.asked, [("report",)])
        await client.close()
        await self.port.stopService()
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])

    async def test_in_use(self) -> None:
        """S3: the socket of another process is left, and the process is named."""
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen()
            error = self.assertRaises(ManagementPortError, self.port.startService)
            await self.port.stopService()
        self.assertTrue(os.path.exists(self.path))
        self.assertIn(f"{self.path}: process {os.getpid()} is already listening there", str(error))

    async def test_removed(self) -> None:
        """S18: a socket that was deleted is created again; open connections stay."""
        self.port.startService()
        client = await ManagementClient.connect(reactor, f"unix:{self.path}")
        await client.report()
        self.port.restore()
        self.assertTrue(self.port.listening)
        os.unlink(self.path)
        with capturedLogs() as events:
            self.port.restore()
            await task.deferLater(reactor, 0, lambda: None)
        self.assertEqual(
            [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn],
            ["the management port was missing and has been created again"],
        )
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        await client.report()
        await client.close()
        client = await ManagementClient.connect(reactor, f"unix:{self.path}")
        await client.report()
        await client.close()
        await self.port.stopService()
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])

    async def test_replaced(self) -> None:
        """S18: a file in place of the socket is left and logged once; the socket is tried again."""
        self.port.startService()
        os.unlink(self.path)
        with open(self.path, "w") as other:
            other.write("mine")
        with capturedLogs() as events:
            for _ in range(3):
                self.port.restore()
                await task.deferLater(reactor, 0, lambda: None)
        self.assertEqual(
            [formatEvent(event) for event in events if event["log_level"] is LogLevel.critical],
            [
                f"management port unix:{self.path}:mode=600: {self.path}: something other "
                "than a socket is in the way"
            ],
        )
        with open(self.path) as other:
            self.assertEqual(other.read(), "mine")
        os.unlink(self.path)
        self.port.restore()
        await task.deferLater(reactor, 0, lambda: None)
        self.assertTrue(self.port.listening)
        await self.port.stopService()
        self.port.restore()
        self.assertFalse(os.path.exists(self.path))

    async def test_open_connections(self) -> None:
        """Stopping fires when open connections are closed."""
        self.port.startService()
        closed: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionLost(self, reason: object = None) -> None:
                closed.callback(None)

        await connectProtocol(UNIXClientEndpoint(reactor, self.path), Silent())
        await self.port.stopService()
        await closed
