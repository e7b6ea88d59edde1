"""How a process makes way for the next one."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon.succession import LAST_WORDS, Succession


class Asking:
    """A client that is closed once it has been answered."""

    def __init__(self, everyone: dict[Any, None]) -> None:
        self._everyone = everyone
        self.hung_up = 0
        self.answered = False
        everyone[self] = None

    def hang_up(self) -> None:
        """Go, if nothing is owed."""
        self.hung_up += 1
        if self.answered:
            self._everyone.pop(self, None)


class LeavingTests(SynchronousTestCase):
    """Clients before a stop, while new ones wait in sockets for the next process."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.everyone: dict[Any, None] = {}
        outside = Mock(reactor=self.clock, hosts={}, predecessor=None)
        self.disk = Mock()
        self.disk.run.side_effect = lambda path, limit, work: succeed(None)
        self.succession = Succession(
            *(outside, Mock(), Mock(clients=lambda: ()), Mock(), Mock(everyone=self.everyone)),
            *(self.disk, Mock(), ()),
        )

    def left(self) -> Deferred[None]:
        """Leave."""
        return Deferred.fromCoroutine(self.succession.leave_to_next())

    def test_nobody(self) -> None:
        """Without clients there is no wait."""
        self.successResultOf(self.left())

    def test_until_all_are_answered(self) -> None:
        """Waiting requests and those in flight are answered first."""
        slow, quick = Asking(self.everyone), Asking(self.everyone)
        left = self.left()
        quick.answered = True
        self.clock.advance(LAST_WORDS / 4)
        self.assertEqual([*self.everyone], [slow])
        self.assertNoResult(left)
        slow.answered = True
        self.clock.pump([LAST_WORDS / 20] * 2)
        self.successResultOf(left)

    def test_not_for_ever(self) -> None:
        """Clients without an answer in time are not waited for."""
        Asking(self.everyone)
        left = self.left()
        self.clock.pump([LAST_WORDS / 20] * 19)
        self.assertNoResult(left)
        self.clock.pump([LAST_WORDS / 20] * 2)
        self.successResultOf(left)
