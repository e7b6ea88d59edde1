# Twisted's processes have no annotations:
# mypy: allow-untyped-calls
"""The management ports of a daemon that runs."""

from __future__ import annotations

import os
import sys

from twisted.internet.utils import getProcessOutputAndValue

from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.daemon import SOURCE, DaemonTestCase, free_port


class ManagementTests(DaemonTestCase):
    """From this machine over its socket, from others over TLS."""

    timeout = 60

    async def run_lonc(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit status and what it says."""
        out, err, status = await getProcessOutputAndValue(
            sys.executable,
            ["-m", "lonc", *arguments, "--config", self.path("loncapa.conf")],
            {**os.environ, "PYTHONPATH": SOURCE},
            path=self.work,
        )
        return status, (out + err).decode()

    async def test_tls(self) -> None:
        """A certificate that is named sees, and steers once a reload lets it."""
        os.mkdir(self.path("pki"))
        files = Authority(self.path("pki")).issue("localhost")
        port = free_port("127.0.0.1")
        names = {
            "lonnetCertificateAuthority": files.authority,
            "lonnetCertificate": files.certificate,
            "lonnetPrivateKey": files.key,
            "loncManagementTLS": f"lonctls:{port}:interface=127.0.0.1",
        }
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
