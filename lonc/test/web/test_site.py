"""The pages and the metrics, over HTTP."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import attrs
from twisted.internet.protocol import connectionDone
from twisted.trial.unittest import SynchronousTestCase

from lonc.report.kinds import KINDS
from lonc.report.recent import NOTHING_LATELY
from lonc.report.status import HostStatus
from lonc.report.times import BOUNDS, HostTimes, Parts
from lonc.test.fixtures.statuses import NOW, a_daemon, a_status
from lonc.test.fixtures.web_reports import SiteTestCase, metric_families
from lonc.web import page
from lonc.web.history import PAUSE, SAMPLES, History
from lonc.web.metrics import DAEMON_FAMILIES, HOST_FAMILIES, PROBLEMS

SECONDS = NOTHING_LATELY.seconds
EVIL = '<script>alert("1")</script>'


class Balanced(HTMLParser):
    """Checks that all elements are closed in order."""

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


class SiteCase(SiteTestCase):
    """A site with a host that is well and one that is DEAD."""

    hosts = (
        a_status("up1", requests=7, answers=6, con_lost={"dead": 1}, handshakes={"ready": 2}),
        a_status("down1", state="DEAD", last_failure={"what": EVIL, "when": NOW}),
    )


class PageTests(SiteCase):
    """The pages of all hosts and of one host."""

    def page(self, path: str) -> str:
        """Return a page, after checks that apply to every page."""
        status, headers, content = self.ask(path)
        self.assertEqual((status, headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertIn("default-src 'none'", headers["content-security-policy"])
        read = Balanced()
        read.feed(content)
        self.assertEqual(read.open, [])
        self.assertLessEqual({"title", "h1", "main"}, read.seen)
        self.assertNotIn("script", read.seen)
        return content

    def test_escaped(self) -> None:
        """Texts from londs and host ids are escaped, in links and in text."""
        for path in ("/", "/hosts/down1"):
            self.assertIn("&lt;script&gt;", self.page(path))
        name = "a/../<b>"
        self.reports.hosts = {name: a_status(name)}
        self.assertIn("/hosts/a%2F..%2F%3Cb%3E", self.page("/"))
        self.assertIn("a/../&lt;b&gt; is", self.page("/hosts/a%2F..%2F%3Cb%3E"))

    def test_unknown(self) -> None:
        """Unknown pages and hosts are answered with 404."""
        self.assertEqual([self.ask(path)[0] for path in ("/hosts/x", "/x")], [404, 404])

    def test_only_to_be_seen(self) -> None:
        """HEAD is answered without content; methods that could change something are refused."""
        self.assertEqual(self.ask("/", "HEAD")[::2], (200, ""))
        for method, status in {"POST": 405, "PUT": 501, "DELETE": 501}.items():
            self.assertEqual(self.ask("/", method)[0], status)

    def test_no_data_of_clients(self) -> None:
        """Log lines of hosts, which can contain commands, are not shown."""
        self.reports.hosts["up1"] = a_status("up1", last_log="passwd of alice")
        for path in ("/", "/hosts/up1", "/metrics"):
            self.assertNotIn("alice", self.ask(path)[2])

    def test_graphs(self) -> None:
        """A graph has the latest sample at the right, and a scale that ends at a round number."""
        for requests in (0, 60, 60):
            self.reports.hosts["up1"] = a_status("up1", requests=requests, seconds=SECONDS)
            self.history.note(self.reports.hosts["up1"])
            self.history.complete(float(requests))
        for path in ("/", "/hosts/up1"):
            text = self.page(path)
            self.assertIn("Requests per second: <b>0</b>", text)
            self.assertIn("60 min<", text)
        drawn = page.graph("", [1.0, 3.0, 0.0])
        self.assertEqual((drawn.top, drawn.highest, drawn.last), (5.0, 3.0, 0.0))
        self.assertEqual(
            drawn.points, f"234,{page.HEIGHT * 0.8} 236,{page.HEIGHT * 0.4} 238,40.0 240,40.0"
        )
        self.assertEqual(page.graph("", []).points, "")

    def test_scales(self) -> None:
        """A scale ends at the next 1, 2 or 5 times a power of ten."""
        for highest, end in ((0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (2.5, 5.0), (7.0, 10.0)):
            self.assertAlmostEqual(page.scale_end(highest), end)
            self.assertAlmostEqual(page.scale_end(highest * 1000), end * 1000 if highest else 1.0)
        self.assertAlmostEqual(page.scale_end(0.003), 0.005)

    def test_folded(self) -> None:
        """Hosts with one cause are one line, which unfolds to a list of at most 100, or a link."""
        top = self.page("/").partition("The last hour")[0]
        self.assertIn('<a href="/hosts/down1">Open the page of down1</a>', top)
        for number in range(150):
            self.reports.hosts[f"ill{number}"] = a_status(f"ill{number}", state="DEAD")
        top = self.page("/").partition("The last hour")[0]
        self.assertEqual(top.count("<details>"), 2)  # half of all are DEAD, that is another
        self.assertIn("151 hosts DEAD", top)
        self.assertIn("… 147 more", top)
        self.assertIn("and 51 more", top)
        self.assertIn("problem=host-dead#hosts", top)

    def test_many_kinds(self) -> None:
        """Of many kinds of problems, the less severe ones are folded into one line."""
        self.patch(page, "GROUPS", 1)
        self.reports.hosts["ill"] = a_status("ill", state="unproven")
        top = self.page("/").partition("The last hour")[0]
        self.assertIn("<summary>1 more kind</summary>", top)
        self.reports.daemon = a_daemon(kept=1)
        self.assertIn("<summary>2 more kinds</summary>", self.page("/"))

    def test_level_of_hosts(self) -> None:
        """Hanging hosts are listed before DEAD ones, slow ones before idle ones."""
        slow = {**SECONDS, "total": {"p50": 1.0, "p99": 2.0, "max": 2.0, "count": 1}}
        self.reports.hosts |= {
            "a-idle": a_status("a-idle"),
            "z-slow": a_status("z-slow", seconds=slow),
            "z-hangs": a_status("z-hangs", waiting=3, oldest_waiter=20.0),
            "z-slower": a_status(
                "z-slower",
                usual=1.0,
                seconds={**SECONDS, "total": {"p50": 1.0, "p99": 9.0, "max": 9.0, "count": 30}},
            ),
            "watched": a_status("watched", state="DEAD"),
        }
        self.reports.daemon = a_daemon(watch=["watched"], slow_answer=5.0)
        self.assertEqual(
            self.listed("/"),
            ["watched", "z-hangs", "z-slower", "down1", "z-slow", "a-idle", "up1"],
        )

    def listed(self, path: str) -> list[str]:
        """Return the hosts of the table."""
        table = self.page(path).partition("<tbody>")[2]
        return re.findall(r'<th scope="row"><a href="/hosts/([^"]+)"', table)

    def test_sorted(self) -> None:
        """A link sorts by each column; used again, it reverses the order."""
        self.reports.hosts |= {"b": a_status("b", waiting=5), "c": a_status("c", waiting=9)}
        text = self.page("/?sort=waiting")
        self.assertIn('aria-sort="descending"><a href="?sort=-waiting#hosts">', text)
        self.assertEqual(self.listed("/?sort=waiting")[:2], ["c", "b"])
        self.assertEqual(self.listed("/?sort=-waiting")[-2:], ["b", "c"])
        self.assertEqual(self.listed("/?sort=host"), ["b", "c", "down1", "up1"])
        for column in page.COLUMNS:
            self.assertEqual(len(self.listed(f"/?sort={column}")), 4)

    def test_filtered(self) -> None:
        """Links with numbers show the hosts in one state, or with one kind of problem."""
        pause = {"by": "me", "reason": "r", "since": NOW, "until": 0.0}
        self.reports.hosts["down1"] = a_status("down1", state="DEAD", paused=pause)
        self.reports.hosts["quiet"] = a_status("quiet", paused=pause)
        self.reports.hosts["new"] = a_status("new", tried=False)
        text = self.page("/")
        self.assertIn('<a href="?only=DEAD#hosts">1 DEAD</a>', text)
        self.assertIn(">2 with problems</a>", text)
        self.assertIn(">2 paused</a>", text)
        self.assertIn(">2 up</a>", text)
        self.assertIn("2 up, 1 untried, 1 DEAD, 0 unproven, 2 paused", text.replace("\n", " "))
        self.assertNotIn("stopping", text.partition("<main>")[2])
        self.assertEqual(self.listed("/?only=paused"), ["down1", "quiet"])
        self.assertEqual(self.listed("/?only=DEAD"), ["down1"])
        self.assertEqual(self.listed("/?only=up"), ["quiet", "up1"])
        self.assertEqual(self.listed("/?only=untried"), ["new"])
        self.assertEqual(self.listed("/?problem=host-dead&sort=host"), ["down1"])
        self.assertIn("<details open>", self.page("/hosts/down1"))

    def test_another_lond(self) -> None:
        """If the address leads to another lond, that is shown instead of an earlier failure."""
        failure = {"what": "refused", "when": NOW}
        not_served = "the lond serves msu9"
        self.reports.hosts["up1"] = a_status("up1", not_served=not_served, last_failure=failure)
        for path in ("/", "/hosts/up1"):
            self.assertIn("the lond serves msu9</td>", self.ask(path)[2].replace("\n", ""))

    def test_nonsense(self) -> None:
        """Invalid queries are ignored."""
        for query in ("sort=-", "sort=x", "only=%3Cb%3E", "problem=x", "all=1", "sort", "=", "a=b"):
            self.assertEqual(len(self.listed(f"/?{query}")), 2, query)

    def test_many_hosts(self) -> None:
        """The table is limited to the first 200 hosts; a link shows all."""
        for number in range(300):
            self.reports.hosts[f"h{number}"] = a_status(f"h{number}")
        text = self.page("/")
        self.assertIn('102 more are not shown. <a href="?all=yes#hosts">', text)
        self.assertEqual(len(self.listed("/")), 200)
        self.assertEqual(len(self.listed("/?all=yes")), 302)


class HistoryTests(SynchronousTestCase):
    """Samples of the last hour, of all hosts and of each."""

    def setUp(self) -> None:
        self.history = History()
        self.now = 0.0

    def sample(self, *hosts: HostStatus) -> None:
        """Add a sample, half a minute after the last."""
        for host in hosts:
            self.history.note(host)
        self.history.complete(self.now)
        self.now += PAUSE

    def host(self, host_id: str, requests: int, lost: int = 0, **fields: object) -> HostStatus:
        """Return the status of a host."""
        return a_status(
            host_id, requests=requests, con_lost={"dead": lost}, seconds=SECONDS, **fields
        )

    def test_rates(self) -> None:
        """Requests are counted per second, losses per minute, in total and for each host."""
        self.sample(self.host("a", 100, 10), self.host("b", 5))
        slow: Parts = {**SECONDS, "total": {"p50": 0.0, "p99": 3.0, "max": 3.0, "count": 1}}
        self.history.note(attrs.evolve(self.host("c", 0), seconds=slow))
        self.history.note(attrs.evolve(self.host("d", 0), seconds=slow))
        self.sample(self.host("a", 130, 13), self.host("b", 35, waiting=4))
        self.assertEqual(list(self.history.total.p99), [3.0])
        self.assertEqual(list(self.history.total.rate), [2.0])
        self.assertEqual(list(self.history.total.lost), [6.0])
        self.assertEqual(list(self.history.total.waiting), [4.0])
        self.assertEqual(list(self.history.hosts["a"].rate), [1.0])
        self.assertEqual(list(self.history.hosts["b"].lost), [0.0])
        self.assertEqual(set(self.history.hosts), {"a", "b"}, "others take no memory")

    def test_hosts_that_come_and_go(self) -> None:
        """The counters of a new host begin at 0; a removed host subtracts nothing."""
        self.sample(self.host("a", 100))
        self.sample(self.host("a", 130), self.host("b", 60))
        self.assertEqual(list(self.history.total.rate), [3.0])
        self.sample(self.host("b", 60))
        self.assertEqual(list(self.history.total.rate), [3.0, 0.0])
        self.assertEqual(list(self.history.hosts), ["b"])

    def test_an_hour(self) -> None:
        """Samples older than an hour are dropped."""
        for number in range(SAMPLES + 10):
            self.sample(self.host("a", number))
        self.assertEqual(len(self.history.hosts["a"].rate), SAMPLES)

    def test_of_late(self) -> None:
        """Losses per minute include those since the last sample."""
        self.sample(self.host("a", 10, 0))
        self.sample(self.host("a", 50, 0))
        at = self.now - PAUSE
        self.assertEqual(self.history.lost_per_minute(self.host("a", 50, 0), at), 0.0)
        lost = self.history.lost_per_minute(self.host("a", 80, 30), at + 15.0)
        self.assertAlmostEqual(lost, 60.0)
        self.sample(self.host("a", 80, 30))
        at = self.now - PAUSE
        lost = self.history.lost_per_minute(self.host("a", 81, 31), at + 15.0)
        self.assertAlmostEqual(lost, (60.0 + 60.0 * 15.0) / 30.0)
        self.sample(self.host("a", 90, 30))
        self.assertEqual(self.history.lost_per_minute(self.host("a", 90, 30), at + 30.0), 0.0)
        self.assertEqual(self.history.lost_per_minute(self.host("new", 9, 9), at), 0.0)


class MetricsTests(SiteCase):
    """The metrics, as read by Prometheus' own parser."""

    def metrics(self) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
        """Return all metrics: name -> labels -> value."""
        status, headers, content = self.ask("/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(headers["content-type"].startswith("text/plain; version=0.0.4"))
        told: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in metric_families(content):
            self.assertNotEqual(family.type, "unknown")
            for sample in family.samples:
                values = told.setdefault(sample.name, {})
                labels = frozenset(sample.labels.items())
                self.assertNotIn(labels, values)
                values[labels] = sample.value
        return told

    def test_all_are_there(self) -> None:
        """Each metric has a value."""
        self.reports.daemon = a_daemon(certificate="/c", certificate_ends=NOW, reloads={"done": 2})
        told = self.metrics()
        promised = {each.name for each in HOST_FAMILIES}
        promised |= {each.name for each in (*DAEMON_FAMILIES, PROBLEMS)}
        found = {name.removesuffix("_bucket") for name in told}
        self.assertEqual(promised - found, set())

    def test_values(self) -> None:
        """The values are those of the status."""
        told = self.metrics()
        self.assertEqual(told["lonc_requests_total"][frozenset({("host", "up1")})], 7)
        lost = frozenset({("host", "up1"), ("cause", "dead")})
        self.assertEqual(told["lonc_con_lost_total"][lost], 1)

    def test_up(self) -> None:
        """Only hosts that are up count as up; another metric says whether they were tried."""
        for status, up, tried in (
            ({}, 1, 1),
            ({"tried": False}, 1, 0),
            ({"state": "unproven"}, 0, 1),
            ({"state": "DEAD"}, 0, 1),
        ):
            self.reports.hosts["up1"] = a_status("up1", **status)
            told, host = self.metrics(), frozenset({("host", "up1")})
            found = (told["lonc_host_up"][host], told["lonc_host_tried"][host])
            self.assertEqual(found, (up, tried), status)

    def test_problems(self) -> None:
        """Problems are counted by kind and level; kinds without any are 0."""
        for name in ("down2", "down3"):
            self.reports.hosts[name] = a_status(name, state="DEAD")
        self.reports.daemon = a_daemon(watch=["down2"])
        told = self.metrics()["lonc_problems"]

        def count(kind: str, level: str) -> float | None:
            return told.get(frozenset({("kind", kind), ("level", level)}))

        self.assertEqual((count("host-dead", "warning"), count("host-dead", "critical")), (2, 1))
        self.assertEqual(count("many-dead", "critical"), 1)
        self.assertEqual((count("delayed-kept", "warning"), count("host-paused", "note")), (0, 0))

    def test_shared_machine(self) -> None:
        """What two hosts on one machine share is counted once, for the first of them."""
        for name in ("up1", "up2"):
            self.reports.hosts[name] = a_status(
                name, machine="m", idle=2, busy=1, handshakes={"ready": 3}
            )
            self.reports.taken[name] = HostTimes()
        told = self.metrics()
        connections = told["lonc_connections"]
        self.assertEqual(sum(connections.values()), 3)
        self.assertEqual(connections[frozenset({("host", "up1"), ("state", "idle")})], 2)
        self.assertEqual(sum(told["lonc_handshakes_total"].values()), 3)
        self.assertEqual(len(told["lonc_handshake_seconds_count"]), 2)
        self.assertEqual(len(told["lonc_requests_total"]), 3)
        self.assertIn("3 connections", self.ask("/")[2])

    def test_histogram(self) -> None:
        """The buckets are cumulative."""
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
        """Quotes and backslashes in a host id are escaped."""
        name = 'a"b\\c'
        self.reports.hosts = {name: a_status(name)}
        self.reports.taken = {name: HostTimes()}
        self.assertIn(frozenset({("host", name)}), self.metrics()["lonc_host_up"])

    def test_scraper_that_goes(self) -> None:
        """If the client disconnects, nothing more is written, and nothing fails."""
        client = self.connect()
        client.channel.dataReceived(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.channel.connectionLost(connectionDone)
        client.work()


class HealthTests(SiteCase):
    """Health checks."""

    def test_ready(self) -> None:
        """``/readyz`` lists all problems; only those of lonc's own sockets make it fail."""
        self.assertEqual(self.ask("/readyz")[::2], (200, "ok\n"))
        self.reports.problems.tell("host-refused", "down1", "DEAD: refused")
        self.reports.problems.tell("host-paused", "up2", "paused by root: new disk")
        told = "warning  down1 DEAD: refused\nnote  up2 paused by root: new disk\n"
        self.assertEqual(self.ask("/readyz")[::2], (200, "warning\n" + told))
        for host in ("down2", "down3", "down4"):
            self.reports.problems.tell("host-refused", host, "DEAD: refused")
        told = told.replace(
            "down1 DEAD: refused", "4 hosts DEAD: refused: down1, down2, down3, down4"
        )
        self.assertEqual(self.ask("/readyz")[2], "warning\n" + told)
        self.reports.problems.tell("host-not-served", "up1", "/s/up1: it is in use")
        told = "critical  up1 /s/up1: it is in use\n" + told
        self.assertEqual(self.ask("/readyz")[::2], (503, "critical\n" + told))
        self.reports.problems.replace([], KINDS)
        for kind in ("hosts-not-served", "runs-as-root", "files-used-up"):
            self.reports.problems.tell(kind, "", "nobody is served")
            self.assertEqual(self.ask("/readyz")[0], 503)
            self.reports.problems.over(kind)
        self.assertEqual(self.ask("/readyz")[0], 200)
