"""Tests of ``lonc.config.hosts``."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.hosts import (
    FETCHED_PROBLEM_LIMIT,
    PROBLEM_LIMIT,
    RESERVED_IDS,
    SIZE_LIMIT,
    Changes,
    Host,
    HostTable,
    TableError,
    compare,
    parse_host_table,
    read_both_tables,
    read_host_table,
)
from lonc.test.fixtures.properties import given, settings, st

GOOD = b"msul1:msu:library:loncapa.msu.edu:35.8.63.1\n"
MSUL1 = Host("msul1", "msu", "library", "loncapa.msu.edu", "35.8.63.1", 1)


def parse(*lines: str | bytes) -> HostTable:
    """Return the table that ``lines`` make."""
    return parse_host_table(b"\n".join(map(os.fsencode, lines)), "hosts.tab")


class LineTests(SynchronousTestCase):
    """The lines of a table."""

    def test_line(self) -> None:
        """
        S1: the format has further fields, also with letters outside of ASCII; blanks around fields,
        CR before the newline and a byte order mark are removed; the last newline may be missing.
        """
        for text in (
            GOOD,
            GOOD.strip(),
            GOOD.strip() + b":Universit\xe4t:80:::\n",
            b"\xef\xbb\xbf msul1 :\tmsu : library: loncapa.msu.edu : 35.8.63.1 \r\n",
        ):
            self.assertEqual(parse_host_table(text, "hosts.tab"), HostTable({"msul1": MSUL1}, ()))
        self.assertEqual(MSUL1.target, "35.8.63.1")

    def test_skipped(self) -> None:
        """Comments, blank lines and the lines of table servers are neither hosts nor problems."""
        table = parse(
            "# one", "  # \u00fc", "", " \t ", "\r", "^lon.msu.edu:https", " ^x", "#a:b:c:d:e", GOOD
        )
        self.assertEqual((list(table.hosts), table.problems), (["msul1"], ()))
        self.assertEqual(table.hosts["msul1"].line, 9)

    def test_order(self) -> None:
        """Hosts are in the order of their lines."""
        names = ["c", "a", "b", "A", "-", "_.x"]
        table = parse(*(f"{name}:d:access:h:127.0.0.1" for name in names))
        self.assertEqual((list(table.hosts), table.problems), (names, ()))


class FifthFieldTests(SynchronousTestCase):
    """Where lonc connects to, and how the host's web server is reached."""

    def test_where(self) -> None:
        """
        An address, in normal form however it is written; else another name in the fifth field; else
        the name in the fourth field, which may be an address itself.
        """
        for rest, name, address in (
            ("10.0.0.1", "host.edu", "10.0.0.1"),
            ("10.0.0.1:", "host.edu", "10.0.0.1"),
            ("2001:DB8:0::0:1", "host.edu", "2001:db8::1"),
            ("::1", "host.edu", "::1"),
            ("fe80::1%eth0", "host.edu", "fe80::1%eth0"),
            ("[::1]", "host.edu", "::1"),
            ("[2001:db8::1]:more:fields", "host.edu", "2001:db8::1"),
            ("[2001:db8::1] : more", "host.edu", "2001:db8::1"),
            ("::1:http", "host.edu", "::1"),
            ("::1 : https : msu.edu", "host.edu", "::1"),
            ("::1:", "host.edu", "::1"),
            ("::1::msu.edu", "host.edu", "::1"),
            ("2001:db8::1:more:fields", "host.edu", "2001:db8::1"),
            ("1:2:3:4:5:6:7:8:http", "host.edu", "1:2:3:4:5:6:7:8"),
            ("fe80::1%eth0:http", "host.edu", "fe80::1%eth0"),
            ("::ffff:10.0.0.1:http", "host.edu", "10.0.0.1"),
            *((rest, "host.edu", None) for rest in ("", ":", "::", ":::x", "http", "https")),
            *((rest, "host.edu", None) for rest in ("HTTPS", "https:msu.edu", "http : x")),
            ("other.edu", "other.edu", None),
            ("localhost:x", "localhost", None),
        ):
            table = parse(f"x:d:library:host.edu:{rest}")
            self.assertEqual(table.problems, ())
            host = table.hosts["x"]
            self.assertEqual((host.name, host.address), (name, address), rest)
            self.assertEqual((host.target, host.hostname), (address or name, "host.edu"))
        table = parse("x:d:library:Host.edu", "y:d:access: 10.0.0.1 \r", "z:d:access:10.0.0.2:")
        targets = [host.target for host in table.hosts.values()]
        self.assertEqual((targets, table.problems), (["Host.edu", "10.0.0.1", "10.0.0.2"], ()))

    def test_web_server(self) -> None:
        """The fifth field may have the web server's protocol, the sixth the internet domain."""
        for rest, protocol, internet_domain in (
            ("https:msu.edu", "https", "msu.edu"),
            ("HTTP : msu.edu : more", "http", "msu.edu"),
            ("https", "https", ""),
            ("https:", "https", ""),
            ("https:no domain", "https", ""),
            ("", "http", ""),
            (":msu.edu", "http", ""),
            ("10.0.0.1:msu.edu", "http", ""),
            ("[::1]:msu.edu", "http", ""),
            ("::1", "http", ""),
            ("other.edu:msu.edu", "http", ""),
        ):
            table = parse(f"x:d:library:host.edu:{rest}")
            self.assertEqual(table.problems, ())
            host = table.hosts["x"]
            self.assertEqual((host.protocol, host.internet_domain), (protocol, internet_domain))

    def test_bad(self) -> None:
        """A field that is neither an address nor a name is a problem."""
        for rest in (
            "300.0.0.1",
            "10.0.0",
            "10.0.0.01",
            "10",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "[::ffff:0.0.0.0]",
            "10.0.0.1 # comment",
            "2001:db8:more:fields",
            "cafe::description",
            "0::0:http",
            "ff02::1:http",
            "[::1",
            "[::1]x",
            "[host.edu]",
            "[]",
            "h\u00f6st.edu",
            "-host.edu",
            "host..edu",
            "x" * 64 + ".edu",
            "fe80::1%a b",
        ):
            table = parse(f"x:d:library:host.edu:{rest}", GOOD)
            self.assertEqual(list(table.hosts), ["msul1"], rest)
            (problem,) = table.problems
            self.assertTrue(problem.startswith("hosts.tab, line 1: "), problem)
            self.assertTrue(problem.isascii() and problem.isprintable(), problem)


class TableServerTests(SynchronousTestCase):
    """The lines that name servers of the cluster's table."""

    def test_servers(self) -> None:
        """
        Name, protocol and port are read, in the order of the lines; blanks, an empty last field and
        duplicate lines do not matter.
        """
        table = parse(
            *("^lon.msu.edu", "^b.edu:https", "^10.0.0.1:http", "^c.edu:8080"),
            *("^d.edu:8443:HTTPS", " ^ a.edu : https ", "^a.edu:https:", "^a.edu", "^a.edu:"),
        )
        self.assertEqual((table.hosts, table.problems), ({}, ()))
        self.assertEqual(
            [(server.url, server.name) for server in table.servers],
            [
                ("http://lon.msu.edu/adm/dns/hosts", "lon.msu.edu"),
                ("https://b.edu/adm/dns/hosts", "b.edu"),
                ("http://10.0.0.1/adm/dns/hosts", "10.0.0.1"),
                ("http://c.edu:8080/adm/dns/hosts", "c.edu"),
                ("https://d.edu:8443/adm/dns/hosts", "d.edu"),
                ("https://a.edu/adm/dns/hosts", "a.edu"),
                ("http://a.edu/adm/dns/hosts", "a.edu"),
            ],
        )

    def test_bad(self) -> None:
        """A line that does not name a server is a problem, and does not become a URL."""
        for line in (
            "^",
            "^:https",
            "^a b",
            "^a.edu/x",
            "^a.edu@b.edu",
            "^a.edu:ftp",
            "^a.edu:0",
            "^a.edu:65536",
            "^a.edu:https:80",
            "^http://a.edu",
            "^^a.edu",
            "^\u00fc.edu",
            "^[::1]",
        ):
            table = parse(GOOD.strip(), line)
            self.assertEqual(table.servers, (), line)
            self.assertEqual(len(table.problems), 1, line)
            self.assertTrue(table.problems[0].startswith("hosts.tab, line 2: "))
            self.assertTrue(table.problems[0].isascii() and table.problems[0].isprintable())

    def test_fetched(self) -> None:
        """In a fetched table they are ignored, even if they are invalid."""
        text = GOOD + b"^a.edu\n^^\n^" + b" " * 25000 + b"x\n"
        table = parse_host_table(text, "the table", fetched=True)
        self.assertEqual((table.servers, table.problems, table.unusable), ((), (), 0))
        only = b"^a.edu\n"
        self.assertRaises(TableError, parse_host_table, only, "the table", fetched=True)

    def test_no_host_yet(self) -> None:
        """A table without a host is accepted if it names a server."""
        table = parse("# first start", "^a.edu", "nonsense")
        self.assertEqual((table.hosts, len(table.problems), table.unusable), ({}, 1, 1))
        self.assertRaises(TableError, parse, "^a b", "nonsense")


class ProblemTests(SynchronousTestCase):
    """Lines that cannot be used: each is one problem, and the others are used."""

    def problem(self, line: str | bytes, max_id: int = 100) -> str:
        """Return the reason why ``line``, between good ones, is not used."""
        text = b"\n".join((GOOD.strip(), os.fsencode(line), b"x:d:access:h:::1"))
        table = parse_host_table(text, "/tabs/hosts.tab", max_id)
        self.assertEqual(list(table.hosts), ["msul1", "x"])
        (problem,) = table.problems
        begin = "/tabs/hosts.tab, line 2: "
        self.assertTrue(problem.startswith(begin), problem)
        self.assertTrue(problem.isprintable(), problem)
        return problem.removeprefix(begin)

    def test_problems(self) -> None:
        """
        S1: each invalid field is named with file and line. An id could leave the folder, or belong
        to another file there; a host name is checked even if there is an address.
        """
        ids = ("", ".", "..", "a/b", "../x", "a b", "m\u00fcl1", "a\0", "*", "a,b")
        names = ("", "a b", "h\u00f6st", "a..b", ".a", "-a", "x" * 64, "1.2.3", "a." * 127)
        cases: dict[str, list[str | bytes]] = {
            "of at least 4 fields": ["nonsense", "a:b", "a:b:library", b"\xff\xfe\0"],
            "is not a host id": [f"{each}:d:library:h:127.0.0.1" for each in ids],
            "of lonc's own": [f"{each}:d:library:h:127.0.0.1" for each in RESERVED_IDS],
            "is too long": ["x" * 100_000 + ":d:library:h:::1"],
            "is not a domain": [f"a:{each}:library:h:::1" for each in ("", "a b", "\u00fc")],
            "is neither library nor access": [
                f"a:d:{each}:h:127.0.0.1" for each in ("", "Library", "mirror")
            ],
            "neither an address nor a possible host name": [
                f"a:d:library:{each}:127.0.0.1" for each in names
            ],
        }
        for why, lines in cases.items():
            for line in lines:
                told = self.problem(line)
                self.assertIn(why, told)
                self.assertLess(len(told), 400)
        self.assertTrue({"delayed", "lonc.amp", "lonc.new"} <= RESERVED_IDS)

    def test_id_too_long(self) -> None:
        """An id is refused if the path of its socket would be too long."""
        table = parse_host_table(b"12345678:d:library:h:127.0.0.1\n", "hosts.tab", max_id=8)
        self.assertEqual(table.problems, ())
        problem = self.problem("123456789:d:library:h:127.0.0.1", max_id=8)
        self.assertIn("'123456789' is too long", problem)
        self.assertIn("room for 8 characters", problem)

    def test_twice(self) -> None:
        """Of two lines for an id the later one is used, unless it is invalid."""
        table = parse(
            "a:d:library:h:10.0.0.1", "b:d:library:h:10.0.0.2", "#", "a:d:library:h:10.0.0.3"
        )
        self.assertEqual(table.hosts["a"], Host("a", "d", "library", "h", "10.0.0.3", 4))
        self.assertEqual(list(table.hosts), ["b", "a"])
        self.assertEqual(table.problems, ("hosts.tab, line 1: a is also in line 4, which is used",))
        table = parse(GOOD.strip(), "msul1:msu:library:h:1.2.3")
        self.assertEqual((dict(table.hosts), len(table.problems)), ({"msul1": MSUL1}, 1))

    def test_none_usable(self) -> None:
        """A table without a usable host is an error that quotes the first problem."""
        for text in (b"", b"# nothing\n", b"\n" * 1000):
            error = self.assertRaises(TableError, parse_host_table, text, "hosts.tab")
            self.assertEqual(str(error), "hosts.tab: there is no host that can be used")
        error = self.assertRaises(TableError, parse, "", "a:b:c", "d:e:f")
        self.assertIn("hosts.tab, line 2: ", str(error))
        self.assertNotIn("line 3", str(error))

    def test_many_problems(self) -> None:
        """Some problems are listed, and the others counted."""
        text = b"nonsense\n" * (PROBLEM_LIMIT + 7) + GOOD + GOOD
        for most in (PROBLEM_LIMIT, 2):
            table = parse_host_table(text, "hosts.tab", max_problems=most)
            self.assertEqual((list(table.hosts), len(table.problems)), (["msul1"], most + 1))
            more = PROBLEM_LIMIT + 8 - most
            self.assertEqual(table.problems[-1], f"hosts.tab: {more} more lines with problems")
            self.assertEqual(table.unusable, PROBLEM_LIMIT + 7)
        table = parse_host_table(text, "hosts.tab", max_problems=PROBLEM_LIMIT + 8)
        self.assertNotIn("more", table.problems[-1])

    def test_first(self) -> None:
        """If not all hosts can be served, the own one is; the ids of a lond remain known."""
        rows = [f"h{n}:d:access:h.edu:10.0.0.1" for n in range(9)]
        table = parse(*rows).first(3, "h7")
        self.assertEqual(list(table.hosts), ["h0", "h1", "h7"])
        self.assertEqual((len(table.refused), len(table.ids_at("10.0.0.1"))), (6, 9))

    def test_long_lines(self) -> None:
        """
        The work grows in proportion to a line's length, whatever the line repeats: with its square
        this would not end.
        """
        length = 200000
        for repeated in (
            *(" ", "\t", ":", "a", "a.", "1", "1:"),
            *("f:", "::", "[", "%", "^", " :", "-"),
        ):
            for head in ("^a", "^", "x", "x:d:library:", "x:d:library:h:", "x:d:library:h:::1"):
                for tail in ("", "x", ":", "!"):
                    parse(GOOD.strip(), head + repeated * (length // len(repeated)) + tail)

    def test_long_table(self) -> None:
        """A table of 50,000 hosts is read completely."""
        text = b"".join(b"h%d:d:access:h%d.edu:10.0.%d.1\n" % (n, n, n % 256) for n in range(50000))
        table = parse_host_table(text, "hosts.tab")
        self.assertEqual((len(table.hosts), table.problems), (50000, ()))

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.binary(max_size=300), st.binary(max_size=300))
    def test_any_bytes(self, before: bytes, after: bytes) -> None:
        """A good line among any bytes is found, and every problem is printable."""
        table = parse_host_table(before + b"\n" + GOOD + after, "hosts.tab")
        self.assertIn("msul1", table.hosts)
        for problem in table.problems:
            self.assertTrue(problem.isprintable(), problem)

    @settings(derandomize=True, deadline=None, max_examples=500)
    @given(
        st.lists(
            st.tuples(
                *[st.sampled_from(["a", "", "..", "x/y", "library", "h.edu", "\u00fc", " b "])] * 4,
                st.sampled_from(["10.0.0.1", "", "::", "[::1]:", "[", "https", "1:2", "%", "::1%"]),
            ),
            max_size=5,
        )
    )
    def test_any_fields(self, lines: list[tuple[str, ...]]) -> None:
        """Whatever fields are combined: each line is a host or a problem, or no host is usable."""
        text = os.fsencode("\n".join(map(":".join, lines)))
        try:
            table = parse_host_table(text, "hosts.tab")
        except TableError as error:
            self.assertTrue(str(error).isprintable())
        else:
            self.assertEqual(len(table.hosts) + len(table.problems), len(lines))


class FileTests(SynchronousTestCase):
    """Reading the file."""

    def test_read(self) -> None:
        """S1: the file is read within the limit of ids, and named in the problems."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(GOOD + b"x:d:library:h:::1\n")
        table = read_host_table(path, max_id=4)
        self.assertEqual(list(table.hosts), ["x"])
        self.assertIn(f"{path}, line 1: ", table.problems[0])

    def test_unusable(self) -> None:
        """A file that cannot be read is named with the reason; a FIFO is not waited for."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        pipe, link, missing, long = (f"{folder}/{name}" for name in ("pipe", "link", "no", "long"))
        os.mkfifo(pipe)
        os.symlink(link, link)
        with open(long, "wb") as file:
            file.write(GOOD)
            file.truncate(SIZE_LIMIT + 1)
        for path, why in (
            (missing, "No such file or directory"),
            (folder, "not a file"),
            (pipe, "not a file"),
            (link, "Too many levels of symbolic links"),
            (long, f"longer than {SIZE_LIMIT} bytes"),
        ):
            error = self.assertRaises(TableError, read_host_table, path)
            self.assertEqual(str(error), f"{path}: {why}")


class BothTablesTests(SynchronousTestCase):
    """``hosts.tab`` merged with the last fetched table."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.own = os.path.join(folder, "hosts.tab")
        self.fetched = os.path.join(folder, "dns_hosts.tab")

    def write(self, path: str, *lines: str) -> None:
        """Write a table."""
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def test_merged(self) -> None:
        """
        The hosts of both are used, and of two lines for an id the one of hosts.tab. The fetched
        table does not determine the next servers; its problems are listed, but fewer of them.
        """
        self.write(self.own, "^a.edu", "x:d:library:own:10.0.0.1", "y:d:library:h:10.0.0.2")
        bad = ["123456789:d:library:h:10.0.0.3"] * 100
        rows = ("^evil.edu", "z:d:library:h:10.0.0.3", "x:e:access:foreign:10.0.0.4", *bad)
        self.write(self.fetched, *rows)
        table = read_both_tables(self.own, self.fetched, max_id=8)
        self.assertEqual(list(table.hosts), ["x", "y", "z"])
        self.assertEqual(table.hosts["x"].name, "own")
        self.assertEqual([server.name for server in table.servers], ["a.edu"])
        self.assertTrue(table.problems[0].startswith(f"{self.fetched}, line 4: the host id"))
        self.assertEqual(len(table.problems), FETCHED_PROBLEM_LIMIT + 1)

    def test_alone(self) -> None:
        """Before the first fetch, and if it names no server, hosts.tab is used alone."""
        self.write(self.own, "^a.edu")
        table = read_both_tables(self.own, self.fetched)
        self.assertEqual((table.hosts, table.problems), ({}, ()))
        self.write(self.own, GOOD.decode())
        self.write(self.fetched, "z:d:library:h:10.0.0.3")
        self.assertEqual(list(read_both_tables(self.own, self.fetched).hosts), ["msul1"])

    def test_unusable(self) -> None:
        """An unusable fetched table is an error, or a problem on request; hosts.tab is required."""
        self.write(self.own, "^a.edu", GOOD.decode())
        self.write(self.fetched, "<html>")
        error = self.assertRaises(TableError, read_both_tables, self.own, self.fetched)
        self.assertIn(f"{self.fetched}: there is no host", str(error))
        table = read_both_tables(self.own, self.fetched, lenient=True)
        self.assertEqual((list(table.hosts), table.problems), (["msul1"], (str(error),)))
        os.unlink(self.own)
        error = self.assertRaises(TableError, read_both_tables, self.own, self.fetched)
        self.assertIn(self.own, str(error))


class CompareTests(SynchronousTestCase):
    """The differences between two tables."""

    def test_changes(self) -> None:
        """S17: a host is gone, changed, new or the same."""
        old = parse(
            "gone2:d:library:h:10.0.0.1",
            "same:d:library:h:10.0.0.1",
            "address:d:library:h:10.0.0.1",
            "name:d:library:h:https",
            "both:d:library:h:10.0.0.1",
            "gone1:d:library:h:10.0.0.1",
            "lookup:d:library:h:10.0.0.1",
        )
        new = parse(
            "new2:d:library:h:10.0.0.1",
            "lookup:d:library:h:",
            "both:d:library:other:10.0.0.1",
            "name:d:library:other:https",
            "address:d:library:h:10.0.0.2",
            "same:d:library:h:10.0.0.1",
            "new1:d:library:h:10.0.0.1",
        )
        self.assertEqual(
            compare(old, new),
            Changes(
                gone=("gone2", "gone1"),
                changed=("lookup", "both", "name", "address"),
                new=("new2", "new1"),
                same=("same",),
            ),
        )

    def test_same(self) -> None:
        """F13: order, domain, role, further fields and another spelling change no host."""
        old = parse("a:d:library:h:2001:db8::1", "b:d:library:h.edu:http")
        new = parse("#", "b:d:library:H.EDU.:https:x", "a:e:access:h:[2001:DB8::1]:x")
        self.assertEqual(compare(old, new), Changes((), (), (), ("b", "a")))
