"""Each ``lonc`` command, run as a process against a running daemon."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from lonc.cli.main import commands
from lonc.test.fixtures.daemon import DaemonTestCase, free_port
from lonc.test.fixtures.programs import run_program

reactor: Any = global_reactor

#: Commands that other tests are for: they take no daemon, a terminal, or no end.
ELSEWHERE = {"make-delayed-key", "show-delayed", "top", "check"}


class CommandsTests(DaemonTestCase):
    """One daemon started with ``--standalone``, and every command for it."""

    async def process(self, *arguments: str) -> tuple[bytes, bytes, int]:
        """Run a command; return its output, its errors and its exit status."""
        where = ("--standalone", self.folder)
        return await run_program("-m", "lonc", *arguments, *where, folder=self.work, COLUMNS="200")

    async def run_lonc(self, *arguments: str, status: int = 0) -> str:
        """Run a command that reports no error; return its output."""
        self.tried.add(arguments[0])
        out, err, ended = await self.process(*arguments)
        self.assertEqual((ended, err.decode()), (status, ""), f"{arguments}: {out.decode()}")
        return str(out.decode())

    async def refusal(self, *arguments: str, status: int = 1) -> str:
        """Run a command that fails; return its error message of one line."""
        out, err, ended = await self.process(*arguments)
        self.assertEqual((ended, out, err.count(b"\n")), (status, b"", 1), (arguments, err))
        return str(err.decode())

    async def listed(self, name: str, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
        """Run a listing as text and as JSON; return its rows."""
        self.assertTrue(await self.run_lonc(*arguments, status=status))
        found = json.loads(await self.run_lonc(*arguments, "--json", status=status))
        self.assertEqual(found["schema"], 1)
        rows: list[dict[str, Any]] = found[name]
        return rows

    async def test_commands(self) -> None:
        """Each command works, with text and with JSON output."""
        self.tried: set[str] = set()
        lonc = self.standalone("--lond-port", str(free_port("127.0.0.1", "127.0.0.2")))
        await lonc.says("Ctrl-C ends it")
        self.assertEqual(await self.run_lonc("ask", "l2", "ping"), "l2\n")
        client = await self.client("l1")
        await client.ask("ping")
        await self.look()
        await self.steer()
        await self.look_after_delayed()
        told = await self.refusal("ask", "l9", "ping")
        self.assertEqual(told, "lonc: l9 is not in hosts.tab\n")
        await self.reload()
        for command in ("retry", "hosts"):
            told = await self.refusal(command, "l9")
            self.assertEqual(told, "lonc: l9 is not in hosts.tab\n")
        self.assertEqual(await self.run_lonc("stop", "--yes"), "lonc stops.\n")
        self.assertEqual(await lonc.ended(), 0)
        self.assert_no_traceback(lonc)
        self.assertIn("is lonc running?", await self.refusal("status", status=3))
        self.assertEqual(set(commands.all) - self.tried - ELSEWHERE, set())

    async def look(self) -> None:
        """Run the commands that only show something."""
        found = json.loads(await self.run_lonc("status", "--json"))
        self.assertEqual((found["state"], found["totals"]["up"]), ("ok", 2))
        self.assertEqual(found["totals"]["answers"], 2)
        self.assertIn("is ok", await self.run_lonc("status"))
        told = await self.run_lonc("status", "--monitoring")
        self.assertRegex(told, r"^LONC OK - 2 hosts \| hosts=2 .* requests=2c .*\n$")
        hosts = await self.listed("hosts", "hosts")
        self.assertEqual({host["host_id"] for host in hosts}, {"l1", "l2"})
        (host,) = await self.listed("hosts", "hosts", "l2")
        self.assertGreater(host["seconds"]["total"]["p50"], 0.0)
        (client,) = await self.listed("clients", "clients", "l1")
        self.assertEqual((client["pid"], client["requests"]), (os.getpid(), 1))
        (slow,) = await self.listed("slow", "slow", "l1")
        self.assertEqual((slow["command"], slow["outcome"]), ("ping", "answered"))
        self.assertEqual(await self.listed("hosts", "hosts", "--problems"), [])
        self.assertEqual(len(await self.listed("hosts", "hosts", "--state=up", "--limit=1")), 1)
        self.assertEqual(await self.listed("hosts", "hosts", "l2", "--state=DEAD"), [])
        self.assertIn("no terminal", await self.refusal("top"))
        found = json.loads(await self.run_lonc("hosts", "l2", "--json"))
        self.assertEqual([each["state"] for each in found["connections"]], ["idle"])
        await self.trace()
        settings = {row["name"]: row for row in await self.listed("settings", "settings")}
        self.assertEqual(settings["lonHostID"]["value"], "l1")
        self.assertEqual(settings["loncRetries"]["source"], "default")
        values = {name: settings[name]["value"] for name in ("loncRetries", "loncMaxLine")}
        self.assertEqual(values, {"loncRetries": 2, "loncMaxLine": 16 << 20})
        self.assertEqual(settings["loncSocketMode"]["value"], "0660")

    async def trace(self) -> None:
        """Requests are shown as they end, until there were three, or until Ctrl-C."""
        tracing = Deferred.fromCoroutine(
            self.run_lonc("trace", "l1", "--count", "3", "--contents", "--json")
        )
        client = await self.client("l1")
        while not tracing.called:
            await client.ask("ping")
            await deferLater(reactor, 0.05)
        rows = [json.loads(line) for line in (await tracing).splitlines()]
        self.assertEqual([row["contents"] for row in rows], ["ping"] * 3)
        self.assertEqual({row["pid"] for row in rows}, {os.getpid()})
        until_told = self.spawn(
            [sys.executable, "-m", "lonc", "trace", "l1", "--standalone", self.folder]
        )
        while not until_told.out:
            await client.ask("ping")
            await deferLater(reactor, 0.05)
        self.assertNotEqual(await until_told.end(signal.SIGINT), 0)
        self.assertEqual(until_told.err, "")
        await client.close()

    async def steer(self) -> None:
        """Run the commands that change something for one host."""
        self.assertIn("The retries of l2 are reset", await self.run_lonc("retry", "l2"))
        self.assertIn("of l2 are closed", await self.run_lonc("reconnect", "l2"))
        self.assertIn("of l2 is 3", await self.run_lonc("debug", "l2", "3"))
        told = await self.run_lonc("pause", "l2", "--reason", "a new disk", "--for", "60", "--fail")
        self.assertIn("nothing is in flight", told)
        found = json.loads(await self.run_lonc("status", "--json"))
        self.assertEqual(found["totals"]["paused"], 1)
        self.assertIn("a new disk", found["findings"][0]["what"])
        out, _, ended = await self.process("ask", "l2", "ping")
        self.assertEqual((out, ended), (b"con_lost\n", 1))
        self.assertIn("no longer paused", await self.run_lonc("resume", "l2"))
        self.assertEqual(await self.run_lonc("ask", "l2", "ping"), "l2\n")

    async def look_after_delayed(self) -> None:
        """Manage a delayed request for a host that is not in the table."""
        self.write("put:msu:alice:grades:essay=A\n", "sock", "delayed", "1.1.put.l9")
        (row,) = await self.listed("delayed", "delayed", "list")
        self.assertEqual((row["file"], row["host_id"], row["command"]), ("1.1.put.l9", "l9", "put"))
        self.assertIn("essay=A", await self.run_lonc("delayed", "show", "1.1.put.l9"))
        os.makedirs(self.socket("delayed/kept"), exist_ok=True)
        os.rename(self.socket("delayed/1.1.put.l9"), self.socket("delayed/kept/1.1.put.l9"))
        (row,) = await self.listed("kept", "delayed", "kept")
        self.assertEqual(row["file"], "kept/1.1.put.l9")
        await self.run_lonc("delayed", "requeue", "kept/1.1.put.l9")
        self.assertIn("tried now", await self.run_lonc("delayed", "retry"))
        self.assertIn("deleted", await self.run_lonc("delayed", "drop", "1.1.put.l9", "--yes"))
        self.assertIn("no delayed request", await self.refusal("delayed", "show", "1.1.put.l9"))
        self.assertEqual(await self.listed("delayed", "delayed", "list"), [])

    async def reload(self) -> None:
        """The output of a reload lists each changed setting; a failed reload is a problem."""
        conf = self.path("loncapa.conf")
        with open(conf, "a", encoding="utf-8") as file:
            file.write("PerlSetVar loncRetries 7\n")
        rows = {row["name"]: row for row in await self.listed("settings", "settings")}
        self.assertEqual(rows["loncRetries"]["differs"], 7)
        told = await self.run_lonc("reload")
        self.assertRegex(told, r"(?m)^loncRetries: 7, was 2 \(.*loncapa.conf, line \d+\)$")
        with open(conf, "a", encoding="utf-8") as file:
            file.write("PerlSetVar loncRetries many\n")
        self.assertIn("'many' is not", await self.refusal("reload"))
        self.assertIn("the last reload failed", await self.run_lonc("status", status=1))
        rows = {row["name"]: row for row in await self.listed("settings", "settings")}
        self.assertIn("lonc check", rows["loncRetries"]["differs"])
