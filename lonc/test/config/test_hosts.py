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
    """What a line means."""

    def test_line(self) -> None:
        """S1: a line of the table in the form it has always had."""
        table = parse_host_table(GOOD, "hosts.tab")
        self.assertEqual(table, HostTable({"msul1": MSUL1}, ()))
        self.assertEqual(MSUL1.target, "35.8.63.1")

    def test_furtherFields(self) -> None:
        """S1: further fields may follow, also with letters that are no ASCII."""
        line = GOOD.strip() + b":Universit\xe4t:80:::\n"
        self.assertEqual(parse(line), HostTable({"msul1": MSUL1}, ()))

    def test_skipped(self) -> None:
        """Comments, blank lines and the lines of table servers are neither hosts nor problems."""
        table = parse(
            "# one", "  # \u00fc", "", " \t ", "\r", "^lon.msu.edu:https", " ^x", "#a:b:c:d:e", GOOD
        )
        self.assertEqual((list(table.hosts), table.problems), (["msul1"], ()))
        self.assertEqual(table.hosts["msul1"].line, 9)

    def test_blanks(self) -> None:
        """Blanks around fields, CR before the newline and a byte order mark are dropped."""
        line = b"\xef\xbb\xbf msul1 :\tmsu : library: loncapa.msu.edu : 35.8.63.1 \r"
        self.assertEqual(parse(line), HostTable({"msul1": MSUL1}, ()))

    def test_noFinalNewline(self) -> None:
        """The last line counts also without a newline."""
        self.assertEqual(parse(GOOD.strip()).hosts, {"msul1": MSUL1})

    def test_order(self) -> None:
        """Hosts come in the order of their lines."""
        names = ["c", "a", "b", "A", "-", "_.x"]
        table = parse(*(f"{name}:d:access:h:127.0.0.1" for name in names))
        self.assertEqual((list(table.hosts), table.problems), (names, ()))


class FifthFieldTests(SynchronousTestCase):
    """Where lonc connects to."""

    def assertConnects(self, rest: str, name: str, address: str | None) -> None:
        """Check name and address of a host whose line ends in ``rest``."""
        table = parse(f"x:d:library:host.edu:{rest}")
        self.assertEqual(table.problems, ())
        host = table.hosts["x"]
        self.assertEqual((host.name, host.address), (name, address), rest)
        self.assertEqual(host.target, address or name)

    def test_addresses(self) -> None:
        """An address is what is connected to; equal ones look the same however they are written."""
        for rest, address in (
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:", "10.0.0.1"),
            ("2001:DB8:0::0:1", "2001:db8::1"),
            ("::1", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[::1]", "::1"),
            ("[2001:db8::1]:more:fields", "2001:db8::1"),
            ("[2001:db8::1] : more", "2001:db8::1"),
            ("::1:http", "::1"),
            ("::1 : https : msu.edu", "::1"),
            ("::1:", "::1"),
            ("::1::msu.edu", "::1"),
            ("2001:db8::1:more:fields", "2001:db8::1"),
            ("1:2:3:4:5:6:7:8:http", "1:2:3:4:5:6:7:8"),
            ("fe80::1%eth0:http", "fe80::1%eth0"),
            ("::ffff:10.0.0.1:http", "10.0.0.1"),
        ):
            self.assertConnects(rest, "host.edu", address)

    def test_nameInstead(self) -> None:
        """Without an address, and in the form of later releases, the name is looked up."""
        for rest in ("", ":", "::", ":::x", "http", "https", "HTTPS", "https:msu.edu", "http : x"):
            self.assertConnects(rest, "host.edu", None)

    def test_four_fields(self) -> None:
        """A line that ends with the name has it looked up."""
        table = parse("x:d:library:host.edu", "y:d:access: 10.0.0.1 \r")
        self.assertEqual([host.target for host in table.hosts.values()], ["host.edu", "10.0.0.1"])
        self.assertEqual(table.problems, ())

    def test_otherName(self) -> None:
        """A name in the address's place is what is looked up."""
        self.assertConnects("other.edu", "other.edu", None)
        self.assertConnects("localhost:x", "localhost", None)

    def test_addressAsName(self) -> None:
        """An address in the name's place will do."""
        host = parse("x:d:library:10.0.0.1:").hosts["x"]
        self.assertEqual((host.name, host.target), ("10.0.0.1", "10.0.0.1"))

    def test_bad(self) -> None:
        """What is neither an address nor a name is a problem, not a guess."""
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


class WebServerTests(SynchronousTestCase):
    """What later releases put into the fifth and sixth field, and what else is kept of a line."""

    def test_protocol_and_internet_domain(self) -> None:
        """The fifth field says how the web server is spoken to, the sixth where it belongs."""
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

    def test_hostname(self) -> None:
        """The fourth field is kept as it stands, also where another name is connected to."""
        hosts = parse("a:d:library:A.edu:10.0.0.1", "b:d:library:b.edu:other.edu").hosts
        self.assertEqual([host.hostname for host in hosts.values()], ["A.edu", "b.edu"])
        self.assertEqual(hosts["b"].target, "other.edu")


class TableServerTests(SynchronousTestCase):
    """The lines that name servers of the cluster's table."""

    def servers(self, *lines: str) -> list[tuple[str, str]]:
        """Return the servers of a table: where each has its table, and its name."""
        table = parse(*lines)
        self.assertEqual((table.hosts, table.problems), ({}, ()))
        return [(server.url, server.name) for server in table.servers]

    def test_servers(self) -> None:
        """Name, protocol and port of a server are understood, in the order of the lines."""
        found = self.servers(
            "^lon.msu.edu", "^b.edu:https", "^10.0.0.1:http", "^c.edu:8080", "^d.edu:8443:HTTPS"
        )
        self.assertEqual(
            found,
            [
                ("http://lon.msu.edu/adm/dns/hosts", "lon.msu.edu"),
                ("https://b.edu/adm/dns/hosts", "b.edu"),
                ("http://10.0.0.1/adm/dns/hosts", "10.0.0.1"),
                ("http://c.edu:8080/adm/dns/hosts", "c.edu"),
                ("https://d.edu:8443/adm/dns/hosts", "d.edu"),
            ],
        )

    def test_spelling(self) -> None:
        """Blanks, an empty last field and a line that is there twice do no harm."""
        found = self.servers(" ^ a.edu : https ", "^a.edu:https:", "^a.edu", "^a.edu:")
        urls = ["https://a.edu/adm/dns/hosts", "http://a.edu/adm/dns/hosts"]
        self.assertEqual([url for url, _ in found], urls)

    def test_bad(self) -> None:
        """What is no server is a problem, and no line of it becomes a URL."""
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
        """In a table from elsewhere they mean nothing, however they are written."""
        text = GOOD + b"^a.edu\n^^\n^" + b" " * 25000 + b"x\n"
        table = parse_host_table(text, "the table", fetched=True)
        self.assertEqual((table.servers, table.problems, table.unusable), ((), (), 0))
        only = b"^a.edu\n"
        self.assertRaises(TableError, parse_host_table, only, "the table", fetched=True)

    def test_no_host_yet(self) -> None:
        """A table without a host will do where there is a server to ask for one."""
        table = parse("# first start", "^a.edu", "nonsense")
        self.assertEqual((table.hosts, len(table.problems), table.unusable), ({}, 1, 1))
        self.assertRaises(TableError, parse, "^a b", "nonsense")


class ProblemTests(SynchronousTestCase):
    """Lines that cannot be used: each is one problem, and the others serve."""

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

    def test_tooFewFields(self) -> None:
        """S1: a line that is cut short is named by file and line number."""
        for line in ("nonsense", "a:b", "a:b:library", b"\xff\xfe\0"):
            self.assertIn("of at least 4 fields", self.problem(line))

    def test_id(self) -> None:
        """An id that is empty, has odd characters or could leave the folder is no id."""
        for host_id in ("", ".", "..", "a/b", "../x", "a b", "m\u00fcl1", "a\0", "*", "a,b"):
            self.assertIn("is not a host id", self.problem(f"{host_id}:d:library:h:127.0.0.1"))

    def test_reservedId(self) -> None:
        """An id that is the name of something else in the folder of the sockets is refused."""
        self.assertTrue({"delayed", "lonc.amp", "lonc.new"} <= RESERVED_IDS)
        for host_id in RESERVED_IDS:
            self.assertIn("of lonc's own", self.problem(f"{host_id}:d:library:h:127.0.0.1"))

    def test_idTooLong(self) -> None:
        """An id whose socket's path would not fit is refused, and one that just fits is not."""
        table = parse_host_table(b"12345678:d:library:h:127.0.0.1\n", "hosts.tab", max_id=8)
        self.assertEqual(table.problems, ())
        problem = self.problem("123456789:d:library:h:127.0.0.1", max_id=8)
        self.assertIn("'123456789' is too long", problem)
        self.assertIn("room for 8 characters", problem)

    def test_domain(self) -> None:
        """A domain that is empty or has odd characters is a problem."""
        for domain in ("", "a b", "\u00fc"):
            self.assertIn("is not a domain", self.problem(f"a:{domain}:library:h:127.0.0.1"))

    def test_role(self) -> None:
        """A role is library or access and nothing else."""
        for role in ("", "Library", "mirror"):
            problem = self.problem(f"a:d:{role}:h:127.0.0.1")
            self.assertEqual(problem, f"the role {role!r} is neither library nor access")

    def test_name(self) -> None:
        """A host name that is empty or impossible is a problem even beside a good address."""
        for name in ("", "a b", "h\u00f6st", "a..b", ".a", "-a", "x" * 64, "1.2.3", "a." * 127):
            problem = self.problem(f"a:d:library:{name}:127.0.0.1")
            self.assertIn("neither an address nor a possible host name", problem)

    def test_longField(self) -> None:
        """A very long field does not make a very long problem."""
        self.assertLess(len(self.problem("x" * 100_000 + ":d:library:h:::1")), 200)

    def test_twice(self) -> None:
        """Of two lines for an id the later serves, and one problem names both."""
        table = parse(
            "a:d:library:h:10.0.0.1", "b:d:library:h:10.0.0.2", "#", "a:d:library:h:10.0.0.3"
        )
        self.assertEqual(table.hosts["a"], Host("a", "d", "library", "h", "10.0.0.3", 4))
        self.assertEqual(list(table.hosts), ["b", "a"])
        self.assertEqual(table.problems, ("hosts.tab, line 1: a is also in line 4, which is used",))

    def test_twiceButBad(self) -> None:
        """A later line that is no use does not take the place of a good one."""
        table = parse(GOOD.strip(), "msul1:msu:library:h:1.2.3")
        self.assertEqual((dict(table.hosts), len(table.problems)), ({"msul1": MSUL1}, 1))

    def test_noneUsable(self) -> None:
        """A table without a host that can be used is an error that says what the first line had."""
        for text in (b"", b"# nothing\n", b"\n" * 1000):
            error = self.assertRaises(TableError, parse_host_table, text, "hosts.tab")
            self.assertEqual(str(error), "hosts.tab: there is no host that can be used")
        error = self.assertRaises(TableError, parse, "", "a:b:c", "d:e:f")
        self.assertIn("hosts.tab, line 2: ", str(error))
        self.assertNotIn("line 3", str(error))

    def test_manyProblems(self) -> None:
        """A file that is no table at all does not flood the log: the rest is counted."""
        table = parse(*["nonsense"] * (PROBLEM_LIMIT + 7), GOOD)
        self.assertEqual(list(table.hosts), ["msul1"])
        self.assertEqual(len(table.problems), PROBLEM_LIMIT + 1)
        self.assertEqual(table.problems[-1], "hosts.tab: 7 more lines with problems")

    def test_otherLimit(self) -> None:
        """How many problems are told is up to the caller; all lines of no use are counted."""
        text = b"nonsense\n" * 5 + GOOD + GOOD
        table = parse_host_table(text, "hosts.tab", max_problems=2)
        self.assertEqual((len(table.problems), table.unusable), (3, 5))
        self.assertEqual(table.problems[-1], "hosts.tab: 4 more lines with problems")

    def test_first(self) -> None:
        """Where not all hosts can be served, the own one is; a lond's ids stay known."""
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
            " ",
            "\t",
            ":",
            "a",
            "a.",
            "1",
            "1:",
            "f:",
            "::",
            "[",
            "%",
            "^",
            " :",
            "-",
        ):
            for head in ("^a", "^", "x", "x:d:library:", "x:d:library:h:", "x:d:library:h:::1"):
                for tail in ("", "x", ":", "!"):
                    parse(GOOD.strip(), head + repeated * (length // len(repeated)) + tail)

    def test_longTable(self) -> None:
        """A table of 50,000 hosts is read whole."""
        text = b"".join(b"h%d:d:access:h%d.edu:10.0.%d.1\n" % (n, n, n % 256) for n in range(50000))
        table = parse_host_table(text, "hosts.tab")
        self.assertEqual((len(table.hosts), table.problems), (50000, ()))

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.binary(max_size=300), st.binary(max_size=300))
    def test_anyBytes(self, before: bytes, after: bytes) -> None:
        """A good line among any bytes is found, and every problem is a line for a person."""
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
    def test_anyFields(self, lines: list[tuple[str, ...]]) -> None:
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

    def setUp(self) -> None:
        self.path = self.mktemp()

    def write(self, text: bytes) -> None:
        """Make ``text`` the file's content."""
        with open(self.path, "wb") as file:
            file.write(text)

    def refusal(self) -> str:
        """Return the line that reading the file is refused with."""
        return str(self.assertRaises(TableError, read_host_table, self.path))

    def test_read(self) -> None:
        """S1: the file is read, and its name stands in the problems."""
        self.write(GOOD + b"x\n")
        table = read_host_table(self.path)
        self.assertEqual(table.hosts, {"msul1": MSUL1})
        self.assertIn(f"{self.path}, line 2: ", table.problems[0])

    def test_longestId(self) -> None:
        """The limit on ids holds for files too."""
        self.write(GOOD + b"x:d:library:h:::1\n")
        self.assertEqual(list(read_host_table(self.path, max_id=4).hosts), ["x"])

    def test_missing(self) -> None:
        """A file that is not there is named."""
        self.assertEqual(self.refusal(), f"{self.path}: No such file or directory")

    def test_folder(self) -> None:
        """A folder is no table."""
        os.mkdir(self.path)
        self.assertEqual(self.refusal(), f"{self.path}: not a file")

    def test_pipe(self) -> None:
        """A pipe that nobody writes to is refused and not waited for."""
        os.mkfifo(self.path)
        self.assertEqual(self.refusal(), f"{self.path}: not a file")

    def test_unreadable(self) -> None:
        """A file that cannot be opened is named with the system's reason."""
        os.symlink(os.path.abspath(self.path), self.path)
        self.assertIn(f"{self.path}: Too many levels", self.refusal())

    def test_tooLong(self) -> None:
        """A file over the limit is refused as a whole, even if a host stands in it."""
        self.write(GOOD)
        os.truncate(self.path, SIZE_LIMIT + 1)
        self.assertIn(f"{self.path}: longer than {SIZE_LIMIT} bytes", self.refusal())


class BothTablesTests(SynchronousTestCase):
    """``hosts.tab`` together with the last table of the cluster."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.own = os.path.join(folder, "hosts.tab")
        self.fetched = os.path.join(folder, "dns_hosts.tab")

    def write(self, path: str, *lines: str) -> None:
        """Write a table."""
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def test_own_lines_win(self) -> None:
        """Hosts of both tables serve; of two lines for an id that of hosts.tab does."""
        self.write(self.own, "^a.edu", "x:d:library:own:10.0.0.1", "y:d:library:h:10.0.0.2")
        self.write(self.fetched, "z:d:library:h:10.0.0.3", "x:e:access:foreign:10.0.0.4", "bad")
        table = read_both_tables(self.own, self.fetched)
        self.assertEqual(list(table.hosts), ["x", "y", "z"])
        self.assertEqual(table.hosts["x"].name, "own")
        self.assertEqual([server.name for server in table.servers], ["a.edu"])
        self.assertEqual(
            table.problems,
            (f"{self.fetched}, line 3: 1 of at least 4 fields (id:domain:role:hostname)",),
        )

    def test_servers_of_the_fetched_table(self) -> None:
        """A fetched table does not say whom to ask next."""
        self.write(self.own, "^a.edu", GOOD.decode())
        self.write(self.fetched, "^evil.edu", "z:d:library:h:10.0.0.3")
        table = read_both_tables(self.own, self.fetched)
        self.assertEqual([server.name for server in table.servers], ["a.edu"])
        self.assertEqual(list(table.hosts), ["msul1", "z"])

    def test_without_servers(self) -> None:
        """Where hosts.tab names no server, a dns_hosts.tab that lies about is not looked at."""
        self.write(self.own, GOOD.decode())
        self.write(self.fetched, "z:d:library:h:10.0.0.3")
        self.assertEqual(list(read_both_tables(self.own, self.fetched).hosts), ["msul1"])

    def test_none_yet(self) -> None:
        """Before the first fetch hosts.tab serves alone, even if there is no host in it."""
        self.write(self.own, "^a.edu")
        table = read_both_tables(self.own, self.fetched)
        self.assertEqual((table.hosts, table.problems), ({}, ()))

    def test_unusable(self) -> None:
        """A fetched table that is of no use is an error, or a problem for who asks for that."""
        self.write(self.own, "^a.edu", GOOD.decode())
        self.write(self.fetched, "<html>")
        error = self.assertRaises(TableError, read_both_tables, self.own, self.fetched)
        self.assertIn(f"{self.fetched}: there is no host", str(error))
        table = read_both_tables(self.own, self.fetched, lenient=True)
        self.assertEqual((list(table.hosts), table.problems), (["msul1"], (str(error),)))

    def test_own_is_unusable(self) -> None:
        """Without hosts.tab nothing serves, whatever was fetched."""
        self.write(self.fetched, GOOD.decode())
        error = self.assertRaises(TableError, read_both_tables, self.own, self.fetched)
        self.assertIn(self.own, str(error))

    def test_limits(self) -> None:
        """Ids that are too long are refused there too, and few problems are told."""
        self.write(self.own, "^a.edu")
        self.write(self.fetched, *["123456789:d:library:h:10.0.0.3"] * 100, "x:d:library:h:")
        table = read_both_tables(self.own, self.fetched, max_id=8)
        self.assertEqual(list(table.hosts), ["x"])
        self.assertEqual(len(table.problems), FETCHED_PROBLEM_LIMIT + 1)


class CompareTests(SynchronousTestCase):
    """What became of the hosts between two tables."""

    def test_changes(self) -> None:
        """S17: hosts are told apart by whether they are gone, changed, new or the same."""
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

    def test_whatDoesNotMatter(self) -> None:
        """F13: order, domain, role, further fields and another spelling leave a host alone."""
        old = parse("a:d:library:h:2001:db8::1", "b:d:library:h.edu:http")
        new = parse("#", "b:d:library:H.EDU.:https:x", "a:e:access:h:[2001:DB8::1]:x")
        self.assertEqual(compare(old, new), Changes((), (), (), ("b", "a")))
