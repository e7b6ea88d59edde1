# Twisted's Clock and LoopingCall have no annotations:
# mypy: allow-untyped-calls
"""
Support for tests of lonc's clients: a host, its lond and its faults in three lines of a test.

::

    host = ServedHost(self)
    host.faults.order(Step.REQUEST, STALL, command=b"put")
    reply = await host.ask("put:msu:alice:grades:essay=A")

Sockets and time are real, but a test can skip time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.task import Clock, LoopingCall

from lonc.client import CON_LOST, Reply, TwistedClient
from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.daemon.rounds import SWEEP
from lonc.host.dependencies import HostDependencies
from lonc.host.service import HostService
from lonc.local.limits import Clients
from lonc.lond.faults import CLOSE, EXTRA_LINE, NAMED, REFUSE, SLOW, SPLIT, STALL, Fault, Step
from lonc.lond.protocol import LondFactory
from lonc.lond.store import Store
from lonc.report.status import HostStatus
from lonc.transport.network import network
from lonc.wire.escaping import Value, to_bytes

__all__ = [
    "CLOSE",
    "CON_LOST",
    "EXTRA_LINE",
    "NAMED",
    "REFUSE",
    "SLOW",
    "SPLIT",
    "STALL",
    "Fault",
    "ServedHost",
    "SkippingClock",
    "Step",
]

#: The address of the lond.
ADDRESS: Final = "127.0.0.1"
#: The own host id of the lonc that serves the host.
CALLER: Final = "l1"


class SkippingClock(Clock):
    """
    The reactor's time plus skipped time.

    :param reactor: provides the real time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        super().__init__()
        self._reactor = reactor
        self._wake: IDelayedCall | None = None
        self._stopped = False

    def seconds(self) -> float:
        """Return the time; the base class counts skipped time."""
        return self._reactor.seconds() + self.rightNow

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """Call a function after a delay, real or skipped."""
        call: IDelayedCall = super().callLater(delay, callable, *args, **kw)
        self._arrange()
        return call

    def advance(self, amount: float) -> None:
        """Skip time in one step, and make the calls that are due."""
        try:
            super().advance(amount)
        finally:
            self._arrange()

    def skip(self, seconds: float) -> None:
        """Skip time in steps short enough for periodic checks."""
        while seconds > 0:
            self.advance(min(SWEEP, seconds))
            seconds -= SWEEP

    def stop(self) -> None:
        """Make no more delayed calls."""
        self._stopped = True
        self._forget_wake()

    def _arrange(self) -> None:
        """Schedule a call of the reactor for the next delayed call."""
        self._forget_wake()
        if self.calls and not self._stopped:
            due = min(call.getTime() for call in self.calls) - self.seconds()
            self._wake = self._reactor.callLater(max(0.0, due), self.advance, 0)

    def _forget_wake(self) -> None:
        if self._wake is not None and self._wake.active():
            self._wake.cancel()
        self._wake = None


class CleansUp(Protocol):
    """The required part of a test case, such as trial's ``TestCase``."""

    def addCleanup(self, function: Callable[[], object], /) -> object:
        """Call a function after the test, and wait for the Deferred that it may return."""


class ServedHost:
    """
    A host served by lonc, for a test: its UNIX socket and its lond.

    It runs from its creation until the end of the test, which closes all ports, connections and
    timers and removes all files; requests still outstanding get ``con_lost``. The lond keeps its
    data in memory, also while stopped.

    :param test: its ``addCleanup`` is used.
    :param host_id: the host's id. Several hosts in a test may have the same, since each has a
        folder of its own.
    :param settings: attributes of :class:`lonc.config.settings.Settings` to differ from their
        defaults, such as ``request_timeout=5.0``.
    :raises lonc.transport.unix_socket.SocketError: its socket cannot be opened.
    :ivar host_id: its id.
    :ivar path: of its socket.
    :ivar settings: its settings, which can be passed to a client.
    :ivar faults: the faults of the lond, see :class:`lonc.lond.faults.Faults`; none at first.
    :ivar requests: the requests received by the lond, decrypted, without newlines, oldest first.
    :ivar clock: the time of the host and the lond.
    :ivar lond: the lond, a :class:`lonc.lond.protocol.LondFactory`.
    :ivar service: the host, a :class:`lonc.host.service.HostService`.
    """

    def __init__(self, test: CleansUp, host_id: str = "l2", **settings: Any) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._listener: IListeningPort | None = None
        self._port = 0  # any free port, and then always the same
        self._awaited: list[tuple[bytes, Deferred[bytes]]] = []
        self.host_id = host_id
        self.requests: list[bytes] = []
        self.clock = SkippingClock(reactor)
        self._store = Store(":memory:")
        self.lond = LondFactory(self.clock, host_id, CALLER, self._store, witness=self._witness)
        self.faults = self.lond.faults
        # Not in trial's folder, since socket paths must be short.
        self._folder = tempfile.mkdtemp(prefix="lonc-")
        test.addCleanup(self._clear_away)
        self.start_lond()
        test.addCleanup(self.stop_lond)
        self.settings = Settings(
            config_file="",
            host_id=CALLER,
            tab_dir=self._folder,
            sock_dir=self._folder,
            daemons_dir=self._folder,
            doc_root=self._folder,
            lond_port=self._port,
            **settings,
        )
        self.path = self.settings.socket_path(host_id)
        self._clients = Clients(self.settings, self.clock)
        dependencies = HostDependencies(
            clock=self.clock,
            network=network(reactor),
            look_up=lambda name: succeed([ADDRESS]),
            random=Random(1),
            clients=self._clients,
            revived=lambda host_id: None,
        )
        row = Host(host_id, "local", "access", f"{host_id}.localhost", ADDRESS, line=1)
        self.service = HostService(row, self.settings, dependencies)
        self._client = TwistedClient(reactor, self.settings)
        test.addCleanup(lambda: Deferred.fromCoroutine(self._stop()))
        sweeps = LoopingCall(self._sweep)
        sweeps.clock = self.clock
        sweeps.start(SWEEP)
        self.service.startService()

    def ask(self, request: Value) -> Deferred[Reply]:
        """
        Send a request over the host's socket, as any client does.

        :param request: without a newline.
        :return: fires with the reply, without its newline; this may be :data:`CON_LOST`.
        :raises ValueError: the request is invalid.
        """
        return self._client.ask(self.host_id, request)

    def reached(self, command: Value) -> Deferred[bytes]:
        """Fire with the first of :attr:`requests` with a command word, when it has arrived."""
        word = to_bytes(command)
        for request in self.requests:
            if request.partition(b":")[0] == word:
                return succeed(request)
        reached: Deferred[bytes] = Deferred()
        self._awaited.append((word, reached))
        return reached

    def skip(self, seconds: float) -> None:
        """
        Skip time for the host and the lond.

        No data arrives meanwhile, so wait before for what must have arrived. The time limit of
        :meth:`ask` itself, ten seconds longer than that of the host, is in real time.
        """
        self.clock.skip(seconds)

    @property
    def status(self) -> HostStatus:
        """The host's status, with the number of ``con_lost`` by cause."""
        return self.service.status(delayed=0, last_log="")

    def start_lond(self) -> None:
        """Start the lond again at the same port, unless it is running."""
        if self._listener is None:
            listener = self._reactor.listenTCP(self._port, self.lond, interface=ADDRESS)
            self._listener, self._port = listener, listener.getHost().port

    def stop_lond(self) -> Deferred[None]:
        """Close all connections and refuse new ones; fires when all are closed."""
        listener, self._listener = self._listener, None
        stopped = succeed(None) if listener is None else maybeDeferred(listener.stopListening)
        return stopped.addCallback(lambda _: self.lond.close_connections())

    def _witness(self, request: bytes) -> None:
        self.requests.append(request)
        word = request.partition(b":")[0]
        awaited, self._awaited = self._awaited, []
        for command, reached in awaited:
            if command == word:
                # In the next iteration, when the lond is answering: now the test may skip that.
                self.clock.callLater(0, reached.callback, request)
            else:
                self._awaited.append((command, reached))

    def _sweep(self) -> None:
        now = self.clock.seconds()
        self._clients.sweep(now)
        self.service.sweep(now)

    async def _stop(self) -> None:
        stopped = self.service.stopService()  # starts nothing new
        await self.stop_lond()  # ends outstanding requests
        await stopped

    def _clear_away(self) -> None:
        self.clock.stop()
        self._store.close()
        shutil.rmtree(self._folder, ignore_errors=True)
