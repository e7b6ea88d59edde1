"""The authentication modes of a stand-alone cluster, as its ``loncapa.conf`` allows them."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet import reactor as global_reactor

from lonc.control.client import ManagementClient
from lonc.lond.cluster import prepare
from lonc.report.status import DaemonStatus, HostStatus
from lonc.test.fixtures.certificates import Authority, as_variables
from lonc.test.fixtures.daemon import DaemonTestCase, free_port

reactor: Any = global_reactor


class ClusterTests(DaemonTestCase):
    """``--standalone``: l1 is on lonc's own machine, l2 is not."""

    def certify(self, *names: str, ends: float = 100.0, **variables: str) -> None:
        """Write the cluster's files; all of it has one certificate with these names."""
        prepare(self.folder, free_port("127.0.0.1", "127.0.0.2"))
        files = Authority(self.folder).issue("l1.localhost", names=names, ends=ends)
        with open(self.path("loncapa.conf"), "a") as file:
            for name, value in (as_variables(files) | variables).items():
                file.write(f"PerlSetVar {name} {value}\n")

    async def status(self) -> tuple[DaemonStatus, list[HostStatus]]:
        """Return the status of daemon and hosts."""
        lonc = await ManagementClient.connect(reactor, f"unix:{self.socket('lonc.amp')}")
        about, hosts = await lonc.about(), await lonc.hosts()
        await lonc.close()
        return about, hosts

    async def test_modes(self) -> None:
        """The own machine is reached with a key file, the other over TLS, as the status shows."""
        self.certify("l1.localhost", "l2.localhost", loncAllowInsecure="0")
        lonc = self.standalone()
        for host_id in ("l1", "l2"):
            client = await self.client(host_id)
            self.assertEqual(await client.ask("ping"), host_id)
            self.assertEqual(await client.ask("encrypt:put:d:u:n:secret=1"), "ok")
            self.assertEqual(await client.ask("eget:d:u:n:secret"), "1")
        about, hosts = await self.status()
        self.assertEqual([host.mode for host in hosts], ["local", "ssl"])
        self.assertEqual([host.lond_version for host in hosts], ["1.0", "1.0"])
        self.assertEqual(about.certificate, self.path("host.pem"))
        self.assertAlmostEqual(about.certificate_days, 100.0, places=1)
        self.assertFalse(os.path.exists(self.socket("lonc.keys")))
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assert_no_traceback(lonc)

    async def test_wrong_name(self) -> None:
        """A certificate for another host is rejected and logged until a HUP ends the check."""
        self.certify("l1.localhost")
        lonc = self.standalone()
        client = await self.client("l2")
        self.assertEqual(await client.ask("ping"), "con_lost")
        await lonc.says("the certificate shown is for l1.localhost, not for l2.localhost")
        with open(self.path("loncapa.conf"), "a") as file:
            file.write("PerlSetVar loncCertificateNameCheck 0\n")
        mark = lonc.mark()
        lonc.kill(signal.SIGHUP)
        await lonc.says("2 as before", mark)
        self.assertEqual(await client.ask("ping"), "l2")
        _, hosts = await self.status()
        self.assertEqual(hosts[1].mode, "ssl")
