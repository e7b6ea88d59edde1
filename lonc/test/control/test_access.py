"""Who may see, and who may steer."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.control import access, commands
from lonc.control.access import Level, Visitor, visitor_of
from lonc.control.client import ManagementClient
from lonc.control.commands import ManagementCommand
from lonc.control.errors import ManagementError, NotAllowed
from lonc.control.port import ManagementPort, ManagementPortError
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.management import ConnectedTests, NotedDaemon, warnings
from lonc.transport.network import network
from lonc.transport.unix_socket import UNKNOWN, Peer

#: What who may see is allowed; everything else is for who steers.
SEEING = {"About", "ListHosts", "ListClients", "ListConnections", "ListSlow", "ListSettings"}
SEEING |= {"ListDelayed", "ListProblems", "Trace", "Listing"}


class LevelsTests(ConnectedTests):
    """What each level is allowed."""

    def test_levels(self) -> None:
        """Looking is for who may see, contents are the owner's, and all else is steering."""
        for name, command in vars(commands).items():
            if isinstance(command, type) and issubclass(command, ManagementCommand):
                level = Level.SEE if name in SEEING else Level.STEER
                level = Level.OWN if name == "ShowDelayed" else level
                self.assertEqual(command.level, level, name)

    def seeing(self) -> ManagementClient:
        """Return a client of somebody who may see."""
        self.visitor = Visitor("ann (process 7)", Level.SEE)
        client, self.pump = self.connected()
        return client

    def test_see(self) -> None:
        """Who may see gets the reports; what steers is refused in one line, done by nobody."""
        client = self.seeing()
        self.assertEqual(len(self.answer(client.hosts())), 2)
        with capturedLogs() as events:
            for asked in (client.reset_retries("msul1"), client.stop(), client.report()):
                error = self.failureResultOf(self.ask(asked), NotAllowed)
                self.assertIn("ann (process 7) may see, and not steer", str(error.value))
        self.assertEqual(self.daemon.asked, [])
        self.assertEqual(
            warnings(events),
            ["Not allowed over the management port: ResetRetries for ann (process 7)"],
        )

    def test_contents(self) -> None:
        """What is in requests is for the owner, not for everybody who steers."""
        self.visitor = Visitor("certificate l3", Level.STEER)
        client, self.pump = self.connected()
        self.answer(client.reset_retries("msul1"))

        async def traced() -> None:
            async for _ in client.trace(contents=True):
                break

        for asked in (client.show_delayed("1.1.put.l2"), traced()):
            error = self.failureResultOf(self.ask(asked), NotAllowed)
            self.assertIn("for lonc's own user and root", str(error.value))


class VisitorTests(SynchronousTestCase):
    """Who a connection's other side is, by what the kernel tells."""

    def visitor(self, family: int, uid: int) -> Visitor:
        """Return who a socket with a user's credentials is."""

        peer = Peer(7, uid) if family == socket.AF_UNIX else UNKNOWN
        self.patch(access, "peer_of", lambda handle: peer)

        class Transport(StringTransport):
            def getHandle(self) -> None:
                """Return what the kernel is asked about."""

        return visitor_of(Transport())

    def test_owner(self) -> None:
        """Lonc's own user and root own it, whoever else comes may see."""
        self.assertEqual(self.visitor(socket.AF_UNIX, 0), Visitor("root (process 7)", Level.OWN))
        own = self.visitor(socket.AF_UNIX, os.geteuid())
        self.assertEqual(own.level, Level.OWN)
        other = self.visitor(socket.AF_UNIX, 4_000_000_001)
        self.assertEqual(other, Visitor("4000000001 (process 7)", Level.SEE))

    def test_elsewhere(self) -> None:
        """Over TCP nobody is known, and may see."""
        self.assertEqual(self.visitor(socket.AF_INET, 0).level, Level.SEE)
        self.assertEqual(visitor_of(StringTransport()).level, Level.SEE)


class SocketTests(TestCase):
    """With the reactor's own sockets."""

    def setUp(self) -> None:
        folder = short_folder(self)
        self.path = os.path.join(folder, "lonc.amp")
        self.daemon = NotedDaemon()

    async def test_own_socket(self) -> None:
        """On a UNIX socket its owner steers, and the log says who it was."""
        port = ManagementPort(reactor, network(reactor), self.daemon.parts, f"unix:{self.path}")
        port.startService()
        client = await ManagementClient.connect(reactor, f"unix:{self.path}")
        with capturedLogs() as events:
            await client.report()
        self.assertIn(f"(process {os.getpid()})", str(events[0]["who"]))
        await client.close()
        await port.stopService()

    async def test_tcp(self) -> None:
        """Over TCP on this machine one sees, and does not steer; there is a warning."""
        port = ManagementPort(
            reactor, network(reactor), self.daemon.parts, "tcp:0:interface=127.0.0.1"
        )
        with capturedLogs() as events:
            port.startService()
        self.assertIn("may see, and nobody may steer", warnings(events)[0])
        host: Any = port._port.getHost() if port._port else None
        where = f"tcp:127.0.0.1:{host.port}"
        client = await ManagementClient.connect(reactor, where)
        await client.about()
        try:
            await client.stop()
        except ManagementError as error:
            self.assertIsInstance(error, NotAllowed)
        await client.close()
        await port.stopService()
        self.assertEqual(self.daemon.asked, [])

    async def test_group(self) -> None:
        """A group may connect from the start on, or from a reload on, and no more after another."""
        port = ManagementPort(
            reactor, network(reactor), self.daemon.parts, f"unix:{self.path}:mode=600", os.getegid()
        )
        port.startService()
        info = os.stat(self.path)
        self.assertEqual((info.st_mode & 0o777, info.st_gid), (0o660, os.getegid()))
        port.share(None)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        if os.geteuid() != 0:
            with self.assertRaises(ManagementPortError):
                port.share(0)
        await port.stopService()
