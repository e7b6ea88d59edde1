"""A new process that takes everything over from the old one."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.control.client import ManagementClient
from lonc.control.errors import NotDone
from lonc.daemon import handover, takeover
from lonc.daemon.handover import HandOver, Holdings
from lonc.daemon.takeover import Predecessor, TakeOverError, receive, take_over
from lonc.tap import Options, make_daemon
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.daemon import Child, free_port, reactor
from lonc.test.fixtures.load import LoadTestCase
from lonc.transport.endpoint_port import PortError
from lonc.transport.unix_socket import UNKNOWN, Peer


def of_null() -> int:
    """Return how many descriptors of ``/dev/null`` are open: so many are handed over, or left."""
    folder = "/proc/self/fd"
    return sum(os.path.realpath(f"{folder}/{each}") == os.devnull for each in os.listdir(folder))


class Counted(Service):
    """Counts how often it was started and stopped."""

    starts = stops = 0

    def startService(self) -> None:
        """Count."""
        self.starts += 1

    def stopService(self) -> None:
        """Count."""
        self.stops += 1


class StepTests(TestCase):
    """Each step between the two processes, both in this one: either may end after each."""

    timeout = 600

    def setUp(self) -> None:
        folder = short_folder(self)
        self.path = os.path.join(folder, "lonc.new")
        self.pid_file = os.path.join(folder, "lonc.pid")
        self.service = Counted()
        self.count = 3
        self.resumed = self.retired = 0
        self.given: list[Deferred[Any]] = []
        self.old = HandOver(
            reactor,
            self.in_thread,
            lambda: self.path,
            self.holdings,
            [self.service],
            self.resume,
            self.retire,
        )

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Run it in a thread, and remember that."""
        self.given.append(deferToThread(work))
        return self.given[-1]

    def resume(self) -> None:
        """Note that the old process goes on."""
        self.resumed += 1

    def retire(self) -> None:
        """Note that it goes."""
        self.retired += 1

    def holdings(self) -> Holdings:
        """Return as many descriptors as the test wants, each of the same file."""
        files = {f"/{number}": os.open(os.devnull, os.O_RDONLY) for number in range(self.count)}
        lock = os.open(os.devnull, os.O_RDONLY)
        return Holdings(self.pid_file, lock, files, {"pauses": {"l2": {"by": "me \udcff ä"}}})

    async def connected(self) -> socket.socket:
        """Come to the socket that the old process names."""
        path = await self.old.offer()
        new = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(new.close)
        new.settimeout(100)
        await deferToThread(new.connect, path)
        return new

    async def taken(self) -> Predecessor:
        """Take everything."""
        new = await self.connected()
        holdings = await deferToThread(receive, new, self.pid_file)
        self.addCleanup(holdings.close)
        return Predecessor(new, holdings)

    async def assert_goes_on(self) -> None:
        """The old process has begun again what it ended, and says so once."""
        await self.given[-1]
        self.assertEqual((self.service.stops, self.service.starts), (1, 1))
        self.assertEqual((self.resumed, self.retired, self.old.under_way), (1, 0, False))
        self.assertFalse(os.path.exists(self.path))

    async def test_all_steps(self) -> None:
        """More descriptors than a message takes arrive under their names, and no child gets any."""
        self.count = 450
        new = await self.taken()
        holdings = new.holdings
        self.assertEqual(list(holdings.sockets), [f"/{number}" for number in range(450)])
        self.assertEqual(len({*holdings.sockets.values(), holdings.lock}), 451)
        self.assertFalse(any(map(os.get_inheritable, holdings.sockets.values())))
        self.assertEqual(holdings.knowledge, {"pauses": {"l2": {"by": "me \udcff ä"}}})
        await deferToThread(new.relieve)
        self.assertEqual((self.service.stops, self.service.starts), (1, 0))
        self.assertEqual((self.resumed, self.retired, self.old.under_way), (0, 1, True))
        self.assertFalse(os.path.exists(self.path))
        with self.assertRaises(NotDone):
            await self.old.offer()

    async def test_new_ends_in_step_1(self) -> None:
        """Who comes and ends leaves the old process as it was; meanwhile another is refused."""
        new = await self.connected()
        self.assertTrue(self.old.under_way)
        with self.assertRaises(NotDone):
            await self.old.offer()
        new.close()
        await self.assert_goes_on()
        await self.taken()

    async def test_new_ends_in_step_2(self) -> None:
        """Who ends with everything in its hands leaves the old process as it was."""
        (await self.taken()).close()
        await self.assert_goes_on()

    async def test_new_ends_in_step_3(self) -> None:
        """One that says that it serves and ends before that is answered is not relied on."""
        new = await self.taken()
        new._connection.send(b"serves 1")
        new.close()
        await self.assert_goes_on()

    async def test_new_too_late(self) -> None:
        """One that serves when the old process has waited for long hears that this one stays."""
        self.patch(handover, "SERVING", 0.001)
        new = await self.taken()
        await self.assert_goes_on()
        with self.assertRaisesRegex(TakeOverError, f"process {os.getpid()} continues running"):
            await deferToThread(new.relieve)

    async def test_new_too_late_and_deaf(self) -> None:
        """One that reads nothing is not told by the end of the connection: that is another word."""
        new = await self.taken()
        self.old._refuse(unheard := Unheard())  # type: ignore[arg-type]
        self.assertFalse(unheard.closed)
        new.close()
        await self.given[0]

    async def test_other_user(self) -> None:
        """Nobody else's process gets anything."""
        self.patch(handover, "peer_of", lambda connected: Peer(1, os.geteuid() + 1))
        new = await self.connected()
        self.assertEqual(await deferToThread(new.recv, 100), b"stays")
        await self.assert_goes_on()

    async def test_nobody_comes(self) -> None:
        """The old process goes on."""
        self.patch(handover, "LIMIT", 0.001)
        await self.old.offer()
        await self.assert_goes_on()

    async def test_old_stops(self) -> None:
        """A stop waits for who has been given everything, and serves; after it nobody may come."""
        new = await self.taken()
        stopped = self.old.stop()
        self.assertNoResult(stopped)
        await deferToThread(new.relieve)
        await stopped
        self.assertEqual(self.retired, 1)
        with self.assertRaises(NotDone):
            await self.old.offer()

    async def test_old_stops_and_new_ends(self) -> None:
        """A stop goes on when who has been given everything ends; nothing is begun again."""
        new = await self.taken()
        stopped = self.old.stop()
        new.close()
        await stopped
        self.assertEqual((self.resumed, self.retired, self.service.starts), (0, 0, 0))

    async def test_old_stops_and_new_takes_long(self) -> None:
        """A stop refuses one that does not serve in time, and at once where it is in haste."""
        self.patch(handover, "SERVING", 1e6)
        for in_haste in (False, True):
            new = await self.taken()
            if not in_haste:
                self.patch(handover, "LIMIT", 0.001)
            stopped = self.old.stop()
            if in_haste:
                self.old.hurry()
            await stopped
            with self.assertRaisesRegex(TakeOverError, f"process {os.getpid()} continues running"):
                await deferToThread(new.relieve)
            self.assertEqual((self.resumed, self.retired, self.service.starts), (0, 0, 0))
            self.setUp()

    async def test_no_socket(self) -> None:
        """Where no socket can be made all goes on."""
        self.path = os.path.join(self.path, "nowhere")
        with self.assertRaises(NotDone):
            await self.old.offer()
        self.assertEqual((self.service.stops, self.service.starts, self.resumed), (1, 1, 1))

    async def test_no_descriptors(self) -> None:
        """Where there are no descriptors for copies all goes on, and none is left open."""
        before = of_null()
        self.patch(self.old, "_holdings", self.none_left)
        with self.assertRaisesRegex(NotDone, "Too many open files"):
            await self.old.offer()
        self.assertEqual(of_null(), before)
        self.assertEqual((self.service.stops, self.service.starts, self.resumed), (1, 1, 1))
        self.assertFalse(os.path.exists(self.path))

    def none_left(self) -> Holdings:
        """Fail as the system does."""
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def test_another_pid_file(self) -> None:
        """A lonc of another lonDaemons is refused, and all that came is closed."""
        before = of_null()
        new = await self.connected()
        with self.assertRaisesRegex(TakeOverError, "to change lonDaemons"):
            await deferToThread(receive, new, self.pid_file + ".other")
        new.close()
        await self.assert_goes_on()
        self.assertEqual(of_null(), before)


class Unheard:
    """A connection whose other side reads nothing."""

    closed = False

    def setblocking(self, blocking: bool) -> None:
        """Do nothing."""

    def send(self, data: bytes) -> int:
        """Have no room."""
        raise BlockingIOError

    def close(self) -> None:
        """Note it."""
        self.closed = True


class OldEndsTests(SynchronousTestCase):
    """The old process ends, and the new one is told by the end of the connection alone."""

    def setUp(self) -> None:
        self.old, self.new = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.old.close)
        self.addCleanup(self.new.close)
        self.killed: list[int] = []
        self.patch(os, "kill", self.kill)

    def kill(self, pid: int, number: int) -> None:
        """End the old process."""
        self.killed.append(pid)
        self.old.close()

    def predecessor(self) -> Predecessor:
        """Return what the new process has when it serves."""
        return Predecessor(self.new, Holdings("", -1, {}, {}))

    def test_in_step_2(self) -> None:
        """Half of its holdings are closed: the new process starts as after a crash."""
        before = of_null()
        with open(os.devnull) as null:
            handover.send(self.old, {"pid_file": "/lonc.pid"}, [null.fileno()])
            handover.send(self.old, {"sockets": ["/1", "/2"]}, [null.fileno()] * 2)
        self.old.close()
        self.assertRaises(EOFError, receive, self.new, "/lonc.pid")
        self.assertEqual(of_null(), before)

    def test_before_step_3(self) -> None:
        """The new process serves."""
        self.old.close()
        self.predecessor().relieve()
        self.assertEqual(self.killed, [])

    def test_in_step_3(self) -> None:
        """It has read that the new one serves and said nothing: the new one serves."""
        self.old.shutdown(socket.SHUT_WR)
        self.predecessor().relieve()
        self.assertEqual(self.old.recv(100), b"serves %d" % os.getpid())

    def test_stopped(self) -> None:
        """One that neither goes nor stays is killed, and the new process serves."""
        self.patch(takeover, "LIMIT", 0.001)
        self.predecessor().relieve()
        self.assertEqual(self.killed, [os.getpid()])

    def test_stopped_elsewhere(self) -> None:
        """One whose process id is not known is not killed: 0 would be this process's own group."""
        self.patch(takeover, "LIMIT", 0.001)
        self.patch(takeover, "peer_of", lambda connected: UNKNOWN)
        with self.assertRaisesRegex(TakeOverError, "its process id is not known"):
            self.predecessor().relieve()
        self.assertEqual(self.killed, [])

    def test_client_without_its_descriptor(self) -> None:
        """Where this process has no room for a client's descriptor, it serves the next ones."""
        readers = MemoryReactor()
        served: list[tuple[str, bytes]] = []

        def serve(name: str, descriptor: int, asked: bytes) -> None:
            os.close(descriptor)
            served.append((name, asked))

        self.predecessor().serve_clients(readers, serve)
        (reading,) = readers.readers
        with open(os.devnull) as null:
            handover.send(self.old, {"client": "/lost"}, [])
            handover.send(self.old, {"client": "/l2"}, [null.fileno()], b"ping")
        reading.doRead()
        reading.doRead()
        self.assertEqual(served, [("/l2", b"ping")])

    def test_stays(self) -> None:
        """One that had no patience goes on, even where it closes the connection at once."""
        self.old.send(b"stays")
        self.old.close()
        with self.assertRaises(TakeOverError):
            self.predecessor().relieve()


class AskingTests(TestCase):
    """The new process comes to the management port."""

    timeout = 600

    def setUp(self) -> None:
        folder = short_folder(self)
        self.path = os.path.join(folder, "lonc.amp")

    def take_over(self, management: str = "") -> Predecessor | None:
        """Take over."""
        return take_over(management or f"unix:{self.path}:mode=600", self.path + ".pid")

    def test_not_by_network(self) -> None:
        """Sockets pass over a UNIX socket alone."""
        self.assertRaises(TakeOverError, self.take_over, "tcp:1:interface=127.0.0.1")

    def test_nobody_there(self) -> None:
        """There is nothing to take."""
        self.assertIsNone(self.take_over())

    async def test_old_ends_in_step_1(self) -> None:
        """One that ends before it has said anything is no more."""
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.path)
            listening.listen()
            taking = deferToThread(self.take_over)
            asking, _ = await deferToThread(listening.accept)
            self.assertIn(b"HandOver", asking.recv(100))
            asking.close()
            self.assertIsNone(await taking)

    def test_of_another_user(self) -> None:
        """Nobody takes over for another user: root without --uid would go on as root."""
        self.patch(takeover, "peer_of", lambda connected: Peer(1, os.geteuid() + 1))
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.path)
            listening.listen()
            with self.assertRaisesRegex(TakeOverError, "--uid"):
                self.take_over()


#: Runs `twistd` where a method of lonc ends the process: module, class and name come first.
ENDS = """
import importlib, os, signal, sys
module, owner, method = sys.argv[1:4]
del sys.argv[1:4]
owner = getattr(importlib.import_module(module), owner)
setattr(owner, method, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
from twisted.scripts.twistd import run
run()
"""

#: Runs `twistd` where the disk is full when a pid file is written.
FULL_DISK = """
import errno, os, sys
def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
os.pwrite = full
from twisted.scripts.twistd import run
run()
"""


class TakeOverTests(LoadTestCase):
    """Two processes on the same folders."""

    take_overs = 2

    def new(self) -> Child:
        """Start a process that takes over."""
        return self.lonc("--take-over")

    async def running(self) -> Child:
        """Return a process that serves, with a lond and a management port."""
        self.lond_of_l2 = self.lond("l2", "127.0.0.2")
        self.configure(self.lond_of_l2.port)
        lonc = self.lonc()
        await self.ask("l2", "ping")
        return lonc

    def delay(self, number: int) -> str:
        """Leave a delayed request, as lonnet does; return the request."""
        request = f"put:msu:alice:grades:n={number}"
        name = f"{int(time.time())}.{number}.put.l2"
        self.write(f"{request}\n", "sock", "delayed", name)
        return request

    async def taken_over(self, old: Child) -> Child:
        """Have a new process take over; return it when the old one has gone."""
        new = self.new()
        self.assertEqual(await old.ended(), 0)
        await self.until(lambda: self.read("daemons", "logs", "lonc.pid") == f"{new.pid}\n")
        return new

    async def managing(self) -> ManagementClient:
        """Return a client of the management port."""
        return await ManagementClient.connect(reactor, f"unix:{self.socket('lonc.amp')}")

    async def test_under_load(self) -> None:
        """Nobody is refused, delayed requests are sent once, and all files are the new one's."""
        lonc = await self.running()
        await self.until(lambda: os.path.isdir(self.path("sock", "delayed")))
        inode = os.stat(self.socket("l2")).st_ino
        self.load("l2")
        asked = []
        for change in range(self.take_overs):
            await self.more()
            asked += [self.delay(100 * change + number) for number in range(20)]
            self.began_a_change()
            lonc = await self.taken_over(lonc)
        await self.until(lambda: not self.left_in("sock", "delayed"))
        await self.assert_nobody_noticed()
        self.assertEqual(os.stat(self.socket("l2")).st_ino, inode)
        sent = [line for line in self.lond_of_l2.requests if line.startswith("put:")]
        log = self.read("daemons", "logs", "lonc.log")
        told = [line for line in log.splitlines() if "request sent: " not in line]
        self.assertEqual(sorted(sent), sorted(asked), "\n".join(told))
        self.assertIn("l2", await self.manage("list"))
        self.assertFalse(os.path.exists(self.socket("lonc.new")))
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertFalse(os.path.exists(self.socket("l2")))
        self.assert_no_traceback(*self.children)

    async def test_nobody_there(self) -> None:
        """It starts as ever."""
        self.lond_of_l2 = self.lond("l2", "127.0.0.2")
        self.configure(self.lond_of_l2.port)
        lonc = self.new()
        await self.ask("l2", "ping")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)

    async def test_ports(self) -> None:
        """The page's port and that for other machines are the new process's, too."""
        os.mkdir(self.path("pki"))
        files = Authority(self.path("pki")).issue("localhost")
        ports = [free_port("127.0.0.1") for _ in range(2)]
        self.configure(
            free_port("127.0.0.1", "127.0.0.2"),
            loncHTTP=f"tcp:{ports[0]}:interface=127.0.0.1",
            loncManagementTLS=f"lonctls:{ports[1]}:interface=127.0.0.1",
            lonnetCertificateAuthority=files.authority,
            lonnetCertificate=files.certificate,
            lonnetPrivateKey=files.key,
        )
        old = self.lonc()
        await self.ask("l1", "no lond is there")
        await self.taken_over(old)
        await self.ask("l1", "it has started")
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), 5.0):
                pass

    async def test_port_not_to_be_had(self) -> None:
        """A new process that cannot have its port leaves the old one as it was."""
        lonc = await self.running()
        await self.until(lambda: os.path.isdir(self.path("sock", "delayed")))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.configure(self.lond_of_l2.port, loncHTTP=f"tcp:{port}:interface=127.0.0.1")
            new = self.new()
            self.assertEqual(await new.ended(), 1)
        self.assertIn(f"HTTP port tcp:{port}", new.err)
        self.children.remove(new)
        log = self.path("daemons", "logs", "lonc.log")
        await self.until(lambda: "no process has taken over" in self.read(log))
        self.assertEqual(self.read("daemons", "logs", "lonc.pid"), f"{lonc.pid}\n")
        request = self.delay(1)
        await self.until(lambda: not self.left_in("sock", "delayed"))
        self.assertIn(request, self.lond_of_l2.requests)
        await self.ask("l2", "ping")
        self.assertIn("l2", await self.manage("list"))
        await self.taken_over(lonc)

    async def test_cleared_away(self) -> None:
        """Where a program of one's own stops a lonc that could not start, nothing goes."""
        lonc = await self.running()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            options = Options()
            options.parseOptions(
                [
                    *("--config", self.path("loncapa.conf"), "--take-over"),
                    *("--http", f"tcp:{port}:interface=127.0.0.1"),
                ]
            )
            daemon = make_daemon(options, reactor)
            self.assertRaises(PortError, daemon.startService)
            await daemon.stopService()
        self.assertIn("l2", await self.manage("list"))
        self.assertEqual(self.read("daemons", "logs", "lonc.pid"), f"{lonc.pid}\n")
        await self.ask("l2", "ping")
        await self.taken_over(lonc)

    def ending(self, where: str, *options: str) -> Child:
        """Start lonc where a method ends the process."""
        module, owner, method = where.split()
        config = self.path("loncapa.conf")
        command = [sys.executable, "-c", ENDS, f"lonc.daemon.{module}", owner, method]
        return self.spawn([*command, "-n", "lonc", "--config", config, *options])

    async def assert_serves(self, lonc: Child) -> None:
        """A process serves clients, and the pid file names it."""
        await self.until(lambda: self.read("daemons", "logs", "lonc.pid") == f"{lonc.pid}\n")
        self.assertEqual(await self.ask("l2", "ping"), "l2")

    async def assert_sends(self) -> None:
        """A process sends delayed requests, each once."""
        await self.until(lambda: os.path.isdir(self.path("sock", "delayed")))
        request = self.delay(1)
        await self.until(lambda: not self.left_in("sock", "delayed"))
        self.assertEqual(self.lond_of_l2.requests.count(request), 1)

    async def test_old_is_killed(self) -> None:
        """Killed when it hears that the new process serves, the old one leaves that one serving."""
        self.lond_of_l2 = self.lond("l2", "127.0.0.2")
        self.configure(self.lond_of_l2.port)
        old = self.ending("handover HandOver _decide")
        await self.ask("l2", "ping")
        new = self.new()
        self.assertEqual(await old.ended(), -signal.SIGKILL)
        await self.assert_serves(new)
        await self.assert_sends()
        self.assertEqual(await new.end(signal.SIGTERM), 0)

    async def test_new_is_killed(self) -> None:
        """Killed when it would say that it serves, the new process leaves the old one serving."""
        old = await self.running()
        new = self.ending("takeover Predecessor relieve", "--take-over")
        self.assertEqual(await new.ended(), -signal.SIGKILL)
        self.children.remove(new)
        await self.assert_serves(old)
        await self.assert_sends()
        await self.taken_over(old)

    async def test_full_disk(self) -> None:
        """A new process that cannot write the pid file leaves the old one serving."""
        old = await self.running()
        options = ["-n", "lonc", "--config", self.path("loncapa.conf"), "--take-over"]
        new = self.spawn([sys.executable, "-c", FULL_DISK, *options])
        self.assertEqual(await new.ended(), 1)
        self.children.remove(new)
        self.assertIn("lonc.pid: No space left on device", new.err)
        await self.assert_serves(old)

    async def test_clients_go_along(self) -> None:
        """
        A pause goes on in the new process, with who wanted it and why. Who waits there has its
        answer from that process when it resumes the host, and a client that rests keeps its
        connection; each request is carried out once.
        """
        old = await self.running()
        resting = await self.client("l2")
        await resting.ask("ping")
        client = await self.managing()
        await client.pause("l2", "me", "repairs", 3000.0)
        (before,) = [host.paused for host in await client.hosts() if host.paused]
        waiting = await self.client("l2")
        answers = [waiting.ask("put:msu:alice:grades:n=1"), waiting.ask("put:msu:alice:grades:n=2")]
        while not [each for each in await client.clients() if each.waits_for == "queue"]:
            pass
        await self.taken_over(old)
        client = await self.managing()
        paused = [(host.host_id, host.paused) for host in await client.hosts() if host.paused]
        self.assertEqual(paused, [("l2", before)])
        await client.resume("l2")
        for answer in answers:
            await answer
        await resting.ask("ping")
        for number in (1, 2):
            self.assertEqual(self.lond_of_l2.requests.count(f"put:msu:alice:grades:n={number}"), 1)
        await client.close()
