# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""A new process that takes everything over from the old one."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lonc.control.client import ManagementClient
from lonc.control.errors import NotDone
from lonc.daemon.takeover import Estate, HandOver, TakeOverError, receive, take_over
from lonc.tap import Options, make_daemon
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.daemon import Child, free_port, reactor
from lonc.test.fixtures.load import LoadTestCase
from lonc.transport.endpoint_port import PortError


class Counted(Service):
    """Counts how often it was started and stopped."""

    starts = stops = 0

    def startService(self) -> None:
        """Count."""
        self.starts += 1

    def stopService(self) -> None:
        """Count."""
        self.stops += 1


class HandOverTests(TestCase):
    """Both sides in one process, each in a thread where it waits."""

    timeout = 30

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="lonc-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "lonc.new")
        self.service = Counted()
        self.running = True
        self.count = 3
        self.ended: Deferred[None] = Deferred()
        self.given: list[Deferred[Any]] = []
        self.side = HandOver(
            self.in_thread,
            lambda: self.path,
            self.estate,
            [self.service],
            lambda: self.running,
            lambda: self.ended.callback(None),
        )

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Run it in a thread, and remember that."""
        self.given.append(deferToThread(work))
        return self.given[-1]

    def estate(self) -> Estate:
        """Return as many descriptors as the test wants, each of the same file."""
        files = {f"/{number}": os.open(os.devnull, os.O_RDONLY) for number in range(self.count)}
        return Estate(files, os.open(os.devnull, os.O_RDONLY), {"l2": {"by": "me"}})

    def receive(self, path: str) -> Estate:
        """Take everything."""
        with socket.socket(socket.AF_UNIX) as giver:
            giver.connect(path)
            estate = receive(giver)
            estate.confirm()
            return estate

    async def test_many(self) -> None:
        """More descriptors than a message takes arrive under their names, and no child gets any."""
        self.count = 450
        path = await self.side.offer()
        taken = await deferToThread(self.receive, path)
        self.addCleanup(taken.close)
        await self.ended
        self.assertEqual(list(taken.sockets), [f"/{number}" for number in range(450)])
        self.assertEqual(len({*taken.sockets.values(), taken.lock}), 451)
        self.assertFalse(any(map(os.get_inheritable, taken.sockets.values())))
        self.assertEqual(taken.pauses, {"l2": {"by": "me"}})
        self.assertEqual((self.service.stops, self.service.starts), (1, 0))
        self.assertFalse(os.path.exists(self.path))

    async def test_one_at_a_time(self) -> None:
        """A second process hears that it comes too late."""
        await self.side.offer()
        with self.assertRaises(NotDone):
            await self.side.offer()
        with socket.socket(socket.AF_UNIX) as heir:
            heir.connect(self.path)
        await self.given[0]
        self.assertEqual((self.service.stops, self.service.starts), (1, 1))
        self.assertFalse(self.ended.called)

    async def test_stopped_meanwhile(self) -> None:
        """When lonc is told to stop, the new process hears that nothing is handed over."""
        path = await self.side.offer()
        self.running = False
        with self.assertRaises(TakeOverError):
            await deferToThread(self.receive, path)
        self.assertFalse(self.ended.called)
        with self.assertRaises(NotDone):
            await self.side.offer()

    async def test_no_socket(self) -> None:
        """Where no socket can be made all goes on."""
        self.path = os.path.join(self.path, "nowhere")
        with self.assertRaises(NotDone):
            await self.side.offer()
        self.assertEqual((self.service.stops, self.service.starts), (1, 1))

    def test_not_by_network(self) -> None:
        """Sockets pass over a UNIX socket alone."""
        with self.assertRaises(TakeOverError):
            take_over("tcp:1:interface=127.0.0.1")

    def test_nobody_there(self) -> None:
        """There is nothing to take."""
        self.assertIsNone(take_over(f"unix:{self.path}:mode=600"))


class TakeOverTests(LoadTestCase):
    """Two processes on the same folders."""

    take_overs = 3

    def new(self) -> Child:
        """Start a process that takes over."""
        return self.lonc("--take-over")

    async def running(self) -> Child:
        """Return a process that serves, with a lond and a management port."""
        self.lond_of_l2 = self.lond("l2", "127.0.0.2")
        self.configure(self.lond_of_l2.port)
        lonc = self.lonc()
        await self.ask("l2", "ping")
        return lonc

    def delay(self, number: int) -> str:
        """Leave a delayed request, as lonnet does; return the request."""
        request = f"put:msu:alice:grades:n={number}"
        name = f"{int(time.time())}.{number}.put.l2"
        self.write(f"{request}\n", "sock", "delayed", name)
        return request

    async def taken_over(self, old: Child) -> Child:
        """Have a new process take over; return it when the old one has gone."""
        new = self.new()
        self.assertEqual(await old.ended(), 0)
        await self.until(lambda: self.read("daemons", "logs", "lonc.pid") == f"{new.pid}\n")
        return new

    async def managing(self) -> ManagementClient:
        """Return a client of the management port."""
        return await ManagementClient.connect(reactor, f"unix:{self.socket('lonc.amp')}")

    async def test_under_load(self) -> None:
        """Nobody is refused, delayed requests are sent once, and all files are the new one's."""
        lonc = await self.running()
        await self.until(lambda: os.path.isdir(self.path("sock", "delayed")))
        inode = os.stat(self.socket("l2")).st_ino
        self.load("l2")
        asked = []
        for change in range(self.take_overs):
            await self.more()
            asked += [self.delay(100 * change + number) for number in range(20)]
            self.began_a_change()
            lonc = await self.taken_over(lonc)
        await self.until(lambda: not self.left_in("sock", "delayed"))
        await self.assert_nobody_noticed()
        self.assertEqual(os.stat(self.socket("l2")).st_ino, inode)
        sent = [line for line in self.lond_of_l2.requests if line.startswith("put:")]
        self.assertEqual(sorted(sent), sorted(asked))
        self.assertIn("l2", await self.manage("list"))
        self.assertFalse(os.path.exists(self.socket("lonc.new")))
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertFalse(os.path.exists(self.socket("l2")))
        self.assert_no_traceback(*self.children)

    async def test_nobody_there(self) -> None:
        """It starts as ever."""
        self.lond_of_l2 = self.lond("l2", "127.0.0.2")
        self.configure(self.lond_of_l2.port)
        lonc = self.new()
        await self.ask("l2", "ping")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)

    async def test_no_confirmation(self) -> None:
        """Who takes everything and says nothing leaves the old one as it was."""
        lonc = await self.running()
        await self.until(lambda: os.path.isdir(self.path("sock", "delayed")))
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(self.socket("lonc.amp"))
            asking.sendall(b"\0\x04_ask\0\x011\0\x08_command\0\x08HandOver\0\0")
            await self.until(lambda: os.path.exists(self.socket("lonc.new")))
            with socket.socket(socket.AF_UNIX) as heir:
                heir.connect(self.socket("lonc.new"))
        await self.until(
            lambda: "no process has taken over" in self.read("daemons", "logs", "lonc.log")
        )
        request = self.delay(1)
        await self.until(lambda: not self.left_in("sock", "delayed"))
        self.assertIn(request, self.lond_of_l2.requests)
        await self.ask("l2", "ping")
        await self.taken_over(lonc)

    async def test_ports(self) -> None:
        """The page's port and that for other machines are the new process's, too."""
        os.mkdir(self.path("pki"))
        files = Authority(self.path("pki")).issue("localhost")
        ports = [free_port("127.0.0.1") for _ in range(2)]
        self.configure(
            free_port("127.0.0.1", "127.0.0.2"),
            loncHTTP=f"tcp:{ports[0]}:interface=127.0.0.1",
            loncManagementTLS=f"lonctls:{ports[1]}:interface=127.0.0.1",
            lonnetCertificateAuthority=files.authority,
            lonnetCertificate=files.certificate,
            lonnetPrivateKey=files.key,
        )
        old = self.lonc()
        await self.ask("l1", "no lond is there")
        await self.taken_over(old)
        await self.ask("l1", "it has started")
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), 5.0):
                pass

    async def test_port_not_to_be_had(self) -> None:
        """A new process that cannot have its port leaves the old one as it was."""
        lonc = await self.running()
        await self.until(lambda: os.path.isdir(self.path("sock", "delayed")))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.configure(self.lond_of_l2.port, loncHTTP=f"tcp:{port}:interface=127.0.0.1")
            new = self.new()
            self.assertEqual(await new.ended(), 1)
        self.assertIn(f"HTTP port tcp:{port}", new.err)
        self.children.remove(new)
        log = self.path("daemons", "logs", "lonc.log")
        await self.until(lambda: "no process has taken over" in self.read(log))
        self.assertEqual(self.read("daemons", "logs", "lonc.pid"), f"{lonc.pid}\n")
        request = self.delay(1)
        await self.until(lambda: not self.left_in("sock", "delayed"))
        self.assertIn(request, self.lond_of_l2.requests)
        await self.ask("l2", "ping")
        self.assertIn("l2", await self.manage("list"))
        await self.taken_over(lonc)

    async def test_cleared_away(self) -> None:
        """Where a program of one's own stops a lonc that could not start, nothing goes."""
        lonc = await self.running()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            options = Options()
            options.parseOptions(
                [
                    *("--config", self.path("loncapa.conf"), "--take-over"),
                    *("--http", f"tcp:{port}:interface=127.0.0.1"),
                ]
            )
            daemon = make_daemon(options, reactor)
            self.assertRaises(PortError, daemon.startService)
            await daemon.stopService()
        self.assertIn("l2", await self.manage("list"))
        self.assertEqual(self.read("daemons", "logs", "lonc.pid"), f"{lonc.pid}\n")
        await self.ask("l2", "ping")
        await self.taken_over(lonc)

    async def test_pause(self) -> None:
        """A pause goes on in the new process, with who wanted it and why."""
        lonc = await self.running()
        client = await self.managing()
        await client.pause("l2", "me", "repairs", 3000.0)
        (before,) = [host.paused for host in await client.hosts() if host.paused]
        new = await self.taken_over(lonc)
        client = await self.managing()
        (paused,) = [host for host in await client.hosts() if host.paused]
        self.assertEqual((paused.host_id, paused.paused), ("l2", before))
        await client.close()
        self.assertEqual(await new.end(signal.SIGTERM), 0)
