"""What a host reports of its past: each field is filled in, and its times are Unix time."""

from __future__ import annotations

import time

from lonc.test.fixtures.stage import HostTestCase, Stage

#: What the wall clock shows, all the time: a moment some seconds ago is so much less.
NOW = 1793682120.0


class PastTests(HostTestCase):
    """A host over some minutes."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(time, "time", lambda: NOW)

    def test_nothing_has_happened(self) -> None:
        """A host without requests has no past."""
        stage = Stage(self)
        stage.advance(100)
        status = stage.status
        self.assertEqual((status.last_answer, status.last_failure, status.tried), (0.0, {}, False))
        self.assertEqual(status.handshakes, {"ready": 0, "failed": 0})
        self.assertAlmostEqual(status.since, NOW - 100.0)

    def test_answer(self) -> None:
        """When it last answered and how many handshakes were completed are told."""
        stage = Stage(self)
        stage.echoing()
        for _ in range(2):
            stage.advance(20)
            stage.send(b"ping\n")
        stage.advance(30)
        status = stage.status
        self.assertAlmostEqual(status.last_answer, NOW - 30.0)
        self.assertEqual(status.handshakes, {"ready": 1, "failed": 0})
        self.assertEqual((status.last_failure, status.tried), ({}, True))
        self.assertAlmostEqual(status.since, NOW - 70.0)

    def test_failure(self) -> None:
        """What failed last and when, handshakes that failed, and since when it is DEAD are told."""
        stage = Stage(self, retries=1)
        stage.stall_at(b"ekey\n")
        stage.advance(20)
        stage.send(b"ping\n")
        stage.londs[0].close()
        stage.turn()
        stage.advance(0.5)  # less than until the first probe
        status = stage.status
        self.assertEqual((status.state, status.last_answer), ("DEAD", 0.0))
        self.assertEqual(status.handshakes, {"ready": 0, "failed": 1})
        self.assertEqual(status.last_failure["when"], NOW)
        self.assertIn("closed", status.last_failure["what"])
        self.assertAlmostEqual(status.since, NOW - 0.5)
