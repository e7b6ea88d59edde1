# Twisted's testing module, Services and trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""One host's service with all that is around it, in memory: for the tests of a request's way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from lonc.clients import Clients
from lonc.host import HostService, Surroundings
from lonc.hosts import Host
from lonc.request import Cause
from lonc.status import HostStatus
from lonc.test.doubles import (
    Attempt,
    FakeClient,
    FakeNetwork,
    NoJitter,
    ScriptedLond,
    a_host,
    echo,
    some_settings,
)

#: Seconds between two sweeps, as in the daemon.
SWEEP = 0.25


class Stage:
    """
    One host's service with all that is around it, in memory.

    :ivar revived: the ids of hosts that came back from DEAD.
    :ivar targets: what was looked up.
    """

    def __init__(
        self,
        test: SynchronousTestCase,
        host: Host | None = None,
        random: Random | None = None,
        look_up: Callable[[str], Deferred[list[str]]] | None = None,
        **settings: Any,
    ) -> None:
        # Not below trial's folder: a socket's path has to be short.
        folder = tempfile.TemporaryDirectory(prefix="lonc-")
        test.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.settings = some_settings(self.folder, **settings)
        self.clock = Clock()
        self.network = FakeNetwork(self.clock)
        self.clients = Clients(self.settings, self.clock)
        self.revived: list[str] = []
        self.targets: list[str] = []
        self._look_up = look_up or (lambda target: succeed([target]))
        self.around = Surroundings(
            clock=self.clock,
            network=self.network,
            look_up=self._looked_up,
            random=random or NoJitter(),
            clients=self.clients,
            revived=self.revived.append,
        )
        self.service = HostService(host or a_host(), self.settings, self.around)
        self.service.startService()
        test.addCleanup(self._close)

    def _looked_up(self, target: str) -> Deferred[list[str]]:
        self.targets.append(target)
        return self._look_up(target)

    def _close(self) -> None:
        for port in self.network.ports:
            port.let_go()

    @property
    def path(self) -> str:
        """Of the host's socket."""
        return self.settings.socket_path(self.service.host_id)

    def client(self, *lines: bytes, room: float = float("inf")) -> FakeClient:
        """Return a new client that sends these lines."""
        client = FakeClient(self.clock, self.network.ports[-1].factory, room)
        for line in lines:
            client.write(line)
        return client

    def clients_of(self, count: int, line: bytes = b"ping\n") -> list[FakeClient]:
        """Return so many clients that each send this line."""
        return [self.client(line) for _ in range(count)]

    def turn(self) -> None:
        """Let arrive what is on its way."""
        self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        """Let time pass, with sweeps as the daemon makes them; what is on its way arrives."""
        self.turn()
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(SWEEP, end - self.clock.seconds()))
            now = self.clock.seconds()
            self.clients.sweep(now)
            self.service.sweep(now)
            self.turn()

    @property
    def status(self) -> HostStatus:
        """What the host reports."""
        return self.service.status(0, "")

    @property
    def state(self) -> tuple[int, int, int, int]:
        """Connections: connecting, handshaking, idle, busy."""
        status = self.status
        return status.connecting, status.handshaking, status.idle, status.busy

    def lost(self, cause: Cause) -> int:
        """How many requests ended with ``con_lost`` for this cause."""
        return self.status.con_lost[cause.value]

    @property
    def londs(self) -> list[ScriptedLond]:
        """The londs' ends of the connections that were made."""
        return self.network.londs

    def connect(self, count: int = 1) -> list[ScriptedLond]:
        """Make so many connections, which are then idle; return the londs' ends."""
        before = len(self.londs)
        asked = [self.client(b"warm-up\n") for _ in range(count)]
        self.turn()
        londs = self.londs[before:]
        for lond in londs:
            lond.say(b"ok\n")
        for client in asked:
            client.hang_up()
        self.turn()
        for lond in londs:
            lond.asked.clear()
        return londs

    def echoing(self) -> None:
        """Let every lond from now on answer each request with itself."""

        def prepare(lond: ScriptedLond) -> None:
            lond.answer = echo

        self.network.prepare = prepare

    def stall_at(self, line: bytes) -> None:
        """Let every lond from now on leave this line of the handshake without an answer."""

        def prepare(lond: ScriptedLond) -> None:
            lond.stalls_at = line

        self.network.prepare = prepare

    def refuse(self) -> None:
        """Let nobody listen from now on."""
        self.network.on_connect = Attempt.refuse

    def accept(self) -> None:
        """Let connections be made from now on."""
        self.network.on_connect = Attempt.accept

    def stop(self) -> list[bool]:
        """
        Begin to stop.

        :return: a list that will hold one entry for each time it is done: whether all sockets
            were closed then.
        """
        done: list[bool] = []
        stopped: Any = self.service.stopService()
        stopped.addCallback(lambda _: done.append(self.all_closed))
        return done

    @property
    def all_closed(self) -> bool:
        """Whether no socket is open any more, neither our own nor that of a lond or a client."""
        ports = all(port.closed for port in self.network.ports)
        return self.clients.open == 0 and ports and all(lond.wire.closed for lond in self.londs)


@implementer(ILogObserver)
class Notes:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    def at(self, level: LogLevel) -> list[str]:
        """Return what was logged at a level, as text."""
        return [formatEvent(each) for each in self.events if each["log_level"] is level]


class HostTestCase(SynchronousTestCase):
    """
    What the tests of a host have in common.

    :ivar notes: what was logged.
    """

    def setUp(self) -> None:
        self.notes = Notes()
        globalLogPublisher.addObserver(self.notes)
        self.addCleanup(globalLogPublisher.removeObserver, self.notes)

    @property
    def warnings(self) -> list[str]:
        """The warnings that were logged."""
        return self.notes.at(LogLevel.warn)

    def answers(self, clients: list[FakeClient]) -> list[bytes]:
        """Return what each client has read."""
        return [client.read for client in clients]

    def busy_stage(self, waiting: int = 0, **settings: Any) -> tuple[Stage, FakeClient]:
        """Return a stage whose one connection owes an answer, while others wait for it."""
        stage = Stage(self, **{"max_connections": 1, **settings})
        client = stage.client(b"first\n")
        stage.turn()
        stage.clients_of(waiting)
        self.assertEqual(stage.state, (0, 0, 0, 1))
        self.assertEqual(stage.status.waiting, waiting)
        return stage, client
