# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""The pages and the metrics, over HTTP."""

from __future__ import annotations

from html.parser import HTMLParser

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from lonc.report.times import BOUNDS, HostTimes
from lonc.test.fixtures.statuses import NOW, a_daemon, a_status
from lonc.test.fixtures.web_reports import Reports
from lonc.web.history import HEIGHT, History, graph
from lonc.web.metrics import DAEMON_FAMILIES, HOST_FAMILIES
from lonc.web.site import site

EVIL = '<script>alert("1")</script>'


class Balanced(HTMLParser):
    """Sees whether each element that is begun ends, in order."""

    EMPTY = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            raise AssertionError(f"{tag} ends what it has not begun")


class SiteCase(SynchronousTestCase):
    """A site in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.history = History()
        self.reports = Reports(
            a_status("up1", requests=7, answers=6, con_lost={"dead": 1}, handshakes={"ready": 2}),
            a_status("down1", state="DEAD", last_failure={"what": EVIL, "when": NOW}),
        )
        self.site = site(self.reports, self.history, self.clock)

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        """Return status, headers and content of an answer."""
        protocol = self.site.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        request = f"{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        protocol.dataReceived(request.encode())
        for _ in range(100):
            self.clock.advance(0.0)
        head, _, content = transport.value().decode().partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, content


class PageTests(SiteCase):
    """What a person reads."""

    def page(self, path: str) -> str:
        """Return a page, after a look at what each of them has to be."""
        status, headers, content = self.ask(path)
        self.assertEqual((status, headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertIn("default-src 'none'", headers["content-security-policy"])
        page = Balanced()
        page.feed(content)
        self.assertEqual(page.open, [])
        self.assertLessEqual({"title", "h1", "main"}, page.seen)
        self.assertNotIn("script", page.seen)
        return content

    def test_worst_first(self) -> None:
        """The host that is DEAD stands above the one that is well."""
        page = self.page("/")
        table = page[page.index("<tbody>") :]
        self.assertLess(table.index("down1"), table.index("up1"))

    def test_escaped(self) -> None:
        """What a lond says is text."""
        for path in ("/", "/hosts/down1"):
            self.assertIn("&lt;script&gt;", self.page(path))

    def test_host_of_any_name(self) -> None:
        """A host id is no path and no markup."""
        name = "a/../<b>"
        self.reports.hosts = {name: a_status(name)}
        self.assertIn("/hosts/a%2F..%2F%3Cb%3E", self.page("/"))
        self.assertIn("a/../&lt;b&gt; is", self.page("/hosts/a%2F..%2F%3Cb%3E"))

    def test_unknown(self) -> None:
        """What is not there is not found."""
        self.assertEqual([self.ask(path)[0] for path in ("/hosts/x", "/x")], [404, 404])

    def test_only_to_be_seen(self) -> None:
        """HEAD has no content; what could change something is refused."""
        self.assertEqual(self.ask("/", "HEAD")[::2], (200, ""))
        for method, status in {"POST": 405, "PUT": 501, "DELETE": 501}.items():
            self.assertEqual(self.ask("/", method)[0], status)

    def test_no_data_of_clients(self) -> None:
        """The log line of a host may hold a command: it is not shown."""
        self.reports.hosts["up1"] = a_status("up1", last_log="passwd of alice")
        for path in ("/", "/hosts/up1", "/metrics"):
            self.assertNotIn("alice", self.ask(path)[2])

    def test_graphs(self) -> None:
        """The latest sample is at the right, the highest at the top."""
        self.history.add(0.0, 0, 0, 0.0)
        self.history.add(30.0, 60, 3, 0.5)
        self.history.add(60.0, 60, 0, 0.25)
        page = self.page("/")
        self.assertIn("Requests a second: <b>0.0</b>", page)
        self.assertEqual(graph([1.0, 0.0]).points, f"236,1.0 238,{HEIGHT - 1:.1f}")
        self.assertEqual(graph([]).points, "")


class MetricsTests(SiteCase):
    """What Prometheus reads, by its own parser."""

    def metrics(self) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
        """Return name -> labels -> value."""
        status, headers, content = self.ask("/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(headers["content-type"].startswith("text/plain; version=0.0.4"))
        told: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(content):
            self.assertNotEqual(family.type, "unknown")
            for sample in family.samples:
                values = told.setdefault(sample.name, {})
                labels = frozenset(sample.labels.items())
                self.assertNotIn(labels, values)
                values[labels] = sample.value
        return told

    def test_all_are_there(self) -> None:
        """Each that is promised has a value."""
        self.reports.daemon = a_daemon(certificate="/c", certificate_ends=NOW, reloads={"done": 2})
        told = self.metrics()
        promised = {each[0] for each in (*HOST_FAMILIES, *DAEMON_FAMILIES)}
        found = {name.removesuffix("_bucket") for name in told}
        self.assertEqual(promised - found, set())

    def test_values(self) -> None:
        """They are those of the reports; only a host that is up counts as up."""
        told = self.metrics()
        self.assertEqual(told["lonc_requests_total"][frozenset({("host", "up1")})], 7)
        lost = frozenset({("host", "up1"), ("cause", "dead")})
        self.assertEqual(told["lonc_con_lost_total"][lost], 1)
        up = told["lonc_host_up"]
        self.assertEqual([up[frozenset({("host", host)})] for host in ("up1", "down1")], [1.0, 0.0])

    def test_unproven(self) -> None:
        """A host that has not answered yet is not up."""
        self.reports.hosts["up1"] = a_status("up1", state="unproven")
        self.assertEqual(self.metrics()["lonc_host_up"][frozenset({("host", "up1")})], 0.0)

    def test_histogram(self) -> None:
        """Buckets are cumulative, and the last has all."""
        times = self.reports.taken["up1"]
        times.direct.append(BOUNDS[2])
        times.direct.append(BOUNDS[-1] + 1.0)
        told = self.metrics()
        buckets = told["lonc_lond_seconds_bucket"]

        def bucket(bound: str) -> float:
            return buckets[frozenset({("host", "up1"), ("le", bound)})]

        self.assertEqual([bucket("0.00025"), bucket("0.0005"), bucket("+Inf")], [0, 1, 2])
        host = frozenset({("host", "up1")})
        self.assertEqual(told["lonc_lond_seconds_count"][host], 2)
        self.assertEqual(told["lonc_lond_seconds_sum"][host], BOUNDS[2] + BOUNDS[-1] + 1.0)

    def test_names(self) -> None:
        """A host id with quotes and backslashes is one label."""
        name = 'a"b\\c'
        self.reports.hosts = {name: a_status(name)}
        self.reports.taken = {name: HostTimes()}
        self.assertIn(frozenset({("host", name)}), self.metrics()["lonc_host_up"])

    def test_scraper_that_goes(self) -> None:
        """Nothing is written any more, and nothing fails."""
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"GET /metrics HTTP/1.0\r\n\r\n")
        protocol.connectionLost(connectionDone)
        for _ in range(100):
            self.clock.advance(0.0)


class HealthTests(SiteCase):
    """What watches over the daemon asks."""

    def test_alive(self) -> None:
        """``/healthz`` says ok while the reactor runs."""
        self.assertEqual(self.ask("/healthz")[::2], (200, "ok\n"))

    def test_ready(self) -> None:
        """All sockets listen, or those that do not are named."""
        self.assertEqual(self.ask("/readyz")[::2], (200, "ok\n"))
        self.reports.without_socket = ["up1"]
        self.assertEqual(self.ask("/readyz")[::2], (503, "no socket: up1\n"))
