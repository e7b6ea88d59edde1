# mypy: allow-untyped-calls
"""
A test against a lond that is told to do wrong: ``trial docs/examples/test_with_faults.py``.

The sockets are real and the time is not, so a time limit of a minute takes no time at all.
"""

from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.service import HostDependencies, HostService
from lonc.local.limits import Clients
from lonc.lond.faults import STALL, Faults, Step
from lonc.lond.protocol import LondFactory
from lonc.wire.request import Cause, ConLost

net: Any = reactor


class SilentLondTests(TestCase):
    """What becomes of a request when the lond does not answer it."""

    def setUp(self) -> None:
        """Start a lond that never answers a put, and serve it."""
        faults = Faults()
        faults.order(Step.REQUEST, STALL, command=b"put")
        self.arrived = Deferred[bytes]()
        self.lond = LondFactory(net, "l2", "l1", faults=faults, witness=self.witness)
        self.port = net.listenTCP(0, self.lond, interface="127.0.0.1")
        self.clock = Clock()
        folder = self.mktemp()
        settings = Settings(
            config_file="",
            host_id="l1",
            tab_dir=folder,
            sock_dir=folder,
            daemons_dir=folder,
            doc_root=folder,
            lond_port=self.port.getHost().port,
        )
        around = HostDependencies(
            clock=self.clock,
            network=net,
            look_up=lambda name: succeed([name]),
            random=Random(1),
            clients=Clients(settings, self.clock),
            revived=lambda host_id: None,
        )
        row = Host("l2", "local", "access", "l2.localhost", "127.0.0.1", line=1)
        self.host = HostService(row, settings, around)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop()))

    async def stop(self) -> None:
        """Leave nothing open."""
        stopped = self.host.stopService()
        self.clock.advance(0)  # a turn of the reactor, as the host sees it
        await stopped
        await self.lond.close_connections()
        await self.port.stopListening()

    def witness(self, request: bytes) -> None:
        """Take note that the put has reached the lond; ``version`` comes before it."""
        if request.startswith(b"put:"):
            self.arrived.callback(request)

    async def test_put(self) -> None:
        """It ends with the cause "timeout" when its minute is over."""
        answer = self.host.ask(b"put:msu:alice:grades:essay=A\n")
        await self.arrived
        self.clock.advance(60)
        self.host.sweep(self.clock.seconds())
        with self.assertRaises(ConLost) as raised:
            await answer
        self.assertIs(raised.exception.cause, Cause.TIMEOUT)
