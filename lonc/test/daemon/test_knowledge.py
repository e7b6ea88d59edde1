"""What a process knows and the next one should."""

from __future__ import annotations

import json
import os
import time

from lonc.daemon.succession import dead_of, distrust, knowledge_of, leave_dead, take_dead, take_on
from lonc.service import LoncService
from lonc.test.fixtures.daemon_in_memory import ServiceTestCase
from lonc.test.fixtures.doubles import Attempt, leave_pending


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
