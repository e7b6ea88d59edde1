"""Both clients, and the examples of the documentation, with lonc's own client side."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from lonc.client import CON_DELAYED, CON_LOST, Client, Reply, TwistedClient
from lonc.delayed.spool import Spool
from lonc.local.client_socket import ClientListener
from lonc.local.limits import Clients
from lonc.lond.commands import Commands
from lonc.lond.store import Store
from lonc.test.fixtures.beginnings import configured, short_folder
from lonc.test.fixtures.doubles import some_settings
from lonc.test.fixtures.local_client import FakeHost
from lonc.test.fixtures.programs import run_program
from lonc.test.fixtures.source import TREE, read
from lonc.wire.escaping import pack, unpack
from lonc.wire.request import Cause, Request

PUT = b"put:msu:alice:grades:essay=A"

net: Any = reactor


class LocalHost(FakeHost):
    """
    A host whose lond answers at once.

    :ivar reached: whether there is a connection to the lond.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reached = True
        self._commands = Commands("l2", Store(":memory:"), load=lambda: 0.25)

    def submit(self, request: Request) -> None:
        """Answer it, or lose it."""
        if self.reached:
            plain = request.line[:-1].removeprefix(b"encrypt:")
            request.asker.answered(self._commands.answer(plain, "l1") + b"\n")
        else:
            request.asker.lost(Cause.DEAD)


class LoncTests(TestCase):
    """Clients connected to lonc's own client side over a real socket."""

    def setUp(self) -> None:
        self.folder = short_folder(self)
        os.mkdir(os.path.join(self.folder, "logs"))
        self.settings = some_settings(self.folder)
        self.host = LocalHost()
        clients = Clients(self.settings, net)
        self.listener = ClientListener(self.host, clients)
        path = self.settings.socket_path("l2")
        # Any reactor may be the network.
        self.port = net.listenUNIX(path, self.listener, mode=0o600)
        self.addCleanup(self.stop)

    async def stop(self) -> None:
        """Close everything."""
        await self.port.stopListening()
        await self.listener.finish()

    def delayed(self) -> list[bytes]:
        """The delayed requests that lonc would send, in order."""
        spool = Spool(self.settings.delayed_dir)
        return [spool.read(file, 1000)[0] for file in spool.scan().requests.get("l2", [])]

    async def test_twisted(self) -> None:
        """Values are returned as they were stored, and critical requests that fail are delayed."""
        client = TwistedClient(net, self.settings)
        values = {b"a=b&c": "né\n".encode(), bytes(range(256)): b"", b"%": b"100%"}
        put = b"put:msu:alice:grades:" + pack(values)
        with capturedLogs() as events:
            self.assertEqual(await client.ask("l2", put), b"ok")
        self.assertEqual([formatEvent(each) for each in events], [], "the program's log has a line")
        self.assertEqual(unpack(await client.ask("l2", "dump:msu:alice:grades")), values)
        self.assertEqual(await client.ask_encrypted("l2", "ping"), b"l2")
        self.assertEqual(await client.critical("l2", put), b"ok")
        self.assertEqual(self.delayed(), [])
        self.host.reached = False
        self.assertEqual(await client.ask("l2", "ping"), CON_LOST)
        self.assertEqual(await client.critical("l2", put), CON_DELAYED)
        self.assertEqual(await client.critical("l2", b"a:1"), CON_DELAYED)
        self.assertEqual(self.delayed(), [put + b"\n", b"a:1\n"])

    async def test_blocking(self) -> None:
        """The same with the blocking client, here in a thread."""
        client = Client(self.settings)

        def program() -> tuple[Reply, ...]:
            with client.connection("l2") as l2:
                put = l2.ask("put:msu:alice:grades:" + pack({"a b": "c&d"}).decode())
                got = l2.ask("get:msu:alice:grades:a%20b")
            self.host.reached = False
            return put, got, client.ask("l2", "ping"), client.critical("l2", PUT)

        replies = await deferToThread(program)
        self.assertEqual(replies, (b"ok", b"c%26d", CON_LOST, CON_DELAYED))
        self.assertEqual(self.delayed(), [PUT + b"\n"])

    async def test_no_lonc(self) -> None:
        """If the socket does not exist, Twisted's message is the reason."""
        client = TwistedClient(net, self.settings)
        reply = await client.critical("l3", PUT)
        self.assertEqual(reply, CON_DELAYED)
        self.assertIn("No such file or directory", reply.why)

    # The documentation

    async def run_example(self, name: str, *arguments: str) -> str:
        """Run a program of the documentation; return what it prints."""
        read("docs", "examples", name)  # skips the test without the documentation
        path = os.path.join(TREE, "docs", "examples", name)
        out, err, status = await run_program(path, *arguments)
        self.assertEqual((err.decode(), status), ("", 0))
        return out.decode()

    def shown(self, command: str) -> str:
        """Return what the page says that a command prints."""
        line = f"    $ .venv/bin/python docs/examples/{command}\n"
        shown = read("docs", "client.rst").partition(line)[2].partition("\n\n")[0]
        return "".join(f"{line[4:]}\n" for line in shown.splitlines())

    async def test_blocking_example(self) -> None:
        """The example prints what the page says, with and without a connection to the lond."""
        config = configured(self.folder)
        out = await self.run_example("client_blocking.py", config, "l2")
        self.assertEqual(out, self.shown("client_blocking.py var/loncapa.conf l2"))
        self.assertEqual(self.delayed(), [])
        self.host.reached = False
        out = await self.run_example("client_blocking.py", config, "l2")
        self.assertTrue(out.startswith("the grades will be stored later: "), out)
        self.assertEqual(len(self.delayed()), 1)

    async def test_twisted_example(self) -> None:
        """The example prints what the page says, also for a host without a socket."""
        out = await self.run_example("client_twisted.py", self.folder, "l2", "l3")
        expected = self.shown("client_twisted.py var/sock l2 l3").replace("var/sock", self.folder)
        self.assertEqual([line.strip() for line in out.splitlines()], expected.splitlines())
