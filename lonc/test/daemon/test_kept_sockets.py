"""Listening sockets that outlive a restart."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from lonc.control.client import ManagementClient
from lonc.daemon.kept_sockets import KeptSockets
from lonc.daemon.systemd import Manager
from lonc.local.client_socket import ClientSocket
from lonc.local.limits import Clients
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.daemon import TWISTD, Child, free_port, reactor
from lonc.test.fixtures.doubles import some_settings
from lonc.test.fixtures.load import LoadTestCase
from lonc.test.fixtures.local_client import FakeHost
from lonc.test.fixtures.manager import StandIn, stand_in
from lonc.transport.network import Network


class NextManager(Manager):
    """The manager as the next process sees it, with the descriptors that it has stored."""

    def __init__(self, stand_in: StandIn, **environment: str) -> None:
        super().__init__({"NOTIFY_SOCKET": stand_in.path, **environment})
        stand_in.look()
        self.inherited = {name: os.dup(each) for name, each in stand_in.kept.items()}


class KeptSocketsTests(SynchronousTestCase):
    """The socket of a host over restarts, with all processes in this one."""

    def setUp(self) -> None:
        folder = short_folder(self)
        self.path = os.path.join(folder, "l1")
        self.manager = stand_in(self, folder)
        self.clock = MemoryReactorClock()
        self.sockets: list[ClientSocket] = []
        self.addCleanup(self.let_go)
        self.kept = self.process()

    def let_go(self) -> None:
        """Close what is open, as the end of a process would."""
        for each in self.sockets:
            each.close()
        self.clock.advance(0)
        for rest in self.kept._manager.inherited.values():
            os.close(rest)

    def process(self, **environment: str) -> KeptSockets:
        """Begin a new process; return its kept sockets."""
        self.network = Network(self.clock)
        self.kept = KeptSockets(NextManager(self.manager, **environment))
        return self.kept

    def opened(self, path: str = "", mode: int = 0o660) -> ClientSocket:
        """Return a socket that the current process has opened."""
        host, clock = FakeHost(), Clock()
        host.at_once = b"hello\n"
        clients = Clients(some_settings(), clock)
        made = ClientSocket(host, clients, self.network, self.kept, clock)
        self.sockets.append(made)
        made.open(path or self.path, mode, None)
        self.manager.look()
        return made

    def ended(self, local: ClientSocket) -> None:
        """End the process."""
        self.kept.stop_accepting()
        local.close()
        self.clock.advance(0)
        self.manager.look()

    def waiting(self, path: str = "") -> socket.socket:
        """Return a client that has connected."""
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(10)
        client.connect(path or self.path)
        return client

    def test_over_a_restart(self) -> None:
        """The file stays, and the next process serves the waiting clients, with its mode."""
        inode = os.stat(self.opened()._file.path).st_ino
        self.ended(self.sockets[0])
        client = self.waiting()
        self.process()
        again = self.opened(mode=0o600)
        found = os.stat(self.path)
        self.assertEqual((found.st_ino, stat.S_IMODE(found.st_mode)), (inode, 0o600))
        self.assertTrue(again.intact)
        client.send(b"ping\n")
        self.network.loop.doRead()
        self.assertEqual(client.recv(100), b"hello\n")

    def test_moved(self) -> None:
        """A socket that is closed while lonc runs is removed from the store, with its file."""
        local = self.opened()
        (name,) = self.manager.kept
        self.assertTrue(name.startswith(self.path))
        other = self.path + "-other"
        local.open(other, 0o660, None)
        self.clock.advance(0)
        self.manager.look()
        (name,) = self.manager.kept
        self.assertTrue(name.startswith(other))
        self.assertFalse(os.path.exists(self.path))

    def test_another_file(self) -> None:
        """If the file was replaced, the stored socket is not used."""
        self.ended(self.opened())
        os.rename(self.path, self.path + "-away")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(self.path)
        self.process()
        self.assertTrue(self.opened().intact)
        self.waiting()
        self.kept.close_unclaimed()
        self.manager.look()
        (name,) = self.manager.kept  # the new one
        self.assertIn(f".{os.stat(self.path).st_ino:x}", name)

    def test_nobody_wants_it(self) -> None:
        """A socket that is not claimed is closed and removed; its clients get con_lost."""
        self.ended(self.opened())
        client = self.waiting()
        self.process()
        self.kept.close_unclaimed()
        self.manager.look()
        self.assertEqual(self.manager.kept, {})
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(client.recv(100), b"con_lost\n")

    def test_no_room(self) -> None:
        """Sockets that the manager does not store are closed and removed at the end."""
        self.process(FDSTORE="1")
        first, second = self.opened(), self.opened(self.path + "2")
        self.assertEqual(len(self.manager.kept), 1)
        self.kept.stop_accepting()
        first.close()
        second.close()
        self.assertTrue(os.path.exists(self.path))
        self.assertFalse(os.path.exists(self.path + "2"))

    def test_busy_manager(self) -> None:
        """A busy manager gets the socket later; until then a stop closes it."""
        with patch.object(self.kept._manager, "store", return_value=False):
            local = self.opened()
            self.assertFalse(self.kept.stop_accepting())
        self.kept.store_missing()
        self.manager.look()
        self.assertEqual(len(self.manager.kept), 1)
        self.kept.store_missing()
        self.assertEqual(len(self.manager.told), 1)
        self.ended(local)
        self.assertTrue(os.path.exists(self.path))

    def test_no_manager(self) -> None:
        """Without a manager sockets are closed and removed at the end."""
        self.kept = KeptSockets(Manager({}))
        local = self.opened()
        self.assertFalse(self.kept.stop_accepting())
        local.close()
        self.assertFalse(os.path.exists(self.path))


class RestartTests(LoadTestCase):
    """Restarts under load, with a manager that stores descriptors."""

    restarts = 4

    def started(self) -> Child:
        """Start lonc with the stored descriptors."""
        self.manager.look()
        command = [sys.executable, TWISTD, "-n", "lonc", "--config", self.path("loncapa.conf")]
        return self.spawn(
            self.manager.command(command),
            self.manager.descriptors,
            NOTIFY_SOCKET=self.manager.path,
        )

    async def test_dead(self) -> None:
        """A host that was DEAD does not count as healthy in the next process."""
        self.manager = stand_in(self, self.folder)
        self.configure(free_port("127.0.0.1", "127.0.0.2"))
        lonc = self.started()
        while not await self.is_dead("l2"):
            await self.ask("l2", "ping")
        self.manager.new()
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertTrue(os.path.exists(self.path("daemons", "logs", "lonc.health")))
        lonc = self.started()
        await self.until(lambda: self.manager.has("READY=1"))
        self.assertTrue(await self.is_dead("l2"))
        self.assertFalse(os.path.exists(self.path("daemons", "logs", "lonc.health")))
        await lonc.end(signal.SIGTERM)

    async def is_dead(self, host_id: str) -> bool:
        """Return whether a host is DEAD, or was and has not answered since."""
        await self.until(lambda: os.path.exists(self.socket("lonc.amp")))
        client = await ManagementClient.connect(reactor, f"unix:{self.socket('lonc.amp')}")
        (state,) = [each.state for each in await client.hosts() if each.host_id == host_id]
        await client.close()
        return state in ("DEAD", "unproven")

    async def test_nobody_is_refused(self) -> None:
        """No client is refused, and only requests in flight may get con_lost."""
        self.manager = stand_in(self, self.folder)
        lond = self.lond("l2", "127.0.0.2")
        self.configure(lond.port)
        lonc = self.started()
        await self.until(lambda: self.manager.has("READY=1"))
        self.load("l2")
        for _ in range(self.restarts):
            await self.more()
            self.manager.new()
            self.began_a_change(settling=True)
            lonc.kill(signal.SIGTERM)
            await self.until(lambda: self.manager.has("STOPPING=1"))
            self.settled()
            self.assertEqual(await lonc.ended(), 0)
            self.assertTrue(os.path.exists(self.socket("l2")))
            lonc = self.started()
            await self.until(lambda: self.manager.has("READY=1"))
        await self.more()
        await self.assert_nobody_noticed()
        self.assertEqual(len(self.manager.kept), 3)  # the management port's too
        self.assertIn("l2", await self.manage("list"))
        self.assert_no_traceback(lonc)
        await lonc.end(signal.SIGTERM)
