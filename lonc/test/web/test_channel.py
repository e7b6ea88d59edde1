"""HTTP connections: slots, time limits, and refused requests."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from lonc.report.status import HostStatus
from lonc.report.times import HostTimes
from lonc.test.fixtures.statuses import a_status
from lonc.test.fixtures.web_reports import LOOPBACK, SiteTestCase
from lonc.web.channel import MAX_CHECKS, MAX_CONNECTIONS, TIME_LIMIT

OUTSIDE = IPv4Address("TCP", "192.0.2.7", 8663)


class ChannelCase(SiteTestCase):
    """A site with one host."""

    hosts = (a_status("l1"),)


class PlacesTests(ChannelCase):
    """Which connection is closed if all slots are taken."""

    def test_idle_one_goes(self) -> None:
        """The connection that has been idle for longest is closed."""
        first, second, *others = [self.connect() for _ in range(MAX_CONNECTIONS)]
        self.clock.advance(1.0)
        first.ask("/healthz", "Connection: keep-alive")  # this one is over
        first = self.connect()
        first.say(b"GET / HT")
        newcomer = self.connect()
        self.assertEqual((second.closed, first.closed, newcomer.closed), (True, False, False))
        self.assertFalse(any(each.closed for each in others))

    def test_oldest_unfinished_goes(self) -> None:
        """If all have unfinished requests, the one whose request began first is closed."""
        everyone = [self.connect() for _ in range(MAX_CONNECTIONS)]
        for each in reversed(everyone):
            each.say(b"GET /metrics HT")
        newcomer = self.connect()
        self.assertEqual([each.closed for each in everyone], [False] * 63 + [True])
        newcomer.ask("/metrics")
        self.assertEqual(newcomer.statuses, [200])

    def test_about_to_ask(self) -> None:
        """A new connection is kept, even if older ones have unfinished requests."""
        older = [self.connect() for _ in range(MAX_CONNECTIONS)]
        for each in older:
            each.say(b"GET / HT")
        self.clock.advance(1.0)
        newcomers = [self.connect() for _ in range(10)]
        self.assertFalse(any(each.closed for each in newcomers))
        self.assertEqual([each.closed for each in older], [True] * 10 + [False] * 54)

    def test_asks_for_longer(self) -> None:
        """An idle connection is closed before one whose request began earlier."""
        asks = self.connect()
        asks.say(b"GET / HT")
        self.clock.advance(1.0)
        idle = [self.connect() for _ in range(MAX_CONNECTIONS - 1)]
        self.clock.advance(1.0)
        self.connect()
        self.assertEqual((asks.closed, idle[0].closed), (False, True))

    def test_health_checks(self) -> None:
        """Health checks from this machine have slots of their own."""
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
        """The connection of a health check is closed after the answer."""
        check = self.connect()
        check.ask("/healthz")
        self.assertEqual((check.statuses, check.closed), ([200], True))

    def test_all_close(self) -> None:
        """If the port moves, all connections are closed and forgotten."""
        check, usual = self.connect(), self.connect(UNIXAddress(None))
        check.ask("/healthz")
        self.site.slots.close()
        for each in (check, usual):
            self.assertTrue(each.closed)
            each.channel.connectionLost()
        self.assertEqual((self.site.slots.usual, self.site.slots.checks), ({}, {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Hanging:
    """A resource that does not answer."""

    def render(self, request: object) -> int:
        return 1  # NOT_DONE_YET


class TimeTests(ChannelCase):
    """How long a request may take."""

    def test_drip(self) -> None:
        """A request has to be there in time, also if it comes byte by byte or not at all."""
        for piece in (b"G", b""):
            client = self.connect()
            for _ in range(TIME_LIMIT):
                self.assertFalse(client.closed)
                if piece:
                    client.say(piece)
                self.clock.advance(1.0)
            self.assertTrue(client.closed)

    def test_answer_not_taken(self) -> None:
        """The time limit also applies to reading the answer."""
        client = self.connect()
        client.channel.pauseProducing()
        client.channel.dataReceived(b"GET /healthz HTTP/1.1\r\n\r\n")
        self.clock.advance(TIME_LIMIT)
        self.assertTrue(client.closed)

    def test_each_its_own(self) -> None:
        """Each request on a connection has the whole time limit."""
        client = self.connect()
        for _ in range(4):
            self.clock.advance(TIME_LIMIT - 1)
            client.ask("/hosts/l1")
        self.assertEqual(client.statuses, [200] * 4)


class PipelineTests(ChannelCase):
    """Pipelined requests."""

    def test_answered_in_turn(self) -> None:
        """They are answered in order."""
        client = self.connect()
        client.say(b"GET /hosts/l1 HTTP/1.1\r\n\r\n" * 5)
        self.assertEqual(client.statuses, [200] * 5)

    def test_nobody_reads(self) -> None:
        """If the client does not read, no further request is begun or read."""
        for path in ("/hosts/l1", "/metrics"):
            client = self.connect()
            client.transport.blocks = True
            client.say(b"GET %s HTTP/1.1\r\n\r\n" % path.encode() * 2000)
            self.assertEqual(len(client.statuses), 1)
            self.assertEqual(client.transport.producerState, "paused")

    def test_long_answer(self) -> None:
        """A long page is generated only as fast as it is read, and completely in the end."""
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
        """Concurrent requests share a snapshot of all hosts; later ones get a new one."""
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
        """Pipelined requests are answered once the previous answer was read."""
        client = self.connect()
        client.channel.pauseProducing()
        client.transport.producerState = "producing"
        client.say(b"GET /hosts/l1 HTTP/1.1\r\n\r\n" * 3)
        self.assertEqual(client.statuses, [200])
        client.take()
        self.assertEqual(client.statuses, [200] * 3)


class RefusalTests(ChannelCase):
    """Refused requests."""

    def test_body(self) -> None:
        """A request with a body is refused before the body is read."""
        for header in ("Content-Length: 300000000", "Transfer-Encoding: chunked"):
            client = self.connect()
            client.ask("/", header, end="x" * 1000)
            self.assertEqual((client.statuses, client.closed), ([413], True))

    def test_served(self) -> None:
        """Requests with an empty body, and those in absolute form, are served."""
        for target, header, status in (
            ("/healthz", "Content-Length: 0", 200),
            ("http://localhost:8663/healthz", "Host: elsewhere.example.org", 200),
            ("HTTP://127.0.0.1/healthz?x=1", "Host: elsewhere.example.org", 200),
            ("http://elsewhere.example.org/healthz", "Host: localhost", 421),
        ):
            client = self.connect()
            client.ask(target, header)
            self.assertEqual(client.statuses, [status], (target, header))


class NamesTests(ChannelCase):
    """The host names that requests may use."""

    def status(self, host: str, address: IAddress = LOOPBACK) -> int:
        """Return the status of an answer."""
        client = self.connect(address)
        client.ask("/healthz", f"Host: {host}")
        if client.statuses == [421]:
            self.assertIn(b"loncHTTPNames", client.read)
        return client.statuses[0]

    def test_loopback(self) -> None:
        """On a loopback address only this machine's names, and addresses, are allowed."""
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
        """A request without a name, which no browser sends, is served."""
        client = self.connect()
        client.say(b"GET /healthz HTTP/1.0\r\n\r\n")
        self.assertIn(b"ok", client.read)

    def test_given_names(self) -> None:
        """The setting adds names; on other addresses, any name is allowed without the setting."""
        for address, names, host, status in (
            (LOOPBACK, ["proxy.example.org"], "proxy.example.org", 200),
            (LOOPBACK, ["proxy.example.org"], "rebound.example.org", 421),
            (OUTSIDE, [], "any.example.org", 200),
            (OUTSIDE, ["proxy.example.org"], "proxy.example.org", 200),
            (OUTSIDE, ["proxy.example.org"], "any.example.org", 421),
            (UNIXAddress(None), [], "any.example.org", 200),
            (UNIXAddress(None), ["proxy.example.org"], "any.example.org", 421),
        ):
            self.reports.names = names
            self.assertEqual(self.status(host, address), status, (address, names, host))


class CompressionTests(ChannelCase):
    """Compression of the metrics."""

    def test_metrics(self) -> None:
        """Metrics are compressed if the client accepts that."""
        plain, packed = self.connect(), self.connect()
        plain.say(b"GET /metrics HTTP/1.0\r\n\r\n")
        packed.say(b"GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        head, _, content = packed.read.partition(b"\r\n\r\n")
        self.assertIn(b"Content-Encoding: gzip", head)
        text = gzip.decompress(content)
        self.assertEqual(text, plain.read.partition(b"\r\n\r\n")[2])
        self.assertLess(5 * len(content), len(text))

    def test_head(self) -> None:
        """HEAD is answered without content, and the connection stays usable."""
        client = self.connect()
        client.say(b"HEAD /metrics HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n")
        self.assertTrue(client.read.endswith(b"\r\n\r\n"))
        client.ask("/healthz")
        self.assertEqual(client.statuses, [200, 200])
        self.assertTrue(client.read.endswith(b"\r\n\r\nok\n"))
