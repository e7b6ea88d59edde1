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
from lonc.test.fixtures.certificates import Authority, as_variables
from lonc.test.fixtures.daemon import Child, free_port, reactor
from lonc.test.fixtures.load import LoadTestCase
from lonc.transport.endpoint_port import PortError
from lonc.transport.unix_socket import UNKNOWN, Peer


def of_null() -> int:
    """Return the number of open descriptors of ``/dev/null``, which the tests hand over."""
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
    """The steps between the two processes, both in this one; each may end after any of them."""

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
        """Run it in a thread, and remember its Deferred."""
        self.given.append(deferToThread(work))
        return self.given[-1]

    def resume(self) -> None:
        """Note that the old process continues."""
        self.resumed += 1

    def retire(self) -> None:
        """Note that it ends."""
        self.retired += 1

    def holdings(self) -> Holdings:
        """Return :attr:`count` descriptors of the same file."""
        files = {f"/{number}": os.open(os.devnull, os.O_RDONLY) for number in range(self.count)}
        lock = os.open(os.devnull, os.O_RDONLY)
        return Holdings(self.pid_file, lock, files, {"pauses": {"l2": {"by": "me \udcff ä"}}})

    async def connected(self) -> socket.socket:
        """Connect to the socket that the old process names."""
        path = await self.old.offer()
        new = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(new.close)
        new.settimeout(100)
        await deferToThread(new.connect, path)
        return new

    async def taken(self) -> Predecessor:
        """Receive everything."""
        new = await self.connected()
        holdings = await deferToThread(receive, new, self.pid_file)
        self.addCleanup(holdings.close)
        return Predecessor(new, holdings)

    async def assert_goes_on(self) -> None:
        """The old process has restarted what it had stopped, and continues."""
        await self.given[-1]
        self.assertEqual((self.service.stops, self.service.starts), (1, 1))
        self.assertEqual((self.resumed, self.retired, self.old.under_way), (1, 0, False))
        self.assertFalse(os.path.exists(self.path))

    async def test_all_steps(self) -> None:
        """More descriptors than fit into a message arrive with their names, not inheritable."""
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
        """If the new process ends, the old one continues; meanwhile another is refused."""
        new = await self.connected()
        self.assertTrue(self.old.under_way)
        with self.assertRaises(NotDone):
            await self.old.offer()
        new.close()
        await self.assert_goes_on()
        await self.taken()

    async def test_new_ends_in_step_2(self) -> None:
        """If it ends after it has received everything, the old one continues."""
        (await self.taken()).close()
        await self.assert_goes_on()

    async def test_new_ends_in_step_3(self) -> None:
        """If it ends before the answer to its "serves", the old one continues."""
        new = await self.taken()
        new._connection.send(b"serves 1")
        new.close()
        await self.assert_goes_on()

    async def test_new_too_late(self) -> None:
        """If it is too late, it is told that the old process continues."""
        self.patch(handover, "SERVING", 0.001)
        new = await self.taken()
        await self.assert_goes_on()
        with self.assertRaisesRegex(TakeOverError, f"process {os.getpid()} continues running"):
            await deferToThread(new.relieve)

    async def test_new_too_late_and_deaf(self) -> None:
        """If it does not read that, its connection stays open: an end would mean something else."""
        new = await self.taken()
        self.old._refuse(unheard := Unheard())  # type: ignore[arg-type]
        self.assertFalse(unheard.closed)
        new.close()
        await self.given[0]

    async def test_other_user(self) -> None:
        """Another user's process gets nothing."""
        self.patch(handover, "peer_of", lambda connected: Peer(1, os.geteuid() + 1))
        new = await self.connected()
        self.assertEqual(await deferToThread(new.recv, 100), b"stays")
        await self.assert_goes_on()

    async def test_nobody_comes(self) -> None:
        """If no process connects, the old one continues."""
        self.patch(handover, "LIMIT", 0.001)
        await self.old.offer()
        await self.assert_goes_on()

    async def test_old_stops(self) -> None:
        """A stop waits for a hand-over in progress; after that there is none."""
        new = await self.taken()
        stopped = self.old.stop()
        self.assertNoResult(stopped)
        await deferToThread(new.relieve)
        await stopped
        self.assertEqual(self.retired, 1)
        with self.assertRaises(NotDone):
            await self.old.offer()

    async def test_old_stops_and_new_ends(self) -> None:
        """If the new process then ends, the stop continues, and nothing is restarted."""
        new = await self.taken()
        stopped = self.old.stop()
        new.close()
        await stopped
        self.assertEqual((self.resumed, self.retired, self.service.starts), (0, 0, 0))

    async def test_old_stops_and_new_takes_long(self) -> None:
        """A stop refuses a process that does not serve in time, and at once in a hurry."""
        self.patch(handover, "SERVING", 1e6)
        for in_haste in (True, False):
            new = await self.taken()
            # In a hurry it is not waited for: it is longer than a test may take.
            self.patch(handover, "LIMIT", 200.0 if in_haste else 0.001)
            stopped = self.old.stop()
            if in_haste:
                self.old.hurry()
            await stopped
            with self.assertRaisesRegex(TakeOverError, f"process {os.getpid()} continues running"):
                await deferToThread(new.relieve)
            self.assertEqual((self.resumed, self.retired, self.service.starts), (0, 0, 0))
            self.setUp()

    async def test_no_socket(self) -> None:
        """If the socket cannot be created, the old process continues."""
        self.path = os.path.join(self.path, "nowhere")
        with self.assertRaises(NotDone):
            await self.old.offer()
        self.assertEqual((self.service.stops, self.service.starts, self.resumed), (1, 1, 1))

    async def test_no_descriptors(self) -> None:
        """If descriptors cannot be copied, the old process continues, and none is left open."""
        before = of_null()
        self.patch(self.old, "_holdings", self.none_left)
        with self.assertRaisesRegex(NotDone, "Too many open files"):
            await self.old.offer()
        self.assertEqual(of_null(), before)
        self.assertEqual((self.service.stops, self.service.starts, self.resumed), (1, 1, 1))
        self.assertFalse(os.path.exists(self.path))

    def none_left(self) -> Holdings:
        """Fail as at the limit on open files."""
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def test_another_pid_file(self) -> None:
        """A lonc with another lonDaemons is refused, and all descriptors are closed."""
        before = of_null()
        new = await self.connected()
        with self.assertRaisesRegex(TakeOverError, "to change lonDaemons"):
            await deferToThread(receive, new, self.pid_file + ".other")
        new.close()
        await self.assert_goes_on()
        self.assertEqual(of_null(), before)


class Unheard:
    """A connection whose other side does not read."""

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
    """The old process ends, which the new one learns only from the end of the connection."""

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
        """Return the old process as the new one sees it."""
        return Predecessor(self.new, Holdings("", -1, {}, {}))

    def test_in_step_2(self) -> None:
        """What it has handed over is closed: the new process starts as after a crash."""
        before = of_null()
        with open(os.devnull) as null:
            handover.send(self.old, {"pid_file": "/lonc.pid"}, [null.fileno()])
            handover.send(self.old, {"sockets": ["/1", "/2"]}, [null.fileno()] * 2)
        self.old.close()
        self.assertRaises(EOFError, receive, self.new, "/lonc.pid")
        self.assertEqual(of_null(), before)

    def test_before_step_3(self) -> None:
        """If it ends before step 3, the new process serves."""
        self.old.close()
        self.predecessor().relieve()
        self.assertEqual(self.killed, [])

    def test_in_step_3(self) -> None:
        """If it ends without an answer in step 4, the new process serves."""
        self.old.shutdown(socket.SHUT_WR)
        self.predecessor().relieve()
        self.assertEqual(self.old.recv(100), b"serves %d" % os.getpid())

    def test_stopped(self) -> None:
        """If it does not answer, it is killed, and the new process serves."""
        self.patch(takeover, "LIMIT", 0.001)
        self.predecessor().relieve()
        self.assertEqual(self.killed, [os.getpid()])

    def test_stopped_elsewhere(self) -> None:
        """If its process id is unknown it is not killed, since 0 is our own process group."""
        self.patch(takeover, "LIMIT", 0.001)
        self.patch(takeover, "peer_of", lambda connected: UNKNOWN)
        with self.assertRaisesRegex(TakeOverError, "its process id is not known"):
            self.predecessor().relieve()
        self.assertEqual(self.killed, [])

    def test_client_without_its_descriptor(self) -> None:
        """A client whose descriptor was lost is skipped, and the next ones are served."""
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
        """If it says that it stays, the new process gives up."""
        self.old.send(b"stays")
        self.old.close()
        with self.assertRaises(TakeOverError):
            self.predecessor().relieve()


class AskingTests(TestCase):
    """The request of the new process on the management port."""

    timeout = 600

    def setUp(self) -> None:
        folder = short_folder(self)
        self.path = os.path.join(folder, "lonc.amp")

    def take_over(self, management: str = "") -> Predecessor | None:
        """Take over."""
        return take_over(management or f"unix:{self.path}:mode=600", self.path + ".pid")

    def test_not_by_network(self) -> None:
        """A management port that is no UNIX socket is an error."""
        self.assertRaises(TakeOverError, self.take_over, "tcp:1:interface=127.0.0.1")

    def test_nobody_there(self) -> None:
        """Without a running lonc there is nothing to take over."""
        self.assertIsNone(self.take_over())

    async def test_old_ends_in_step_1(self) -> None:
        """The same if it ends before it has answered."""
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.path)
            listening.listen()
            taking = deferToThread(self.take_over)
            asking, _ = await deferToThread(listening.accept)
            self.assertIn(b"HandOver", asking.recv(100))
            asking.close()
            self.assertIsNone(await taking)

    def test_of_another_user(self) -> None:
        """A lonc of another user is an error, also for root without ``--uid``."""
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
    """Two processes in the same folders."""

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
        """Store a delayed request, as lonnet does; return it."""
        request = f"put:msu:alice:grades:n={number}"
        name = f"{int(time.time())}.{number}.put.l2"
        self.write(f"{request}\n", "sock", "delayed", name)
        return request

    async def taken_over(self, old: Child) -> Child:
        """Start a process that takes over; return it when the old one has ended."""
        new = self.new()
        self.assertEqual(await old.ended(), 0)
        await self.until(lambda: self.read("daemons", "logs", "lonc.pid") == f"{new.pid}\n")
        return new

    async def managing(self) -> ManagementClient:
        """Return a client of the management port."""
        return await ManagementClient.connect(reactor, f"unix:{self.socket('lonc.amp')}")

    async def test_under_load(self) -> None:
        """No client is refused, delayed requests are sent once, and all files are the new one's."""
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
        """Without a running lonc it starts as usual."""
        self.lond_of_l2 = self.lond("l2", "127.0.0.2")
        self.configure(self.lond_of_l2.port)
        lonc = self.new()
        await self.ask("l2", "ping")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)

    async def test_ports(self) -> None:
        """The new process has the HTTP port, and the management port for other machines."""
        os.mkdir(self.path("pki"))
        files = Authority(self.path("pki")).issue("localhost")
        ports = [free_port("127.0.0.1") for _ in range(2)]
        self.configure(
            free_port("127.0.0.1", "127.0.0.2"),
            loncHTTP=f"tcp:{ports[0]}:interface=127.0.0.1",
            loncManagementTLS=f"lonctls:{ports[1]}:interface=127.0.0.1",
            **as_variables(files),
        )
        old = self.lonc()
        await self.ask("l1", "no lond is there")
        await self.taken_over(old)
        await self.ask("l1", "it has started")
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), 5.0):
                pass

    async def test_port_not_to_be_had(self) -> None:
        """If the new process cannot open its port, the old one continues."""
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
        """If an embedding program stops a lonc that could not start, nothing is deleted."""
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
        """Start a lonc that is killed in a method."""
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
        """If the old process is killed when the new one serves, the new one continues."""
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
        """If the new process is killed before it says that it serves, the old one continues."""
        old = await self.running()
        new = self.ending("takeover Predecessor relieve", "--take-over")
        self.assertEqual(await new.ended(), -signal.SIGKILL)
        self.children.remove(new)
        await self.assert_serves(old)
        await self.assert_sends()
        await self.taken_over(old)

    async def test_full_disk(self) -> None:
        """If the new process cannot write the pid file, the old one continues."""
        old = await self.running()
        options = ["-n", "lonc", "--config", self.path("loncapa.conf"), "--take-over"]
        new = self.spawn([sys.executable, "-c", FULL_DISK, *options])
        self.assertEqual(await new.ended(), 1)
        self.children.remove(new)
        self.assertIn("lonc.pid: No space left on device", new.err)
        await self.assert_serves(old)

    async def test_clients_go_along(self) -> None:
        """
        A pause continues in the new process, with its author and reason. Waiting requests are
        answered by that process after the host is resumed, and idle clients keep their connections;
        each request is sent once.
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
