"""Lines that others can cause."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.report.events import RateLimited


class RateLimitedTests(SynchronousTestCase):
    """Repeated warnings."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limited = RateLimited(self.clock, 10.0, max_keys=2)

    def test_first_at_once(self) -> None:
        """The first comes at once, later ones wait, and their number comes with the next."""
        self.assertEqual(self.limited.allow("a"), "")
        self.assertIsNone(self.limited.allow("a"))
        self.clock.advance(9.9)
        self.assertIsNone(self.limited.allow("a"))
        self.clock.advance(0.1)
        self.assertEqual(self.limited.allow("a"), " (2 like this left out)")
        self.assertIsNone(self.limited.allow("a"))
        self.clock.advance(10)
        self.assertEqual(self.limited.allow("a"), " (1 like this left out)")

    def test_keys_are_apart(self) -> None:
        """A key that repeats does not silence another."""
        self.assertEqual(self.limited.allow("a"), "")
        self.assertEqual(self.limited.allow("b"), "")

    def test_many_keys(self) -> None:
        """More keys than are remembered share one limit, so that many keys make few lines."""
        self.limited.allow("a")
        self.limited.allow("b")
        allowed = [self.limited.allow(str(n)) for n in range(1000)]
        self.assertEqual(allowed, [""] + [None] * 999)
        self.assertIsNone(self.limited.allow("a"))

    def test_keys_are_forgotten(self) -> None:
        """Keys whose time is over make room for others."""
        self.limited.allow("a")
        self.limited.allow("b")
        self.clock.advance(10)
        self.assertEqual([self.limited.allow("c"), self.limited.allow("d")], ["", ""])
        self.assertIsNone(self.limited.allow("c"))
