"""What is remembered of a lond for its next handshake."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from lonc.host.lond_memory import MEMORY, LondMemory
from lonc.wire.handshake import LondFacts, Omission


class LondMemoryTests(SynchronousTestCase):
    """A lond over some handshakes."""

    def setUp(self) -> None:
        self.memory = LondMemory(now=0.0)
        self.facts = LondFacts(
            "l2", version="2.11", knows_version=True, knows_sethost=True, mode="ssl"
        )
        self.memory.learn(self.facts)

    def test_accident(self) -> None:
        """What a lond failed at is left out for an hour; key files are then tried again."""
        self.memory.leave_out(Omission.KEY_FILES, now=10.0)
        before, after = MEMORY + 9.9, MEMORY + 10.0
        self.assertEqual(self.memory.omissions(before), [Omission.KEY_FILES])
        self.assertEqual(self.memory.omissions(after), [])
        self.assertEqual(
            [self.memory.retries_key_files(now) for now in (before, after)], [False, True]
        )

    def test_version_accident(self) -> None:
        """After a failure at ``version`` connections are good enough to keep."""
        self.memory.leave_out(Omission.VERSION, now=10.0)
        self.assertFalse(self.memory.retries_key_files(MEMORY + 10.0))

    def test_unknown_command(self) -> None:
        """A lond that does not know ``version`` is not asked again until it is forgotten."""
        self.memory.learn(attrs.evolve(self.facts, knows_version=False))
        self.assertEqual(self.memory.omissions(1e9), [Omission.VERSION])
        self.memory.forget()
        self.assertEqual(self.memory.omissions(0.0), [])

    def test_another_release(self) -> None:
        """Another version, or another answer to ``sethost``, is another release."""
        for changes, another in (
            ({}, False),
            ({"version": "2.12"}, True),
            ({"knows_version": False, "version": ""}, False),  # it was not asked, or did not say
            ({"knows_sethost": False}, True),
        ):
            facts = attrs.evolve(self.facts, **changes)
            self.assertEqual(self.memory.is_of_another(facts), another, changes)

    def test_first_handshake(self) -> None:
        """The first handshake is that of no other release."""
        self.assertFalse(LondMemory(now=0.0).is_of_another(self.facts))
