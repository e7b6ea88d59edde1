"""A real `twistd`, from a server's host table to a client's answer."""

from __future__ import annotations

import os
import signal

from twisted.internet.ssl import DefaultOpenSSLContextFactory

from lonc.config.download import download
from lonc.config.hosts import parse_host_table
from lonc.lond.table_server import TableServer
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.daemon import DaemonTestCase, free_port, reactor

TWO = "l2:msu:access:l2.test:127.0.0.2\n"
THREE = "l3:msu:access:l3.test:127.0.0.3\n"


class FetchedTableTests(DaemonTestCase):
    """A machine whose hosts.tab only names a server."""

    def setUp(self) -> None:
        super().setUp()
        self.table = TWO

    def serve(self, authority: Authority | None = None, name: str = "localhost") -> TableServer:
        """Serve the table; over https with a certificate of an authority, if there is one."""
        tls = None
        if authority is not None:
            files = authority.issue("a server", [name])
            tls = DefaultOpenSSLContextFactory(files.key, files.certificate)
        server = TableServer(reactor, 0, lambda: self.table.encode(), tls)
        server.startService()
        self.addCleanup(server.stopService)
        return server

    def served_by(self, *servers: str, **variables: str) -> None:
        """Write a table with these servers, and have londs for its hosts."""
        addresses = ("127.0.0.2", "127.0.0.3")
        port = free_port(*addresses)
        for host_id, address in zip(("l2", "l3"), addresses, strict=True):
            self.lond(host_id, address, port)
        hosts = "".join(f"^{server}\n" for server in servers)
        self.configure(port, hosts, **variables)

    @property
    def log(self) -> str:
        """What is in lonc.log."""
        return self.read("daemons", "logs", "lonc.log")

    async def test_over_http(self) -> None:
        """
        lonc starts without a host, fetches the table, and serves its hosts. At USR2 it fetches the
        table again, and serves new hosts; an error page changes nothing. If no server answers, the
        last table is used at the next start.
        """
        server = self.serve()
        nobody = free_port("127.0.0.1")
        self.served_by(f"127.0.0.1:{nobody}", f"127.0.0.1:{server.port}")
        lonc = self.lonc()
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        self.assertEqual(self.read("tabs", "dns_hosts.tab"), TWO)
        url = f"http://127.0.0.1:{nobody}/adm/dns/hosts"
        self.assertIn(f"WARNING: no host table from {url}: no connection", self.log)
        self.assertIn("INFO: hosts fetched from", self.log)
        self.assertIn("hosts: 1 new, 0 gone, 0 changed, 0 as before", self.log)

        self.table = TWO + THREE
        lonc.kill(signal.SIGUSR2)
        self.assertEqual(await self.ask("l3", "ping"), "l3")

        self.table = "<html><title>Moved</title></html>\n"
        lonc.kill(signal.SIGUSR2)
        await self.until(lambda: "there is no host that can be used" in self.log)
        self.assertEqual(await self.ask("l3", "ping"), "l3")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)

        await server.stopService()
        again = self.lonc()
        self.assertEqual(await self.ask("l3", "ping"), "l3")
        self.assertEqual(await again.end(signal.SIGTERM), 0)
        self.assertEqual(self.read("tabs", "dns_hosts.tab"), TWO + THREE)
        self.assert_no_traceback(lonc, again)

    async def test_more_hosts_than_files(self) -> None:
        """
        If the table has many more hosts than files may be open, lonc serves the first ones, can be
        managed, and ends at TERM.
        """
        rows = [f"h{n}:msu:access:h{n}.test:127.0.0.4\n" for n in range(3000)]
        self.table = TWO + "".join(rows)
        server = self.serve()
        self.served_by(f"127.0.0.1:{server.port}")
        lonc = self.unprivileged("-n", "lonc", "--config", self.path("loncapa.conf"), files=600)
        await self.until(lambda: os.path.exists(self.path("daemons", "logs", "lonc.log")))
        await self.until(lambda: "new, 0 gone" in self.log)
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        self.assertEqual(self.log.count("hosts of the table cannot be served"), 1)
        self.assertIn("l2", await self.manage("list"))
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertNotIn("Too many open files", self.log)
        self.assertLess(self.log.count("\n"), 200)
        self.assert_no_traceback(lonc)

    async def test_over_https(self) -> None:
        """
        The table is fetched over https from a server with a certificate of our authority, but not
        from one with another authority's, although it is asked first.
        """
        os.mkdir(self.path("certificates"))
        folder = self.path("certificates")
        ours, other = Authority(folder), Authority(folder, "other")
        good, bad = self.serve(ours), self.serve(other)
        self.served_by(
            f"localhost:{bad.port}:https",
            f"localhost:{good.port}:https",
            lonCertificateDirectory=folder,
            lonnetCertificateAuthority="authority.pem",
        )
        lonc = self.lonc()
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        url = f"https://localhost:{bad.port}/adm/dns/hosts"
        why = "its certificate is not signed by a trusted authority"
        self.assertIn(f"no host table from {url}: {why}", self.log)
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assert_no_traceback(lonc)

    async def test_broken_file(self) -> None:
        """An unusable dns_hosts.tab prevents no start, and at USR2 changes nothing."""
        nobody = f"127.0.0.1:{free_port('127.0.0.1')}"
        self.served_by(nobody)
        self.write(f"^{nobody}\n{THREE}", "tabs", "hosts.tab")
        path = self.write("<html>\n", "tabs", "dns_hosts.tab")
        lonc = self.lonc()
        self.assertEqual(await self.ask("l3", "ping"), "l3")
        why = f"{path}: there is no host that can be used"
        self.assertIn(f"WARNING: a problem: {why}", self.log)
        lonc.kill(signal.SIGUSR2)
        await self.until(lambda: f"nothing is changed: {why}" in self.log)
        self.assertEqual(await self.ask("l3", "ping"), "l3")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assert_no_traceback(lonc)

    async def test_standalone(self) -> None:
        """A stand-alone cluster serves its table over HTTP."""
        ports = free_port("127.0.0.1", "127.0.0.2"), free_port("127.0.0.1")
        lonc = self.standalone("--lond-port", str(ports[0]), "--table-port", str(ports[1]))
        await lonc.says("Ctrl-C ends it")
        found = await download(reactor, f"http://127.0.0.1:{ports[1]}/adm/dns/hosts", 10_000)
        table = parse_host_table(found.content, "the table")
        own = parse_host_table(self.read("tabs", "hosts.tab").encode(), "hosts.tab")
        self.assertEqual(
            [(host.id, host.name, host.address) for host in table.hosts.values()],
            [(host.id, host.name, host.address) for host in own.hosts.values()],
        )
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)

    async def test_socket_names(self) -> None:
        """
        With loncSocketNames hostname, hosts of one name share a socket, and the prefix of a request
        selects one. A lond that does not support the prefix does not get it.
        """
        addresses = ("127.0.0.2", "127.0.0.3")
        port = free_port(*addresses)
        new, old = (self.lond(f"l{address[-1]}", address, port) for address in addresses)
        old.factory.revision = None
        rows = "".join(f"l{each[-1]}:msu:access:shared.test:{each}\n" for each in addresses)
        self.configure(port, rows, loncSocketNames="hostname")
        lonc = self.lonc()
        for request, answer in (
            ("sethost:l2:ping", "l2"),
            ("sethost:l3:ping", "l3"),
            ("ping", "l2"),
            ("sethost:l3:encrypt:put:msu:alice:grades:a=1", "ok"),
            ("sethost:l3:get:msu:alice:grades:a", "1"),
            ("sethost:l2:encrypt:get:msu:alice:grades:a", ""),
            ("sethost:l1:ping", "con_lost"),
        ):
            self.assertEqual(await self.ask("shared.test", request), answer)
        get = "get:msu:alice:grades:a"
        self.assertEqual(new.requests, ["ping", "ping", get])
        put = "put:msu:alice:grades:a=1"
        self.assertEqual(old.requests, ["version", "sethost:l3", "ping", put, get])
        self.assertFalse(os.path.exists(self.socket("l2")))
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertEqual(os.listdir(self.path("sock")), ["delayed"])
        self.assert_no_traceback(lonc)
