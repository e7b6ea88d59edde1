"""Management over AMP, from the call of a program to its answer or error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import capturedLogs
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.test.iosim import connectedServerAndClient
from twisted.trial.unittest import SynchronousTestCase, TestCase

import lonc
from lonc import management
from lonc.control import commands, errors
from lonc.control.access import OWNER
from lonc.control.client import ClientConnection, ManagementClient
from lonc.control.commands import ManagementCommand
from lonc.control.errors import (
    BadArguments,
    BadLevel,
    InternalError,
    ManagementError,
    NoAnswer,
    ReloadFailed,
    ReportFailed,
    UnknownHost,
)
from lonc.control.server import (
    ManagementFactory,
)
from lonc.disk import files
from lonc.report.status import DaemonStatus
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.management import ConnectedTests, NotedDaemon, a_slow_request, warnings
from lonc.test.fixtures.statuses import a_daemon, a_status

EXAMPLE = os.path.join(os.path.dirname(os.path.dirname(lonc.__file__)), "docs/examples/manage.py")


class CommandsTests(ConnectedTests):
    """Each command, from the client's call to the daemon and back."""

    def test_hosts(self) -> None:
        """S18: the status of the daemon and of its hosts arrives unchanged."""
        # Every field has a value of its own, so that none can stand for another.
        fields = attrs.asdict(a_status("msul1")).items()
        numbers = {name: n + 3 for n, (name, value) in enumerate(fields) if type(value) is int}
        status = a_status(
            "msul1",
            **numbers,
            state="DEAD",
            oldest_waiter=1.5,
            next_probe=59.25,
            con_lost={"timeout": 3, "dead": 12},
            lond_version="1.467",
            mode="ssl",
            last_log="Tue Nov  3 05:02:00 2026 (17) [msul1] \N{SNOWMAN}",
        )
        for hosts in ([status], []):
            self.daemon.hosts = hosts
            self.assertEqual(self.answer(self.client.hosts()), hosts)
        self.assertEqual(self.answer(self.client.about()), self.daemon.about())

    def test_older(self) -> None:
        """A lonc that was upgraded on disk and not restarted lacks a field of the answer."""
        before = {name: kind for name, kind in commands.About.response if name != b"totals"}

        class OlderAbout(ManagementCommand):
            commandName = b"About"
            response = list(before.items())

        class Older(amp.AMP):
            @OlderAbout.responder
            def about(self) -> dict[str, object]:
                return attrs.asdict(a_daemon(), recurse=False)

        client = ClientConnection()
        _, _, pump = connectedServerAndClient(Older, lambda: client)
        asked = Deferred.fromCoroutine(ManagementClient(client, Clock(), 9.0).about())
        pump.flush()
        text = str(self.failureResultOf(asked, NoAnswer).value)
        self.assertEqual(
            text, "lonc: the lonc that runs there is older than this command: restart it"
        )

    def test_not_awaited(self) -> None:
        """A call that is not awaited causes a warning, and no command."""
        self.client.report()  # type: ignore[unused-coroutine]
        (warning,) = self.flushWarnings()
        self.assertIn("was never awaited", warning["message"])
        self.pump.flush()
        self.assertEqual(self.daemon.asked, [])

    def test_public_names(self) -> None:
        """Every command and every error has a public name."""
        named = {
            name
            for module, kind in ((commands, ManagementCommand), (errors, ManagementError))
            for name, each in vars(module).items()
            if isinstance(each, type) and issubclass(each, kind) and name[0] != "_"
        }
        self.assertLessEqual(named - {"ManagementCommand", "Listing"}, set(management.__all__))
        for name in management.__all__:
            self.assertEqual(getattr(management, name).__name__, name)

    def test_actions(self) -> None:
        """S18: each command is carried out for its host only, and without one for all."""
        for host, hosts in (("msua1", ["msua1"]), ("", ["msul1", "msua1"])):
            self.daemon.asked.clear()
            self.answer(self.client.report(host))
            self.answer(self.client.reset_retries(host))
            self.answer(self.client.close_connections(host))
            self.answer(self.client.set_debug_level(host, 9))
            expected: list[tuple[object, ...]] = [
                (what, each) for what in ("reset", "close") for each in hosts
            ]
            expected += [("debug", each, 9) for each in hosts]
            self.assertEqual(self.daemon.asked, [("report",), *expected])

    def test_read_again(self) -> None:
        """The changes are returned once the table, or everything, has been read."""
        for call, asked in [
            (self.client.reread_table, ("reread",)),
            (self.client.reload, ("reload",)),
        ]:
            self.daemon.reading = Deferred()
            answer = self.ask(call())
            self.assertNoResult(answer)
            self.daemon.reading.callback("2 hosts gone")
            self.pump.flush()
            self.assertEqual(self.successResultOf(answer), "2 hosts gone")
            self.assertEqual(self.daemon.asked.pop(), asked)

    def test_stop(self) -> None:
        """The answer to ``stop`` is sent before the daemon begins to stop."""
        self.answer(self.client.stop())
        self.assertEqual(self.daemon.asked, [])
        self.clock.advance(0)
        self.assertEqual(self.daemon.asked, [("stop",)])


class ErrorsTests(ConnectedTests):
    """Errors of commands."""

    def test_arguments(self) -> None:
        """S20: an unknown host, a wrong level, and an argument too long for AMP are refused."""
        call = self.client
        for asked, error, told in (
            (call.report("nosuch"), UnknownHost, "nosuch is not in hosts.tab"),
            (call.reset_retries("nosuch"), UnknownHost, "nosuch is not in hosts.tab"),
            (call.close_connections("nosuch"), UnknownHost, "nosuch is not in hosts.tab"),
            (call.set_debug_level("nosuch", 1), UnknownHost, "nosuch is not in hosts.tab"),
            (call.set_debug_level("a", -1), BadLevel, "a: -1 is not a debug level from 0 to 9"),
            (call.set_debug_level("a", 10), BadLevel, "a: 10 is not a debug level from 0 to 9"),
            (call.report("x" * 70_000), BadArguments, "Report: host is too long"),
        ):
            self.assertEqual(self.refused(asked, error), told)
        self.assertEqual(self.daemon.asked, [])

    def test_failed(self) -> None:
        """Why a command failed is answered, cut to what AMP can carry."""
        self.daemon.report_error = PermissionError(13, "Permission denied", "/status.txt")
        text = self.refused(self.client.report(), ReportFailed)
        self.assertIn("Permission denied: '/status.txt'", text)
        self.daemon.reading = fail(ReloadFailed("hosts.tab:3: " + "x" * 100_000))
        text = self.refused(self.client.reread_table(), ReloadFailed)
        self.assertEqual(text, "hosts.tab:3: " + "x" * 987)

    def test_internal_error(self) -> None:
        """
        An unexpected exception is logged, and answered without its content, or with the reason that
        lonc was reinstalled meanwhile; the connection stays.
        """
        self.daemon.report_error = RuntimeError("secret")
        text = self.refused(self.client.report(), InternalError)
        self.assertEqual(text, "internal error of lonc; see its log")
        self.patch(files, "_STARTED_WITH", (0, 0))
        text = self.refused(self.client.report(), InternalError)
        self.assertEqual(text, "lonc has been reinstalled since it started: restart it")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)  # the first one tells it
        self.daemon.report_error = None
        self.answer(self.client.report())

    def test_unknown_command(self) -> None:
        """An unknown command gets an error, and the connection stays."""

        class Later(ManagementCommand):
            commandName = b"x" * 60_000

        text = self.refused(self.client._ask(Later), NoAnswer)
        self.assertIn("Unhandled Command", text)
        self.answer(self.client.report())

    def test_bad_argument(self) -> None:
        """An argument of the wrong type gets an error, and the connection stays."""

        class SetDebugLevel(ManagementCommand):
            arguments = [(b"host", amp.Unicode()), (b"level", amp.Unicode())]

        with capturedLogs() as events:
            for _ in range(3):
                asking = self.client._ask(SetDebugLevel, host="", level="high")
                self.assertIn("SetDebugLevel has wrong arg", self.refused(asking, BadArguments))
        self.assertEqual(
            warnings(events),
            ["Management command not understood: SetDebugLevel has wrong arguments (ValueError)"],
        )
        self.answer(self.client.report())


class ClientWaitsTests(ConnectedTests):
    """No call of a client waits forever."""

    def test_no_answer(self) -> None:
        """S18: without an answer in time, a call fails."""
        asked = Deferred.fromCoroutine(self.client.about())
        self.reactor.advance(9.9)
        self.assertNoResult(asked)
        self.reactor.advance(0.1)
        told = str(self.failureResultOf(asked, NoAnswer).value)
        self.assertEqual(told, "unix:/sockets/lonc.amp: no answer within 10 s")

    def test_connection_lost(self) -> None:
        """If the connection ends before the answer, calls fail with a readable text."""
        asked = Deferred.fromCoroutine(self.client.about())
        self.factory.disconnect()
        self.pump.flush()
        told = str(self.failureResultOf(asked, NoAnswer).value)
        self.assertTrue(told.startswith("unix:/sockets/lonc.amp: no answer: "), told)
        self.refused(self.client.about(), NoAnswer)

    def test_close(self) -> None:
        """A closed client leaves no connection behind, and may be closed twice."""
        self.answer(self.client.close())
        self.assertEqual(self.factory.connections, set())
        self.answer(self.client.close())


class LiarsTests(SynchronousTestCase):
    """Servers that are not a lonc, or a broken one."""

    def test_rows_again(self) -> None:
        """A listing that repeats a row, or has an empty page before the last, is an error."""
        for numbers in ((1, 2, 1), (1, 0)):
            pages = [{"rows": [a_slow_request(each)] * (each > 0)} for each in numbers]

            class Asked(ManagementClient):
                def __init__(self, pages: list[dict[str, Any]]) -> None:
                    self._where, self._pages = "lonc", pages

                async def _ask(
                    self, command: object, more_time: float = 0.0, **arguments: object
                ) -> dict[str, Any]:
                    return self._pages.pop(0) | {"more": True}

            listing = Deferred.fromCoroutine(Asked(pages).slow())
            self.assertIn("does not end", str(self.failureResultOf(listing, NoAnswer).value))

    def answered(self, answer: Callable[[bytes], bytes]) -> Deferred[DaemonStatus]:
        """Ask for the daemon's status; the answer is made from the tag of the question."""
        net = MemoryReactorClock()
        connecting = Deferred.fromCoroutine(ManagementClient.connect(net, "unix:/x"))
        protocol = net.unixClients[-1][1].buildProtocol(None)
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        asking = Deferred.fromCoroutine(self.successResultOf(connecting).about())
        with capturedLogs() as events:
            protocol.dataReceived(answer(amp.parseString(transport.value())[0][amp.ASK]))
            if transport.disconnected:
                protocol.connectionLost(Failure(ConnectionAborted()))
        self.assertEqual([event for event in events if "log_failure" in event], [])
        return asking

    def test_lies(self) -> None:
        """Anything but an answer is an error in one line, without a traceback."""
        box = amp.AmpBox
        for answer in (
            lambda tag: b"HTTP/1.1 400 Bad Request\r\n\r\n",
            lambda tag: b"\0\0",
            lambda tag: box(_answer=b"nosuch").serialize(),
            lambda tag: box(_answer=tag).serialize(),
            lambda tag: box(_answer=tag, version=b"\xff", pid=b"many").serialize(),
            lambda tag: box(_error=tag).serialize(),
            lambda tag: box(_error=b"nosuch", _error_code=b"A", _error_description=b"").serialize(),
            lambda tag: box(_error=tag, _error_code=b"A", _error_description=b"\xff").serialize(),
            lambda tag: box(_command=b"About").serialize(),
            lambda tag: box(_command=b"About", _ask=b"1").serialize(),
            lambda tag: b"\0\1a\xff\xff" + b"x" * 65535 + b"\0\1b\xff\xff" + b"x" * 65535 * 4,
            lambda tag: b"".join(b"\0\1a\0\xff" + b"x" * 255 for _ in range(1100)),
        ):
            text = str(self.failureResultOf(self.answered(answer), NoAnswer).value)
            self.assertEqual(len(text.splitlines()), 1, text)


class ConnectTests(SynchronousTestCase):
    """Connecting to lonc."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def connecting(self, endpoint: str) -> Deferred[ManagementClient]:
        return Deferred.fromCoroutine(ManagementClient.connect(self.reactor, endpoint, 10.0))

    def test_not_connected(self) -> None:
        """If nobody listens, or nobody answers in time, the endpoint is named."""
        connecting = self.connecting("unix:/x")
        factory = self.reactor.unixClients[0][1]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        text = str(self.failureResultOf(connecting, NoAnswer).value)
        self.assertIn("unix:/x: Connection was refused", text)
        connecting = self.connecting("tcp:192.0.2.1:5")
        self.reactor.advance(9.9)
        self.assertNoResult(connecting)
        self.reactor.advance(0.1)
        text = str(self.failureResultOf(connecting, NoAnswer).value)
        self.assertEqual(text, "tcp:192.0.2.1:5: not connected within 10 s")

    def test_no_endpoint(self) -> None:
        """An invalid endpoint description is named."""
        for wrong in ["", "lonc.amp", "unix:/x:mode=600", "tcp:h:port"]:
            text = str(self.failureResultOf(self.connecting(wrong), NoAnswer).value)
            self.assertTrue(text.startswith(f"{wrong}: not a client endpoint"), text)


class ExampleTests(TestCase):
    """The program in the documentation, as a process, over a real UNIX socket."""

    timeout = 600

    async def test_program(self) -> None:
        """
        S18: it lists the hosts, and carries out commands; an error is one line, with an exit status
        other than 0.
        """
        if not os.path.exists(EXAMPLE):
            self.skipTest("lonc is installed without its documentation")
        path = os.path.join(short_folder(self), "lonc.amp")
        daemon = NotedDaemon(
            a_status("msul1", idle=3, waiting=4, con_lost={"timeout": 5, "dead": 6}),
            a_status("msua1", state="DEAD", retries_left=0),
        )
        clock: Any = reactor
        factory = ManagementFactory(daemon.responders, clock, visitor_of=lambda _: OWNER)
        port = clock.listenUNIX(path, factory, mode=0o600)
        self.addCleanup(factory.disconnect)
        self.addCleanup(port.stopListening)

        async def run(*arguments: str) -> tuple[str, str, int]:
            out, err, code = await getProcessOutputAndValue(
                sys.executable, [EXAMPLE, f"unix:{path}", *arguments], env=dict(os.environ)
            )
            return out.decode(), err.decode(), code

        out, err, code = await run("list")
        self.assertEqual((err, code), ("", 0))
        about, heading, *hosts = out.splitlines()
        self.assertIn("lonc 0.1, pid 17, since ", about)
        self.assertEqual(heading.split()[:4], ["host", "state", "connections", "waiting"])
        self.assertEqual(
            [line.split() for line in hosts],
            [
                ["msua1", "DEAD", "0", "0", "0", "0", "0", "0", "0"],
                ["msul1", "up", "3", "4", "2", "0", "0", "0", "11"],
            ],
        )
        for arguments, result in (
            (("debug", "msul1", "2"), ("", "", 0)),
            (("close",), ("", "", 0)),
            (("reread",), ("1 new host: msua1\n", "", 0)),
            (("reset", "nosuch"), ("", "manage.py: nosuch is not in hosts.tab\n", 1)),
        ):
            self.assertEqual(await run(*arguments), result)
        closed = [("close", "msul1"), ("close", "msua1")]
        self.assertEqual(daemon.asked, [("debug", "msul1", 2), *closed, ("reread",)])
