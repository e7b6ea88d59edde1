"""The cluster on one machine: its files, its ports, its londs."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.config.hosts import HostTable, parse_host_table, read_host_table
from lonc.config.settings import read_settings
from lonc.lond.cluster import Cluster, ClusterError, LondService, check_ports, prepare
from lonc.lond.faults import CLOSE, Step
from lonc.test.fixtures.daemon import Client, free_port, reactor


def a_table(*addresses: str) -> HostTable:
    """Make a table of hosts l1, l2, ... at addresses."""
    lines = [f"l{n}:local:library:l{n}.local:{where}" for n, where in enumerate(addresses, 1)]
    return parse_host_table("\n".join(lines).encode(), "hosts.tab")


class PrepareTests(SynchronousTestCase):
    """The files of a new cluster."""

    def setUp(self) -> None:
        """Choose a folder, which does not exist yet."""
        self.folder = os.path.abspath(self.mktemp())

    def test_settings(self) -> None:
        """S1: the files can be read: two hosts, and existing folders."""
        settings = read_settings(prepare(self.folder), {})
        self.assertEqual((settings.host_id, settings.lond_port), ("l1", 5663))
        self.assertEqual(settings.warnings, ())
        for path, name in [
            (settings.tab_dir, "tabs"),
            (settings.sock_dir, "sock"),
            (settings.daemons_dir, "daemons"),
            (settings.doc_root, "html"),
        ]:
            self.assertEqual(path, os.path.join(self.folder, name))
            self.assertTrue(os.path.isdir(path))
        # The data of users are their owner's only.
        self.assertEqual(os.stat(os.path.join(self.folder, "data")).st_mode & 0o777, 0o700)
        table = read_host_table(settings.hosts_file)
        self.assertEqual(table.problems, ())
        where = {host.id: host.address for host in table.hosts.values()}
        self.assertEqual(where, {"l1": "127.0.0.1", "l2": "127.0.0.2"})

    def test_folder_with_marks(self) -> None:
        """The folder's name may contain spaces, quotes and backslashes."""
        folder = os.path.join(self.folder, 'it\'s "my" \\ cluster\\')
        settings = read_settings(prepare(folder), {})
        self.assertEqual(settings.tab_dir, os.path.join(folder, "tabs"))

    def test_relative_folder(self) -> None:
        """A relative folder is written as an absolute path, as a daemon runs elsewhere."""
        conf = prepare(os.path.relpath(self.folder))
        self.assertEqual(conf, os.path.join(self.folder, "loncapa.conf"))
        self.assertEqual(read_settings(conf, {}).sock_dir, os.path.join(self.folder, "sock"))

    def test_second_run(self) -> None:
        """A second run leaves existing files unchanged, also with another port."""
        conf = Path(prepare(self.folder, 15663))
        self.assertEqual(read_settings(str(conf), {}).lond_port, 15663)
        table = Path(self.folder, "tabs", "hosts.tab")
        for file in (conf, table):
            file.write_text("changed\n", encoding="utf-8")
        self.assertEqual(prepare(self.folder, 15664), str(conf))
        for file in (conf, table):
            self.assertEqual(file.read_text(encoding="utf-8"), "changed\n")

    def test_interrupted_run(self) -> None:
        """A run interrupted while it wrote a file is completed by the next."""
        prepare(self.folder)
        for name in ("loncapa.conf", "tabs/hosts.tab"):
            path = os.path.join(self.folder, name)
            whole = Path(path).read_bytes()
            os.unlink(path)
            Path(f"{path}.new").write_bytes(whole[:40])
            prepare(self.folder)
            self.assertEqual(Path(path).read_bytes(), whole)
            self.assertFalse(os.path.exists(f"{path}.new"))

    def test_file_in_the_way(self) -> None:
        """The error names what cannot be created."""
        Path(self.folder).write_text("", encoding="utf-8")
        with self.assertRaises(ClusterError) as caught:
            prepare(self.folder)
        self.assertEqual(
            str(caught.exception), f"{os.path.join(self.folder, 'tabs')}: Not a directory"
        )

    def test_name_of_two_lines(self) -> None:
        """A folder whose name does not fit into the configuration is an error of one line."""
        with self.assertRaises(ClusterError) as caught:
            prepare(os.path.join(self.folder, "two\nlines"))
        self.assertNotIn("\n", str(caught.exception))
        self.assertFalse(os.path.exists(self.folder))


class CheckPortsTests(SynchronousTestCase):
    """Whether the ports are available."""

    def setUp(self) -> None:
        """Listen on a free port."""
        self.taken = socket.socket()
        self.addCleanup(self.taken.close)
        self.taken.bind(("127.0.0.1", 0))
        self.taken.listen()
        self.port = self.taken.getsockname()[1]

    def test_free(self) -> None:
        """The check leaves a free port free."""
        self.taken.close()
        for _ in range(2):
            check_ports(a_table("127.0.0.1"), self.port)

    def test_not_available(self) -> None:
        """The error names a port in use, a foreign address, and a missing address."""
        cannot = f"cannot listen on port {self.port} at"
        for addresses, why in (
            (("127.0.0.2", "127.0.0.1"), f"l2 {cannot} 127.0.0.1: Address already in use"),
            (("192.0.2.1",), f"l1 {cannot} 192.0.2.1: Cannot assign requested address"),
            (("http",), "l1 has no address in the host table, only a name"),
        ):
            error = self.assertRaises(ClusterError, check_ports, a_table(*addresses), self.port)
            self.assertEqual(str(error), f"the lond {why}")

    def test_same_address_twice(self) -> None:
        """Hosts with the same address share a lond and its port."""
        self.taken.close()
        check_ports(a_table("127.0.0.1", "127.0.0.1"), self.port)


class StartTests(SynchronousTestCase):
    """Starting and stopping, without a network."""

    def setUp(self) -> None:
        """Prepare a cluster of two hosts."""
        self.reactor = MemoryReactorClock()
        self.folder = os.path.abspath(self.mktemp())
        self.table = read_host_table(read_settings(prepare(self.folder), {}).hosts_file)
        reactor: Any = self.reactor  # its interfaces are not declared for mypy
        self.cluster = Cluster(reactor, self.folder, self.table, 5663, "l1")

    def lond(self, host_id: str) -> LondService:
        """Return one of the londs."""
        lond = self.cluster.getServiceNamed(host_id)
        assert isinstance(lond, LondService)
        return lond

    def caller(self, host_id: str) -> StringTransport:
        """Connect to a lond."""
        transport = StringTransport()
        self.lond(host_id).factory.buildProtocol(None).makeConnection(transport)
        return transport

    def test_listens(self) -> None:
        """Each lond listens at its address, all on one port, with its own data file."""
        self.assertEqual(self.reactor.tcpServers, [])
        self.assertEqual(os.listdir(os.path.join(self.folder, "data")), [])
        self.cluster.startService()
        self.addCleanup(self.cluster.stopService)
        where = [(server[0], server[3]) for server in self.reactor.tcpServers]
        self.assertEqual(where, [(5663, "127.0.0.1"), (5663, "127.0.0.2")])
        files = os.listdir(os.path.join(self.folder, "data"))
        self.assertLessEqual({"l1.sqlite", "l2.sqlite"}, set(files))

    def test_unusable_data(self) -> None:
        """Data that cannot be opened prevents the start; the error names it."""
        path = os.path.join(self.folder, "data", "l2.sqlite")
        Path(path).write_bytes(b"something else\n" * 100)
        with self.assertRaises(ClusterError) as caught:
            self.cluster.startService()
        self.assertEqual(str(caught.exception), f"{path}: file is not a database")

    def test_stop_waits_for_connections(self) -> None:
        """Stopping waits for all connections; one that hangs is aborted."""
        self.cluster.startService()
        transport = self.caller("l2")
        (connection,) = self.lond("l2").factory.connections
        stopped = self.cluster.stopService()
        self.assertTrue(transport.disconnecting)
        self.assertNoResult(stopped)
        self.reactor.advance(5)
        self.assertTrue(transport.disconnected)
        connection.connectionLost(connectionDone)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_before_start(self) -> None:
        """A stopped cluster, or one that never started, stops at once."""
        self.successResultOf(self.cluster.stopService())
        self.cluster.startService()
        self.successResultOf(self.cluster.stopService())
        self.successResultOf(self.cluster.stopService())

    def test_faults_outlive_a_restart(self) -> None:
        """Faults can be set before a lond starts, and survive its restart."""
        lond = self.lond("l2")
        lond.faults.order(Step.CONNECT, CLOSE)
        for _ in range(2):
            self.cluster.startService()
            transport = self.caller("l2")
            self.assertTrue(transport.disconnecting)
            (connection,) = lond.factory.connections
            connection.connectionLost(connectionDone)
            self.successResultOf(self.cluster.stopService())


class NetworkTests(TestCase):
    """With real sockets."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        prepare(self.folder)
        self.port = free_port("127.0.0.1", "127.0.0.2")
        self.table = a_table("127.0.0.1", "127.0.0.2")

    def started(self) -> Cluster:
        """Start a cluster."""
        cluster = Cluster(reactor, self.folder, self.table, self.port, "l1")
        cluster.startService()
        self.addCleanup(cluster.stopService)
        return cluster

    async def begin(self, address: str) -> Client:
        """Connect to the lond at an address, and do the handshake."""
        client: Client
        client = await connectProtocol(TCP4ClientEndpoint(reactor, address, self.port), Client())
        self.assertEqual(await client.ask(await client.ask("init")), "ok")
        return client

    async def talk(self, address: str, *lines: str) -> list[str]:
        """Send lines to the lond at an address; return the answers."""
        client = await self.begin(address)
        answers = [await client.ask(line) for line in lines]
        await client.close()
        return answers

    async def test_two_londs(self) -> None:
        """Each lond answers at its address, with its own data."""
        self.started()
        put = await self.talk("127.0.0.2", "put:d:u:n:a=1", "pong")
        self.assertEqual(put, ["ok", "l2:l1"])
        self.assertEqual(await self.talk("127.0.0.1", "ping", "get:d:u:n:a"), ["l1", ""])

    async def test_hosts_of_one_address(self) -> None:
        """They share a lond; each has its own data, which survives a restart."""
        self.table = a_table("127.0.0.1", "127.0.0.2", "127.0.0.2")
        cluster = self.started()
        self.assertIs(cluster.getServiceNamed("l3"), cluster.getServiceNamed("l2"))
        self.assertRaises(KeyError, cluster.getServiceNamed, "l4")
        await self.talk("127.0.0.2", "sethost:l3:put:d:u:n:a=1")
        await cluster.stopService()
        self.started()
        lines = "get:d:u:n:a", "sethost:l3:get:d:u:n:a", "sethost:l1"
        answers = await self.talk("127.0.0.2", *lines)
        self.assertEqual(answers, ["", "1", "unable_to_set"])

    async def test_port_is_given_back(self) -> None:
        """Once it has stopped, the ports are free, although the lond closed the connections."""
        cluster = self.started()
        self.assertRaises(ClusterError, check_ports, self.table, self.port)
        client = await self.begin("127.0.0.1")
        await cluster.stopService()
        await client.closed
        check_ports(self.table, self.port)

    async def test_port_in_use(self) -> None:
        """The error has lond, port and address; no lond keeps running, and a retry succeeds."""
        cluster = Cluster(reactor, self.folder, self.table, self.port, "l1")
        with socket.create_server(("127.0.0.2", self.port)):
            error = self.assertRaises(ClusterError, cluster.startService)
        self.assertEqual(
            str(error),
            f"the lond l2 cannot listen on port {self.port} at 127.0.0.2: Address already in use",
        )
        self.assertFalse(cluster.running or cluster.getServiceNamed("l1").running)
        # SQLite removes what it keeps beside an open file when that is closed.
        files = os.listdir(os.path.join(self.folder, "data"))
        self.assertEqual(sorted(files), ["l1.sqlite", "l2.sqlite"])
        await deferLater(reactor, 0)  # the port of l1 closes
        cluster.startService()
        self.addCleanup(cluster.stopService)
        self.assertEqual(await self.talk("127.0.0.2", "ping"), ["l2"])
