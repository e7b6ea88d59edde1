"""What a process hands on to the next one, and how it makes way for it."""

from __future__ import annotations

import json
import os
import time
from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon.succession import (
    LAST_WORDS,
    Succession,
    dead_of,
    distrust,
    knowledge_of,
    leave_dead,
    take_dead,
    take_on,
)
from lonc.disk.threads import Disk
from lonc.service import LoncService
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase
from lonc.test.fixtures.doubles import Attempt, leave_pending


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
        disk = Disk(self.clock, Mock(return_value=succeed(None)), lambda: 10.0)
        self.succession = Succession(
            *(outside, Mock(), Mock(clients=lambda: ()), Mock(), Mock(everyone=self.everyone)),
            *(disk, Mock(), ()),
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


class KnowledgeTests(ServiceTestCase):
    """What a process hands on to the next one."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.folder, "health")

    def with_a_dead_host(self) -> LoncService:
        """Return a daemon for which l2 is DEAD."""
        daemon = self.started()
        self.network.on_connect = Attempt.refuse
        self.ask("l2")
        self.assertEqual(daemon.hosts["l2"].state, "DEAD")
        self.network.on_connect = leave_pending
        return daemon

    def test_dead(self) -> None:
        """F4: a host that was DEAD is unproven and probed at once; a success brings it back."""
        hosts = self.started().hosts
        distrust(["l2", "gone"], hosts)
        self.assertEqual([host.state for host in hosts.values()], ["up", "unproven"])
        (attempt,) = self.network.attempts
        self.echoing()
        attempt.accept()
        self.clock.advance(0)
        self.assertEqual(hosts["l2"].state, "up")

    def test_dead_is_told(self) -> None:
        """F4: hosts that are DEAD or unproven are handed on."""
        daemon = self.with_a_dead_host()
        for _ in range(2):
            told = json.loads(json.dumps(knowledge_of(daemon.hosts, daemon._delayed)))
            self.assertEqual(told, {"pauses": {}, "answered": {}, "dead": {"l2": True}})
            daemon.hosts["l2"].reset_retries()

    def test_has_answered(self) -> None:
        """A host that has already answered stays up."""
        daemon = self.started()
        self.echoing()
        self.ask("l2")
        distrust(["l2"], daemon.hosts)
        self.assertEqual(daemon.hosts["l2"].state, "up")

    def test_pauses(self) -> None:
        """A pause continues until its end; those that are over, or of no host, do not."""
        daemon, now = self.started(), time.time()
        told = {
            "l1": {"by": "a", "reason": "b", "since": 1.0, "until": now + 1000.0, "fail": True},
            "l2": {"by": "a", "reason": "b", "since": 1.0, "until": now - 1.0, "fail": True},
            "gone": {"by": "a", "reason": "b", "since": 1.0, "until": 0.0, "fail": True},
        }
        take_on({"pauses": told}, daemon.hosts, daemon._delayed)
        self.assertEqual(knowledge_of(daemon.hosts, daemon._delayed)["pauses"], {"l1": told["l1"]})

    def test_not_understood(self) -> None:
        """Data that another release sends in another form is a ValueError."""
        daemon = self.started()
        for knowledge in ({"pauses": {"l1": {"who": "a"}}}, {"answered": {"x": {"file": "a"}}}):
            with self.assertRaises(ValueError):
                take_on(knowledge, daemon.hosts, daemon._delayed)

    def test_file(self) -> None:
        """The file of DEAD hosts is read once, and only if it is fresh and valid."""
        hosts = self.with_a_dead_host().hosts
        leave_dead(self.path, dead_of(hosts))
        self.assertEqual((take_dead(self.path), take_dead(self.path)), (["l2"], []))
        leave_dead(self.path, ["l2"])
        os.utime(self.path, (1.0, 1.0))
        self.assertEqual(take_dead(self.path), [])
        self.assertFalse(os.path.exists(self.path))
        os.mkfifo(self.path)
        self.assertEqual(take_dead(self.path), [])
        os.unlink(self.path)
        for text in ("", "[]", '{"dead": 1}', "\udcff"):
            with open(self.path, "w", errors="surrogateescape") as file:
                file.write(text)
            self.assertEqual(take_dead(self.path), [])
