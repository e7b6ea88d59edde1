"""The process: closed descriptors, signals at any time, and a clock that is set."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from random import Random
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.process import Process
from twisted.internet.task import deferLater

from lonc.control.client import ManagementClient
from lonc.test.fixtures.daemon import TWISTD, Child, DaemonTestCase, free_port, gone
from lonc.test.fixtures.programs import SOURCE

reactor: Any = global_reactor

#: Bytes that a pipe holds.
PIPE = 65_536

#: Comes first on the path, and sets the wall clock by what a file says.
SET_CLOCK = """
import os, time
real = time.time
def wall_clock():
    with open(os.environ["CLOCK_STEP"]) as file:
        return real() + float(file.read() or 0)
time.time = wall_clock
"""


class OwnProcessTestCase(DaemonTestCase):
    """A daemon with an embedded cluster."""

    def setUp(self) -> None:
        super().setUp()
        self.options = ["lonc", "--standalone", self.folder, "--lond-port"]
        self.options.append(str(free_port("127.0.0.1", "127.0.0.2")))

    def number(self) -> int:
        """Return the number in ``lonc.pid``; 0 if there is none."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.read("daemons", "logs", "lonc.pid"))
        return 0

    def assert_nothing_left(self) -> None:
        """Check that there is no socket and no pid file."""
        self.assertEqual(self.left_in("sock"), [])
        self.assertEqual(self.number(), 0)
        self.assertNotIn("lonc.pid", self.left_in("daemons", "logs"))


class ClosedDescriptorsTests(OwnProcessTestCase):
    """Closed stdin, stdout or stderr."""

    def without(self, closed: tuple[int, ...], *arguments: str) -> Child:
        """Start `twistd` with some descriptors closed."""
        closing = " ".join(f"{number}>&-" for number in closed)
        command = [sys.executable, TWISTD, *arguments, *self.options]
        return self.spawn(["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *command])

    async def serves_and_ends(self, pid: int) -> None:
        """Check that it answers, and that no socket has a standard descriptor; send TERM."""
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        for number in range(3):
            kind = os.readlink(f"/proc/{pid}/fd/{number}")
            self.assertTrue(kind == "/dev/null" or kind.startswith("pipe:"), kind)
        os.kill(pid, signal.SIGTERM)

    async def test_foreground(self) -> None:
        """With any of them closed, it serves in the foreground, and ends with status 0."""
        for closed in ((0,), (1,), (2,), (0, 1, 2)):
            lonc = self.without(closed, "-n")
            await self.serves_and_ends(lonc.pid)
            self.assertEqual(await lonc.ended(), 0)
            self.assert_nothing_left()
            self.assert_no_traceback(lonc)

    async def test_background(self) -> None:
        """The same in the background; the command that starts it ends with status 0."""
        for closed in ((1,), (0, 1, 2)):
            command = self.without(closed)
            self.assertEqual(await command.ended(), 0)
            pid = self.number()
            await self.serves_and_ends(pid)
            await gone(pid)
            self.assert_nothing_left()
            self.assert_no_traceback(command)
            self.children.clear()


class ReaderTests(OwnProcessTestCase):
    """Standard output and standard error that are not read."""

    async def test_nobody_reads(self) -> None:
        """Clients are served while the pipe is full; later the whole output can be read."""
        lonc = self.twistd("-n", *self.options)
        client = await self.client("l2")
        await client.ask("ping")
        management = await ManagementClient.connect(reactor, f"unix:{self.socket('lonc.amp')}")
        await management.set_debug_level("l2", 9)
        assert isinstance(lonc.transport, Process)
        lonc.transport.pauseProducing()
        answers = [client.ask("ping") for _ in range(1000)]
        for answer in answers:
            await answer
        lonc.transport.resumeProducing()
        await management.close()
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        log = self.read("daemons", "logs", "lonc.log").splitlines()
        self.assertGreater(sum(map(len, log)), 3 * PIPE)
        shown = [line for line in lonc.out.splitlines() if line[:4].isdigit() and line[4] == "-"]
        self.assertEqual(len(shown), len(log))


class SignalTests(OwnProcessTestCase):
    """Signals at any time after ``lonc.pid`` was written."""

    async def has_number(self, lonc: Child) -> None:
        """Wait for its number in ``lonc.pid``, checking more often than `until`."""
        while self.number() != lonc.pid:
            self.assertIsNone(lonc.status, lonc.err)
            await deferLater(reactor, 0.001)

    async def test_any_signal(self) -> None:
        """Any number of other signals does no harm; TERM ends it with 0 and nothing is left."""
        random = Random(1)
        harmless = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM, signal.SIGVTALRM]
        lonc = self.twistd("-n", *self.options)
        await self.has_number(lonc)
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await self.ask("l1", "ping"))

        asked = Deferred.fromCoroutine(ask())
        while not answers:
            lonc.kill(random.choice(harmless))
            await deferLater(reactor, 0.002)
            self.assertIsNone(lonc.status, lonc.err)
        await asked
        self.assertEqual(answers, ["l1"])
        while lonc.status is None:
            with contextlib.suppress(ProcessLookupError):
                lonc.kill(random.choice([signal.SIGTERM, signal.SIGINT, *harmless]))
            await deferLater(reactor, 0.002)
        self.assertEqual(lonc.status, 0, lonc.err)
        self.assert_nothing_left()
        self.assert_no_traceback(lonc)

    async def test_clean_end(self) -> None:
        """TERM once the number was written, or Ctrl-C once the screen was shown, is a clean end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            lonc = self.twistd("-n", *self.options)
            if number == signal.SIGTERM:
                await self.has_number(lonc)
            else:
                await lonc.says("lonc serves a cluster of its own")
            self.assertEqual(await lonc.end(number), 0)
            self.assert_nothing_left()
            self.assert_no_traceback(lonc)


class ClockTests(DaemonTestCase):
    """The wall clock is set while lonc runs."""

    async def test_steps(self) -> None:
        """
        After a step of an hour forward what waits goes on waiting; after one of two hours back
        limits end waits as before, and delayed requests are sent.
        """
        os.mkdir(self.path("first"))
        self.write(SET_CLOCK, "first", "sitecustomize.py")
        step = self.write("", "step")
        lond = self.lond("l2", "127.0.0.2")
        self.configure(lond.port, loncRequestTimeout="4", loncQueueTimeout="4")
        path = os.pathsep.join([self.path("first"), SOURCE])
        lonc = self.twistd(
            "-n",
            *("lonc", "--config", self.path("loncapa.conf")),
            PYTHONPATH=path,
            CLOCK_STEP=step,
        )
        client = await self.client("l2")
        self.assertEqual(await client.ask("ping"), "l2")
        lond.hold("get")
        waiting = client.ask("get:d:u:n:a")
        await lond.asked("get:d:u:n:a")
        self.write("3600", "step")
        await self.rounds(lonc, 2)
        self.assertNotIn("DEAD", self.read("daemons", "logs", "lonc.log"))
        lond.say("late")
        self.assertEqual(await waiting, "late")
        self.write("-3600", "step")
        lond.hold("get")
        waiting = client.ask("get:d:u:n:b")
        os.makedirs(self.path("sock", "delayed"), exist_ok=True)
        self.write("put:d:u:n:c=1\n", "sock", "delayed", "1700000000.1.put.l2")
        await lond.asked("put:d:u:n:c=1")
        self.assertEqual(await waiting, "con_lost")
        self.assertEqual(await client.ask("ping"), "l2")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assert_no_traceback(lonc)
