"""
No delayed request is lost or misjudged, whatever londs, clients and people do (row F8).

Each third request is refused. ``EXAMPLES`` says how many lives are tried; ``make soak`` tries 500.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from lonc.delayed.service import DelayedService
from lonc.host.connection import PING
from lonc.host.pause import Pause
from lonc.report.events import Logger
from lonc.report.problems import Problems
from lonc.test.fixtures.beginnings import Notes
from lonc.test.fixtures.delayed import read, write
from lonc.test.fixtures.doubles import Attempt, ScriptedLond, a_host, leave_pending
from lonc.test.fixtures.stage import HostTestCase, Stage

LIVES = int(os.environ.get("EXAMPLES", "12"))

T = TypeVar("T")


class Life:
    """Two hosts of one machine, or one host, their delayed requests, and what may happen."""

    def __init__(self, test: SynchronousTestCase, seed: int) -> None:
        self.test = test
        self.random = random = Random(seed)
        ids = random.choice([("l2",), ("l2", "l3")])
        limit = random.choice([5, 20])
        self.stage = Stage(
            test,
            ids=ids,
            max_connections=random.choice([1, 2, 5]),
            request_timeout=limit,
            queue_timeout=limit,
            retries=random.choice([2, 20]),
        )
        self.stage.network.prepare = self.prepare
        self.hosts = {each: self.stage.serve(attrs.evolve(a_host(), id=each)) for each in ids[1:]}
        for host in self.hosts.values():
            host.startService()
        self.hosts["l2"] = self.stage.service
        self.is_slow = random.random() < 0.5  # the disk
        self.calm = False
        self.pings = 0
        self.ping_tells = random.random() < 0.75
        self.silent: set[ScriptedLond] = set()
        self.carried: set[int] = set()
        self.names: dict[int, str] = {}
        os.mkdir(self.stage.settings.delayed_dir)
        self.service = DelayedService(
            self.stage.clock,
            self.stage.settings,
            self.hosts.get,
            self.in_thread,
            lambda line: None,
            Random(1),
            Problems(),
            log=Logger("test", observer=Notes()),
        )

    def in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        """Run a disk call, which may take its time."""
        if not self.is_slow:
            return execute(work)
        done = Deferred[T]()
        pause = self.random.choice([0, 0, 0.1, 0.4])
        self.stage.clock.callLater(pause, lambda: execute(work).chainDeferred(done))
        return done

    def prepare(self, lond: ScriptedLond) -> None:
        """Have a lond that now and then says a line too many, hangs or breaks."""
        if len(self.hosts) > 1:
            lond.know_hosts()
        lond.answer = lambda line: self.answer(lond, line.removeprefix(b"sethost:")[-8:])

    def answer(self, lond: ScriptedLond, line: bytes) -> bytes | None:
        """Answer a request, of which there are the last bytes."""
        chance = 1.0 if self.calm else self.random.random()
        if chance < 0.04:
            for _ in range(self.random.choice([1, 1, 2])):
                extra = self.random.choice([b"ok\n", b"refused\n", b"got\n"])
                self.stage.clock.callLater(0, lond.say, extra)
        elif chance < 0.06:
            lond.close()
        elif chance < 0.08:
            self.silent.add(lond)
        if lond in self.silent or lond.wire.closed:
            return None
        if line.endswith(PING):
            self.pings += 1
            return b"l2\n" if self.ping_tells else b"%d\n" % self.pings
        if b"put:" not in line:
            return b"got\n"
        number = int(line.rpartition(b":")[2])
        self.carried.add(number)
        return b"ok\n" if number % 3 else b"refused\n"

    def store(self) -> None:
        """Store a delayed request."""
        number = len(self.names) + 1
        self.names[number] = f"1.{number}.4711.put.{self.random.choice(list(self.hosts))}"
        path = os.path.join(self.stage.settings.delayed_dir, self.names[number])
        write(path, b"put:%d\n" % number)

    def act(self) -> None:
        """Do one thing, and let time pass."""
        random, stage = self.random, self.stage
        host_id = random.choice(list(self.hosts))
        host = self.hosts[host_id]
        chance = random.random()
        if chance < 0.35:
            self.store()
        elif chance < 0.7:
            lines = random.choice([b"get\n", b"get\nget\nget\n", b"ping\n"])
            stage.clients_of(random.choice([1, 5, 70]), lines)
        elif chance < 0.75:
            host.close_connections()
        elif chance < 0.8:
            host.pause(Pause("root", "", 0.0, 0.0, random.random() < 0.3), 3.0)
        elif chance < 0.9:
            accept = Attempt.accept
            stage.network.on_connect = random.choice(
                [accept, accept, leave_pending, Attempt.refuse]
            )
        elif host_id != "l2":
            address = random.choice(["127.0.0.2", "127.0.0.9"])
            host.reconfigure(attrs.evolve(a_host(address=address), id=host_id), stage.settings)
        stage.advance(random.choice([0.25, 0.25, 1, 4]))

    def live(self) -> None:
        """Do many things; after a while in peace look at what has become of each request."""
        for _ in range(self.random.randrange(40)):
            self.store()
        self.service.startService()
        for _ in range(self.random.randrange(40)):
            self.act()
        self.calm = True
        self.stage.network.on_connect = Attempt.accept
        for host in self.hosts.values():
            host.resume()
            host.reset_retries()
        self.stage.advance(240)
        folder, kept = self.stage.settings.delayed_dir, self.stage.settings.kept_dir
        self.test.assertLessEqual({*os.listdir(folder)}, {"kept"})
        self.test.assertEqual(self.carried, {*self.names})
        refused = [name for number, name in self.names.items() if number % 3 == 0]
        notes = {f"{name}.answer": b"refused\n" for name in refused}
        found = {*os.listdir(kept)} if os.path.isdir(kept) else set()
        self.test.assertEqual(found, {*refused, *notes})
        for note, content in notes.items():
            self.test.assertEqual(read(os.path.join(kept, note)), content)
        stopped: list[None] = []
        self.service.stopService().addCallback(stopped.append)
        self.stage.advance(3)
        self.test.assertEqual(stopped, [None])


class RandomTests(HostTestCase):
    """Lives of delayed requests."""

    def test_lives(self) -> None:
        """Each is carried out; it is deleted if it was accepted, and kept if it was refused."""
        for seed in range(LIVES):
            try:
                Life(self, seed).live()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
