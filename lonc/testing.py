# Twisted's Clock and LoopingCall have no annotations:
# mypy: allow-untyped-calls
"""
For tests of programs that ask lonc: a host, its lond and what goes wrong, in three lines of a test.

::

    host = ServedHost(self)
    host.faults.order(Step.REQUEST, STALL, command=b"put")
    reply = await host.ask("put:msu:alice:grades:essay=A")

The sockets are real. So is the time, of which a test can skip as much as it likes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort
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

#: Where the lond is.
ADDRESS: Final = "127.0.0.1"
#: Own id of the lonc that serves the host.
CALLER: Final = "l1"


class SkippingClock(Clock):
    """
    The reactor's time, and what has been skipped of it.

    :param reactor: has the real time.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._wake: IDelayedCall | None = None
        self._stopped = False

    def seconds(self) -> float:
        """Return the time; the base class counts what was skipped."""
        now: float = self._reactor.seconds() + self.rightNow
        return now

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """Call something when its time has come, or was skipped."""
        call: IDelayedCall = super().callLater(delay, callable, *args, **kw)
        self._arrange()
        return call

    def advance(self, amount: float) -> None:
        """Skip so many seconds at once, and make the calls that are due."""
        try:
            super().advance(amount)
        finally:
            self._arrange()

    def skip(self, seconds: float) -> None:
        """Skip so many seconds in steps short enough for what looks at the time again and again."""
        while seconds > 0:
            self.advance(min(SWEEP, seconds))
            seconds -= SWEEP

    def stop(self) -> None:
        """Make no delayed call any more."""
        self._stopped = True
        self._forget_wake()

    def _arrange(self) -> None:
        """Have the reactor wake us for the next call."""
        self._forget_wake()
        if self.calls and not self._stopped:
            due = min(call.getTime() for call in self.calls) - self.seconds()
            self._wake = self._reactor.callLater(max(0.0, due), self.advance, 0)

    def _forget_wake(self) -> None:
        if self._wake is not None and self._wake.active():
            self._wake.cancel()
        self._wake = None


class CleansUp(Protocol):
    """What is needed of a test: trial's ``TestCase`` is one."""

    def addCleanup(self, function: Callable[[], object], /) -> object:
        """Call a function when the test is over, and await the Deferred that it may return."""


class ServedHost:
    """
    A host of the network, as lonc serves it, in a test: its UNIX socket, and a lond behind it.

    All of it runs once this is made, and is gone when the test is over: no port, no connection, no
    timer and no file is left. What the test asked then ends with ``con_lost``. The lond keeps its
    data in memory, over a stop and a start.

    :param test: the test, whose ``addCleanup`` is used.
    :param host_id: the host's id; several hosts in a test need different ones no more than they
        need different folders, for each has its own.
    :param settings: attributes of :class:`lonc.config.settings.Settings` that are not to have
        their defaults, such as ``request_timeout=5.0``.
    :raise lonc.transport.unix_socket.SocketError: its socket cannot be had.
    :ivar host_id: its id.
    :ivar path: where its socket is.
    :ivar settings: its settings; a client may be made with them.
    :ivar faults: what the lond does wrong, see :class:`lonc.lond.faults.Faults`; none at first.
    :ivar requests: what the lond was asked, deciphered and without newlines, the first one first.
    :ivar clock: the time of the host and of the lond.
    :ivar lond: the lond, a :class:`lonc.lond.protocol.LondFactory`.
    :ivar service: the host, a :class:`lonc.host.service.HostService`.
    """

    def __init__(self, test: CleansUp, host_id: str = "l2", **settings: Any) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._listener: IListeningPort | None = None
        self._port = 0  # any that is free, and then always the same
        self._awaited: list[tuple[bytes, Deferred[bytes]]] = []
        self.host_id = host_id
        self.requests: list[bytes] = []
        self.clock = SkippingClock(reactor)
        self._store = Store(":memory:")
        self.lond = LondFactory(self.clock, host_id, CALLER, self._store, witness=self._witness)
        self.faults = self.lond.faults
        # Not below trial's folder: a socket's path has to be short.
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
        Ask over the host's socket, as any client does.

        :param request: without a newline.
        :return: fires with the reply, without its newline; :data:`CON_LOST` is one like any other.
        :raise ValueError: the request cannot be one.
        """
        return self._client.ask(self.host_id, request)

    def reached(self, command: Value) -> Deferred[bytes]:
        """Fire with the first of :attr:`requests` with that command word, once it is there."""
        word = to_bytes(command)
        for request in self.requests:
            if request.partition(b":")[0] == word:
                return succeed(request)
        reached: Deferred[bytes] = Deferred()
        self._awaited.append((word, reached))
        return reached

    def skip(self, seconds: float) -> None:
        """
        Let so many seconds pass at once, for the host and for the lond.

        Nothing arrives meanwhile: await what has to be there before. What :meth:`ask` waits
        itself, some ten seconds longer than the host, is not skipped.
        """
        self.clock.skip(seconds)

    @property
    def status(self) -> HostStatus:
        """What lonc reports on the host; of each ``con_lost`` it has counted the cause."""
        return self.service.status(delayed=0, last_log="")

    def start_lond(self) -> None:
        """Start the lond again where it was; nothing happens if it runs."""
        if self._listener is None:
            listener = self._reactor.listenTCP(self._port, self.lond, interface=ADDRESS)
            self._listener, self._port = listener, listener.getHost().port

    def stop_lond(self) -> Deferred[None]:
        """Hang up, and refuse connections from now on; fires when all are closed."""
        return Deferred.fromCoroutine(self._stop_lond())

    async def _stop_lond(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await maybeDeferred(listener.stopListening)
        await self.lond.close_connections()

    def _witness(self, request: bytes) -> None:
        self.requests.append(request)
        word = request.partition(b":")[0]
        awaited, self._awaited = self._awaited, []
        for command, reached in awaited:
            if command == word:
                # In the next turn, when the lond is at its answer: a test may skip that now.
                self.clock.callLater(0, reached.callback, request)
            else:
                self._awaited.append((command, reached))

    def _sweep(self) -> None:
        now = self.clock.seconds()
        self._clients.sweep(now)
        self.service.sweep(now)

    async def _stop(self) -> None:
        stopped = self.service.stopService()  # it begins nothing new from now on
        await self._stop_lond()  # what it owes an answer ends
        await stopped

    def _clear_away(self) -> None:
        self.clock.stop()
        self._store.close()
        shutil.rmtree(self._folder, ignore_errors=True)
