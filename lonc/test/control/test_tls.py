"""The management port over TLS: whose certificate may see, and whose may steer."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import TestCase

from lonc.config.certificates import CertificateFiles, Certificates
from lonc.control.client import ManagementClient
from lonc.control.errors import ManagementError, NoAnswer, NotAllowed
from lonc.control.port import ManagementPort, ManagementPortError
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.management import NotedDaemon
from lonc.transport.network import network


class TLSTests(TestCase):
    """A port with a certificate for localhost, and others that come."""

    timeout = 600

    def setUp(self) -> None:
        folder = short_folder(self)
        self.authority = Authority(folder)
        self.own = self.authority.issue("localhost")
        self.names: tuple[tuple[str, bool], ...] = (("l2.test", False), ("l3.test", True))
        self.daemon = NotedDaemon()
        self.certificates: Certificates | None = self.own.read()
        self.port = ManagementPort(
            reactor,
            network(reactor),
            self.daemon.parts,
            "lonctls:0:interface=127.0.0.1",
            None,
            lambda: self.certificates,
            lambda: self.names,
        )
        self.addCleanup(self.port.stopService)

    def listen(self) -> int:
        """Start; return the port's number."""
        self.port.startService()
        host: Any = self.port._port.getHost() if self.port._port else None
        number: int = host.port
        return number

    async def client(self, files: CertificateFiles | None, host: str = "") -> ManagementClient:
        """Connect with a certificate."""
        if self.port._port is None:
            self.number = self.listen()
        where = f"lonctls:{host or 'localhost'}:{self.number}"
        return await ManagementClient.connect(reactor, where, 10.0, files)

    async def refusal(self, work: Any) -> ManagementError:
        """Return what a coroutine fails with."""
        try:
            await work
        except ManagementError as error:
            self.assertNotIn("\n", str(error))
            return error
        raise AssertionError("it did not fail")

    async def test_see(self) -> None:
        """A certificate for a name that may see sees, and does not steer."""
        client = await self.client(self.authority.issue("l2.test", file="l2"))
        await client.about()
        error = await self.refusal(client.stop())
        self.assertIsInstance(error, NotAllowed)
        self.assertIn("certificate l2.test may see, and not steer", str(error))
        await client.close()

    async def test_steer(self) -> None:
        """One for a name that may steer does, and sees no contents."""
        client = await self.client(self.authority.issue("x", ["l3.test"], file="l3"))
        await client.report()
        self.assertEqual(self.daemon.asked, [("report",)])
        self.assertIsInstance(await self.refusal(client.show_delayed("1.1.put.l2")), NotAllowed)
        self.names = ()
        self.assertIsInstance(await self.refusal(client.about()), NotAllowed)
        await client.close()

    async def test_others(self) -> None:
        """Another server of the cluster, which has a certificate too, is told that it may not."""
        client = await self.client(self.authority.issue("l4.test", ["l5.test"], file="l4"))
        error = await self.refusal(client.about())
        self.assertIn("certificate l5.test may see nothing", str(error))
        await client.close()

    async def test_another_authority(self) -> None:
        """A certificate of another authority, or one whose time is over, opens nothing."""
        folder = os.path.dirname(self.own.authority)
        foreign = Authority(folder, "foreign").issue("l3.test", file="foreign-l3")
        forged = CertificateFiles(self.own.authority, foreign.certificate, foreign.key)
        old = self.authority.issue("l3.test", begins=-9.0, ends=-1.0, file="old")
        for files in (forged, old):
            client = None
            try:
                client = await self.client(files)
                await client.report()
            except NoAnswer as error:
                self.assertIn("TLS failed", str(error))
            else:
                self.fail("it was let in")
            finally:
                if client is not None:
                    await client.close()
        self.assertEqual(self.daemon.asked, [])

    async def test_without(self) -> None:
        """Who has no certificate cannot ask, and is told so by his own side."""
        error = await self.refusal(self.client(None))
        self.assertIn("certificates are required", str(error))

    async def test_plain(self) -> None:
        """Who speaks no TLS gets nothing."""
        number = self.listen()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        plain = await connectProtocol(endpoint, Protocol())
        plain.transport.write(b"\0\4_ask")
        plain.transport.loseConnection()
        self.assertEqual(self.daemon.asked, [])

    async def test_another_host(self) -> None:
        """What listens there has to have a certificate for the name that is asked for."""
        error = await self.refusal(
            self.client(self.authority.issue("l2.test", file="l2"), "127.0.0.1")
        )
        self.assertIn("is for localhost, not for 127.0.0.1", str(error))

    async def test_nonsense(self) -> None:
        """A description that cannot be used, or missing certificates, are one line at the start."""
        for description in ("lonctls:x", "lonctls:1:2", "lonctls:1:backlog=3", "lonctls:99999"):
            port = ManagementPort(
                reactor,
                network(reactor),
                self.daemon.parts,
                description,
                None,
                lambda: self.certificates,
            )
            error = self.assertRaises(ManagementPortError, port.startService)
            self.assertIn("it is lonctls:PORT", str(error))
        self.certificates = None
        error = self.assertRaises(ManagementPortError, self.port.startService)
        self.assertIn("certificates are required: see lonnetCertificate", str(error))
