"""The management ports of a running daemon."""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol

from lonc.test.fixtures.certificates import Authority, as_variables
from lonc.test.fixtures.daemon import DaemonTestCase, free_port
from lonc.test.fixtures.programs import run_program


class ManagementTests(DaemonTestCase):
    """From this machine over the socket or TCP, from others over TLS."""

    async def run_lonc(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit status and what it says."""
        where = ("--config", self.path("loncapa.conf"))
        out, err, status = await run_program("-m", "lonc", *arguments, *where, folder=self.work)
        return status, (out + err).decode()

    async def test_elsewhere(self) -> None:
        """
        After a reload, lonc listens at the new places only; the command finds it there by the file,
        and over TCP may only see.
        """
        ports = [free_port("127.0.0.1") for _ in range(3)]
        lond_port = free_port("127.0.0.1", "127.0.0.2")
        self.configure(lond_port, loncHTTP=f"tcp:{ports[0]}:interface=127.0.0.1")
        lonc = self.lonc()
        await self.ask("l1", "no such lond")
        socket_path = self.path("sock", "lonc.amp")
        self.assertTrue(os.path.exists(socket_path))
        self.assertEqual([await self.serves(port) for port in ports], [True, False, False])

        self.configure(
            lond_port,
            loncHTTP=f"tcp:{ports[1]}:interface=127.0.0.1",
            loncManagement=f"tcp:{ports[2]}:interface=127.0.0.1",
        )
        status, told = await self.run_lonc("reload", "--management", f"unix:{socket_path}")
        self.assertEqual(status, 0, told)
        status, told = await self.run_lonc("hosts")
        self.assertEqual(status, 0, told)
        self.assertIn("l2", told)
        status, told = await self.run_lonc("retry", "l2")
        self.assertEqual(status, 1)
        self.assertIn("may see, and not steer", told)
        self.assertEqual([await self.serves(port) for port in ports], [False, True, True])
        self.assertFalse(os.path.exists(socket_path))
        self.assert_no_traceback(lonc)

    async def serves(self, port: int) -> bool:
        """Whether somebody accepts connections there."""
        try:
            client = await connectProtocol(
                TCP4ClientEndpoint(reactor, "127.0.0.1", port), Protocol()
            )
        except ConnectError:
            return False
        client.transport.abortConnection()
        return True

    async def test_tls(self) -> None:
        """A configured certificate name may see, and after a reload steer."""
        os.mkdir(self.path("pki"))
        files = Authority(self.path("pki")).issue("localhost")
        port = free_port("127.0.0.1")
        names = as_variables(files)
        names["loncManagementTLS"] = f"lonctls:{port}:interface=127.0.0.1"
        lond_port = free_port("127.0.0.1", "127.0.0.2")
        self.configure(lond_port, loncManagementNames="localhost", **names)
        lonc = self.lonc()
        await self.ask("l1", "no such lond")
        remote = ("--management", f"lonctls:localhost:{port}")
        _, told = await self.run_lonc("hosts", *remote)
        self.assertIn("l2", told)
        status, told = await self.run_lonc("retry", "l2", *remote)
        self.assertEqual(status, 1)
        self.assertIn("certificate localhost may see, and not steer", told)

        self.configure(lond_port, loncManagementNames="localhost:steer", **names)
        status, told = await self.run_lonc("reload")
        self.assertEqual(status, 0)
        self.assertIn("loncManagementNames: localhost:steer, was localhost", told)
        self.assertEqual((await self.run_lonc("retry", "l2", *remote))[0], 0)
        log = self.read("daemons", "logs", "lonc.log")
        self.assertIn("by certificate localhost: reset retries", log)

        self.configure(lond_port, **names | {"loncManagementTLS": ""})
        await self.run_lonc("reload")
        status, told = await self.run_lonc("hosts", *remote)
        self.assertEqual(status, 3, told)
        self.assert_no_traceback(lonc)
