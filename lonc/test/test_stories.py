"""The stories of "When something is wrong", played to a real lonc: ``lonc status`` names each."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import sys
from collections.abc import Iterator

import attrs
from twisted.internet.task import deferLater

from lonc.test.fixtures.certificates import Authority, as_variables
from lonc.test.fixtures.daemon import DaemonTestCase, free_port, reactor
from lonc.test.fixtures.programs import run_program
from lonc.test.fixtures.source import TREE, read

#: The commands that are tested, for the lonc in the folder ``var``.
COMMANDS = "".join(
    f'{name}() {{ "{sys.executable}" -m {module} "$@" --standalone var; }}; '
    for name, module in (("lonc", "lonc"), ("lond", "lonc.cli.lond"))
)

#: Prints what a web server answers.
GET = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1])
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.write(answer.read().decode())
"""

#: Seconds that a request may take, in place of a minute: more than a slow lond does.
REQUEST_TIMEOUT = "8"


@attrs.frozen
class Story:
    """
    One of them.

    :ivar title: what happens.
    :ivar commands: what brings it about.
    :ivar named: what ``lonc status`` says then.
    """

    title: str
    commands: str
    named: str


def stories() -> Iterator[Story]:
    """Yield them in the order of the page, which they are played in."""
    page = read("docs", "trouble.rst").partition("\nPractise\n")[2]
    for each in re.split(r"^\*(?=[A-Z])", page, flags=re.MULTILINE)[1:]:
        commands, named = re.findall(r"::\n\n((?:    .*\n)+)", each)
        typed = "".join(line.removeprefix("    $ ") + "\n" for line in commands.splitlines())
        yield Story(each.partition("*")[0], typed.replace("lonc-lond", "lond"), named.strip())


class StoryCase(DaemonTestCase):
    """A real lonc, and what it says of itself."""

    async def named(self, title: str, words: str, *lonc: str) -> None:
        """Ask ``lonc status`` until it names a problem; that may take some seconds."""
        for _ in range(30):
            said, _, _ = await run_program("-m", "lonc", "status", "--all", *lonc, folder=self.work)
            if words in said.decode():
                return
            await deferLater(reactor, 0.5)
        self.fail(f"{title}: {words!r} is not in\n{said.decode()}")


class PractiseTests(StoryCase):
    """One daemon, whose network develops one problem after the other."""

    timeout = 600
    skip = None if os.path.exists(os.path.join(TREE, "docs")) else "the source tree is not at hand"

    async def test_stories(self) -> None:
        """Each problem is named by ``lonc status`` soon after it begins."""
        addresses = [f"127.0.0.{number}" for number in range(1, 5)]
        rows = [f"l{ip[-1]}:local:access:l{ip[-1]}.localhost:{ip}\n" for ip in addresses]
        for name in ("var", "var/tabs"):
            os.mkdir(os.path.join(self.work, name))
        self.write("".join(rows), "work", "var", "tabs", "hosts.tab")
        lonc = self.twistd(
            *("-n", "lonc", "--standalone", "var"),
            *("--lond-port", str(free_port(*addresses)), "--request-timeout", REQUEST_TIMEOUT),
        )
        await lonc.says("Ctrl-C ends it")
        told = list(stories())
        self.assertGreaterEqual(len(told), 10)
        for story in told:
            await self.spawn(["/bin/sh", "-c", COMMANDS + story.commands]).ended()
            await self.named(story.title, story.named, "--standalone", "var")
        self.assert_no_traceback(lonc)


class StartTests(StoryCase):
    """Problems that exist at the start."""

    def configured(self, **variables: str) -> None:
        """Write a configuration with an HTTP port."""
        self.http = free_port("127.0.0.1")
        at = {"loncHTTP": f"tcp:{self.http}:interface=127.0.0.1"}
        self.configure(free_port("127.0.0.1", "127.0.0.2"), **at, **variables)

    async def told(self, words: str) -> None:
        """Check and start: everything that shows problems says that this one is critical."""
        at = ("--config", self.path("loncapa.conf"))
        said, _, ended = await run_program("-m", "lonc", "check", *at, folder=self.work)
        self.assertIn(f"critical {words}", said.decode())
        self.assertEqual(ended, 1)
        lonc = self.lonc()
        await lonc.says(f"a problem: {words}")
        await self.named("at the start", f"critical  {words}", *at)
        await self.agreed(*at)
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)

    async def page(self, path: str) -> str:
        """Return a page; its status does not matter."""
        program = self.write(GET, "get.py")
        got, _, _ = await run_program(program, f"http://127.0.0.1:{self.http}/{path}")
        return got.decode()

    async def agreed(self, *at: str) -> None:
        """Command, exit status, page, health checks and metrics show the same problems."""
        said, _, ended = await run_program("-m", "lonc", "status", "--json", *at, folder=self.work)
        told = json.loads(said)
        self.assertEqual((told["state"], ended), ("critical", 2))
        lines = [f"{each['level']}  {each['what']}" for each in told["findings"]]
        self.assertEqual((await self.page("readyz")).splitlines(), ["critical", *lines])
        page, metrics = await self.page(""), await self.page("metrics")
        for each in told["findings"]:
            self.assertIn(html.escape(each["what"]), page)
            labels = f'kind="{each["kind"]}",level="{each["level"]}"'
            self.assertIn(f"\nlonc_problems{{{labels}}} 1\n", metrics)

    async def test_certificate(self) -> None:
        """A certificate that has ended."""
        os.mkdir(self.path("pki"))
        files = Authority(self.path("pki")).issue("l1.example.org", begins=-9.0, ends=-1.0)
        self.configured(
            **as_variables(files),
        )
        await self.told(f"the certificate {files.certificate} has expired")

    async def test_root(self) -> None:
        """If root starts lonc without ``--uid``, the web server cannot use its sockets."""
        if os.geteuid():
            self.skipTest("only root can play this")
        self.configured()
        os.chown(self.path("sock"), 1, 1)
        await self.told("started as root, lonc has sockets that nobody else may use")
