"""Londs that are ill to order."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from lonc.cli.lond import lond
from lonc.cli.main import main
from lonc.config.hosts import read_host_table
from lonc.lond import illness
from lonc.lond.cluster import Cluster, LondService, prepare
from lonc.test.fixtures.lond_caller import Caller


class FileTests(SynchronousTestCase):
    """The file with the illnesses."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)

    def test_written(self) -> None:
        """What is written can be read; healthy londs are omitted."""
        self.assertEqual(illness.read(self.folder), {})
        illness.write(self.folder, "l2", "silent")
        illness.write(self.folder, "l1", "stopped")
        self.assertEqual(illness.read(self.folder), {"l1": "stopped", "l2": "silent"})
        illness.write(self.folder, "l1", "well")
        self.assertEqual(illness.read(self.folder), {"l2": "silent"})

    def test_nonsense(self) -> None:
        """Invalid lines are ignored."""
        with open(os.path.join(self.folder, "londs"), "wb") as file:
            file.write(b"l1 \xff\nl1\n\nl2 slow down\nl2 slow\n")
        self.assertEqual(illness.read(self.folder), {"l2": "slow"})


class ClusterTests(SynchronousTestCase):
    """A running cluster."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        prepare(self.folder)
        self.reactor = MemoryReactorClock()
        reactor: Any = self.reactor  # its interfaces are not declared for mypy
        table = read_host_table(os.path.join(self.folder, "tabs", "hosts.tab"))
        self.cluster = Cluster(reactor, self.folder, table, 5663, "l1")
        self.cluster.startService()
        self.addCleanup(self.cluster.stopService)

    def become(self, name: str) -> LondService:
        """Set the illness of the lond of l2; return it."""
        illness.write(self.folder, "l2", name)
        self.reactor.advance(Cluster.PAUSE)
        return self.cluster.getServiceNamed("l2")

    def caller(self, lond: LondService) -> Caller:
        """Connect to a lond; the connection is closed at the end of the test."""
        caller = Caller(lond.factory)
        self.addCleanup(caller.hang_up)
        return caller

    def test_stopped(self) -> None:
        """It does not listen, until it is well again."""
        self.assertFalse(self.become("stopped").running)
        lond = self.become("well")
        self.assertTrue(lond.running)
        caller = self.caller(lond)
        caller.enter()
        self.assertEqual(caller.say(b"ping"), b"l2\n")

    def test_silent(self) -> None:
        """It completes handshakes and answers no request."""
        caller = self.caller(self.become("silent"))
        caller.enter()
        self.assertEqual(caller.say(b"ping"), b"")

    def test_estranged(self) -> None:
        """It refuses callers."""
        self.assertEqual(self.caller(self.become("estranged")).say(b"init"), b"refused\n")

    def test_others(self) -> None:
        """Other londs are not affected."""
        self.become("stopped")
        self.assertTrue(self.cluster.getServiceNamed("l1").running)

    def test_stop(self) -> None:
        """A stopped cluster starts no lond."""
        self.become("stopped")
        self.successResultOf(self.cluster.stopService())
        self.assertFalse(self.become("well").running)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class CommandTests(SynchronousTestCase):
    """``lonc-lond``."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        prepare(self.folder)

    def told(self, *arguments: str) -> str:
        """Run the command; return its output."""
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with redirect_stdout(output):
            main(["--standalone", self.folder, *arguments], lond, "lonc-lond")
        output.seek(0)
        return output.read()

    def test_change(self) -> None:
        """It sets the illness of a lond, and lists those of all."""
        self.assertIn("answers no request", self.told("l2", "silent"))
        self.assertEqual(illness.read(self.folder), {"l2": "silent"})
        self.assertEqual(self.told(), "l1  well\nl2  silent\n")
        self.assertEqual(self.told("l2"), "l2  silent\n")

    def test_wrong(self) -> None:
        """Unknown hosts and illnesses are errors."""
        for arguments, status in ((["l9", "slow"], 1), (["l2", "dead"], 64)):
            ended = self.assertRaises(SystemExit, self.told, *arguments)
            self.assertEqual(ended.code, status)
        self.assertEqual(illness.read(self.folder), {})
