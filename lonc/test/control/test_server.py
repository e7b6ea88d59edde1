# trial's assertions and twisted.protocols.amp have no annotations:
# mypy: allow-untyped-calls
"""Management over AMP: both sides, and the program in the documentation."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase, TestCase

import lonc
from lonc import management
from lonc.control import commands, errors
from lonc.control.access import OWNER, Caller, Level, Visitor
from lonc.control.client import ManagementClient
from lonc.control.commands import ManagementCommand
from lonc.control.errors import (
    BadArguments,
    BadLevel,
    InternalError,
    ManagementError,
    NoAnswer,
    NotDone,
    ReloadFailed,
    ReportFailed,
    UnknownHost,
)
from lonc.control.server import (
    HANDSHAKE_LIMIT,
    MOST_HANDSHAKES,
    MOST_OF_A_LEVEL,
    ManagementFactory,
    ManagementProtocol,
)
from lonc.report.records import ConnectionStatus
from lonc.report.status import DaemonStatus
from lonc.test.fixtures.management import ConnectedTests, NotedDaemon, a_slow_request, warnings
from lonc.test.fixtures.statuses import NOW, a_status

T = TypeVar("T")

EXAMPLE = os.path.join(os.path.dirname(os.path.dirname(lonc.__file__)), "docs/examples/manage.py")


class CommandsTests(ConnectedTests):
    """Each command, from the client's call to the daemon and back."""

    def test_about(self) -> None:
        """The daemon's report arrives as it was given."""
        self.assertEqual(self.answer(self.client.about()), self.daemon.about())

    def test_hosts(self) -> None:
        """S18: every field of a host's status arrives as it was given."""
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
        self.daemon.hosts = [status]
        self.assertEqual(self.answer(self.client.hosts()), [status])

    def test_not_awaited(self) -> None:
        """Who forgets to await is warned, and nothing is asked."""
        self.client.report()  # type: ignore[unused-coroutine]
        (warning,) = self.flushWarnings()
        self.assertIn("was never awaited", warning["message"])
        self.pump.flush()
        self.assertEqual(self.daemon.asked, [])

    def test_public_names(self) -> None:
        """Every command and every error can be had where programs look for them."""
        named = {
            name
            for module, kind in ((commands, ManagementCommand), (errors, ManagementError))
            for name, each in vars(module).items()
            if isinstance(each, type) and issubclass(each, kind)
        }
        self.assertLessEqual(named - {"ManagementCommand", "Listing"}, set(management.__all__))
        for name in management.__all__:
            self.assertEqual(getattr(management, name).__name__, name)

    def test_no_hosts(self) -> None:
        """A daemon without hosts has an empty list."""
        self.daemon.hosts = []
        self.assertEqual(self.answer(self.client.hosts()), [])

    def test_one_host(self) -> None:
        """S18: each command reaches the daemon for the host it names, and for no other."""
        self.answer(self.client.report("msul1"))
        self.answer(self.client.reset_retries("msul1"))
        self.answer(self.client.close_connections("msua1"))
        self.answer(self.client.set_debug_level("msua1", 9))
        self.assertEqual(
            self.daemon.asked,
            [("report",), ("reset", "msul1"), ("close", "msua1"), ("debug", "msua1", 9)],
        )

    def test_all_hosts(self) -> None:
        """S18: without a host, each command is for all."""
        self.answer(self.client.report())
        self.answer(self.client.reset_retries())
        self.answer(self.client.close_connections())
        self.answer(self.client.set_debug_level("", 0))
        self.assertEqual(
            self.daemon.asked,
            [
                ("report",),
                *((what, host) for what in ("reset", "close") for host in ("msul1", "msua1")),
                ("debug", "msul1", 0),
                ("debug", "msua1", 0),
            ],
        )

    def test_read_again(self) -> None:
        """What has changed is told once the table, or everything, has been read."""
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


class PagesTests(ConnectedTests):
    """Lists that are longer than an AMP value."""

    def test_long_list(self) -> None:
        """Any number of hosts arrives, in order, whatever the length of ids and log lines."""
        hosts = [
            a_status(f"{number:04d}" + "x" * (number % 250), last_log="\N{SNOWMAN}" * 20_000)
            for number in range(1000)
        ]
        self.daemon.hosts = hosts[500:] + hosts[:500]
        listed = self.answer(self.client.hosts())
        self.assertEqual(
            [host.host_id for host in listed],
            [host.host_id for host in self.daemon.hosts[500:]]
            + [host.host_id for host in self.daemon.hosts[:500]],
        )
        self.assertEqual({host.last_log for host in listed}, {"\N{SNOWMAN}" * 333})

    def test_log_line_that_is_no_text(self) -> None:
        """A log line that UTF-8 has no bytes for does not keep the list from arriving."""
        self.daemon.hosts = [a_status("a", last_log="\udc80")]
        self.assertEqual(self.answer(self.client.hosts())[0].last_log, "\\udc80")

    def test_page_is_full(self) -> None:
        """A page ends only when the next host would not fit, and has no more than 16 KiB."""
        self.daemon.hosts = [a_status(f"{n:04d}", last_log="x" * 1000) for n in range(200)]
        responders = self.daemon.responders(Caller(lambda: OWNER, self.factory.log))
        pages = []
        after, more = "", True
        while more:
            page: Any = responders.list_hosts(after)
            pages.append(page["hosts"])
            after, more = page["hosts"][-1]["host_id"], page["more"]
        self.assertEqual(sum(map(len, pages)), 200)
        self.assertGreater(min(map(len, pages[:-1])), 7)
        self.assertLess(max(map(len, pages)), 17)

    def test_connection_closes_between_pages(self) -> None:
        """One that closes between two pages hides none that stays, and repeats none."""
        rows = [
            ConnectionStatus(number=n, host_id="msul1", state="idle", since=NOW, seconds=1.0)
            for n in range(1, 2001)
        ]
        self.daemon.connections = rows
        listing = Deferred.fromCoroutine(self.client.connections())
        self.pump.pump()  # the question
        self.daemon.connections = rows[100:]
        self.pump.flush()
        listed = [each.number for each in self.successResultOf(listing)]
        self.assertEqual(listed, list(range(1, 2001)))  # all of those that closed were told before

    def test_machine_of_two(self) -> None:
        """A connection that two hosts of a machine share is listed once."""
        one = ConnectionStatus(number=7, host_id="msul1", state="idle", since=NOW, seconds=1.0)
        self.daemon.connections = [one, attrs.evolve(one, host_id="msua1")]
        self.assertEqual(self.answer(self.client.connections()), [one])
        (listed,) = self.answer(self.client.connections("msua1"))
        self.assertEqual(listed.host_id, "msua1")

    def test_hosts_come_and_go_between_pages(self) -> None:
        """A host that stays is listed once, though others come and go between two pages."""
        self.daemon.hosts = [a_status(f"{n:04d}", last_log="x" * 1000) for n in range(0, 300, 2)]
        stays = {host.host_id for host in self.daemon.hosts if int(host.host_id) % 4 == 0}
        listing = Deferred.fromCoroutine(self.client.hosts())
        self.pump.pump()  # the question
        self.daemon.hosts = [host for host in self.daemon.hosts if host.host_id in stays]
        self.daemon.hosts += [a_status(f"{n:04d}") for n in range(1, 300, 2)]
        self.pump.flush()
        listed = [host.host_id for host in self.successResultOf(listing)]
        self.assertEqual(listed, sorted(set(listed)))
        self.assertLess(stays, set(listed))


class ErrorsTests(ConnectedTests):
    """What a person is told when a command fails."""

    def test_unknown_host(self) -> None:
        """A host that is not in the table is named, and nothing is done."""
        for call in [
            self.client.report("nosuch"),
            self.client.reset_retries("nosuch"),
            self.client.close_connections("nosuch"),
            self.client.set_debug_level("nosuch", 1),
        ]:
            self.assertEqual(self.refused(call, UnknownHost), "nosuch is not in hosts.tab")
        self.assertEqual(self.daemon.asked, [])

    def test_bad_level(self) -> None:
        """S20: levels are 0 to 9."""
        for level in [-1, 10]:
            text = self.refused(self.client.set_debug_level("msul1", level), BadLevel)
            self.assertEqual(text, f"msul1: {level} is no debug level from 0 to 9")
        self.assertEqual(self.daemon.asked, [])

    def test_report_failed(self) -> None:
        """The reason why the status file cannot be written arrives."""
        self.daemon.report_error = PermissionError(13, "Permission denied", "/status.txt")
        text = self.refused(self.client.report(), ReportFailed)
        self.assertIn("Permission denied: '/status.txt'", text)

    def test_reload_failed(self) -> None:
        """The reason why a table is unusable arrives, cut to what AMP can carry."""
        self.daemon.reading = fail(ReloadFailed("hosts.tab:3: " + "x" * 100_000))
        text = self.refused(self.client.reread_table(), ReloadFailed)
        self.assertEqual(text, "hosts.tab:3: " + "x" * 987)

    def test_internal_error(self) -> None:
        """An unforeseen exception is logged here, told without its content, and ends nothing."""
        self.daemon.report_error = RuntimeError("secret")
        text = self.refused(self.client.report(), InternalError)
        self.assertNotIn("secret", text)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.daemon.report_error = None
        self.answer(self.client.report())

    def test_unknown_command(self) -> None:
        """A command of a later release gets an error, and the connection stays."""

        class Later(ManagementCommand):
            commandName = b"x" * 60_000

        text = self.refused(self.client._ask(Later), NoAnswer)
        self.assertIn("Unhandled Command", text)
        self.answer(self.client.report())

    def test_bad_argument(self) -> None:
        """An argument that is no number gets an error, and the connection stays."""

        class SetDebugLevel(ManagementCommand):
            arguments = [(b"host", amp.Unicode()), (b"level", amp.Unicode())]

        with capturedLogs() as events:
            for _ in range(3):
                asking = self.client._ask(SetDebugLevel, host="", level="high")
                self.assertIn("SetDebugLevel has not the arg", self.refused(asking, BadArguments))
        self.assertEqual(
            warnings(events),
            [
                "Management command not understood: SetDebugLevel has not the arguments that it "
                "takes (ValueError)"
            ],
        )
        self.answer(self.client.report())

    def test_too_long_to_ask(self) -> None:
        """What does not fit into a command fails before it is sent, and says so."""
        told = self.refused(self.client.report("x" * 70_000), BadArguments)
        self.assertEqual(told, "Report: host is too long")


class ClientWaitsTests(ConnectedTests):
    """Everything a client waits for ends."""

    def test_no_answer(self) -> None:
        """S18: a daemon that does not answer in time is given up."""
        asked = Deferred.fromCoroutine(self.client.about())
        self.reactor.advance(9.9)
        self.assertNoResult(asked)
        self.reactor.advance(0.1)
        told = str(self.failureResultOf(asked, NoAnswer).value)
        self.assertEqual(told, "unix:/sockets/lonc.amp: no answer within 10 s")

    def test_connection_lost(self) -> None:
        """A connection that goes while an answer is awaited is an error for a person."""
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

    def test_endless_list(self) -> None:
        """A list that does not go on is given up."""

        class Stuck(amp.AMP):
            def locateResponder(self, name: bytes) -> Any:
                return lambda box: succeed(amp.AmpBox(hosts=b"", more=b"True"))

        connecting = Deferred.fromCoroutine(ManagementClient.connect(self.reactor, "unix:/x"))
        client = self.reactor.unixClients[-1][1].buildProtocol(None)
        assert client is not None
        stuck = Stuck()
        pump = connect(stuck, FakeTransport(stuck, True), client, FakeTransport(client, False))
        listing = Deferred.fromCoroutine(self.successResultOf(connecting).hosts())
        pump.flush()
        self.assertIn("does not end", str(self.failureResultOf(listing, NoAnswer).value))


class LiarsTests(SynchronousTestCase):
    """What listens there is no lonc, or a broken one."""

    def test_rows_again(self) -> None:
        """A listing that comes back to a row which it has had is given up."""
        pages = [{"rows": [a_slow_request(number)], "more": True} for number in (1, 2, 1)]

        class Asked(ManagementClient):
            def __init__(self) -> None:
                self._where = "lonc"

            async def _ask(
                self, command: object, more_time: float = 0.0, **arguments: object
            ) -> dict[str, Any]:
                return pages.pop(0)

        listing = Deferred.fromCoroutine(Asked().slow())
        self.assertIn("does not end", str(self.failureResultOf(listing, NoAnswer).value))

    def answered(self, answer: Callable[[bytes], bytes]) -> Deferred[DaemonStatus]:
        """Ask for the daemon's report, and answer with what is made of the question's tag."""
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
        """Whatever comes in place of an answer is an error in one line, without a traceback."""
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
    """Reaching lonc at all."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def connecting(self, endpoint: str) -> Deferred[ManagementClient]:
        return Deferred.fromCoroutine(ManagementClient.connect(self.reactor, endpoint, 10.0))

    def test_refused(self) -> None:
        """Where nobody listens, the endpoint is named."""
        connecting = self.connecting("unix:/x")
        factory = self.reactor.unixClients[0][1]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        text = str(self.failureResultOf(connecting, NoAnswer).value)
        self.assertIn("unix:/x: Connection was refused", text)

    def test_silence(self) -> None:
        """A connection that does not come about is given up."""
        connecting = self.connecting("tcp:192.0.2.1:5")
        self.reactor.advance(9.9)
        self.assertNoResult(connecting)
        self.reactor.advance(0.1)
        text = str(self.failureResultOf(connecting, NoAnswer).value)
        self.assertEqual(text, "tcp:192.0.2.1:5: not connected within 10 s")

    def test_no_endpoint(self) -> None:
        """What is no endpoint description is named."""
        for wrong in ["", "lonc.amp", "unix:/x:mode=600", "tcp:h:port"]:
            text = str(self.failureResultOf(self.connecting(wrong), NoAnswer).value)
            self.assertTrue(text.startswith(f"{wrong}: no client endpoint"), text)


class TLSTransport(StringTransport):
    """A transport whose other side may have a certificate."""

    has_begun = False

    def getPeerCertificate(self) -> None:
        """It has shown none."""


class LimitsTests(ConnectedTests):
    """What the daemon's side bears with."""

    def silent(self) -> tuple[ManagementProtocol, StringTransport]:
        """Connect somebody who sends nothing."""
        server = self.factory.buildProtocol(None)
        assert server is not None
        transport = StringTransport()
        server.makeConnection(transport)
        return server, transport

    def owners_factory(self) -> ManagementFactory:
        """Return what serves lonc's own user alone, with the usual limits."""
        return ManagementFactory(self.daemon.responders, self.clock, visitor_of=lambda _: OWNER)

    def test_too_many(self) -> None:
        """For one connection over the limit the one that was silent for longest makes room."""
        self.clock.advance(1)
        _, first = self.silent()
        self.clock.advance(1)
        self.answer(self.client.about())
        _, second = self.silent()
        self.assertEqual((first.disconnected, second.disconnected), (True, False))
        self.clock.advance(1)
        self.answer(self.client.about())
        with capturedLogs() as events:
            for _ in range(10):
                self.silent()
                self.clock.advance(1)
                self.answer(self.client.about())
        self.assertTrue(second.disconnected)
        self.assertEqual(warnings(events), [])  # the first said it

    def test_busy_stays(self) -> None:
        """A connection whose command is under way makes no room for a silent one."""
        self.daemon.reading = Deferred()
        reloading = self.ask(self.client.reload())
        for _ in range(5):
            self.clock.advance(1)
            self.silent()
        self.daemon.reading.callback("done")
        self.pump.flush()
        self.assertEqual(self.successResultOf(reloading), "done")

    def test_all_busy(self) -> None:
        """Where every connection waits for an answer, a further one is served all the same."""
        self.daemon.reading = Deferred()
        self.ask(self.client.reload())
        first = self.pump
        self.clock.advance(1)
        other, pump = self.connected()
        self.pump = pump
        self.ask(other.reload())
        last, self.pump = self.connected()
        self.answer(last.about())
        first.flush()
        self.assertEqual(len(self.factory.connections), 2)

    def test_others_busy(self) -> None:
        """Sixty who may only see, each with a command under way, keep the owner's out nowhere."""
        owner, owner_pump = self.client, self.pump
        self.visitor = Visitor("ann (process 7)", Level.SEE)
        for _ in range(30):
            other, self.pump = self.connected()
            self.ask(other.trace().__anext__())  # type: ignore[arg-type]
        self.visitor = OWNER
        late, late_pump = self.connected()
        self.visitor = Visitor("ann (process 7)", Level.SEE)
        for _ in range(30):
            other, self.pump = self.connected()
            self.ask(other.trace().__anext__())  # type: ignore[arg-type]
        for client, self.pump in ((owner, owner_pump), (late, late_pump)):
            self.assertEqual(self.answer(client.about()), self.daemon.about())

    def test_commands_of_a_level(self) -> None:
        """Commands under way of those who may only see have a limit, which is no other level's."""
        self.factory.max_connections = 100
        owner, owner_pump = self.client, self.pump
        self.visitor = Visitor("ann (process 7)", Level.SEE)
        asked: list[Deferred[Any]] = []
        for _ in range(MOST_OF_A_LEVEL + 1):
            other, self.pump = self.connected()
            asked.append(self.ask(other.trace().__anext__()))  # type: ignore[arg-type]
        self.failureResultOf(asked.pop(), NotDone)
        for each in asked:
            self.assertNoResult(each)
        self.visitor, self.pump = OWNER, owner_pump
        self.answer(owner.about())

    def handshaking(self, host: str) -> tuple[ManagementProtocol, TLSTransport]:
        """Connect somebody over TLS whose handshake is not complete."""
        server = self.factory.buildProtocol(None)
        transport = TLSTransport(peerAddress=IPv4Address("TCP", host, 4000))
        server.makeConnection(transport)
        return server, transport

    def test_strangers(self) -> None:
        """However many begin TLS and stop there, who completes the handshake is served."""
        self.factory.max_connections = 1
        server, transport = self.handshaking("192.0.2.1")
        strangers = [self.handshaking("192.0.2.2")[1] for _ in range(200)]
        self.assertEqual(sum(not each.disconnected for each in strangers), MOST_HANDSHAKES - 1)
        server.handshakeCompleted()
        strangers += [self.handshaking("192.0.2.2")[1] for _ in range(200)]
        server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"About").serialize())
        self.assertIn(b"version", transport.value())
        self.assertFalse(transport.disconnected)
        self.clock.advance(HANDSHAKE_LIMIT)
        self.assertTrue(all(each.disconnected for each in strangers))
        self.assertFalse(transport.disconnected)

    def test_silent_strangers(self) -> None:
        """From one address: who has begun the handshake is kept before who says nothing."""
        _, transport = self.handshaking("192.0.2.2")
        transport.has_begun = True
        for _ in range(200):
            self.handshaking("192.0.2.2")
        self.assertFalse(transport.disconnected)

    def test_idle(self) -> None:
        """A silent client is dropped after the idle limit."""
        _, transport = self.silent()
        self.clock.advance(59.9)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(transport.disconnected)

    def test_not_idle(self) -> None:
        """A client that asks now and then stays."""
        for _ in range(3):
            self.clock.advance(59)
            self.answer(self.client.about())

    def test_no_timer_left(self) -> None:
        """A connection that has gone leaves no timer behind."""
        self.answer(self.client.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_malformed(self) -> None:
        """What is no command ends its connection with one line, and no traceback."""
        box = amp.AmpBox
        ask = {b"_ask": b"1"}
        for sent, why in (
            (b"\0\0", "a box is no command"),
            (box(_answer=b"1").serialize(), "a box is no command"),
            (box(_answer=b"1", _command=b"About").serialize(), "a box is no command"),
            (box(_error=b"7").serialize(), "a box is no command"),
            (box(ask).serialize(), "a box is no command"),
            (b"\xff\xff", "what came is no AMP: a key of 65535 bytes"),
            (b"\0\1a\xff\xff" + b"x" * 65535 + b"\0\1b\0\0", "a box is longer than 65536 bytes"),
            (
                b"".join(b"\0\1a\0\xff" + b"x" * 255 for _ in range(300)),
                "a box is longer than 65536 bytes",
            ),
            (box(_command=b"nosuch").serialize(), "a command that wants no answer has failed"),
        ):
            factory = ManagementFactory(
                self.daemon.responders, self.clock, visitor_of=lambda _: OWNER
            )
            with capturedLogs() as events:
                for _ in range(3):
                    server = factory.buildProtocol(None)
                    transport = StringTransport()
                    server.makeConnection(transport)
                    server.dataReceived(sent + box(ask, _command=b"About").serialize())
                    self.assertTrue(transport.disconnecting, sent[:40])
                    self.assertEqual(transport.value(), b"")
            told = f"Management connection closed: {why}"
            self.assertEqual([line for line in warnings(events) if why in line], [told])
            self.assertEqual([event for event in events if "log_failure" in event], [])
            self.clock.advance(1)
            self.assertTrue(transport.disconnected)

    def test_malformed_in_many_ways(self) -> None:
        """However many ways there are to be malformed, they are one line a minute."""
        factory = self.owners_factory()
        with capturedLogs() as events:
            for sent in (
                b"\xff\xff",
                b"\1\0",
                b"\x12\x34",
                b"\0\0",
                b"\0\1a\xff\xff" + b"x" * 65536,
            ):
                server = factory.buildProtocol(None)
                server.makeConnection(StringTransport())
                server.dataReceived(sent)
        self.assertEqual(len(warnings(events)), 1)

    def test_name_that_is_not_ascii(self) -> None:
        """A command of such a name is unknown, and no fault."""
        server, transport = self.silent()
        with capturedLogs() as events:
            server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"Ab\xdcut").serialize())
        self.assertIn(b"Unhandled Command", transport.value())
        self.assertEqual([event for event in events if "log_failure" in event], [])

    def test_byte_by_byte(self) -> None:
        """A box that does not end counts as silence."""
        server, transport = self.silent()
        for _ in range(59):
            self.clock.advance(1)
            server.dataReceived(b"\0\1a\0\1b")
        self.assertFalse(transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnected)

    def test_no_tls(self) -> None:
        """AMP's own command for TLS is unknown here."""
        server, transport = self.silent()
        server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"StartTLS").serialize())
        self.assertIn(b"Unhandled Command", transport.value())
        self.assertFalse(transport.disconnecting)

    def test_answers_not_read(self) -> None:
        """Who does not read its answers is asked for nothing more until it has."""
        server, transport = self.silent()
        asking = amp.AmpBox(_ask=b"1", _command=b"About").serialize()
        server.dataReceived(asking)
        one = len(transport.value())
        server.pauseProducing()  # as the transport does when it has too much
        server.dataReceived(asking * 100)
        self.assertEqual(len(transport.value()), one)
        self.assertEqual(transport.producerState, "paused")
        server.resumeProducing()
        self.assertEqual(len(transport.value()), 101 * one)

    def test_too_many_commands(self) -> None:
        """Commands that are not answered yet have a limit."""
        self.daemon.reading = Deferred()
        server, transport = self.silent()
        server.dataReceived(amp.AmpBox(_ask=b"1", _command=b"Reload").serialize() * 17)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.daemon.asked), 16)

    def test_asked_all_the_time(self) -> None:
        """A program that asks for the same again and again fills no log."""
        with capturedLogs() as events:
            for _ in range(21):
                self.answer(self.client.report("msul1"))
                self.answer(self.client.report())
                self.clock.advance(1)
        lines = [formatEvent(e) for e in events if e["log_level"] is LogLevel.info]
        asked = "Asked over the management port by lonc itself: report"
        of_all = [line for line in lines if not line.startswith("msul1: ")]
        self.assertEqual(of_all, [asked] + [f"{asked} (9 like this left out)"] * 2)
        self.assertEqual(
            [line for line in lines if line not in of_all], [f"msul1: {each}" for each in of_all]
        )

    def test_stranger(self) -> None:
        """Who speaks another protocol is closed without an answer or a traceback."""
        server, transport = self.silent()
        server.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(transport.value(), b"")

    def test_disconnect(self) -> None:
        """All connections are closed on request, and the request ends when they are."""
        closed = self.factory.disconnect()
        self.assertNoResult(closed)
        self.pump.flush()
        self.assertIsNone(self.successResultOf(closed))
        self.assertIsNone(self.successResultOf(self.factory.disconnect()))

    def test_disconnect_who_does_not_read(self) -> None:
        """A client that does not take its answer is dropped all the same."""
        _, transport = self.silent()
        self.factory.disconnect(limit=2.0)
        self.assertTrue(transport.disconnecting)
        self.clock.advance(2.0)
        self.assertTrue(transport.disconnected)


class ExampleTests(TestCase):
    """The program in the documentation, as a process of its own, over a real UNIX socket."""

    timeout = 600

    def setUp(self) -> None:
        if not os.path.exists(EXAMPLE):
            self.skipTest("lonc is installed without its documentation")
        folder = tempfile.mkdtemp()  # trial's own would be too long for a socket's path
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "lonc.amp")
        self.daemon = NotedDaemon(
            a_status("msul1", idle=3, waiting=4, con_lost={"timeout": 5, "dead": 6}),
            a_status("msua1", state="DEAD", retries_left=0),
        )
        clock: Any = reactor
        self.factory = ManagementFactory(self.daemon.responders, clock, visitor_of=lambda _: OWNER)
        port = clock.listenUNIX(self.path, self.factory, mode=0o600)
        self.addCleanup(self.factory.disconnect)
        self.addCleanup(port.stopListening)

    async def run_example(self, *arguments: str) -> tuple[str, str, int]:
        """Give what the program prints, what it complains of, and its exit status."""
        out, err, code = await getProcessOutputAndValue(
            sys.executable, [EXAMPLE, f"unix:{self.path}", *arguments], env=dict(os.environ)
        )
        return out.decode(), err.decode(), code

    async def test_list(self) -> None:
        """A line for each host, with its figures, below a heading."""
        out, err, code = await self.run_example("list")
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

    async def test_commands(self) -> None:
        """S18: what the program is told to do reaches the daemon, and what it is told is shown."""
        self.assertEqual(await self.run_example("debug", "msul1", "2"), ("", "", 0))
        self.assertEqual(await self.run_example("close"), ("", "", 0))
        self.assertEqual(await self.run_example("reread"), ("1 new host: msua1\n", "", 0))
        closed = [("close", "msul1"), ("close", "msua1")]
        self.assertEqual(self.daemon.asked, [("debug", "msul1", 2), *closed, ("reread",)])

    async def test_unknown_host(self) -> None:
        """An error is one line, and the exit status is not 0."""
        self.assertEqual(
            await self.run_example("reset", "nosuch"),
            ("", "manage.py: nosuch is not in hosts.tab\n", 1),
        )

    async def test_nobody_listens(self) -> None:
        """Where no lonc runs, that is one line too."""
        self.path += ".nosuch"
        out, err, code = await self.run_example("list")
        self.assertEqual((out, code), ("", 1))
        self.assertTrue(err.startswith(f"manage.py: unix:{self.path}: "), err)
        self.assertEqual(len(err.splitlines()), 1, err)
