"""Retries, DEAD and probes (rows S10, F4 and F5): the edges that `test_service_health` has not."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.host.health import Health
from lonc.test.fixtures.doubles import NoJitter


class HealthTestCase(SynchronousTestCase):
    """A Health whose probes are noted."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.probes: list[float] = []

    def health(self, retries: int = 2, random: Random | None = None) -> Health:
        """Return a Health that notes when it probes."""
        return Health(
            retries, self.clock, random or NoJitter(), lambda: self.probes.append(self.now)
        )

    @property
    def now(self) -> float:
        """Return the time of the clock."""
        return self.clock.seconds()

    def dead(self, random: Random | None = None) -> Health:
        """Return one that is DEAD."""
        health = self.health(1, random)
        health.failure()
        return health

    def failing(self, health: Health, times: int) -> list[float]:
        """Let so many probes fail, each at once; return the pauses before them."""
        pauses = []
        for _ in range(times):
            pauses.append(health.probes.left)
            self.clock.advance(health.probes.left)
            health.failure()
        return pauses


class RetriesTests(HealthTestCase):
    """Retries: what takes them, and what restores them (row S10)."""

    def test_another_number(self) -> None:
        """S10: a changed setting counts at once: what was lost stays lost, one at least is left."""
        health = self.health(3)
        health.failure()
        health.set_retries(5)
        self.assertEqual(health.left, 4)
        health.set_retries(1)
        self.assertEqual((health.left, health.dead), (1, False))
        health.failure()
        health.set_retries(7)
        self.assertEqual((health.left, health.dead), (0, True))
        health.success()
        self.assertEqual(health.left, 7)


class BreakTests(HealthTestCase):
    """F5: connections that break together are one failure."""

    def test_made_in_the_moment_of_the_break(self) -> None:
        """F5: a connection that was ready in the moment of the first break is part of it, still."""
        health = self.health(2)
        self.clock.advance(100)
        health.broke(10.0)
        self.clock.advance(1)
        self.assertFalse(health.broke(100.0))
        self.assertEqual(health.left, 1)
        self.assertTrue(health.broke(100.0 + 1e-6))

    def test_first_break_counts(self) -> None:
        """F5: the first break counts, even at time 0."""
        health = self.health(1)
        self.assertTrue(health.broke(0.0))


class ProbeTests(HealthTestCase):
    """Probes of a host that is DEAD (row F4)."""

    def test_jitter(self) -> None:
        """F4: every pause is shortened by chance, by a fifth at the most, and none is the same."""
        full = [1, 2, 4, 8, 16, 32, 60, 60, 60]
        seen = set()
        for seed in range(20):
            pauses = self.failing(self.dead(Random(seed)), 9)
            for pause, most in zip(pauses, full, strict=True):
                self.assertTrue(0.8 * most <= pause <= most, pause)
            seen.add(pauses[0])
        self.assertEqual(len(seen), 20)

    def test_next_probe_counts_down(self) -> None:
        """F4: the time of the next probe can be told, and there is none while one is under way."""
        health = self.dead()
        self.clock.advance(0.25)
        self.assertEqual(health.probes.left, 0.75)
        self.clock.advance(0.75)
        self.assertEqual(health.probes.left, -1.0)
        self.assertEqual(self.probes, [1.0])

    def test_restored_host_is_not_probed(self) -> None:
        """F4: a host that is back is not probed, and its next death begins with 1 second."""
        health = self.dead()
        self.failing(health, 5)
        health.success()
        self.assertEqual(health.probes.left, -1.0)
        before = len(self.probes)
        self.clock.advance(1000)
        self.assertEqual(len(self.probes), before)
        health.failure()
        self.assertEqual(health.probes.left, 1.0)
