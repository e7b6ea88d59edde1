"""HTTP connections: their places, their time, and what is refused."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from lonc.report.status import HostStatus
from lonc.report.times import HostTimes
from lonc.test.fixtures.statuses import a_status
from lonc.test.fixtures.web_reports import Reports
from lonc.web.channel import MAX_CHECKS, MAX_CONNECTIONS, TIME_LIMIT
from lonc.web.history import History
from lonc.web.site import site

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 8663)
OUTSIDE = IPv4Address("TCP", "192.0.2.7", 8663)


class Transport(StringTransport):
    """
    A client's transport.

    :ivar blocks: whether the client reads nothing.
    """

    blocks = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.blocks and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))


class Connection:
    """A client's connection to a site, and what it reads."""

    def __init__(self, case: ChannelCase, address: IAddress) -> None:
        self.clock = case.clock
        self.channel = case.site.buildProtocol(address)
        self.transport = Transport(hostAddress=address, peerAddress=address)
        self.channel.makeConnection(self.transport)

    def say(self, data: bytes) -> None:
        """Send bytes, if the site reads."""
        assert self.transport.producerState == "producing"
        self.channel.dataReceived(data)
        for _ in range(100):
            self.clock.advance(0.0)

    def ask(self, target: str, *headers: str, end: str = "") -> None:
        """Send a request."""
        lines = [f"GET {target} HTTP/1.1", *headers, "", end]
        self.say("\r\n".join(lines).encode())

    @property
    def read(self) -> bytes:
        """What it could read so far."""
        value: bytes = self.transport.value()
        return value

    @property
    def statuses(self) -> list[int]:
        """The status of each answer."""
        parts = self.read.split(b"HTTP/1.1 ")[1:]
        return [int(part[:3]) for part in parts]

    @property
    def closed(self) -> bool:
        """Whether the site has closed it."""
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def block(self) -> None:
        """Read nothing more."""
        self.channel.pauseProducing()

    def take(self) -> None:
        """Read what is there."""
        self.channel.resumeProducing()
        for _ in range(100):
            self.clock.advance(0.0)


class ChannelCase(SynchronousTestCase):
    """A site in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reports = Reports(a_status("l1"))
        self.site = site(self.reports, History(), self.clock)

    def connect(self, address: IAddress = LOOPBACK) -> Connection:
        """Return a new connection."""
        return Connection(self, address)


class PlacesTests(ChannelCase):
    """Who has to go when all places are taken."""

    def test_idle_one_goes(self) -> None:
        """The connection that has been idle for longest makes room for another."""
        first, second, *others = [self.connect() for _ in range(MAX_CONNECTIONS)]
        self.clock.advance(1.0)
        first.ask("/healthz", "Connection: keep-alive")  # this one is over
        first = self.connect()
        first.say(b"GET / HT")
        newcomer = self.connect()
        self.assertEqual((second.closed, first.closed, newcomer.closed), (True, False, False))
        self.assertFalse(any(each.closed for each in others))

    def test_oldest_unfinished_goes(self) -> None:
        """Where all ask, it is the one whose request began first and is not finished."""
        everyone = [self.connect() for _ in range(MAX_CONNECTIONS)]
        for each in reversed(everyone):
            each.say(b"GET /metrics HT")
        newcomer = self.connect()
        self.assertEqual([each.closed for each in everyone], [False] * 63 + [True])
        newcomer.ask("/metrics")
        self.assertEqual(newcomer.statuses, [200])

    def test_about_to_ask(self) -> None:
        """Who has just connected stays, though older ones have begun to ask."""
        older = [self.connect() for _ in range(MAX_CONNECTIONS)]
        for each in older:
            each.say(b"GET / HT")
        self.clock.advance(1.0)
        newcomers = [self.connect() for _ in range(10)]
        self.assertFalse(any(each.closed for each in newcomers))
        self.assertEqual([each.closed for each in older], [True] * 10 + [False] * 54)

    def test_asks_for_longer(self) -> None:
        """Who asks nothing goes first, also where another has asked for longer."""
        asks = self.connect()
        asks.say(b"GET / HT")
        self.clock.advance(1.0)
        idle = [self.connect() for _ in range(MAX_CONNECTIONS - 1)]
        self.clock.advance(1.0)
        self.connect()
        self.assertEqual((asks.closed, idle[0].closed), (False, True))

    def test_health_checks(self) -> None:
        """One from this machine that asks whether lonc is well keeps its place, whoever comes."""
        check = self.connect()
        self.patch(self.site, "getResourceFor", lambda request: Hanging())
        check.ask("/readyz")
        outside = self.connect(OUTSIDE)
        outside.ask("/readyz")
        for _ in range(2 * MAX_CONNECTIONS):
            self.connect().say(b"GET / HT")
        self.assertEqual((check.closed, outside.closed), (False, True))
        for address in [LOOPBACK, UNIXAddress(None)] * (MAX_CHECKS // 2):
            self.connect(address).ask("/healthz")
        self.assertTrue(check.closed)

    def test_check_is_over(self) -> None:
        """A check has its place until it is answered: then it is closed."""
        check = self.connect()
        check.ask("/healthz")
        self.assertEqual((check.statuses, check.closed), ([200], True))

    def test_all_close(self) -> None:
        """When the port moves, all are closed, and nothing is kept of them."""
        check, usual = self.connect(), self.connect(UNIXAddress(None))
        check.ask("/healthz")
        self.site.places.close()
        for each in (check, usual):
            self.assertTrue(each.closed)
            each.channel.connectionLost()
        self.assertEqual((self.site.places.usual, self.site.places.checks), ({}, {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Hanging:
    """A resource that does not answer."""

    def render(self, request: object) -> int:
        return 1  # NOT_DONE_YET


class TimeTests(ChannelCase):
    """How long a request may take."""

    def test_drip(self) -> None:
        """A request that comes byte by byte has to be there in time all the same."""
        client = self.connect()
        for _ in range(TIME_LIMIT - 1):
            client.say(b"G")
            self.clock.advance(1.0)
        self.assertFalse(client.closed)
        client.say(b"G")
        self.clock.advance(1.0)
        self.assertTrue(client.closed)

    def test_nothing_asked(self) -> None:
        """A connection on which nothing comes is closed too."""
        client = self.connect()
        self.clock.advance(TIME_LIMIT - 0.1)
        self.assertFalse(client.closed)
        self.clock.advance(0.1)
        self.assertTrue(client.closed)

    def test_answer_not_taken(self) -> None:
        """The time ends when the answer is taken, not when it is made."""
        client = self.connect()
        client.channel.pauseProducing()
        client.channel.dataReceived(b"GET /healthz HTTP/1.1\r\n\r\n")
        self.clock.advance(TIME_LIMIT)
        self.assertTrue(client.closed)

    def test_each_its_own(self) -> None:
        """Each request on a connection has the whole time."""
        client = self.connect()
        for _ in range(4):
            self.clock.advance(TIME_LIMIT - 1)
            client.ask("/hosts/l1")
        self.assertEqual(client.statuses, [200] * 4)


class PipelineTests(ChannelCase):
    """Requests that do not wait for an answer."""

    def test_answered_in_turn(self) -> None:
        """They are answered one after the other."""
        client = self.connect()
        client.say(b"GET /hosts/l1 HTTP/1.1\r\n\r\n" * 5)
        self.assertEqual(client.statuses, [200] * 5)

    def test_nobody_reads(self) -> None:
        """Where nobody reads, no further one is begun, and nothing more is read."""
        for path in ("/hosts/l1", "/metrics"):
            client = self.connect()
            client.transport.blocks = True
            client.say(b"GET %s HTTP/1.1\r\n\r\n" % path.encode() * 2000)
            self.assertEqual(len(client.statuses), 1)
            self.assertEqual(client.transport.producerState, "paused")

    def test_long_answer(self) -> None:
        """Of a long one no more is made than is taken, and all of it in the end."""
        for number in range(500):
            self.reports.hosts[f"h{number}"] = a_status(f"h{number}")
        for path in ("/?all=yes", "/metrics"):
            self.reports.taken = {host_id: HostTimes() for host_id in self.reports.hosts}
            client = self.connect()
            client.transport.blocks = True
            client.ask(path)
            self.assertLess(len(client.read), 50_000)
            client.transport.blocks = False
            for _ in range(20):
                client.take()
            self.assertGreater(len(client.read), 100_000)
            self.assertTrue(client.read.endswith(b"0\r\n\r\n"))

    def test_shared_look(self) -> None:
        """Requests of one moment share a look at all hosts; the next moment brings another."""
        looks = []
        looking = self.reports.looking

        def counted() -> Iterator[HostStatus]:
            looks.append(self.clock.seconds())
            yield from looking()

        self.patch(self.reports, "looking", counted)
        slow = self.connect()
        slow.transport.blocks = True
        slow.ask("/metrics")
        others = [self.connect() for _ in range(3)]
        for each in others:
            each.ask("/metrics")
        self.assertEqual(looks, [0.0])
        self.clock.advance(1.0)
        later = self.connect()
        later.ask("/metrics")
        self.assertEqual(looks, [0.0, 1.0])
        for each in (*others, later):
            self.assertIn(b'lonc_host_up{host="l1"}', each.read)
        slow.transport.blocks = False
        for _ in range(100):
            slow.take()
        self.assertIn(b'lonc_host_up{host="l1"}', slow.read)

    def test_it_reads_again(self) -> None:
        """What was sent meanwhile is answered once the answer before it is taken."""
        client = self.connect()
        client.block()
        client.transport.producerState = "producing"
        client.say(b"GET /hosts/l1 HTTP/1.1\r\n\r\n" * 3)
        self.assertEqual(client.statuses, [200])
        client.take()
        self.assertEqual(client.statuses, [200] * 3)


class RefusalTests(ChannelCase):
    """What is not served."""

    def test_body(self) -> None:
        """A body is refused before it is read."""
        for header in ("Content-Length: 300000000", "Transfer-Encoding: chunked"):
            client = self.connect()
            client.ask("/", header, end="x" * 1000)
            self.assertEqual((client.statuses, client.closed), ([413], True))

    def test_empty_body(self) -> None:
        """One that is announced as empty is none."""
        client = self.connect()
        client.ask("/healthz", "Content-Length: 0")
        self.assertEqual(client.statuses, [200])

    def test_absolute_target(self) -> None:
        """What a proxy would be asked is served as if it had been asked here."""
        for target in ("http://localhost:8663/healthz", "HTTP://127.0.0.1/healthz?x=1"):
            client = self.connect()
            client.ask(target, "Host: elsewhere.example.org")
            self.assertEqual(client.statuses, [200], target)
        client = self.connect()
        client.ask("http://elsewhere.example.org/healthz", "Host: localhost")
        self.assertEqual(client.statuses, [421])


class NamesTests(ChannelCase):
    """Under which names the pages can be had."""

    def status(self, host: str, address: IAddress = LOOPBACK) -> int:
        """Return the status of an answer."""
        client = self.connect(address)
        client.ask("/healthz", f"Host: {host}")
        if client.statuses == [421]:
            self.assertIn(b"loncHTTPNames", client.read)
        return client.statuses[0]

    def test_loopback(self) -> None:
        """On a loopback address only this machine's names will do, and addresses."""
        mapped = IPv6Address("TCP", "::ffff:127.0.0.1", 8663)
        for address in (LOOPBACK, IPv6Address("TCP", "::1", 8663), mapped):
            for good in (
                *("127.0.0.1:8663", "127.9.9.9", "[::1]:8663", "192.0.2.7", "localhost"),
                *("LocalHost:8663", "localhost.", "own.example.org", "OWN.example.org:8663"),
            ):
                self.assertEqual(self.status(good, address), 200, good)
            for bad in ("rebound.example.org", "127.0.0.1.example.org", "localhost.example", "x:1"):
                self.assertEqual(self.status(bad, address), 421, bad)

    def test_no_name(self) -> None:
        """No browser leaves the name out: what does is served."""
        client = self.connect()
        client.say(b"GET /healthz HTTP/1.0\r\n\r\n")
        self.assertIn(b"ok", client.read)

    def test_given_names(self) -> None:
        """The setting adds names."""
        self.reports.names = ["proxy.example.org"]
        self.assertEqual(self.status("proxy.example.org"), 200)
        self.assertEqual(self.status("rebound.example.org"), 421)

    def test_elsewhere(self) -> None:
        """On other addresses and sockets any name will do, unless the setting gives some."""
        for address in (OUTSIDE, UNIXAddress(None)):
            self.reports.names = []
            self.assertEqual(self.status("any.example.org", address), 200)
            self.reports.names = ["proxy.example.org"]
            self.assertEqual(self.status("proxy.example.org", address), 200)
            self.assertEqual(self.status("any.example.org", address), 421)


class CompressionTests(ChannelCase):
    """The metrics of many hosts are long, and much of them repeats."""

    def test_metrics(self) -> None:
        """They come compressed for those that can take it so."""
        plain, packed = self.connect(), self.connect()
        plain.say(b"GET /metrics HTTP/1.0\r\n\r\n")
        packed.say(b"GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        head, _, content = packed.read.partition(b"\r\n\r\n")
        self.assertIn(b"Content-Encoding: gzip", head)
        text = gzip.decompress(content)
        self.assertEqual(text, plain.read.partition(b"\r\n\r\n")[2])
        self.assertLess(5 * len(content), len(text))

    def test_head(self) -> None:
        """Who asks for the head alone gets that, and the next answer follows."""
        client = self.connect()
        client.say(b"HEAD /metrics HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n")
        self.assertTrue(client.read.endswith(b"\r\n\r\n"))
        client.ask("/healthz")
        self.assertEqual(client.statuses, [200, 200])
        self.assertTrue(client.read.endswith(b"\r\n\r\nok\n"))
