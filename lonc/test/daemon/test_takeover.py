# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""A new process that takes everything over from the old one."""

from __future__ import annotations

import os
import signal
import socket
import time

from lonc.management import ManagementClient
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.daemon import Child, free_port, reactor
from lonc.test.fixtures.load import LoadTestCase


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
