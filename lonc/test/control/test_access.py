"""Access levels: who may see, and who may steer."""

from __future__ import annotations

import errno
import os
import socket

from twisted.internet import reactor
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.control import access, commands
from lonc.control.access import Level, Visitor, visitor_of
from lonc.control.client import ManagementClient
from lonc.control.commands import ManagementCommand
from lonc.control.errors import NotAllowed
from lonc.control.port import ManagementPort
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.management import ConnectedTests, NotedDaemon, warnings
from lonc.transport.network import network
from lonc.transport.unix_socket import UNKNOWN, Peer

#: Commands that require the level see.
SEEING = {"About", "ListHosts", "ListClients", "ListConnections", "ListSlow", "ListSettings"}
SEEING |= {"ListDelayed", "ListProblems", "Trace", "Listing"}


class LevelsTests(ConnectedTests):
    """What each level allows."""

    def test_levels(self) -> None:
        """Reports require see, contents of requests own, and everything else steer."""
        for name, command in vars(commands).items():
            if isinstance(command, type) and issubclass(command, ManagementCommand):
                level = Level.SEE if name in SEEING else Level.STEER
                level = Level.OWN if name == "ShowDelayed" else level
                self.assertEqual(command.level, level, name)

    def seeing(self) -> ManagementClient:
        """Return a client with the level see."""
        self.visitor = Visitor("ann (process 7)", Level.SEE)
        client, self.pump = self.connected()
        return client

    def test_see(self) -> None:
        """With see, reports are answered; other commands are refused, and logged."""
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
        """Contents of requests require the owner; steer does not suffice."""
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
    """The identity of a client, as reported by the kernel."""

    def visitor(self, family: int, uid: int) -> Visitor:
        """Return the identity of a socket with a user's credentials."""
        peer = Peer(7, uid) if family == socket.AF_UNIX else UNKNOWN
        self.patch(access, "peer_of", lambda handle: peer)

        class Transport(StringTransport):
            def getHandle(self) -> None:
                """Return the socket."""

        return visitor_of(Transport())

    def test_owner(self) -> None:
        """lonc's own user and root are owners; others may see."""
        self.assertEqual(self.visitor(socket.AF_UNIX, 0), Visitor("root (process 7)", Level.OWN))
        own = self.visitor(socket.AF_UNIX, os.geteuid())
        self.assertEqual(own.level, Level.OWN)
        other = self.visitor(socket.AF_UNIX, 4_000_000_001)
        self.assertEqual(other, Visitor("4000000001 (process 7)", Level.SEE))

    def test_elsewhere(self) -> None:
        """Over TCP clients are unknown, and may see."""
        self.assertEqual(self.visitor(socket.AF_INET, 0).level, Level.SEE)
        self.assertEqual(visitor_of(StringTransport()).level, Level.SEE)


class SocketTests(TestCase):
    """The reactor's own sockets."""

    async def test_group(self) -> None:
        """A group may connect until a reload without it; one that cannot be set is a failure."""
        path = os.path.join(short_folder(self), "lonc.amp")
        port = ManagementPort(
            reactor, network(reactor), NotedDaemon().parts, f"unix:{path}:mode=600", os.getegid()
        )
        port.startService()
        info = os.stat(path)
        self.assertEqual((info.st_mode & 0o777, info.st_gid), (0o660, os.getegid()))
        port.share(None)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(os, "chown", refuse)
        told = f"management port unix:{path}:mode=600: not for group 0: Operation not permitted"
        self.assertEqual((port.share(0), port.failure), (told, told))
        self.assertEqual(port.share(0), "")
        await port.stopService()
