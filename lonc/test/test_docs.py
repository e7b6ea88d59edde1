"""
The documentation against the code: what is documented exists, and what exists is documented.

The messages of the log are found in the source, so a new one without its entry in
``docs/messages.rst`` fails here. All of it is skipped where the source tree is not at hand.
"""

from __future__ import annotations

import ast
import doctest
import glob
import inspect
import io
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from unittest import SkipTest

import attrs
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.host.connection_states import Trouble
from lonc.report.kinds import KINDS
from lonc.report.status import DaemonStatus, HostStatus
from lonc.standalone import SCREEN
from lonc.tap import Options
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.programs import run_program
from lonc.test.fixtures.source import PACKAGE, PASSED_ON, TREE, Source, canonical, has_words, read
from lonc.wire.request import Cause

DOCS = os.path.join(TREE, "docs")
SKIP = (
    None if os.path.exists(os.path.join(DOCS, "messages.rst")) else "the source tree is not at hand"
)


#: Warnings of what is over when they are said: each time it happens there is another.
EVENTS = {
    "starting with {}",
    "cannot start: {}",
    "stopping",
    "stopped",
    "process {} has taken over: this one ends",
    "taken over from process {}",
    "process {} does not answer: killing it",
    "a new process could not take over: {}",
    "no socket was kept as {}: it is skipped",
    "{} has been written again",
    "no process has taken over: continuing as before",
    "the socket was missing and has been created again",
    "{} more hosts are no longer in the table",
    "the addresses of {} more hosts have changed",
    "the host's address has changed",
    "the host is no longer in the table",
    "the {} was missing and has been created again",
    "the lond does not accept this authentication mode, trying another: {}{}",
    "closing every connection on request{}",
    "a client is closed: {}",
    "delayed requests are sent again, because their answers cannot be trusted: {}{}",
    "delayed request {} changed while it was being sent: sending it again",
    "Not allowed over the management port: {} for {}{}",
    "Management command not understood: {}{}",
    "Management connection closed: {}{}",
    "descriptor {} is not ours",
    "the host's service has been restarted",
    "{}: refused a caller that {}",
    "Data of {}: {}",
    "the londs cannot be changed: {}",
}

#: Warnings of what lasts, and the problems that it is until it is over.
LASTING = {
    "a problem: {} ({})": (),
    "{} more problems ({})": (),
    "the lond is out of step, {} answers may have reached the wrong clients: {}{}": (
        "host-out-of-step",
    ),
    "clients cannot be served: {}": ("host-not-served", "name-not-served"),
    "nothing is changed: {}": ("reload-failed",),
    "the previous key stays in use: {}": ("reload-failed",),
    "{error}": ("port-not-open",),
    "{text}": ("log-file",),
    "no host table from {}: {}": ("table-not-fetched",),
    "no new host table: the last one stays in use, next try in {} s": ("table-not-fetched",),
    "the fetched host table cannot be written: {}": ("table-not-fetched",),
    "connection to {} {}: {}{}": ("host-refused", "host-timed-out", "host-broke", "host-loses"),
    "requests get con_lost: {}": ("host-leads-elsewhere",),
    "no connection attempted: {}": ("host-name",),
    "host marked dead: con_lost at once until it answers a probe; connection to {} {}: {}": (
        "host-refused",
        "host-dead",
    ),
    "its answers to ping differ or are missing: each connection is replaced after {} requests": (
        "host-ping",
    ),
    "{}: cannot accept clients: {}": ("files-used-up",),
    "{} requests are already waiting: another gets con_lost": ("host-loses",),
    "there are {} clients: another gets con_lost": ("clients-refused", "clients-full"),
    "there are {} clients: an idle one is disconnected": ("clients-full", "clients-cut-off"),
    "a client's request is given up with con_lost: {}": ("host-loses", "memory-used-up"),
    "the memory for answers is used up: the connection of the longest one is closed": (
        "host-loses",
    ),
    "a request's command contains a control byte: it gets con_lost": ("host-loses",),
    "a request names a host that this socket does not serve: it gets con_lost": ("host-loses",),
    "delayed request sent: {} ({}); the answer is {}, so it is kept in {}": ("delayed-kept",),
    "delayed request {} goes to {}: {}": ("delayed-kept",),
    "delayed request left for later: {}": ("delayed-folder", "delayed-disk-full"),
    "management port {}: every local user may see, and nobody may steer": ("management-open",),
    "the status file cannot be written: {}": ("status-file",),
}


def documented_messages() -> Iterator[tuple[str, str]]:
    """Yield what ``docs/messages.rst`` says: each message, and each of its severities."""
    for text, marks in re.findall(r"^``(.+)`` : (.+)$", read("docs", "messages.rst"), re.MULTILINE):
        for mark in marks.split(" or "):
            yield canonical(text), mark


def documented_rows(label: str) -> list[str]:
    """Return the first column of the table that follows a label of a page."""
    pages = "".join(read("docs", page) for page in ("states.rst", "fields.rst"))
    section = pages.partition(f".. _{label}:\n")[2].partition("\n.. _")[0]
    return re.findall(r"^   \* - ``(\w+)``$", section, re.MULTILINE)


class StatusTests(SynchronousTestCase):
    """The page on status and log."""

    skip = SKIP
    maxDiff = None

    def test_host_fields(self) -> None:
        """Each field of a host's status has its row, in order, and no other has."""
        fields = [field.name for field in attrs.fields(HostStatus)]
        self.assertEqual(documented_rows("host-status"), fields)

    def test_daemon_fields(self) -> None:
        """Each field of the daemon's status has its row, in order, and no other has."""
        fields = [field.name for field in attrs.fields(DaemonStatus)]
        self.assertEqual(documented_rows("daemon-status"), fields)

    def test_causes(self) -> None:
        """Each cause of a con_lost has its row, in order, and no other has."""
        self.assertEqual(documented_rows("con-lost-causes"), [cause.value for cause in Cause])

    def test_troubles(self) -> None:
        """Each way in which a connection can fail has its row."""
        page = read("docs", "messages.rst")
        for trouble in Trouble:
            self.assertIn(f"       * - ``{trouble.value}``\n", page)

    def test_messages(self) -> None:
        """Each message of the source is documented with its severity, and no other is."""
        source = Source()
        found = {*source.messages(), *source.debug_messages()}
        known = list(documented_messages())
        self.assertEqual(set(known), {(canonical(text), mark) for text, mark in found})
        self.assertEqual(len(known), len(set(known)), "a message is documented twice")

    def test_lasting(self) -> None:
        """
        What a warning says has happened and is over by then, or is a problem that stays and ends.
        """
        said = {
            text
            for text, mark in documented_messages()
            if mark in ("WARNING", "CRITICAL") and "fault" not in text and "failed" not in text
        }
        self.assertEqual(said - EVENTS - set(LASTING), set(), "neither an event nor a problem")
        self.assertEqual((EVENTS | set(LASTING)) - said, set(), "there is no such message")
        self.assertEqual({kind for each in LASTING.values() for kind in each} - set(KINDS), set())

    def test_messages_without_words(self) -> None:
        """A format that only passes a text on is one whose texts are documented as reasons."""
        passed_on = {text for text, _ in Source().messages() if not has_words(text)}
        self.assertEqual(passed_on, PASSED_ON)

    def test_reasons(self) -> None:
        """Each text that becomes part of a message is on the page."""
        page = canonical(read("docs", "messages.rst") + read("docs", "states.rst"))
        texts = filter(has_words, Source().reasons())
        self.assertEqual([text for text in texts if canonical(text) not in page], [])

    def test_source_is_read(self) -> None:
        """The search of the source finds a message of each kind that it knows how to find."""
        source = Source()
        found = {(canonical(text), mark) for text, mark in source.messages()}
        self.assertIn(("stopping", "CRITICAL"), found)  # a plain one
        self.assertIn(("hosts: {} new, {} gone, {} changed, {} as before", "SUCCESS"), found)
        self.assertIn(("a client is closed: {}", "WARNING"), found)  # through Clients.warn
        self.assertIn(
            ("request {}, {} bytes", "debug 6"), map(self._plain, source.debug_messages())
        )
        reasons = set(source.reasons())
        self.assertIn("nobody listens there", reasons)  # one of two that are assigned at once
        self.assertIn("it is empty", reasons)  # from an exception

    def _plain(self, message: tuple[str, str]) -> tuple[str, str]:
        return canonical(message[0]), message[1]


class ArchitectureTests(SynchronousTestCase):
    """The page on architecture, and the rules for what may import what."""

    skip = SKIP

    def imports(self, package: str) -> set[str]:
        """Return the other packages of lonc that one imports, when it is loaded or later."""
        module = os.path.join(PACKAGE, f"{package}.py")
        pattern = os.path.join(PACKAGE, package, "**", "*.py")
        paths = [module] if os.path.exists(module) else glob.glob(pattern, recursive=True)
        self.assertGreater(len(paths), 0, package)
        found: set[str] = set()
        for node in (node for path in paths for node in ast.walk(ast.parse(read(path)))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lonc"):
                _, _, name = str(node.module).partition(".")
                found |= {name.partition(".")[0]} if name else {each.name for each in node.names}
        return found - {package, "__version__"}

    def floors(self) -> list[list[str]]:
        """Return the packages as they stand in the drawing, from the top."""
        house = read("docs", "architecture.rst").partition("\nThe house\n")[2]
        lines = re.findall(r"^    \|(.*)\|  ", house, re.M)
        return [re.findall(r"\w+", line) for line in lines]

    def test_packages(self) -> None:
        """Each package of lonc, and each module beside them, has a row, and a place."""
        page = read("docs", "architecture.rst").partition("\nThe house\n")[2]
        table = page.partition(":header-rows: 1")[2].partition("\n\n``wire``")[0]
        rows = " ".join(re.findall(r"^   \* - (``.*)$", table, re.M))
        there = {name.removesuffix(".py") for name in os.listdir(PACKAGE) if name[0] not in "._"}
        there = (there | {"__main__"}) - {"py.typed", "test"}
        self.assertEqual(sorted(re.findall(r"``(\w+)``", rows)), sorted(there))
        self.assertEqual(sorted(chain(*self.floors())), sorted(there))

    def test_arrows_go_down(self) -> None:
        """A package imports only what stands below it in the drawing: there is no circle."""
        floors = self.floors()
        self.assertGreater(len(floors), 5)
        for number, floor in enumerate(floors):
            below = {package for lower in floors[number + 1 :] for package in lower}
            for package in floor:
                self.assertEqual(self.imports(package) - below, set(), package)

    def test_imports_are_found(self) -> None:
        """The search for imports finds those of the module that has most, and of a package."""
        self.assertLessEqual({"host", "delayed", "daemon"}, self.imports("service"))
        self.assertLessEqual({"local", "wire", "transport"}, self.imports("host"))

    def test_fixtures(self) -> None:
        """What tests share is in lonc/test/fixtures: none takes anything out of another."""
        for path in glob.glob(os.path.join(PACKAGE, "test", "**", "*.py"), recursive=True):
            taken = re.findall(r"^ *from (lonc\.test\.[\w.]*\btest_\w+) import", read(path), re.M)
            self.assertEqual(taken, [], path)

    def test_rows(self) -> None:
        """Each row has its place in the table, and functions, whose modules name it."""
        page = read("docs", "architecture.rst")
        cell = r"     - (.*\n(?:       .*\n)*)"
        rows = re.findall(rf"^   \* - ([SF]\d+)\n{cell}{cell}", page, re.M)
        expected = [*(f"S{row}" for row in range(1, 21)), *(f"F{row}" for row in range(1, 17))]
        self.assertEqual([row for row, _, _ in rows], expected)
        for row, what, where in rows:
            self.assertTrue(what.strip(), row)
            names = [f"lonc.{name}" for name in re.findall(r"``([\w.]+)``", where)]
            functions = [namedAny(name) for name in names]
            self.assertTrue(functions, row)
            self.assertEqual(
                [f"{each.__module__}.{each.__qualname__}" for each in functions], names
            )
            files = {inspect.getsourcefile(each) for each in functions}
            named = [file for file in files if re.search(rf"\b{row}\b", read(str(file)))]
            self.assertTrue(named, f"{row} is named in none of its modules")


class NamedTests(SynchronousTestCase):
    """What the pages tell people to type."""

    skip = SKIP

    def test_commands(self) -> None:
        """Every command, option and file to run that a page names is there."""
        try:
            from lonc.cli.main import commands
        except ImportError as missing:
            raise SkipTest(f"lonc is not installed with all that it needs: {missing}") from None
        pages = {path: read(path) for path in glob.glob(os.path.join(DOCS, "*.rst"))}
        pages |= {name: read(name) for name in ("README.md", "CONTRIBUTING.md")}
        given = [*Options.optParameters, *Options.optFlags]
        options = {long for long, *_ in given} | {"help", "version"}
        made = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
        for page, text in pages.items():
            # What stands in the text of messages.rst are messages.
            quoted = "" if page.endswith("messages.rst") else "|``"
            typed = rf"(?:^ *[$#] (?:sudo -u www )?{quoted}|bin/)lonc ([a-z-]+)"
            for command in re.findall(typed, text, re.MULTILINE):
                if f"``lonc {command} 1``" not in text:  # how a sealed file begins
                    self.assertIn(command, commands.all, page)
            for option in re.findall(r"twistd (?:-\w+ )?lonc --([a-z-]+)", text):
                self.assertIn(option, options, page)
            self.assertEqual(re.findall(r"(?:``|[$#] )lonc --", text), [], page)
            for target in re.findall(r"(?:``|[$#] )make ([a-z]+)", text):
                self.assertIn(target, made, page)
            for path in re.findall(r"(?:docs/examples|benchmarks)/\w+\.py", text):
                self.assertTrue(os.path.exists(os.path.join(TREE, path)), f"{page}: {path}")


class InterfaceTests(SynchronousTestCase):
    """The page on the API: all that the others tell programs to use."""

    skip = SKIP

    #: Pages on how lonc is made, which name what is not for others.
    INSIDE = ("architecture.rst", "performance.rst", "api.rst")

    def documented(self) -> set[str]:
        """Return the full names of what the page documents."""
        page = read("docs", "api.rst")
        found: set[str] = set()
        for name, options in re.findall(r"^\.\. auto\w+:: (\S+)\n((?: .*\n)*)", page, re.M):
            members = re.findall(r"\w+", options.partition(":members:")[2].partition("\n")[0])
            every = ":members:\n" in options
            module = import_module(name) if every and name.islower() else None
            found |= {name, *(f"{name}.{each}" for each in (members or vars(module or object)))}
        for each in re.findall(r"``([\w.]+)``", page):
            found |= {each, f"lonc.lond.faults.{each}", f"lonc.testing.{each}"}
        return found

    def used(self) -> dict[str, str]:
        """Return the full name of each thing that pages and examples use, with who does."""
        programs = glob.glob(os.path.join(DOCS, "examples", "*.py"))
        pages = [
            each
            for each in glob.glob(os.path.join(DOCS, "*.rst"))
            if os.path.basename(each) not in self.INSIDE
        ]
        found: dict[str, str] = {}
        for path in [*programs, *pages]:
            text = read(path)
            imports = r"^ *(?:>>> )?from (lonc[\w.]*) import (\([^)]*\)|[^\n(]*)"
            for module, names in re.findall(imports, text, re.M):
                found |= {f"{module}.{name}": path for name in re.findall(r"\w+", names)}
            for name in re.findall(r":(?:class|func|mod|exc):`~?(lonc[\w.]*)`", text):
                found[name] = path
        return found

    def test_all_is_there(self) -> None:
        """What an example imports, or a page links to, is on the page."""
        documented, used = self.documented(), self.used()
        self.assertGreater(len(used), 30)
        missing = {name: where for name, where in used.items() if name not in documented}
        self.assertEqual(missing, {})

    def test_all_exists(self) -> None:
        """What an example imports, or a page links to, exists."""
        for name in self.used():
            module, _, last = name.rpartition(".")
            self.assertTrue(name in sys.modules or hasattr(import_module(module), last), name)


class ExampleTests(TestCase):
    """The programs of the documentation, and what it shows at an interpreter's prompt."""

    skip = SKIP

    def test_compile(self) -> None:
        """Every example compiles."""
        examples = glob.glob(os.path.join(DOCS, "examples", "*.py"))
        self.assertGreaterEqual(len(examples), 4)
        for path in examples:
            compile(read(path), path, "exec")

    def test_prompts(self) -> None:
        """What follows a prompt on a page is what Python says."""
        for page in ("client.rst", "embedding.rst", "protocol.rst"):
            report = io.StringIO()
            found = doctest.DocTestParser().get_doctest(read("docs", page), {}, page, page, 0)
            runner = doctest.DocTestRunner(verbose=False)
            runner.run(found, out=report.write)
            self.assertGreater(runner.tries, 0)
            self.assertEqual(report.getvalue(), "")

    async def run_example(self, *arguments: str) -> str:
        """Run a program in a folder whose path is short; return what it says."""
        output, errors, code = await run_program(*arguments, folder=short_folder(self))
        self.assertEqual(code, 0, errors.decode())
        return output.decode()

    async def test_embed(self) -> None:
        """The program that serves a host by itself prints what the page says it does."""
        program = os.path.join(DOCS, "examples", "embed.py")
        output = await self.run_example(program, ".")
        page = read("docs", "embedding.rst").partition("embed.py /tmp\n")[2].partition("\n\n")[0]
        self.assertEqual(output.split("\n")[:-1], [line.strip() for line in page.split("\n")])

    async def test_faults(self) -> None:
        """The test with a lond that does wrong passes."""
        program = os.path.join(DOCS, "examples", "test_with_faults.py")
        output = await self.run_example("-m", "twisted.trial", program)
        self.assertIn("PASSED (successes=1)", output)


class ReadmeTests(SynchronousTestCase):
    """What is read first."""

    skip = SKIP

    def test_commands(self) -> None:
        """The two commands are named, and exist."""
        readme, makefile = read("README.md"), read("Makefile")
        for target in ("run", "test"):
            self.assertIn(f"`make {target}`", readme)
            self.assertRegex(makefile, rf"(?m)^{target}:")

    def test_screen(self) -> None:
        """What the first command is said to print is what it prints, but for ids and places."""
        for page in (read("README.md"), read("docs", "first-steps.rst")):
            for line in filter(None, SCREEN.format_map(_Any()).splitlines()):
                pattern = ".+".join(map(re.escape, line.split("\0")))
                self.assertRegex(page, rf"(?m)^    {pattern}$")

    def test_links(self) -> None:
        """Every file that it links to is there, and so is each that CONTRIBUTING.md names."""
        text = read("README.md") + read("CONTRIBUTING.md")
        named = re.findall(r"\]\(([^)]+)\)|`(lonc/[\w./]+)`", text)
        for path in map("".join, named):
            self.assertTrue(os.path.exists(os.path.join(TREE, path)), path)

    def test_tests(self) -> None:
        """The tests that are said to be run alone exist."""
        tests = re.findall(r"bin/trial (lonc\.[\w.]+)", read("CONTRIBUTING.md"))
        self.assertGreater(len(tests), 1)
        for name in tests:
            namedAny(name)


class _Any(dict[str, str]):
    """Stands for whatever the fields of a format may become."""

    def __missing__(self, key: str) -> str:
        return "\0"
