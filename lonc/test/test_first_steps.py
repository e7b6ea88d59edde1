"""The page "First steps", followed with a real lonc."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator

from twisted.internet.task import deferLater

from lonc.test.fixtures.daemon import Child, DaemonTestCase, free_port, reactor
from lonc.test.fixtures.source import TREE, read

#: How often a command that only asks is given at most until it says what it should, and the pause
#: between, in seconds: a delayed request takes some to arrive.
TRIES, PAUSE = 40, 0.25
ASKS = ("lonc ask", "lonc delayed list", "lonc status")

#: The ``lonc`` that is tested, for the lonc in the folder ``var`` whatever else this machine has.
LONC = f'lonc() {{ "{sys.executable}" -m lonc "$@" --standalone var; }}; '


def typed() -> Iterator[tuple[str, str]]:
    """Yield each command of the page, and its output there."""
    page = read("docs", "first-steps.rst").partition("Run it from a .tac file\n")[0]
    for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", page):
        for command in re.split(r"^    \$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = command.partition("\n")
            yield line, output


def alike(text: str) -> list[str]:
    """Return lines without what differs between runs: version, process id, times, spaces."""
    text = re.sub(r"(?<=process )\d+|(?<=lonc )[\d.]+(?= of)", "*", text)
    text = re.sub(
        r"\d{10}\.\d+|\d\d:\d\d:\d\d|\b\d[\d.]* (ms|s|min)\b|(?<= )-(?=\s)", "*", text + "\n"
    )
    return [" ".join(line.split()) for line in text.split("\n") if line.strip()]


class FirstStepsTests(DaemonTestCase):
    """The commands of the page, in this order."""

    skip = None if os.path.exists(os.path.join(TREE, "docs")) else "the source tree is not at hand"

    async def test_page(self) -> None:
        """Each command prints what the page says, after a few seconds if it has to wait."""
        port = str(free_port("127.0.0.1", "127.0.0.2", "127.0.0.3"))
        started: list[Child] = []
        for command, output in typed():
            if command == "make run":
                if started:
                    self.assertEqual(await started[-1].ended(), 0)
                options = ("--lond-port", port)
                started.append(self.twistd("-n", "lonc", "--standalone", "var", *options))
                await started[-1].says("Ctrl-C ends it")
            elif not command.startswith("alias"):
                await self.prints(command, alike(output))
        self.assertEqual(len(started), 2)

    async def prints(self, command: str, expected: list[str]) -> None:
        """Run a command, repeatedly if it only asks, until it prints what it should."""
        for _ in range(TRIES if command.startswith(ASKS) else 1):
            shell = self.spawn(["/bin/sh", "-c", f"{LONC}{command}"])
            await shell.ended()
            said = alike((shell.out + shell.err).replace(os.path.realpath(self.work), "..."))
            if said == expected:
                return
            await deferLater(reactor, PAUSE)
        self.assertEqual(said, expected, command)
