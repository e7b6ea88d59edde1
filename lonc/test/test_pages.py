"""
The pages for operations against the code: commands, symptoms, metrics.

Each test is skipped where lonc is installed without its source tree.
"""

from __future__ import annotations

import glob
import os
import re
import runpy
from collections.abc import Iterator

import attrs
import click
from twisted.trial.unittest import SynchronousTestCase

from lonc.cli.main import commands
from lonc.config.rlimit import SPARE, needed_files
from lonc.config.settings import MANAGEMENT_SOCKET
from lonc.report.judgement import finding, summary
from lonc.report.kinds import KINDS
from lonc.report.problems import problem
from lonc.report.records import (
    ClientStatus,
    ConnectionStatus,
    DelayedStatus,
    RequestRecord,
    SettingStatus,
)
from lonc.report.times import HostTimes, Times
from lonc.tap import Options
from lonc.test.fixtures.doubles import some_settings
from lonc.test.fixtures.source import TREE, read
from lonc.test.fixtures.statuses import a_daemon, a_status
from lonc.web.metrics import Watched, exposition
from lonc.wire.request import Cause


def sections(page: str, line: str) -> dict[str, str]:
    """Return the sections of a page by their headings, which are underlined by one character."""
    parts = re.split(rf"^(.+)\n{re.escape(line)}{{3,}}\n", read("docs", page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def all_commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each command that is not a group, with its full name."""
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


class CommandPageTests(SynchronousTestCase):
    """The page on the command."""

    maxDiff = None

    def setUp(self) -> None:
        self.sections = sections("command.rst", "~")

    def test_commands(self) -> None:
        """Each command has a section, whose heading names its arguments; there are no others."""
        expected = set()
        for name, command in all_commands(commands, "lonc"):
            arguments = [each for each in command.params if isinstance(each, click.Argument)]
            words = [
                str(each.name).upper() if each.required else f"[{str(each.name).upper()}]"
                for each in arguments
            ]
            expected.add(" ".join([name, *words]))
        expected.add("lonc-lond [HOST [STATE]]")  # a command of its own
        self.assertEqual(set(self.sections), expected)

    def test_options(self) -> None:
        """Each option of a command is in its section, and the common ones are at the top."""
        top = read("docs", "command.rst").partition("\nExit status\n")[0]
        shared = {name for each in commands.params for name in each.opts}
        for option in shared:
            self.assertRegex(top, rf"``{option}[ `]")
        texts = {
            " ".join(word for word in heading.split() if not word.strip("[]").isupper()): text
            for heading, text in self.sections.items()
        }
        for name, command in all_commands(commands, "lonc"):
            own = {
                option
                for each in command.params
                if isinstance(each, click.Option)
                for option in each.opts
            }
            explained = re.findall(r"^``(--.+)``$", texts[name], re.MULTILINE)
            documented = set(re.findall(r"--[a-z]+", " ".join(explained)))
            self.assertEqual(documented, own - shared, name)

    def test_fields(self) -> None:
        """Each field of a listing is documented in the section, in order."""
        for heading, record, *more in (
            ("lonc hosts [HOST]", ConnectionStatus),
            ("lonc clients [HOST]", ClientStatus),
            ("lonc slow [HOST]", RequestRecord, "total"),
            ("lonc settings", SettingStatus),
            ("lonc delayed list [HOST]", DelayedStatus),
        ):
            rows = re.findall(r"^    ``(\w+)``  ", self.sections[heading], re.MULTILINE)
            fields = [field.name for field in attrs.fields(record)]
            self.assertEqual(rows, [*fields, *more], heading)

    def test_status(self) -> None:
        """Each field of the JSON output is documented in the section of ``lonc status``."""
        section = self.sections["lonc status"]
        found = summary(a_daemon(), [])
        named = {*found, *a_daemon().totals, *finding(problem("host-dead", "a", "DEAD"))}
        for name in named - {"schema"}:
            self.assertIn(f"``{name}``", section)


class TroublePageTests(SynchronousTestCase):
    """The page "when something is wrong"."""

    def test_symptoms(self) -> None:
        """Each symptom named by an advice or an alert rule has a section."""
        sections = [kind.section for kind in KINDS.values()]
        alerts = re.findall(r'advice: ".*; ([a-z-]+)"', read("contrib", "prometheus-alerts.yml"))
        rules = read("contrib", "prometheus-alerts.yml").count("- alert:")
        self.assertEqual(len(alerts), rules, "a rule names no symptom")
        page = read("docs", "trouble.rst")
        there = re.findall(r"^\.\. _([a-z-]+):\n\n\1: .+\n-{3,}$", page, re.MULTILINE)
        self.assertLessEqual({*sections, *alerts}, set(there))

    def test_causes(self) -> None:
        """Each cause of ``con_lost`` is in the section on it."""
        section = read("docs", "trouble.rst").partition(".. _con-lost:")[2].partition("\n.. _")[0]
        causes = re.findall(r"``(\w+)``", " ".join(re.findall(r"^   \* - (.*)$", section, re.M)))
        self.assertEqual(sorted(causes), sorted(cause.value for cause in Cause))

    def test_files(self) -> None:
        """The number of files that may be needed is the one that lonc calculates."""
        section = read("docs", "trouble.rst").partition(".. _open-files:")[2]
        self.assertIn(f"which is {needed_files(some_settings(), 500):,} for 500 hosts", section)
        self.assertIn(f" {SPARE} files are reserved", section)
        for page in (section, read("docs", "capacity.rst")):
            self.assertIn(f"``loncMaxClients`` + {SPARE}", page)

    def test_delayed(self) -> None:
        """Every command for delayed requests that a page names exists."""
        known = {name.split()[-1] for name, _ in all_commands(commands, "lonc")}
        for path in glob.glob(os.path.join(TREE, "docs", "*.rst")):
            for command in re.findall(r"(?:``|[$#] )lonc delayed ([a-z]+)", read(path)):
                self.assertIn(command, known, path)


class FromLoncnewPageTests(SynchronousTestCase):
    """The page for users of loncnew."""

    def test_signals(self) -> None:
        """Each signal of loncnew, to the parent or to a host's process, has its row."""
        parts = sections("from-loncnew.rst", "-")
        rows = {
            heading: re.findall("[A-Z][A-Z0-9]+", " ".join(re.findall(r"   \* - (.+)", text)))
            for heading, text in parts.items()
        }
        self.assertEqual(rows["Signals to the parent"], ["INT", "TERM", "HUP", "USR1", "USR2"])
        self.assertEqual(rows["Signals to the process of a host"], ["QUIT", "HUP", "USR1", "INT"])

    def test_files(self) -> None:
        """Each file that lonc shares with other programs has its row."""
        files = sections("from-loncnew.rst", "-")["Files"]
        for name in (
            *(".conf", "hosts.tab", "delayed", "delayed/kept", "lonc.pid", "lonc.log"),
            *("lonnet.perm.log", "loncstatus.txt", MANAGEMENT_SOCKET),
        ):
            self.assertRegex(files, rf"   \* - .*{re.escape(name)}``")


class MetricsPageTests(SynchronousTestCase):
    """The page on metrics."""

    def test_metrics(self) -> None:
        """Each metric has its row with kind and labels, in order, and there are no others."""
        rows = re.findall(
            r"^   \* - ``(lonc_\w+)``\n     - (\w+)\n     -(.*)$",
            read("docs", "metrics.rst"),
            re.MULTILINE,
        )
        documented = [
            (name, kind, set(re.findall(r"``(\w+)``", labels))) for name, kind, labels in rows
        ]
        host = a_status("l1", handshakes={"ready": 1}, con_lost={"dead": 1})
        daemon = a_daemon(reloads={"done": 1}, certificate="/c.pem")
        watched = Watched(host, {**HostTimes().totals(), "handshake": Times().totals()})
        text = "".join(exposition(daemon, [watched], []))
        made = []
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
            lines = re.findall(
                rf"^{name}(?:_bucket|_sum|_count)?(?:{{(.*)}})? ", text, re.MULTILINE
            )
            labels = {label for line in lines for label in re.findall(r'(\w+)="', line)}
            made.append((name, kind, labels - {"le"}))
        self.assertEqual(documented, made)


class ManualTests(SynchronousTestCase):
    """The manual pages, which are installed with the package, and how `make man` makes them."""

    def pages(self, name: str) -> Iterator[str]:
        """Yield a page as it is installed and as it is made."""
        yield read("docs", "man", f"{name}.1").replace("\\-", "-").rstrip("\n")
        made = runpy.run_path(os.path.join(TREE, "docs", "man", "make.py"))
        lines = made[f"{name.removesuffix('-lonc')}_page"]()
        yield "\n".join(lines).replace("\\-", "-")

    def test_lonc(self) -> None:
        """Every command is there with its options; there are no empty lines, that is, gaps."""
        for page in self.pages("lonc"):
            self.assertNotRegex(page, r"(?m)^$")
            for name, command in all_commands(commands, "lonc"):
                section = page.partition(f"\n.SS {name}")[2].partition("\n.S")[0]
                self.assertNotEqual(section, "", name)
                for each in command.params:
                    for flag in each.opts if isinstance(each, click.Option) else ():
                        self.assertIn(flag, section, f"{name}: make man")

    def test_twistd(self) -> None:
        """Every option of ``twistd lonc`` is there."""
        for page in self.pages("twistd-lonc"):
            self.assertNotRegex(page, r"(?m)^$")
            for long, *_ in (*Options.optParameters, *Options.optFlags):
                self.assertRegex(page, rf"--{long}\b", "make man")
