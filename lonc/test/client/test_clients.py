"""Both clients: the blocking one over real sockets, the one for Twisted in memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from unittest.mock import Mock

import attrs
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, TimeoutError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lonc.client import (
    CON_DELAYED,
    CON_FAILED,
    CON_LOST,
    Client,
    Limits,
    TwistedClient,
)
from lonc.client.exchange import Exchange
from lonc.config.settings import SOCKET_PATH_LIMIT, Settings
from lonc.delayed.outbox import Outbox
from lonc.delayed.sealing import make_key_file, read_key_file, unseal
from lonc.disk.threads import PLACES
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.doubles import some_settings

T = TypeVar("T")

PUT = b"put:msu:alice:grades:essay=A"

#: Seconds for what is not expected to take any, and for what is expected never to come.
LONG = 30.0
SHORT = 0.02

#: As an answer: hang up.
HANG_UP = b""


def echo(line: bytes) -> bytes | None:
    """Answer with the request itself."""
    return b"re:" + line


def silence(line: bytes) -> bytes | None:
    """Do not answer."""
    return None


class Server:
    """
    What programs take for lonc: a UNIX socket, served by threads.

    :ivar answer: request -> what to say to it; None: nothing, :data:`HANG_UP`: nothing more.
    :ivar asked: the lines that came.
    :ivar accepted: how many connections were made.
    """

    def __init__(self, path: str, answer: Callable[[bytes], bytes | None] = echo) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.accepted = 0
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self.accepted += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                self.asked.append(line)
                answer = self.answer(line)
                if answer == HANG_UP:
                    break
                connection.sendall(answer or b"")

    def all_left(self) -> bool:
        """Wait until all programs have closed their connections; False: they have not."""
        for thread in self._threads[1:]:
            thread.join(LONG)
        return not any(thread.is_alive() for thread in self._threads[1:])

    def hang_up(self) -> None:
        """Close all connections; they are closed when this returns."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def say_unasked(self, data: bytes) -> None:
        """Send data on the latest connection."""
        self._open[-1].sendall(data)

    def stop(self) -> None:
        """Close everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.hang_up()


class StuckOutbox(Outbox):
    """A disk that hangs until the test continues it."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.go_on = threading.Event()
        self.notes: list[str] = []

    def store(self, host_id: str, request: bytes) -> str:
        self.go_on.wait()
        return ""

    def note(self, letter: str, host_id: str, request: bytes) -> None:
        self.notes.append(letter)


class Place(SynchronousTestCase):
    """A test with a folder of sockets."""

    def setUp(self) -> None:
        self.folder = short_folder(self)
        os.mkdir(os.path.join(self.folder, "logs"))
        self.settings: Settings = some_settings(self.folder)
        self.path = self.settings.socket_path("l2")

    def stored(self) -> list[bytes]:
        """The content of the files in the folder of delayed requests, in order of their names."""
        requests = []
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.settings.delayed_dir)):
                with open(os.path.join(self.settings.delayed_dir, name), "rb") as file:
                    requests.append(file.read())
        return requests

    def notes(self) -> str:
        """The content of lonnet.perm.log."""
        with open(self.settings.perm_log_file) as file:
            return file.read()

    def check_refusals(self, *calls: Callable[[str, str | bytes], object]) -> None:
        """Check that all these calls refuse invalid host ids and requests."""
        for call in calls:
            for host_id in ("", ".", "..", "../l2", "a/b", "l2\n", "l²", "delayed", "lonc.amp"):
                self.assertRaises(ValueError, call, host_id, "ping")
            longest = SOCKET_PATH_LIMIT - len(self.folder) - 1
            error = self.assertRaises(ValueError, call, "l" * (longest + 1), "ping")
            self.assertIn("is too long: a UNIX socket", str(error))
            for request in ("ping\n", b"put:\nx", "\n", "", b" ", "\ud800"):
                self.assertRaises(ValueError, call, "l2", request)
            self.assertRaises(ValueError, call, "l2", b"." * (self.settings.max_line + 1))


class ClientTests(Place):
    """The blocking client."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.make()

    def make(self, outbox: Outbox | None = None, **limits: float) -> Client:
        """Return a client with these time limits, and else with long ones."""
        all_limits = Limits(**{"connect": LONG, "exchange": LONG, "store": LONG, **limits})
        return Client(self.settings, all_limits, outbox)

    def serve(self, answer: Callable[[bytes], bytes | None] = echo) -> Server:
        """Serve the host l2 at its socket."""
        server = Server(self.path, answer)
        self.addCleanup(server.stop)
        return server

    # Asking

    def test_ask(self) -> None:
        """A request goes out as a line, text as UTF-8; the answer comes without its newline."""
        server = self.serve()
        for ask, request, line in (
            (self.client.ask, "né", "né".encode()),
            (self.client.ask, b"n\xff", b"n\xff"),
            (self.client.ask, b"x" * 3_000_000, b"x" * 3_000_000),
            (self.client.ask_encrypted, "passwd:né", "encrypt:passwd:né".encode()),
        ):
            reply = ask("l2", request)
            self.assertEqual((reply, reply.why), (b"re:" + line, ""))
            self.assertEqual(server.asked.pop(), line + b"\n")

    def test_refused(self) -> None:
        """An invalid host id or request is a ValueError: nothing is connected, sent or stored."""
        server = self.serve()
        client = self.client
        with client.connection("l2") as l2:
            self.check_refusals(client.ask, client.ask_encrypted, client.critical)
            for call in (l2.ask, l2.ask_encrypted, l2.critical):
                self.assertRaises(ValueError, call, "ping\n")
        self.assertRaises(ValueError, client.connection, "..")
        self.assertEqual((server.accepted, self.stored()), (0, []))

    def test_longest_id(self) -> None:
        """A host id can be as long as the limit for socket paths allows."""
        self.path = os.path.join(self.folder, "l" * (SOCKET_PATH_LIMIT - len(self.folder) - 1))
        self.serve()
        self.assertEqual(self.client.ask(os.path.basename(self.path), "ping"), b"re:ping")

    # Sockets that bear host names

    def table(self, *rows: str) -> None:
        """Write the host table."""
        with open(self.settings.hosts_file, "w") as file:
            file.write("\n".join(rows))

    def test_host_names(self) -> None:
        """The socket is named after the host name, and a prefix of the request names the host."""
        self.settings = attrs.evolve(self.settings, socket_names="hostname")
        self.client = Client(self.settings)
        self.table("l2:msu:library:two.test:", "l3:msu:access:Two.test:other.test")
        for name, host_id in (("two.test", "l2"), ("Two.test", "l3")):
            self.path = self.settings.socket_path(name)
            self.serve()
            named = host_id.encode()
            self.assertEqual(self.client.ask(host_id, "ping"), b"re:sethost:%b:ping" % named)
            reply = self.client.ask_encrypted(host_id, "ping")
            self.assertEqual(reply, b"re:sethost:%b:encrypt:ping" % named)
        self.table("l2:msu:library:three.test:")
        self.path = self.settings.socket_path("three.test")
        self.serve()
        self.assertEqual(self.client.ask("l2", "ping"), b"re:sethost:l2:ping")

    def test_host_without_a_name(self) -> None:
        """Without a table, or for a host not in it, the socket is the one of the host id."""
        self.settings = attrs.evolve(self.settings, socket_names="hostname")
        self.client = Client(self.settings)
        for _ in range(2):
            reply = self.client.ask("l2", "ping")
            why = f"{self.path}: No such file or directory"
            self.assertEqual((reply, reply.why), (CON_LOST, why))
            self.table("l3:msu:access:three.test:")
        self.assertEqual(self.client.critical("l3", PUT), CON_DELAYED)
        self.assertEqual(self.stored(), [PUT + b"\n"], "its host is named by the file alone")

    # Without an answer

    def test_nobody_listens(self) -> None:
        """If nothing listens on the socket, the reply is con_lost at once."""
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(self.path)
        reply = self.client.ask("l2", "ping")
        self.assertEqual((reply, reply.why), (CON_LOST, f"{self.path}: Connection refused"))

    def test_limit(self) -> None:
        """An exchange ends after the limit of the client or the call, even if nothing is read."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen()
            for reply in (
                self.make(exchange=SHORT).ask("l2", "ping"),
                self.client.ask("l2", b"." * 10_000_000, timeout=SHORT),
            ):
                why = f"{self.path}: no answer within {SHORT:g} s"
                self.assertEqual((reply, reply.why), (CON_LOST, why))

    def test_too_many_programs(self) -> None:
        """If too many connections wait to be accepted, the reply is con_lost at once."""
        with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as others:
            listener.bind(self.path)
            listener.listen(0)
            for _ in range(3):
                other = others.enter_context(socket.socket(socket.AF_UNIX))
                other.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    other.connect(self.path)
            reply = self.client.ask("l2", "ping")
        self.assertEqual(reply, CON_LOST)
        self.assertEqual(reply.why, f"{self.path}: Resource temporarily unavailable")

    # Many

    def test_threads(self) -> None:
        """Threads can share a client, and each gets its own reply."""
        self.serve()
        requests = [b"%d" % n for n in range(40)]
        with ThreadPoolExecutor(8) as threads:
            replies = threads.map(lambda request: self.client.ask("l2", request), requests)
            self.assertEqual(list(replies), [b"re:" + request for request in requests])

    def test_connection(self) -> None:
        """A connection can be used for many requests, and is closed at the end."""
        server = self.serve()
        with self.client.connection("l2") as l2:
            self.assertEqual(l2.ask("a"), b"re:a")
            self.assertEqual(l2.ask_encrypted("b"), b"re:encrypt:b")
            self.assertEqual(l2.critical("c"), b"re:c")
        self.assertTrue(server.all_left())
        self.assertEqual((server.accepted, self.stored()), (1, []))

    def test_lonc_started_anew(self) -> None:
        """A connection that was closed between two requests is reopened."""
        server = self.serve()
        with self.client.connection("l2") as l2:
            l2.ask("a")
            server.hang_up()
            self.assertEqual(l2.ask("b"), b"re:b")
        self.assertEqual(server.accepted, 2)

    def test_late_answer(self) -> None:
        """The late answer to an abandoned request is not the reply to the next one."""
        server = self.serve()
        late = threading.Event()
        self.addCleanup(late.set)

        def answer(line: bytes) -> bytes | None:
            if line == b"a\n":
                late.wait()
            return echo(line)

        server.answer = answer
        with self.client.connection("l2") as l2:
            self.assertEqual(l2.ask("a", timeout=SHORT), CON_LOST)
            late.set()
            self.assertEqual(l2.ask("b"), b"re:b")

    def test_spoken_unasked(self) -> None:
        """Unexpected data is never the reply to the next request."""
        server = self.serve(lambda line: b"re:" + line + b"another's\n")
        with self.client.connection("l2") as l2:
            self.assertEqual(l2.ask("a"), b"re:a")
            self.assertEqual(l2.ask("b"), b"re:b")
            server.answer = echo
            self.assertEqual(l2.ask("c"), b"re:c")
            self.assertEqual(server.accepted, 3)
            server.say_unasked(b"another's\n")
            self.assertEqual(l2.ask("d"), b"re:d")
        self.assertEqual(server.accepted, 4)

    def test_interrupted(self) -> None:
        """The answer to an interrupted request is not the reply to the next one."""
        server = self.serve()
        with self.client.connection("l2") as l2:
            l2.ask("a")
            interrupt = self.patch(Exchange, "receive", Mock(side_effect=KeyboardInterrupt))
            self.assertRaises(KeyboardInterrupt, l2.ask, "b")
            interrupt.restore()
            self.assertEqual(l2.ask("c"), b"re:c")
        self.assertEqual(server.accepted, 2)

    # What must not be lost

    def test_critical(self) -> None:
        """Any answer of a lond, even a refusal, is the reply, and nothing is stored."""
        server = self.serve()
        for answer in (b"ok", b"refused", b"error: no such user"):
            server.answer = lambda line, answer=answer: answer + b"\n"  # type: ignore[misc]
            self.assertEqual(self.client.critical("l2", PUT), answer)
        self.assertEqual(self.stored(), [])

    def test_con_lost(self) -> None:
        """
        On con_lost it is stored, and noted as lonnet does; the reply is con_delayed. The folder of
        the sockets is enough for that, but then there is a note in no log.
        """
        self.serve(lambda line: b"con_lost\n")
        why = f"{self.path}: lonc itself says con_lost; `lonc hosts` tells why"
        for client in (Client(self.folder), self.client):
            self.assertEqual(os.listdir(self.settings.logs_dir), [])
            reply = client.critical("l2", PUT)
            self.assertEqual((reply, reply.why), (CON_DELAYED, why))
        self.assertEqual(self.stored(), [PUT + b"\n"] * 2)
        self.assertEqual(self.notes().count(f":D:l2:{PUT.decode()}:"), 1)

    def test_stored_without_lonc(self) -> None:
        """It is also stored if lonc does not run, closes the connection or does not answer."""
        for number, (answer, why) in enumerate(
            (
                (None, "No such file or directory"),
                (lambda line: HANG_UP, "closed without an answer"),
                (silence, f"no answer within {SHORT:g} s"),
            )
        ):
            server = answer and Server(self.path, answer)
            timeout = SHORT if answer is silence else None
            reply = self.client.critical("l2", b"put:%d" % number, timeout)
            self.assertEqual((reply, reply.why), (CON_DELAYED, f"{self.path}: {why}"))
            self.assertEqual(self.stored()[-1], b"put:%d\n" % number)
            if server:
                server.stop()
                os.unlink(self.path)

    def test_encrypted(self) -> None:
        """For an encrypted request, the log contains only the command."""
        self.client.critical("l2", "encrypt:passwd:msu:alice:secret")
        self.assertEqual(self.stored(), [b"encrypt:passwd:msu:alice:secret\n"])
        self.assertIn(":D:l2:encrypt:passwd:", self.notes())
        self.assertNotIn("alice", self.notes())

    def sealing(self) -> Client:
        """Return a client with a key file in its settings."""
        file = os.path.join(self.folder, "key")
        self.settings = attrs.evolve(self.settings, delayed_key_file=file)
        return self.make()

    def test_sealed(self) -> None:
        """If lonc has a key, the request is sealed, and the log contains only the command."""
        client = self.sealing()
        make_key_file(f"{self.folder}/key")
        self.assertEqual(client.critical("l2", PUT), CON_DELAYED)
        (name,), (sealed,) = os.listdir(self.settings.delayed_dir), self.stored()
        self.assertEqual(unseal(read_key_file(f"{self.folder}/key"), name, sealed), PUT + b"\n")
        self.assertIn(":D:l2:put:", self.notes())
        self.assertNotIn("alice", self.notes())

    def test_no_key(self) -> None:
        """If the key cannot be read, the request is not stored unsealed instead."""
        reply = self.sealing().critical("l2", PUT)
        self.assertEqual(reply, CON_FAILED)
        self.assertIn(f"; loncDelayedKeyFile: {self.folder}/key: No such file", reply.why)
        self.assertEqual(self.stored(), [])
        self.assertNotIn("alice", self.notes())

    def test_not_stored(self) -> None:
        """If it cannot be stored, the reply is con_failed with the reason, and that is noted."""
        with open(self.settings.delayed_dir, "w"):
            pass
        reply = self.client.critical("l2", PUT)
        self.assertEqual(reply, CON_FAILED)
        self.assertIn("No such file or directory; ", reply.why)  # of the socket
        self.assertIn("delayed: Not a directory", reply.why)
        self.assertIn(f":F:l2:{PUT.decode()}:", self.notes())

    def test_program_error(self) -> None:
        """The reply is con_failed after any exception while storing."""

        class Broken(Outbox):
            def store(self, host_id: str, request: bytes) -> str:
                raise LookupError("a bug")

        reply = self.make(Broken(self.folder)).critical("l2", PUT)
        self.assertEqual(reply, CON_FAILED)
        self.assertIn("LookupError: a bug", reply.why)

    def test_no_log(self) -> None:
        """If only the log cannot be written, the reply is con_delayed."""
        shutil.rmtree(self.settings.logs_dir)
        reply = self.client.critical("l2", PUT)
        self.assertEqual(reply, CON_DELAYED)
        self.assertIn(f"{self.settings.perm_log_file}: cannot be written", reply.why)

    def test_disk_hangs(self) -> None:
        """A hanging disk is waited for until its limit, and occupies only so many threads."""
        outbox = StuckOutbox(self.settings.delayed_dir)
        self.addCleanup(outbox.go_on.set)
        client = self.make(outbox, store=SHORT)
        for _ in range(PLACES):
            reply = client.critical("l2", PUT)
            self.assertEqual(reply, CON_FAILED)
            self.assertIn(f"no answer from the disk within {SHORT:g} s", reply.why)
        self.assertEqual(outbox.notes, ["F"] * (PLACES - 1))  # no place for the last
        reply = client.critical("l2", PUT)
        self.assertEqual(reply, CON_FAILED)
        self.assertIn("other disk calls hang", reply.why)

    def test_end_with_hanging_disk(self) -> None:
        """A program can exit while a disk hangs."""
        program = (
            "import sys\n"
            "from lonc.client import Client, Limits\n"
            "from lonc.test.client.test_clients import StuckOutbox\n"
            "client = Client(sys.argv[1], Limits(store=0.01), StuckOutbox(sys.argv[1]))\n"
            "print(client.critical('l2', 'ping').text)\n"
        )
        command = [sys.executable, "-c", program, self.folder]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        out = subprocess.run(command, env=environment, capture_output=True, timeout=LONG).stdout
        self.assertEqual(out, b"con_failed\n")

    def test_default_limits(self) -> None:
        """By default, the limits are longer than lonc's own, whatever its settings are."""
        settings = some_settings(
            self.folder, queue_timeout=7.0, request_timeout=20.0, disk_timeout=3.0
        )
        self.assertEqual(Client(settings).limits, Limits(connect=10.0, exchange=37.0, store=3.0))
        self.assertEqual(Client(self.folder).limits, Limits())


class Accepted(StringTransport):
    """
    The latest connection of a TwistedClient, accepted.

    :ivar timeout: seconds for connecting.
    """

    def __init__(self, reactor: MemoryReactorClock) -> None:
        super().__init__()
        self.path, factory, self.timeout, _ = reactor.unixClients[-1]
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self)

    def say(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.protocol.dataReceived(data)


class TwistedClientTests(Place):
    """The client that returns Deferreds."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = MemoryReactorClock()
        self.client = self.make()

    def make(self, outbox: Outbox | None = None) -> TwistedClient:
        """Return a client whose disk calls are made at once."""
        return TwistedClient(self.reactor, self.settings, None, outbox, maybeDeferred)

    def test_ask(self) -> None:
        """A request is sent as one line, and the Deferred fires with the reply."""
        asked = self.client.ask("l2", "ping")
        lonc = Accepted(self.reactor)
        self.assertEqual((lonc.path, lonc.timeout, lonc.value()), (self.path, 10.0, b"ping\n"))
        lonc.say(b"l")
        self.assertNoResult(asked)
        lonc.say(b"2\n")
        reply = self.successResultOf(asked)
        self.assertEqual((reply, reply.why), (b"l2", ""))
        self.assertTrue(lonc.disconnected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_many_at_once(self) -> None:
        """Concurrent requests do not wait for each other, and each gets its own reply."""
        asked, exchanges = [], []
        for ask in (self.client.ask, self.client.ask_encrypted):
            asked.append(ask("l2", "a"))
            exchanges.append(Accepted(self.reactor))
        for exchange in reversed(exchanges):
            exchange.say(b"re:" + exchange.value())
        replies = [self.successResultOf(deferred) for deferred in asked]
        self.assertEqual(replies, [b"re:a", b"re:encrypt:a"])

    def test_refused(self) -> None:
        """An invalid host id or request is a ValueError at once: nothing is connected."""
        client = self.client
        self.check_refusals(client.ask, client.ask_encrypted, client.critical)
        self.assertEqual((self.reactor.unixClients, self.stored()), ([], []))

    def test_not_accepted(self) -> None:
        """A connection that is not accepted in time is con_lost, with the reason."""
        asked = self.client.ask("l2", "ping")
        _, factory, _, _ = self.reactor.unixClients[-1]
        factory.clientConnectionFailed(None, Failure(TimeoutError()))
        self.assertEqual(self.successResultOf(asked).why, f"{self.path}: no connection within 10 s")

    def test_closed(self) -> None:
        """A connection closed before the end of the answer is con_lost."""
        asked = self.client.ask("l2", "ping")
        lonc = Accepted(self.reactor)
        lonc.say(b"l")
        lonc.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(asked).why, f"{self.path}: closed without an answer")

    def test_silence(self) -> None:
        """The limit applies to the whole exchange, even if bytes keep arriving."""
        asked = self.client.ask("l2", "ping")
        lonc = Accepted(self.reactor)
        for _ in range(129):
            self.reactor.advance(1)
            lonc.say(b".")
        self.assertNoResult(asked)
        self.reactor.advance(1)
        reply = self.successResultOf(asked)
        self.assertEqual((reply, reply.why), (CON_LOST, f"{self.path}: no answer within 130 s"))
        self.assertTrue(lonc.disconnected)

    def test_cancel(self) -> None:
        """Cancelling in any phase closes the connection and leaves nothing behind."""
        client = TwistedClient(self.reactor, self.settings, in_thread=lambda work: Deferred())
        for answer in (None, b"", b"con_lost\n"):  # while connecting, asking, storing
            asked = client.critical("l2", PUT)
            if answer is not None:
                lonc = Accepted(self.reactor)
                lonc.say(answer)
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
            self.assertTrue(answer is None or lonc.disconnected)
            self.assertEqual((self.reactor.getDelayedCalls(), self.stored()), ([], []))

    def test_critical(self) -> None:
        """Only on con_lost, the request is stored and noted, and the reply is con_delayed."""
        for answer, told, stored in (
            (b"refused", b"refused", []),
            (CON_LOST, CON_DELAYED, [PUT + b"\n"]),
        ):
            asked = self.client.critical("l2", PUT)
            Accepted(self.reactor).say(answer + b"\n")
            self.assertEqual((self.successResultOf(asked), self.stored()), (told, stored))
        self.assertIn(f":D:l2:{PUT.decode()}:", self.notes())

    def test_hung_up_first(self) -> None:
        """After the time limit, the connection is closed before the request is stored."""
        closed_before = []

        def step(name: str) -> None:
            closed_before.append(lonc.disconnected)

        client = self.make(Outbox(self.settings.delayed_dir, step=step))
        asked = client.critical("l2", PUT, timeout=3)
        lonc = Accepted(self.reactor)
        self.reactor.advance(3)
        self.assertEqual(self.successResultOf(asked), CON_DELAYED)
        self.assertEqual(set(closed_before), {True})

    def test_not_stored(self) -> None:
        """If it cannot be stored, the reply is con_failed, and that is noted."""
        with open(self.settings.delayed_dir, "w"):
            pass
        asked = self.client.critical("l2", PUT)
        Accepted(self.reactor).say(b"con_lost\n")
        reply = self.successResultOf(asked)
        self.assertEqual(reply, CON_FAILED)
        self.assertIn("delayed: Not a directory", reply.why)
        self.assertIn(f":F:l2:{PUT.decode()}:", self.notes())

    def test_disk_hangs(self) -> None:
        """A hanging disk is waited for until its limit, and occupies only so many threads."""
        never: list[Deferred[Any]] = []

        def hang(work: Callable[[], T], /) -> Deferred[T]:
            never.append(Deferred())
            return never[-1]

        client = TwistedClient(self.reactor, self.settings, in_thread=hang)
        replies = []
        for _ in range(PLACES + 1):
            asked = client.critical("l2", PUT)
            Accepted(self.reactor).say(b"con_lost\n")
            for _ in range(3):
                self.reactor.advance(10)  # the store, a place for the note, the note
            replies.append(self.successResultOf(asked))
        self.assertEqual(replies, [CON_FAILED] * (PLACES + 1))
        self.assertIn("no answer from the disk", replies[0].why)
        self.assertIn("other disk calls hang", replies[-1].why)
        self.assertEqual(len(never), PLACES)
