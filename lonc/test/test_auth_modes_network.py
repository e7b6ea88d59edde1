"""
Each way in over real sockets, between a host's service and the embedded lond, and each failure.

Protocol, section 9. What a test waits for is told to it; the limits on time are put to the test by
a sweep that is told a later time.
"""

from __future__ import annotations

import gc
import os
import ssl
from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import LogLevel
from twisted.trial.unittest import TestCase

from lonc.config.auth_modes import Access, read_access
from lonc.config.certificates import CertificateFiles
from lonc.config.hosts import Host, HostTable, parse_host_table
from lonc.config.key_files import KeyFolder
from lonc.config.settings import Settings
from lonc.host.service import HostDependencies, HostService
from lonc.local.limits import Clients
from lonc.lond.faults import CLOSE, REFUSE, SPLIT, STALL, Fault, Faults, Step
from lonc.lond.protocol import LondFactory
from lonc.report.status import HostStatus
from lonc.test.fixtures.beginnings import notes_of, short_folder
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.doubles import some_settings
from lonc.transport.network import Network, network
from lonc.wire.handshake import AuthModes, Handshake
from lonc.wire.request import ConLost

reactor: Any = global_reactor

#: l1 is our own row, and l2's lond is on another machine, or on ours.
FAR = "l1:d:library:one.test:127.0.0.1\nl2:d:library:two.test:127.0.0.2\n"
#: The lond's certificate is for our own name.
NEAR = FAR.replace("two.test", "one.test")


class WatchedFaults(Faults):
    """Faults that tell when a step was reached."""

    def __init__(self) -> None:
        super().__init__()
        self._awaited: dict[Step, Deferred[None]] = {}

    def reached(self, step: Step) -> Deferred[None]:
        """Fire when the lond comes to this step the next time."""
        return self._awaited.setdefault(step, Deferred())

    def next_fault(self, step: Step, command: bytes = b"") -> Fault | None:
        """Tell it, once the lond has done what it does there."""
        if step in self._awaited:
            reactor.callLater(0, self._awaited.pop(step).callback, None)
        return super().next_fault(step, command)


class NetworkTestCase(TestCase):
    """
    A lond ``l2`` at a port of its own, and a host's service that is to reach it.

    :ivar table: the rows of both.
    :ivar notes: what was logged.
    """

    timeout = 600
    table = FAR

    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.notes = notes_of(self)
        self.authority = Authority(self.folder)
        self.files = self.authority.issue("two.test", file="lond")
        self.own_files = self.authority.issue("one.test", file="lonc")
        self.faults = WatchedFaults()
        self.network: Network = network(reactor)

    def lond(self, files: CertificateFiles | None = None, **options: Any) -> LondFactory:
        """Let a lond listen; with TLS when it has certificates."""
        tls = None if files is None else files.context(ssl.PROTOCOL_TLS_SERVER)
        options = {"key_folder": KeyFolder(some_settings(self.folder).key_dir), **options}
        factory = LondFactory(reactor, "l2", "l1", faults=self.faults, tls=tls, **options)
        listener = reactor.listenTCP(0, factory, interface="127.0.0.2")
        self.port = listener.getHost().port
        self.addCleanup(factory.close_connections)
        self.addCleanup(listener.stopListening)
        return factory

    def settings(self, **changes: Any) -> Settings:
        """Return settings with our certificate, unless told otherwise."""
        named = {
            "certificate_authority": self.own_files.authority,
            "certificate": self.own_files.certificate,
            "private_key": self.own_files.key,
        }
        return some_settings(self.folder, **({"lond_port": self.port} | named | changes))

    def in_the_clear(self) -> dict[str, None]:
        """Return the settings of a lonc without certificates."""
        return dict.fromkeys(("certificate_authority", "certificate", "private_key"))

    def serve(self, **changes: Any) -> HostService:
        """Return a service for the host."""
        settings = self.settings(**changes)
        table: HostTable = parse_host_table(self.table.encode(), "hosts.tab")
        access = read_access(settings, table)
        dependencies = HostDependencies(
            clock=reactor,
            network=self.network,
            look_up=lambda name: succeed([name]),
            random=Random(1),
            clients=Clients(settings, reactor),
            revived=lambda host_id: None,
            auth_modes=lambda host: self.auth_modes(access, host),
        )
        host = HostService(table.hosts["l2"], settings, dependencies)
        self.addCleanup(host.stopService)
        return host

    def auth_modes(self, access: Access, host: Host) -> AuthModes:
        """Return the ways in; all londs are on this machine, but most tests act as if not."""
        modes = access.auth_modes(host)
        return modes if self.table is NEAR else attrs.evolve(modes, key_files=None)

    def status(self, host: HostService) -> HostStatus:
        """Return what the host reports."""
        return host.status(0, "")

    async def check_served(self, host: HostService, mode: str, version: str = "1.0") -> None:
        """Ask in the clear and encrypted; check the answers, and how they came."""
        self.assertEqual(await host.ask(b"ping\n"), b"l2\n")
        self.assertEqual(await host.ask(b"encrypt:put:d:u:n:secret=1\n"), b"ok\n")
        self.assertEqual(await host.ask(b"eget:d:u:n:secret\n"), b"1\n")
        status = self.status(host)
        self.assertEqual((status.mode, status.lond_version), (mode, version))
        self.assertEqual((status.idle, status.connections), (1, 1))

    async def check_not_served(self, host: HostService, *words: str) -> None:
        """Ask in vain; check what the log says of it, and that it counted once."""
        with self.assertRaises(ConLost):
            await host.ask(b"ping\n")
        self.check_failure(host, *words)

    def check_failure(self, host: HostService, *words: str) -> None:
        """Check that one connection failed, and what the log says of it."""
        (line,) = [line for line in self.notes.at(LogLevel.warn) if line.startswith("connection")]
        for word in words:
            self.assertIn(word, line)
        status = self.status(host)
        self.assertEqual((status.retries_left, status.connections), (1, 0))
        self.assertEqual(status.mode, "")

    async def expire(self, host: HostService, step: Step) -> Deferred[bytes]:
        """Ask, and let a minute be over when the lond has come to a step."""
        reached = self.faults.reached(step)
        outcome = host.ask(b"ping\n")
        await reached
        host.sweep(reactor.seconds() + 61)
        return outcome

    def assert_no_key_files(self) -> None:
        """Nothing is left of any key file."""
        self.assertFalse(os.path.exists(os.path.join(self.folder, "lonc.keys")))


class InsecureTests(NetworkTestCase):
    """The way in of the first releases."""

    async def test_served(self) -> None:
        """Without certificates a lond of today is spoken to as ever; it tells its version."""
        factory = self.lond(self.files)
        await self.check_served(self.serve(**self.in_the_clear()), "insecure")
        self.assertEqual(factory.accepted, 1)

    async def test_old_lond(self) -> None:
        """A lond of the seed's time is served too; it is asked once what it does not know."""
        self.lond(revision=None)
        asked = self.faults.reached(Step.REQUEST)
        host = self.serve()
        await self.check_served(host, "insecure", "")
        await asked
        host.close_connections()
        await self.check_served(host, "insecure", "")

    async def test_wrong_version(self) -> None:
        """One that answers version with something else has just another version."""
        self.lond(self.files)
        self.faults.order(Step.VERSION, Fault(instead=b"refused\n"))
        self.assertEqual(await (host := self.serve()).ask(b"ping\n"), b"l2\n")
        self.assertEqual(self.status(host).lond_version, "refused")

    async def test_stalls(self) -> None:
        """A lond that falls silent at sethost is cut at the limit."""
        self.lond(self.files)
        self.faults.order(Step.SETHOST, STALL)
        host = self.serve()
        await self.assertFailure(await self.expire(host, Step.SETHOST), ConLost)
        self.check_failure(host, "no end of the handshake after 60 s", "in state HostSet")

    async def test_one_machine_many_ids(self) -> None:
        """The connection is told which of its hosts is meant; the next one is told again."""
        factory = self.lond(revision="1.500")
        host = self.serve(max_connections=2)
        await gatherResults([host.ask(b"ping\n") for _ in range(2)])
        self.assertEqual(factory.accepted, 2)
        self.assertEqual(self.status(host).lond_version, "1.500")


class ClosedTests(NetworkTestCase):
    """No way in is open."""

    async def test_nothing_is_said(self) -> None:
        """A lond elsewhere is told nothing, whatever it knows, and the log says why."""
        factory = self.lond(self.files)
        said = self.faults.reached(Step.INIT)
        host = self.serve(allow_insecure=False, **self.in_the_clear())
        await self.check_not_served(
            host, "bad handshake", "no authentication mode is possible: loncAllowInsecure"
        )
        self.assertEqual((factory.requests, said.called), (0, False))


class LocalTests(NetworkTestCase):
    """A lond on the same machine."""

    table = NEAR

    async def test_served(self) -> None:
        """The key goes through a file, of which nothing is left."""
        factory = self.lond()
        host = self.serve()
        await self.check_served(host, "local")
        self.assert_no_key_files()
        self.assertEqual((factory.accepted, self.status(host).retries_left), (1, 2))

    async def test_served_where_the_clear_is_closed(self) -> None:
        """It is safe: it does where loncAllowInsecure is 0, with certificates and without."""
        self.lond()
        for changes in ({}, self.in_the_clear()):
            await self.check_served(self.serve(allow_insecure=False, **changes), "local")

    async def test_ten_at_once(self) -> None:
        """Each connection has a file of its own, and all of them go."""
        factory = self.lond()
        host = self.serve()
        answers = await gatherResults([host.ask(b"encrypt:ping\n") for _ in range(50)])
        self.assertEqual(answers, [b"l2\n"] * 50)
        self.assertGreater(factory.accepted, 1)
        self.assert_no_key_files()

    async def test_split(self) -> None:
        """A lond whose every byte comes by itself is understood."""
        self.lond()
        self.faults.order(Step.LOCAL, SPLIT)
        await self.check_served(self.serve(), "local")

    async def test_not_taken(self) -> None:
        """
        A lond that hangs up on it, refuses it or lies is asked in another way.

        Nobody loses a request by that, no retry is taken, and no file is left.
        """
        for fault in (CLOSE, REFUSE, Fault(instead=b"what?\n"), Fault(cut=1, close=True)):
            for changes, mode in ((self.in_the_clear(), "insecure"), ({}, "ssl")):
                self.faults.clear()
                self.notes.events.clear()
                factory = self.lond(self.authority.issue("one.test", file="lond"))
                self.faults.order(Step.LOCAL, fault)
                host = self.serve(**changes)
                await self.check_served(host, mode)
                self.assert_no_key_files()
                self.assertEqual((factory.accepted, self.status(host).retries_left), (2, 2))
                (line,) = self.notes.at(LogLevel.warn)
                self.assertIn(
                    "the lond does not accept this authentication mode, trying another: ", line
                )

    async def test_not_taken_by_many(self) -> None:
        """So it is with many requests at once: none of them is lost."""
        self.lond()
        self.faults.order(Step.LOCAL, CLOSE)
        host = self.serve()
        answers = await gatherResults([host.ask(b"ping\n") for _ in range(50)])
        self.assertEqual(answers, [b"l2\n"] * 50)
        self.assertEqual(self.status(host).retries_left, 2)
        self.assert_no_key_files()

    async def test_not_taken_and_nothing_else(self) -> None:
        """Where the other ways are closed too it is a failure like any other."""
        self.lond(revision=None)
        host = self.serve(allow_insecure=False)
        await self.check_not_served(host, "bad handshake", "old lond", "loncAllowInsecure is 0")
        self.assert_no_key_files()

    async def test_stall(self) -> None:
        """A lond that does not answer is asked in another way when the time is over."""
        self.lond()
        self.faults.order(Step.LOCAL, STALL)
        host = self.serve(**self.in_the_clear(), queue_timeout=600)
        outcome = await self.expire(host, Step.LOCAL)
        self.assert_no_key_files()
        self.assertEqual(await outcome, b"l2\n")
        self.assertEqual(self.status(host).mode, "insecure")

    async def test_stop(self) -> None:
        """When lonc stops meanwhile nothing is left of the file."""
        self.lond()
        self.faults.order(Step.LOCAL, STALL)
        host = self.serve()
        reached = self.faults.reached(Step.LOCAL)
        outcome = host.ask(b"ping\n")
        await reached
        await host.stopService()
        await self.assertFailure(outcome, ConLost)
        self.assert_no_key_files()

    async def test_start_afresh(self) -> None:
        """Closing the connections on request gives the lond another chance to take the file."""
        self.lond()
        self.faults.order(Step.LOCAL, CLOSE, times=1)
        host = self.serve()
        await self.check_served(host, "insecure")
        host.close_connections()
        await self.check_served(host, "local")

    async def test_no_folder(self) -> None:
        """Where no file can be made the next way in serves, and the log says what is wrong."""
        self.lond()
        os.mkdir(os.path.join(self.folder, "lonc.keys"), 0o755)
        await self.check_served(self.serve(), "insecure")
        (line,) = self.notes.at(LogLevel.warn)
        self.assertIn("lonc.keys: not a folder that is lonc's alone", line)


class SSLTests(NetworkTestCase):
    """TLS with a lond elsewhere."""

    async def test_served(self) -> None:
        """The key comes inside TLS, and plain lines follow on the very same connection."""
        factory = self.lond(self.files)
        host = self.serve(allow_insecure=False)
        await self.check_served(host, "ssl")
        self.assertEqual((factory.accepted, self.status(host).retries_left), (1, 2))
        self.assertEqual(self.notes.at(LogLevel.warn), [])

    async def test_with_transports_of_twisted(self) -> None:
        """It works with Twisted's own transports too."""
        self.network = reactor
        self.lond(self.files)
        await self.check_served(self.serve(), "ssl")

    async def test_older_tls(self) -> None:
        """So it does with TLS 1.2."""
        factory = self.lond(self.files)
        assert factory.tls is not None
        factory.tls.maximum_version = ssl.TLSVersion.TLSv1_2
        await self.check_served(self.serve(), "ssl")

    async def test_ten_at_once(self) -> None:
        """Each connection has a key of its own, and nobody gets another's answer."""
        factory = self.lond(self.files)
        host = self.serve()
        await host.ask(b"put:d:u:n:" + b"&".join(b"k%d=%d" % (n, n) for n in range(50)) + b"\n")
        answers = await gatherResults(
            [host.ask(b"encrypt:eget:d:u:n:k%d\n" % number) for number in range(50)]
        )
        self.assertEqual(answers, [b"%d\n" % number for number in range(50)])
        self.assertGreater(factory.accepted, 1)

    async def test_nothing_is_kept(self) -> None:
        """A connection that is ready keeps nothing of its handshake."""
        self.lond(self.files)
        host = self.serve(max_connections=1)
        before = self.handshakes()
        await host.ask(b"ping\n")
        self.assertEqual(self.handshakes(), before)

    def handshakes(self) -> int:
        """Count the handshakes in memory: other tests may have left some."""
        gc.collect()
        return sum(isinstance(each, Handshake) for each in gc.get_objects())

    async def test_names(self) -> None:
        """The host's name may stand in the certificate with internal-, and among others."""
        for names in (["internal-two.test"], ["x.test", "TWO.test"]):
            self.lond(self.authority.issue("whatever", names, file="lond"))
            await self.check_served(self.serve(), "ssl")

    async def test_split(self) -> None:
        """A lond whose every byte comes by itself is understood at each step."""
        self.lond(self.files)
        for step in (Step.SSL, Step.TLS, Step.TLS_KEY, Step.VERSION, Step.SETHOST):
            self.faults.order(step, Fault(pause=0.00001))
        await self.check_served(self.serve(), "ssl")

    async def test_upgraded(self) -> None:
        """A lond that learns TLS is asked for it with the next connection."""
        factory = self.lond()
        host = self.serve()
        await self.check_served(host, "insecure")
        factory.tls = self.files.context(ssl.PROTOCOL_TLS_SERVER)
        self.faults.order(Step.REQUEST, STALL, command=b"pong")
        unanswered = host.ask(b"pong\n")
        self.assertEqual(await host.ask(b"ping\n"), b"l2\n")
        self.assertEqual((factory.accepted, self.status(host).mode), (2, "ssl"))
        host.close_connections()
        await self.assertFailure(unanswered, ConLost)


class CertificateTests(NetworkTestCase):
    """Certificates that are refused: the log says which it is."""

    def bad(self) -> dict[str, CertificateFiles]:
        """Return bad certificates for the lond by what is said of them."""
        os.mkdir(os.path.join(self.folder, "other"))
        other = Authority(os.path.join(self.folder, "other")).issue("two.test")
        return {
            "has expired": self.authority.issue("two.test", ends=-0.5, file="expired"),
            "is not valid yet": self.authority.issue("two.test", begins=0.5, file="early"),
            "is not signed by our authority": CertificateFiles(
                self.authority.file, other.certificate, other.key
            ),
            "is for three.test, not for two.test": self.authority.issue("three.test", file="other"),
        }

    async def test_refused(self) -> None:
        """Expired, not valid yet, of another authority, for another host."""
        for words, files in self.bad().items():
            self.notes.events.clear()
            factory = self.lond(files)
            await self.check_not_served(self.serve(), "bad handshake", words)
            self.assertEqual(factory.requests, 0)
            # The clear is open, and is not taken for that.
            self.assertEqual(factory.accepted, 1)

    async def test_refused_by_the_lond(self) -> None:
        """What the lond has against our certificate is in our log, and in the lond's."""
        for ours, heard, said in (
            (
                self.authority.issue("one.test", ends=-0.5, file="old"),
                "certificate expired",
                "has expired",
            ),
            (self.of_another_authority(), "unknown ca", "is not signed by our authority"),
        ):
            self.own_files = ours
            self.notes.events.clear()
            self.lond(self.files)
            host = self.serve()
            with self.assertRaises(ConLost):
                await host.ask(b"ping\n")
            lond_says, lonc_says = self.notes.at(LogLevel.warn)
            self.assertIn(f"TLS with a caller failed: the certificate shown {said}", lond_says)
            self.assertIn(f"bad handshake: the other side ended TLS: {heard}", lonc_says)

    def of_another_authority(self) -> CertificateFiles:
        """Return a certificate of ours that the lond does not accept; we accept the lond's."""
        os.mkdir(os.path.join(self.folder, "other"))
        other = Authority(os.path.join(self.folder, "other"), "other").issue("one.test")
        return CertificateFiles(self.authority.file, other.certificate, other.key)


class SSLFaultTests(NetworkTestCase):
    """A lond that does wrong on the way through TLS."""

    async def check_faults(self, fault: Fault, *expected: tuple[Step, str]) -> None:
        """Check what the log says of a fault at each of these steps."""
        self.lond(self.files)
        for step, words in expected:
            self.notes.events.clear()
            self.faults.clear()
            self.faults.order(step, fault)
            await self.check_not_served(self.serve(), "bad handshake", words)

    async def test_close(self) -> None:
        """A lond that hangs up; the message says where."""
        await self.check_faults(
            CLOSE,
            (Step.SSL, "closed by the lond in state Initialized"),
            (Step.TLS, "closed by the lond in state ReceivingKeyInTLS"),
            (Step.TLS_KEY, "closed by the lond in state ReceivingKeyInTLS"),
            (Step.TLS_END, "closed by the lond in state HostSet"),
        )

    async def test_endless(self) -> None:
        """A lond that says a line without an end, in the clear and inside TLS."""
        await self.check_faults(
            Fault(instead=b"", endless=True),
            (Step.SSL, "a line of more than 1024 bytes in state Initialized"),
            (Step.TLS_KEY, "more than a key came inside TLS"),
            (Step.TLS_END, "a line of more than 1024 bytes in state HostSet"),
        )

    async def test_stall(self) -> None:
        """A lond that falls silent is cut when the handshake's time is over."""
        self.lond(self.files)
        for step, state in (
            (Step.SSL, "Initialized"),
            (Step.TLS, "ReceivingKeyInTLS"),
            (Step.TLS_KEY, "ReceivingKeyInTLS"),
        ):
            self.notes.events.clear()
            self.faults.clear()
            self.faults.order(step, STALL)
            host = self.serve()
            await self.assertFailure(await self.expire(host, step), ConLost)
            self.check_failure(host, "timed out", f"after 60 s in state {state}")

    async def test_recovers(self) -> None:
        """After each of these the next connection is a good one."""
        self.lond(self.files)
        for step in (Step.SSL, Step.TLS, Step.TLS_KEY):
            self.faults.order(step, CLOSE, times=1)
            host = self.serve()
            with self.assertRaises(ConLost):
                await host.ask(b"ping\n")
            await self.check_served(host, "ssl")


class ChangeTests(NetworkTestCase):
    """Ways in that open and close while lonc runs."""

    def changed(self, **changes: Any) -> Callable[[HostService], Settings]:
        """Return what gives a host other settings, as HUP does."""

        def change(host: HostService) -> Settings:
            settings = self.settings(**changes)
            table = parse_host_table(self.table.encode(), "hosts.tab")
            self.access = read_access(settings, table)
            host.reconfigure(host.host, settings)
            return settings

        return change

    def serve(self, **changes: Any) -> HostService:
        """Return a service whose ways can change."""
        settings = self.settings(**changes)
        table = parse_host_table(self.table.encode(), "hosts.tab")
        self.access = read_access(settings, table)
        dependencies = HostDependencies(
            clock=reactor,
            network=self.network,
            look_up=lambda name: succeed([name]),
            random=Random(1),
            clients=Clients(settings, reactor),
            revived=lambda host_id: None,
            auth_modes=lambda host: self.auth_modes(self.access, host),
        )
        host = HostService(table.hosts["l2"], settings, dependencies)
        self.addCleanup(host.stopService)
        return host

    async def test_clear_is_closed(self) -> None:
        """When the clear is closed connections in the clear are used no more."""
        factory = self.lond(self.files)
        host = self.serve(**self.in_the_clear())
        await self.check_served(host, "insecure")
        self.changed(allow_insecure=False)(host)
        await self.check_served(host, "ssl")
        self.assertEqual(factory.accepted, 2)

    async def test_open_request(self) -> None:
        """One that owes an answer may give it; then it goes."""
        factory = self.lond(self.files)
        host = self.serve(**self.in_the_clear())
        self.faults.order(Step.REQUEST, Fault(delay=0.05), times=1)
        reached = self.faults.reached(Step.REQUEST)
        outcome = host.ask(b"pong\n")
        await reached
        self.changed(allow_insecure=False)(host)
        self.assertEqual(await outcome, b"l2:l1\n")
        self.assertEqual(self.status(host).connections, 0)
        await self.check_served(host, "ssl")
        self.assertEqual(factory.accepted, 2)

    async def test_nothing_changes(self) -> None:
        """Where nothing has changed the connections stay."""
        factory = self.lond(self.files)
        host = self.serve()
        await self.check_served(host, "ssl")
        self.changed()(host)
        await self.check_served(host, "ssl")
        self.assertEqual(factory.accepted, 1)

    async def test_new_certificate(self) -> None:
        """A new certificate is used for new connections."""
        factory = self.lond(self.files)
        host = self.serve()
        await self.check_served(host, "ssl")
        self.own_files = self.authority.issue("one.test", file="lonc")
        self.changed()(host)
        await self.check_served(host, "ssl")
        self.assertEqual(factory.accepted, 2)
