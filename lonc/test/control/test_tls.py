"""The management port over TLS."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.protocols import amp
from twisted.trial.unittest import TestCase

from lonc.config.certificates import CertificateFiles, Certificates
from lonc.control.client import ManagementClient
from lonc.control.errors import ManagementError, NoAnswer, NotAllowed
from lonc.control.port import ManagementPort, ManagementPortError
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.management import NotedDaemon
from lonc.transport.network import network


class Plain(Protocol):
    """A client without TLS."""

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()

    def connectionLost(self, reason: object = None) -> None:
        self.closed.callback(None)


class TLSTests(TestCase):
    """A port with a certificate for localhost, and its clients."""

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

    async def client(self, files: CertificateFiles | None, host: str) -> ManagementClient:
        """Start the port if necessary, and connect with a certificate."""
        if self.port._port is None:
            self.port.startService()
            port: Any = self.port._port
            self.number = port.getHost().port
        where = f"lonctls:{host}:{self.number}"
        return await ManagementClient.connect(reactor, where, 10.0, files)

    async def entering(self, name: str, *names: str) -> ManagementClient:
        """Connect with a certificate for these names."""
        return await self.client(self.authority.issue(name, [*names], file="other"), "localhost")

    async def refusal(self, work: Any) -> ManagementError:
        """Return the error with which a coroutine fails."""
        try:
            await work
        except ManagementError as error:
            self.assertNotIn("\n", str(error))
            return error
        raise AssertionError("it did not fail")

    async def test_levels(self) -> None:
        """
        A certificate for a name that may see, or steer, allows that and nothing above it, as long
        as the name is configured; other servers of the cluster may see nothing.
        """
        client = await self.entering("l2.test")
        await client.about()
        error = await self.refusal(client.stop())
        self.assertIsInstance(error, NotAllowed)
        self.assertIn("certificate l2.test may see, and not steer", str(error))
        await client.close()
        client = await self.entering("x", "l3.test")
        await client.report()
        self.assertEqual(self.daemon.asked, [("report",)])
        self.assertIsInstance(await self.refusal(client.show_delayed("1.1.put.l2")), NotAllowed)
        self.names = ()
        self.assertIsInstance(await self.refusal(client.about()), NotAllowed)
        await client.close()
        client = await self.entering("l4.test", "l5.test")
        error = await self.refusal(client.about())
        self.assertIn("certificate l5.test may see nothing", str(error))
        await client.close()

    async def test_renewed(self) -> None:
        """New connections are shown the certificate in force; without one, the previous one."""
        await (await self.entering("l2.test")).close()
        self.certificates = self.authority.issue("l9.test", file="l9").read()
        for _ in range(2):
            error = await self.refusal(self.entering("l2.test"))
            self.assertIn("is for l9.test, not for localhost", str(error))
            self.certificates = None

    async def test_another_authority(self) -> None:
        """A certificate of another authority, or an expired one, is rejected."""
        folder = os.path.dirname(self.own.authority)
        foreign = Authority(folder, "foreign").issue("l3.test", file="foreign-l3")
        forged = CertificateFiles(self.own.authority, foreign.certificate, foreign.key)
        old = self.authority.issue("l3.test", begins=-9.0, ends=-1.0, file="old")
        for files in (forged, old):
            client = None
            try:
                client = await self.client(files, "localhost")
                await client.report()
            except NoAnswer as error:
                self.assertIn("TLS failed", str(error))
            else:
                self.fail("it was let in")
            finally:
                if client is not None:
                    await client.close()
        self.assertEqual(self.daemon.asked, [])

    async def test_not_connected(self) -> None:
        """
        Without a certificate a client cannot connect, nor to a server whose certificate is for
        another host; the commands of a client without TLS are not carried out.
        """
        own = self.authority.issue("l2.test", file="l2")
        for files, host, why in (
            (None, "localhost", "certificates are required"),
            (own, "127.0.0.1", "is for localhost, not for 127.0.0.1"),
        ):
            self.assertIn(why, str(await self.refusal(self.client(files, host))))
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.number)
        plain = await connectProtocol(endpoint, Plain())
        plain.transport.write(amp.AmpBox(_ask=b"1", _command=b"HandOver").serialize())
        await plain.closed
        self.assertEqual(self.daemon.asked, [])

    async def test_of_twisted(self) -> None:
        """The ``ssl:`` of Twisted works on both sides, whatever the name in the certificate."""
        self.port.description = (
            f"ssl:0:interface=127.0.0.1:privateKey={self.own.key}:certKey={self.own.certificate}"
        )
        self.port.startService()
        port: Any = self.port._port
        where = f"ssl:127.0.0.1:{port.getHost().port}"
        client = await ManagementClient.connect(reactor, where, 10.0)
        self.assertEqual((await client.about()).pid, 17)
        await client.close()

    async def test_nonsense(self) -> None:
        """An invalid description, or missing certificates, are refused at the start."""
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
