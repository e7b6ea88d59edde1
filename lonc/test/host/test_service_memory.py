"""Memory that runs short: requests in flight, and answers that are not whole yet (row F3)."""

from __future__ import annotations

import attrs

from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.request import CON_LOST, Cause

#: Bytes that requests may take, and unfinished answers as many.
LIMIT = 100_000


class MemoryTests(HostTestCase):
    """What is closed, and what goes on."""

    def test_request_in_flight(self) -> None:
        """The largest request gets con_lost, its connection is closed at once; others go on."""
        stage = Stage(self, max_request_memory=LIMIT, max_line=90_000)
        stage.connect(2)
        large = stage.send(b"x" * 60_000 + b"\n")
        (lond,) = (each for each in stage.londs if each.asked)
        small = stage.send(b"y" * 50_000 + b"\n")
        self.assertEqual((large.read, lond.wire.aborted), (CON_LOST, True))
        (other,) = (each for each in stage.network.open_londs if each.asked)
        other.reply(b"done\n")
        self.assertEqual(small.read, b"done\n")
        self.assertEqual((stage.lost(Cause.MEMORY), stage.status.retries_left), (1, 2))
        self.assertEqual(stage.clients.requests.used, 0)

    def test_abandoned_in_flight(self) -> None:
        """A large request whose client has gone is the first to end."""
        stage = Stage(self, max_request_memory=LIMIT, max_line=90_000)
        stage.connect(2)
        gone = stage.send(b"x" * 40_000 + b"\n")
        gone.hang_up()
        (lond,) = (each for each in stage.londs if each.asked)
        stays = stage.send(b"y" * 70_000 + b"\n")
        self.assertTrue(lond.wire.aborted)
        self.assertEqual((stays.read, stage.clients.requests.used), (b"", 70_001))

    def test_unfinished_answers(self) -> None:
        """The longest answer that is not whole ends with its connection, the host is not blamed."""
        stage = Stage(self, max_request_memory=LIMIT, max_line=90_000)
        first, second = stage.connect(2)
        clients = [stage.client(b"get:a\n"), stage.client(b"get:b\n")]
        stage.turn()
        first.say(b"x" * 60_000)
        second.say(b"x" * 30_000)
        self.assertEqual(stage.clients.replies.used, 90_000)
        second.reply(b"x" * 15_000)
        self.assertEqual((first.wire.aborted, second.wire.aborted), (True, False))
        self.assertEqual(stage.clients.replies.used, 45_000)
        second.reply(b"\n")
        self.assertEqual(sorted(len(each.read) for each in clients), [len(CON_LOST), 45_001])
        self.assertEqual((stage.lost(Cause.MEMORY), stage.status.retries_left), (1, 2))
        self.assertEqual(stage.clients.replies.used, 0)
        self.assertIn("memory for answers", self.warnings[-1])

    def test_new_limit(self) -> None:
        """F13: a lower limit is for answers that go on."""
        stage = Stage(self, max_request_memory=LIMIT, max_line=90_000)
        first, second = stage.connect(2)
        for _ in range(2):
            stage.client(b"get:a\n")
        stage.turn()
        first.say(b"x" * 40_000)
        second.say(b"x" * 30_000)
        stage.clients.reconfigure(attrs.evolve(stage.settings, max_request_memory=50_000))
        second.reply(b"x")
        self.assertEqual((first.wire.aborted, second.wire.aborted), (True, False))

    def test_usual_answers_are_not_counted(self) -> None:
        """An answer that comes in pieces of a usual size costs nothing here."""
        stage, lond = self.connected()
        client = stage.send(b"get:a\n")
        lond.say(b"x" * 8_000)
        self.assertEqual(stage.clients.replies.sizes, {})
        lond.reply(b"\n")
        self.assertEqual(len(client.read), 8_001)

    def test_connection_that_breaks(self) -> None:
        """The memory of its incomplete answer is no longer counted."""
        stage, lond = self.connected()
        stage.send(b"get:a\n")
        lond.say(b"x" * 50_000)
        self.assertEqual(stage.clients.replies.used, 50_000)
        lond.close()
        self.assertEqual(stage.clients.replies.used, 0)
