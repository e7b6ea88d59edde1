"""
Each authentication mode over real sockets, between a host's service and the embedded lond.

Protocol, section 9. Nothing waits for time to pass: a test is told when the lond reaches a step,
and time limits are checked with a later time. Each failure by itself is in
``wire/test_handshake_modes.py`` and ``lond/test_modes.py``.
"""

from __future__ import annotations

import gc
import os
import ssl
from random import Random
from typing import Any, Final

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import LogLevel
from twisted.trial.unittest import TestCase

from lonc.config.auth_modes import read_access
from lonc.config.certificates import CertificateFiles
from lonc.config.hosts import Host, parse_host_table
from lonc.config.key_files import KeyFolder
from lonc.config.settings import Settings
from lonc.host.service import HostDependencies, HostService
from lonc.local.limits import Clients
from lonc.lond.faults import CLOSE, REFUSE, STALL, Fault, Faults, Step
from lonc.lond.protocol import LondFactory
from lonc.test.fixtures.beginnings import notes_of, short_folder
from lonc.test.fixtures.certificates import Authority, as_settings
from lonc.test.fixtures.doubles import some_settings
from lonc.transport.network import Network, network
from lonc.wire.handshake import AuthModes, Handshake
from lonc.wire.request import ConLost

reactor: Any = global_reactor

#: l1 is our own row.
TABLE = "l1:d:library:one.test:127.0.0.1\nl2:d:library:two.test:127.0.0.2\n"

#: The settings of a lonc without certificates.
PLAIN: Final[dict[str, Any]] = dict.fromkeys(
    ("certificate_authority", "certificate", "private_key")
)


class WatchedFaults(Faults):
    """Faults that report when a step is reached."""

    def __init__(self) -> None:
        super().__init__()
        self._awaited: dict[Step, Deferred[None]] = {}

    def reached(self, step: Step) -> Deferred[None]:
        """Return a Deferred that fires when the lond next reaches this step."""
        return self._awaited.setdefault(step, Deferred())

    def next_fault(self, step: Step, command: bytes = b"") -> Fault | None:
        """Report the step, once the lond has taken it."""
        if step in self._awaited:
            reactor.callLater(0, self._awaited.pop(step).callback, None)
        return super().next_fault(step, command)


class NetworkTestCase(TestCase):
    """
    A lond ``l2`` on a port of its own, and a host's service that connects to it.

    :ivar near: whether the lond counts as being on lonc's machine, where it really is.
    :ivar notes: what was logged.
    """

    timeout = 600
    near = False

    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.notes = notes_of(self)
        self.authority = Authority(self.folder)
        self.files = self.authority.issue("two.test", file="lond")
        self.own_files = self.authority.issue("one.test", file="lonc")
        self.faults = WatchedFaults()
        self.network: Network = network(reactor)

    def lond(self, files: CertificateFiles | None = None, **options: Any) -> LondFactory:
        """Start a lond, with TLS if it has certificates; earlier faults are over."""
        self.notes.events.clear()
        self.faults.clear()
        tls = None if files is None else files.context(ssl.PROTOCOL_TLS_SERVER)
        options = {"key_folder": KeyFolder(some_settings(self.folder).key_dir), **options}
        factory = LondFactory(reactor, "l2", "l1", faults=self.faults, tls=tls, **options)
        listener = reactor.listenTCP(0, factory, interface="127.0.0.2")
        self.port = listener.getHost().port
        self.addCleanup(factory.close_connections)
        self.addCleanup(listener.stopListening)
        return factory

    def configure(self, **changes: Any) -> tuple[Host, Settings]:
        """Put settings in force, with our certificate unless changed."""
        named = as_settings(self.own_files) | {"lond_port": self.port}
        settings = some_settings(self.folder, **(named | changes))
        table = parse_host_table(TABLE.encode(), "hosts.tab")
        self.access = read_access(settings, table)
        return table.hosts["l2"], settings

    def serve(self, **changes: Any) -> HostService:
        """Return a service for the host."""
        host, settings = self.configure(**changes)
        dependencies = HostDependencies(
            clock=reactor,
            network=self.network,
            look_up=lambda name: succeed([name]),
            random=Random(1),
            clients=Clients(settings, reactor),
            revived=lambda host_id: None,
            auth_modes=self.auth_modes,
        )
        service = HostService(host, settings, dependencies)
        self.addCleanup(service.stopService)
        return service

    def auth_modes(self, host: Host) -> AuthModes:
        """Return the authentication modes to offer, without key files unless the lond is near."""
        modes = self.access.auth_modes(host)
        return modes if self.near else attrs.evolve(modes, key_files=None)

    async def check_served(self, host: HostService, mode: str, version: str = "1.0") -> None:
        """Send plain and encrypted requests; check the answers, and the mode."""
        self.assertEqual(await host.ask(b"ping\n"), b"l2\n")
        self.assertEqual(await host.ask(b"encrypt:put:d:u:n:secret=1\n"), b"ok\n")
        self.assertEqual(await host.ask(b"eget:d:u:n:secret\n"), b"1\n")
        status = host.status(0, "")
        self.assertEqual((status.mode, status.lond_version), (mode, version))
        self.assertEqual((status.idle, status.connections), (1, 1))
        self.assertFalse(os.path.exists(os.path.join(self.folder, "lonc.keys")))

    async def check_not_served(self, host: HostService, *words: str) -> None:
        """Send a request; check that it is lost, and how that is logged."""
        with self.assertRaises(ConLost):
            await host.ask(b"ping\n")
        self.check_failure(host, *words)

    def check_failure(self, host: HostService, *words: str) -> None:
        """Check that exactly one connection failed, and what the log says about it."""
        (line,) = [line for line in self.notes.at(LogLevel.warn) if line.startswith("connection")]
        for word in words:
            self.assertIn(word, line)
        status = host.status(0, "")
        self.assertEqual((status.retries_left, status.connections, status.mode), (1, 0, ""))

    async def expire(self, host: HostService, step: Step) -> Deferred[bytes]:
        """Send a request, and check the time limits a minute after the lond has reached a step."""
        reached = self.faults.reached(step)
        outcome = host.ask(b"ping\n")
        await reached
        host.sweep(reactor.seconds() + 61)
        return outcome


class InsecureTests(NetworkTestCase):
    """The mode of the first releases."""

    async def test_served(self) -> None:
        """Without certificates, londs are served as ever, those of loncnew's time too."""
        factory = self.lond(self.files)
        await self.check_served(self.serve(**PLAIN), "insecure")
        self.assertEqual(factory.accepted, 1)
        self.lond(revision=None)
        asked = self.faults.reached(Step.REQUEST)
        host = self.serve()
        await self.check_served(host, "insecure", "")
        await asked
        host.close_connections()
        await self.check_served(host, "insecure", "")

    async def test_no_mode(self) -> None:
        """If no mode is possible, the lond is sent nothing, and the log says why."""
        factory = self.lond(self.files)
        said = self.faults.reached(Step.INIT)
        host = self.serve(allow_insecure=False, **PLAIN)
        await self.check_not_served(
            host, "bad handshake", "no authentication mode is possible: loncAllowInsecure"
        )
        self.assertEqual((factory.requests, said.called), (0, False))


class LocalTests(NetworkTestCase):
    """A lond on the same machine, by key files."""

    near = True

    async def test_served(self) -> None:
        """A key file is used whatever else is allowed, and deleted."""
        for changes in ({}, {"allow_insecure": False}, {"allow_insecure": False, **PLAIN}):
            factory = self.lond()
            host = self.serve(**changes)
            await self.check_served(host, "local")
            self.assertEqual((factory.accepted, host.status(0, "").retries_left), (1, 2))

    async def test_many_at_once(self) -> None:
        """Each connection has its own file; if the lond refuses them, no request is lost."""
        for fault in (None, CLOSE):
            factory = self.lond()
            if fault is not None:
                self.faults.order(Step.LOCAL, fault)
            host = self.serve()
            answers = await gatherResults([host.ask(b"encrypt:ping\n") for _ in range(50)])
            self.assertEqual(answers, [b"l2\n"] * 50)
            self.assertGreater(factory.accepted, 1)
            self.assertEqual(host.status(0, "").retries_left, 2)
            self.assertFalse(os.path.exists(os.path.join(self.folder, "lonc.keys")))

    async def test_not_accepted(self) -> None:
        """After any refusal the next mode is used, without a failure; until a fresh start."""
        for fault in (CLOSE, REFUSE, Fault(instead=b"what?\n"), Fault(cut=1, close=True)):
            for changes, mode in ((PLAIN, "insecure"), ({}, "ssl")):
                factory = self.lond(self.files)
                self.faults.order(Step.LOCAL, fault)
                host = self.serve(**changes)
                await self.check_served(host, mode)
                self.assertEqual((factory.accepted, host.status(0, "").retries_left), (2, 2))
                (line,) = self.notes.at(LogLevel.warn)
                self.assertIn(
                    "the lond does not accept this authentication mode, trying another: ", line
                )
        self.faults.clear()
        host.close_connections()
        await self.check_served(host, "local")

    async def test_no_other_mode(self) -> None:
        """If no other mode is possible, it is a failure."""
        self.lond(revision=None)
        host = self.serve(allow_insecure=False)
        await self.check_not_served(host, "bad handshake", "old lond", "loncAllowInsecure is 0")
        self.assertFalse(os.path.exists(os.path.join(self.folder, "lonc.keys")))

    async def test_silent(self) -> None:
        """If the lond is silent, the next mode is used after the time limit."""
        self.lond()
        self.faults.order(Step.LOCAL, STALL)
        host = self.serve(**PLAIN, queue_timeout=600)
        outcome = await self.expire(host, Step.LOCAL)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "lonc.keys")))
        self.assertEqual(await outcome, b"l2\n")
        self.assertEqual(host.status(0, "").mode, "insecure")

    async def test_stop(self) -> None:
        """If lonc stops meanwhile, the file is deleted."""
        self.lond()
        self.faults.order(Step.LOCAL, STALL)
        host = self.serve()
        reached = self.faults.reached(Step.LOCAL)
        outcome = host.ask(b"ping\n")
        await reached
        await host.stopService()
        await self.assertFailure(outcome, ConLost)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "lonc.keys")))


class SSLTests(NetworkTestCase):
    """TLS with a lond on another machine."""

    async def test_served(self) -> None:
        """The key is sent over TLS, plain lines follow, and nothing of the handshake is kept."""
        factory = self.lond(self.files)
        host = self.serve(allow_insecure=False)
        before = self.handshakes()
        await self.check_served(host, "ssl")
        self.assertEqual((factory.accepted, host.status(0, "").retries_left), (1, 2))
        self.assertEqual(self.notes.at(LogLevel.warn), [])
        self.assertEqual(self.handshakes(), before)

    def handshakes(self) -> int:
        """Count the handshakes in memory: other tests may have left some."""
        gc.collect()
        return sum(isinstance(each, Handshake) for each in gc.get_objects())

    async def test_variants(self) -> None:
        """
        TLS 1.2 is accepted, as are names with ``internal-`` or among others; each byte may arrive
        by itself; and Twisted's own transports will do.
        """
        for names in (["two.test"], ["internal-two.test"], ["x.test", "TWO.test"]):
            factory = self.lond(self.authority.issue("whatever", names, file="lond"))
            assert factory.tls is not None
            factory.tls.maximum_version = ssl.TLSVersion.TLSv1_2
            for step in (Step.SSL, Step.TLS, Step.TLS_KEY, Step.VERSION, Step.SETHOST):
                self.faults.order(step, Fault(pause=0.00001))
            await self.check_served(self.serve(), "ssl")
            self.network = reactor

    async def test_many_at_once(self) -> None:
        """Each connection has its own key, and each request gets its own answer."""
        factory = self.lond(self.files)
        host = self.serve()
        await host.ask(b"put:d:u:n:" + b"&".join(b"k%d=%d" % (n, n) for n in range(50)) + b"\n")
        answers = await gatherResults(
            [host.ask(b"encrypt:eget:d:u:n:k%d\n" % number) for number in range(50)]
        )
        self.assertEqual(answers, [b"%d\n" % number for number in range(50)])
        self.assertGreater(factory.accepted, 1)

    async def test_upgraded(self) -> None:
        """If a lond learns TLS, the next connection uses it."""
        factory = self.lond()
        host = self.serve()
        await self.check_served(host, "insecure")
        factory.tls = self.files.context(ssl.PROTOCOL_TLS_SERVER)
        self.faults.order(Step.REQUEST, STALL, command=b"pong")
        unanswered = host.ask(b"pong\n")
        self.assertEqual(await host.ask(b"ping\n"), b"l2\n")
        self.assertEqual((factory.accepted, host.status(0, "").mode), (2, "ssl"))
        host.close_connections()
        await self.assertFailure(unanswered, ConLost)

    async def test_bad_certificate(self) -> None:
        """A lond with a bad certificate is not served, insecurely neither; the log says why."""
        other = Authority(self.folder, "other").issue("two.test")
        for words, files in {
            "has expired": self.authority.issue("two.test", ends=-0.5, file="expired"),
            "is not valid yet": self.authority.issue("two.test", begins=0.5, file="early"),
            "is not signed by our authority": CertificateFiles(
                self.authority.file, other.certificate, other.key
            ),
            "is for three.test, not for two.test": self.authority.issue("three.test", file="3"),
        }.items():
            factory = self.lond(files)
            await self.check_not_served(self.serve(), "bad handshake", words)
            self.assertEqual((factory.requests, factory.accepted), (0, 1))

    async def test_own_certificate_is_bad(self) -> None:
        """Why the lond rejects our certificate is in our log, and in the lond's."""
        other = Authority(self.folder, "other").issue("one.test")
        for ours, heard, said in (
            (
                self.authority.issue("one.test", ends=-0.5, file="old"),
                "certificate expired",
                "has expired",
            ),
            (
                CertificateFiles(self.authority.file, other.certificate, other.key),
                "unknown ca",
                "is not signed by our authority",
            ),
        ):
            self.own_files = ours
            self.lond(self.files)
            with self.assertRaises(ConLost):
                await self.serve().ask(b"ping\n")
            lond_says, lonc_says = self.notes.at(LogLevel.warn)
            self.assertIn(f"TLS with a caller failed: the certificate shown {said}", lond_says)
            self.assertIn(f"bad handshake: the other side ended TLS: {heard}", lonc_says)

    async def test_faults(self) -> None:
        """A lond that closes or does not end a line fails; the log says when, and it recovers."""
        endless = Fault(instead=b"", endless=True)
        for fault, step, words in (
            (CLOSE, Step.SSL, "closed by the lond in state Initialized"),
            (CLOSE, Step.TLS, "closed by the lond in state ReceivingKeyInTLS"),
            (CLOSE, Step.TLS_KEY, "closed by the lond in state ReceivingKeyInTLS"),
            (CLOSE, Step.TLS_END, "closed by the lond in state HostSet"),
            (endless, Step.SSL, "a line of more than 1024 bytes in state Initialized"),
            (endless, Step.TLS_KEY, "more than a key came inside TLS"),
            (endless, Step.TLS_END, "a line of more than 1024 bytes in state HostSet"),
        ):
            self.lond(self.files)
            self.faults.order(step, fault)
            host = self.serve()
            await self.check_not_served(host, "bad handshake", words)
            self.faults.clear()
            self.assertEqual(await host.ask(b"ping\n"), b"l2\n")
            self.assertEqual(host.status(0, "").mode, "ssl")

    async def test_silent(self) -> None:
        """A lond that becomes silent is cut off at the time limit of the handshake."""
        for step, state in (
            (Step.SSL, "Initialized"),
            (Step.TLS, "ReceivingKeyInTLS"),
            (Step.TLS_KEY, "ReceivingKeyInTLS"),
            (Step.SETHOST, "HostSet"),
        ):
            self.lond(self.files)
            self.faults.order(step, STALL)
            host = self.serve()
            await self.assertFailure(await self.expire(host, step), ConLost)
            self.check_failure(host, f"no end of the handshake after 60 s in state {state}")


class ChangeTests(NetworkTestCase):
    """Settings that change while lonc runs, as at HUP."""

    async def changed(self, host: HostService, factory: LondFactory, used: int) -> None:
        """Check that the host is served over TLS after a change, and on how many connections."""
        await self.check_served(host, "ssl")
        self.assertEqual(factory.accepted, used)

    async def test_insecure_is_forbidden(self) -> None:
        """Insecure connections are used no more, except for the answer to an open request."""
        for is_open in (False, True):
            factory = self.lond(self.files)
            host = self.serve(**PLAIN)
            await self.check_served(host, "insecure")
            outcome = succeed(b"l2:l1\n")
            if is_open:
                self.faults.order(Step.REQUEST, Fault(delay=0.05), times=1)
                reached = self.faults.reached(Step.REQUEST)
                outcome = host.ask(b"pong\n")
                await reached
            host.reconfigure(*self.configure(allow_insecure=False))
            self.assertEqual(await outcome, b"l2:l1\n")
            self.assertEqual(host.status(0, "").connections, 0)
            await self.changed(host, factory, 2)
            await host.stopService()

    async def test_certificates(self) -> None:
        """A new certificate is used for new connections; without a change they stay."""
        factory = self.lond(self.files)
        host = self.serve()
        await self.check_served(host, "ssl")
        host.reconfigure(*self.configure())
        await self.changed(host, factory, 1)
        self.own_files = self.authority.issue("one.test", file="lonc")
        host.reconfigure(*self.configure())
        await self.changed(host, factory, 2)
