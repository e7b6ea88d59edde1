"""A lonc process with its files, londs and clients."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from random import Random

from lonc.test.fixtures.manager import StandIn
from reliability.lond import Lond

#: Short time limits, so that runs end within seconds.
SETTINGS = {"loncRequestTimeout": 3, "loncQueueTimeout": 3, "loncConnectTimeout": 2}

#: Seconds after which a client without an answer counts as hanging: lonc's own limits, checked
#: every quarter of a second, and a reserve for a busy machine.
HANGS = 3 + 3 + 0.25 + 5

START_LIMIT = 30.0
STOP_LIMIT = 30.0


class World:
    """
    lonc and its environment.

    :ivar londs: one per host.
    :ivar outcomes: of the requests: ``answered``, ``con_lost``, ``wrong``, ``hangs``, ``closed``
        (without an answer), ``no lonc`` (no connection to its socket). With a manager, and at a
        take-over, failures of clients connected before are ``in flight``.
    :ivar manager: keeps the listening sockets across restarts, if set.
    :ivar reconnects: how often a client opens another connection, as a fraction of its requests.
    """

    def __init__(self, folder: str, hosts: int, random: Random) -> None:
        self.random = random
        self.outcomes: Counter[str] = Counter()
        self._folder = folder
        self.manager: StandIn | None = None
        self.reconnects = 0.05
        self._stops = 0
        self._hands_over = False
        self._lonc: asyncio.subprocess.Process | None = None
        port = _free_port()
        self.londs = [Lond(f"h{i}", f"127.0.2.{i + 1}", port, random) for i in range(hosts)]
        for name in ("tabs", "sock/delayed", "daemons/logs", "html/lon-status"):
            os.makedirs(os.path.join(folder, name))
        with open(os.path.join(folder, "tabs", "hosts.tab"), "w") as table:
            for lond in self.londs:
                table.write(f"{lond.host_id}:soak:library:{lond.host_id}.soak:{lond.address}\n")
        where = {"lonTabDir": "tabs", "lonSockDir": "sock", "lonDaemons": "daemons"}
        paths = {name: os.path.join(folder, path) for name, path in where.items()}
        settings = {"lonHostID": "soak", "lonDocRoot": os.path.join(folder, "html"), **paths}
        with open(os.path.join(folder, "loncapa.conf"), "w") as config:
            for name, value in {**settings, "londPort": port, **SETTINGS}.items():
                config.write(f"PerlSetVar {name} {value}\n")

    async def take_over(self) -> int:
        """Start a new lonc that takes over; return the exit status of the old one."""
        self._stops += 1
        self._hands_over = True
        before = self._lonc
        assert before is not None
        await self.start("--take-over")
        return await asyncio.wait_for(before.wait(), STOP_LIMIT)

    async def start(self, *options: str) -> None:
        """Start lonc, and wait until its sockets are listening."""
        twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
        command = [twistd, "-n", "lonc", "--config", os.path.join(self._folder, "loncapa.conf")]
        command += options
        environment, descriptors = dict(os.environ), []
        if self.manager is not None:
            self.manager.new()
            command, descriptors = self.manager.command(command), self.manager.descriptors
            environment["NOTIFY_SOCKET"] = self.manager.path
        with open(os.path.join(self._folder, "output"), "ab") as output:
            self._lonc = await asyncio.create_subprocess_exec(
                *command, stdout=output, stderr=output, env=environment, pass_fds=descriptors
            )
        limit = time.monotonic() + START_LIMIT
        while not await self._listens():
            if self._lonc.returncode is not None or time.monotonic() > limit:
                raise SystemExit(f"lonc has not started: see {self._folder}/output")
            await asyncio.sleep(0.02)

    def keep_sockets(self) -> None:
        """Use a manager that keeps the listening sockets across restarts."""
        self.manager = StandIn(os.path.join(self._folder, "notify"))

    async def _listens(self) -> bool:
        if self.manager is not None:  # kept sockets can be connected to at any time
            return self.manager.has("READY=1")
        try:
            for lond in self.londs:
                _, writer = await asyncio.open_unix_connection(self.socket(lond))
                writer.close()
        except OSError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to lonc."""
        assert self._lonc is not None
        self._lonc.send_signal(number)

    async def stop(self) -> int:
        """End lonc by TERM; return its exit status."""
        self._stops += 1
        self.signal(signal.SIGTERM)
        assert self._lonc is not None
        return await asyncio.wait_for(self._lonc.wait(), STOP_LIMIT)

    async def kill(self) -> None:
        """End lonc like a crash."""
        self.signal(signal.SIGKILL)
        assert self._lonc is not None
        await self._lonc.wait()

    async def close(self) -> None:
        """End all processes and close all connections."""
        if self._lonc is not None and self._lonc.returncode is None:
            await self.kill()
        if self.manager is not None:
            self.manager.close()
        for lond in self.londs:
            await lond.stop()

    def socket(self, lond: Lond) -> str:
        """Return the path of a host's socket."""
        return os.path.join(self._folder, "sock", lond.host_id)

    def delay(self, lond: Lond, nonce: bytes, number: int) -> None:
        """Store a delayed request, as lonnet does (protocol, section 6)."""
        name = f"{int(time.time())}.{number}.put.{lond.host_id}"
        with open(os.path.join(self._folder, "sock", "delayed", name), "wb") as file:
            file.write(b"put:" + nonce + b"\n")

    def delayed(self) -> int:
        """Return the number of delayed requests on disk, including kept ones."""
        folder = os.path.join(self._folder, "sock", "delayed")
        return sum(len(files) for _, _, files in os.walk(folder))

    # ------------------------------------------------------------------ clients

    async def clients(self, count: int, requests: Iterator[int]) -> None:
        """Send requests with a number of clients until there are none left."""
        await asyncio.gather(*(self._client(requests) for _ in range(count)))

    @contextlib.asynccontextmanager
    async def asking(self, count: int) -> AsyncIterator[None]:
        """Send requests with a number of clients within the context."""
        ended = asyncio.Event()
        requests = itertools.takewhile(lambda _: not ended.is_set(), itertools.count())
        clients = asyncio.ensure_future(self.clients(count, requests))
        try:
            yield
        finally:
            ended.set()
            await clients

    async def _client(self, requests: Iterator[int]) -> None:
        lond = self.random.choice(self.londs)
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for _ in requests:
            stops = self._stops
            if stream is None or self.random.random() < self.reconnects:
                if stream is not None:
                    stream[1].close()
                lond = self.random.choice(self.londs)
                try:
                    stream = await asyncio.open_unix_connection(self.socket(lond))
                except OSError:
                    stream = None
                    self.outcomes["no lonc"] += 1
                    await asyncio.sleep(0.02)
                    continue
            outcome = await self._ask(lond, *stream)
            late = (
                (self.manager is not None or self._hands_over)
                and stops != self._stops
                and outcome != "answered"
            )
            self.outcomes[f"{outcome} in flight" if late else outcome] += 1
            if outcome != "answered":  # lonc may close a connection after its con_lost
                stream[1].close()
                stream = None
        if stream is not None:
            stream[1].close()

    async def _ask(
        self, lond: Lond, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> str:
        nonce = b"%016x" % self.random.getrandbits(64)
        try:
            writer.write(b"echo:" + nonce + b"\n")
            reply = await asyncio.wait_for(reader.readline(), HANGS)
        except TimeoutError:
            return "hangs"
        except OSError:
            return "closed"
        if reply == lond.host_id.encode() + b":" + nonce + b"\n":
            return "answered"
        return {b"con_lost\n": "con_lost", b"": "closed"}.get(reply, "wrong")

    async def answers(self, lond: Lond) -> bool:
        """Return whether a host answers a client now."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket(lond))
        except OSError:
            return False
        with contextlib.closing(writer):
            return await self._ask(lond, reader, writer) == "answered"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.2.1", 0))
        port: int = probe.getsockname()[1]
        return port
