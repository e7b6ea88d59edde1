"""Several host ids on one machine, over a real `twistd` and real sockets."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import gatherResults

from lonc.lond.faults import Fault, Step
from lonc.test.fixtures.daemon import Child, Client, DaemonTestCase, Lond, free_port

ONE, OTHER = "127.0.0.2", "127.0.0.3"
IDS = ("l2", "l3", "l4")
GET = "get:msu:alice:grades:a"


def rows(ids: Sequence[str] = IDS, address: str = ONE, name: str = "one.test") -> str:
    """Return lines of a host table."""
    return "".join(f"{each}:msu:access:{name}:{address}\n" for each in ids)


class MachineTestCase(DaemonTestCase):
    """
    A machine with one lond for three host ids.

    :ivar lond: the lond; it has an own port, which is free at the other address too.
    """

    machine: Lond

    def begin(
        self, ids: Sequence[str] = IDS, hosts: str = "", variables: Any = None, **options: Any
    ) -> Child:
        """Start the lond, which serves these ids and takes no key files, and lonc."""
        self.port = free_port(ONE, OTHER)
        self.machine = self.lond(ids[0], ONE, self.port, others=ids[1:], key_folder=None, **options)
        self.configure(self.port, hosts or rows(), **(variables or {}))
        return self.lonc()

    async def all_of(self, ids: Sequence[str] = IDS, count: int = 1) -> list[Client]:
        """Return clients of hosts, so many for each."""
        return [await self.client(each) for each in ids for _ in range(count)]

    def hold(self, command: str, times: int) -> None:
        """Leave requests with a command unanswered until `answer` is called."""
        fault = Fault(instead=b"")
        self.machine.factory.faults.order(
            Step.REQUEST, fault, times=times, command=command.encode()
        )

    def answer(self, request: str) -> None:
        """Answer a request that was held."""
        (talk,) = [each for each in self.machine.talks if each.lines[-1] == request]
        talk.write(b"late\n")

    async def asked(self, request: str) -> None:
        """Wait until a line has come that is not answered yet."""
        await self.until(lambda: any(each.lines[-1:] == [request] for each in self.machine.talks))

    def assert_named(self) -> None:
        """Each request begins with an id, and each id was asked for before its first request."""
        for talk in self.machine.talks:
            key = talk.lines.index("ekey")
            asked = {line for line in talk.lines[:key] if line.startswith("sethost:")}
            for line in talk.lines[key + 1 :]:
                word, host_id, *request = line.split(":", 2)
                self.assertEqual(word, "sethost", talk.lines)
                if request:
                    self.assertIn(f"sethost:{host_id}", asked, talk.lines)
                asked.add(line)

    @property
    def log(self) -> str:
        """What is in lonc.log."""
        return self.read("daemons", "logs", "lonc.log")

    async def end(self, lonc: Child) -> None:
        """End lonc, which says nothing strange."""
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assert_no_traceback(lonc)


class SharedTests(MachineTestCase):
    """The lond knows sethost."""

    async def test_limit(self) -> None:
        """
        All ids together have loncMaxConnections connections, however many ask. Each request says
        which id it is for, and each client gets its own id's answer.
        """
        lonc = self.begin(variables={"loncMaxConnections": "2"})
        clients = await self.all_of(count=6)
        self.hold("load", 2)
        held = [clients[0].ask("load"), clients[6].ask("load")]
        for host_id in ("l2", "l3"):
            await self.asked(f"sethost:{host_id}:load")
        answers = [each.ask("ping") for each in clients[1:6] + clients[7:]]
        for host_id in ("l2", "l3"):
            self.answer(f"sethost:{host_id}:load")
        self.assertEqual(await gatherResults(held), ["late", "late"])
        self.assertEqual(await gatherResults(answers), ["l2"] * 5 + ["l3"] * 5 + ["l4"] * 6)
        self.assertEqual(len(self.machine.talks), 2)
        self.assert_named()
        await self.end(lonc)

    async def test_data(self) -> None:
        """Each id has data of its own, in the clear and encrypted, over the one connection."""
        lonc = self.begin(variables={"loncMaxConnections": "1"})
        for host_id in IDS:
            put = f"encrypt:put:msu:alice:grades:a={host_id}"
            self.assertEqual(await self.ask(host_id, put), "ok")
        for command in (GET, f"encrypt:{GET}", f"e{GET}", f"encrypt:e{GET}", f"sethost:%:{GET}"):
            for host_id in IDS:
                self.assertEqual(await self.ask(host_id, command.replace("%", host_id)), host_id)
        (talk,) = self.machine.talks
        self.assert_named()
        # The key was made with the one id that was asked for before it, and serves them all.
        before = talk.lines[: talk.lines.index("ekey")]
        self.assertEqual([line for line in before if line.startswith("sethost")], ["sethost:l2"])
        self.assertNotIn("put", "".join(talk.lines))
        await self.end(lonc)

    async def test_host_name_sockets(self) -> None:
        """By host name, the ids of a name share a socket too, and the prefix picks one of them."""
        for names in ("hostname", "both"):
            lonc = self.begin(variables={"loncSocketNames": names, "loncMaxConnections": "1"})
            for request, answer in (
                ("sethost:l3:encrypt:put:msu:alice:grades:a=3", "ok"),
                (f"sethost:l4:{GET}", ""),
                (f"sethost:l3:{GET}", "3"),
                (GET, ""),
                ("ping", "l2"),
                ("sethost:l9:ping", "con_lost"),
            ):
                self.assertEqual(await self.ask("one.test", request), answer)
            self.assertEqual(os.path.exists(self.socket("l3")), names == "both")
            if names == "both":
                self.assertEqual(await self.ask("l3", GET), "3")
            self.assert_named()
            self.assertEqual(len(self.machine.talks), 1)
            await self.end(lonc)


class TableTests(MachineTestCase):
    """The table changes."""

    def table(self, hosts: str) -> None:
        """Write another table."""
        self.write(hosts, "tabs", "hosts.tab")

    async def test_moving(self) -> None:
        """
        An id that moves takes along what waits for it; what is in flight ends where it began, and
        the others and their connections notice nothing.
        """
        lonc = self.begin(variables={"loncMaxConnections": "2"})
        other = self.lond("l3", OTHER, self.port)
        flying, waiting, staying, behind = await self.all_of(("l3", "l3", "l2", "l4"))
        self.hold("load", 2)
        answers = [flying.ask("load"), staying.ask("load")]
        for host_id in ("l2", "l3"):
            await self.asked(f"sethost:{host_id}:load")
        moves, stays = waiting.ask("ping"), behind.ask("ping")
        await self.until(lambda: self.machine.talks and len(self.machine.requests) == 2)
        self.table(rows(("l2", "l4")) + rows(("l3",), OTHER))
        lonc.kill(signal.SIGUSR2)
        self.assertEqual(await moves, "l3")
        self.assertEqual(other.talks[0].lines[-1], "ping")  # it is alone there
        for host_id in ("l3", "l2"):
            self.answer(f"sethost:{host_id}:load")
        self.assertEqual(await gatherResults(answers), ["late", "late"])
        self.assertEqual(await stays, "l4")
        self.assertEqual(len(self.machine.talks), 2)
        self.assertFalse(any(talk.over for talk in self.machine.talks))
        self.assert_named()
        await self.end(lonc)


class StandaloneTests(DaemonTestCase):
    """A cluster of its own."""

    async def test_shared_address(self) -> None:
        """Hosts with one address share a lond, and keep their data over a restart."""
        os.makedirs(self.path("tabs"))
        self.write("l1:msu:library:l1.test:127.0.0.1\n" + rows(), "tabs", "hosts.tab")
        port = str(free_port("127.0.0.1", ONE))
        lonc = self.standalone("--lond-port", port)
        for host_id in IDS:
            self.assertEqual(await self.ask(host_id, f"put:msu:alice:grades:a={host_id}"), "ok")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        again = self.standalone("--lond-port", port)
        for host_id in ("l1", *IDS):
            self.assertEqual(await self.ask(host_id, "ping"), host_id)
            self.assertEqual(await self.ask(host_id, GET), host_id if host_id in IDS else "")
        self.assertEqual(await again.end(signal.SIGTERM), 0)
        self.assert_no_traceback(lonc, again)
