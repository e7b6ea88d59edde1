"""The examples of the documentation when something is wrong."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.utils import getProcessOutputAndValue
from twisted.protocols.basic import LineOnlyReceiver
from twisted.trial.unittest import TestCase

from lonc.control.access import OWNER
from lonc.control.server import ManagementFactory
from lonc.test.fixtures.beginnings import configured, short_folder
from lonc.test.fixtures.management import NotedDaemon
from lonc.test.fixtures.programs import run_program
from lonc.test.fixtures.source import TREE
from lonc.test.fixtures.statuses import a_status

EXAMPLES = os.path.join(TREE, "docs", "examples")

net: Any = reactor


class Binary(LineOnlyReceiver):
    """Answers every request with bytes that are not UTF-8."""

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        """Answer."""
        self.sendLine(b"\xff\xfe")


class ExamplesTests(TestCase):
    """Errors in the use of the examples."""

    timeout = 600
    skip = None if os.path.exists(EXAMPLES) else "the source tree is not at hand"

    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.config = configured(self.folder)
        port = net.listenUNIX(f"{self.folder}/l2", Factory.forProtocol(Binary))
        self.addCleanup(port.stopListening)
        self.management = ManagementFactory(
            NotedDaemon(a_status("l2")).responders, net, visitor_of=lambda _: OWNER
        )
        port = net.listenUNIX(f"{self.folder}/lonc.amp", self.management, mode=0o600)
        self.addCleanup(self.management.disconnect)
        self.addCleanup(port.stopListening)

    async def run_it(self, name: str, *arguments: str) -> tuple[bytes, str]:
        """Run an example; return its output and its errors."""
        out, err, _ = await run_program(os.path.join(EXAMPLES, name), *arguments)
        self.assertNotIn(b"Traceback", err)
        return out, err.decode()

    async def test_arguments(self) -> None:
        """Wrong or missing arguments are an error of one line."""
        endpoint = f"unix:{self.folder}/lonc.amp"
        for name, *arguments in (
            ("ask.py",),
            ("ask.py", f"{self.folder}/l2"),
            ("ask.py", f"{self.folder}/nosuch", "ping"),
            ("ask.py", "x" * 200, "ping"),
            ("client_blocking.py",),
            ("client_blocking.py", f"{self.folder}/nosuch.conf", "l2"),
            ("client_blocking.py", self.config, "../l2"),
            ("client_twisted.py",),
            ("client_twisted.py", self.folder),
            ("client_twisted.py", self.folder, "no such host"),
            ("embed.py",),
            ("embed.py", f"{self.folder}/nosuch"),
            ("manage.py",),
            ("manage.py", endpoint),
            ("manage.py", endpoint, "nosuch"),
            ("manage.py", endpoint, "debug", "l2"),
            ("manage.py", endpoint, "debug", "l2", "high"),
            ("manage.py", endpoint, "debug", "l2", "99"),
            ("manage.py", endpoint, "stop", "l2"),
            ("manage.py", endpoint, "reset", "l2", "3"),
            ("manage.py", "nowhere", "list"),
        ):
            out, err = await self.run_it(name, *arguments)
            self.assertEqual((out, len(err.splitlines())), (b"", 1), (name, arguments, err))

    async def test_closed_pipe(self) -> None:
        """A closed pipe is an error of one line."""
        os.mkdir(os.path.join(self.folder, "e"))
        for name, *arguments in (
            ("ask.py", f"{self.folder}/l2", "ping"),
            ("client_twisted.py", self.folder, "l2"),
            ("embed.py", os.path.join(self.folder, "e")),
            ("manage.py", f"unix:{self.folder}/lonc.amp", "list"),
        ):
            program = [sys.executable, os.path.join(EXAMPLES, name), *arguments]
            environment = {**os.environ, "PYTHONPATH": TREE}
            _, err, _ = await getProcessOutputAndValue(
                "/bin/sh", ["-c", '"$@" | :', "sh", *program], environment
            )
            self.assertEqual(err.decode(), f"{name}: [Errno 32] Broken pipe\n")

    async def test_no_text(self) -> None:
        """An answer that is not UTF-8 is shown, or is an error of one line."""
        out, err = await self.run_it("ask.py", f"{self.folder}/l2", "ping")
        self.assertEqual((out, err), (b"\xff\xfe\n", ""))
        out, err = await self.run_it("client_twisted.py", self.folder, "l2")
        self.assertEqual((out.rstrip(), err), (b"l2: \\xff\\xfe", ""))
        out, err = await self.run_it("client_blocking.py", self.config, "l2")
        self.assertIn(b"put: \\xff\\xfe\n", out)
        self.assertEqual(len(err.splitlines()), 1, err)
