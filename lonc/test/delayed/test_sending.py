"""Answers to delayed requests count once their connection is proven since."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.logger import LogLevel

from lonc.delayed.sending import PROOF_ANSWERS, TRY_AGAIN, UNPROVEN
from lonc.test.fixtures.delayed import FIRST, SECOND, DelayedCase, Proofs
from lonc.wire.request import Cause

T = TypeVar("T")


class ProofTests(DelayedCase):
    """An answer is valid once its connection has been proven after it."""

    noted = "S:l1:put:a:b"

    def setUp(self) -> None:
        super().setUp()
        self.connection = Proofs()

    def answer(self, count: int = 1) -> None:
        """Answer requests positively, over the connection."""
        for _ in range(count):
            self.l1.answer(b"ok\n", self.connection)

    def prove(self, outcome: bool = True) -> None:
        """End the proof that has waited longest."""
        self.connection.asked.pop(0).callback(outcome)

    def test_after_it(self) -> None:
        """
        F8: after a positive answer a request is deleted, and noted, once it is proven. A refused
        one is also only set aside then: the answer may be another's.
        """
        answer = {FIRST: b"put:a:b\n", FIRST + ".answer": b"refused\n"}
        for reply, kept in ((b"ok\n", {}), (b"refused\n", answer)):
            self.put(FIRST)
            self.restart()
            self.start()
            self.l1.answer(reply, self.connection)
            self.assertEqual((self.on_disk(), self.perm, self.in_kept()), ([FIRST], [], {}))
            self.prove()
            self.assertEqual((self.on_disk(), self.perm, self.in_kept()), ([], [self.noted], kept))
            self.perm.clear()

    def test_behind_one_that_waits(self) -> None:
        """A later answer that is valid at once still waits for the earlier ones."""
        self.put_many(3)
        self.start()
        self.answer()
        self.l1.answer()
        self.assertEqual(len(self.l1.asked), 3)
        self.assertEqual((len(self.on_disk()), self.perm), (3, []))
        self.prove()
        self.assertEqual((len(self.on_disk()), len(self.perm)), (1, 2))

    def test_one_for_all(self) -> None:
        """The first answer is proven at once, others after a second, or if there are many."""
        self.put_many(2 * PROOF_ANSWERS)
        self.start()
        self.answer(PROOF_ANSWERS - 1)
        self.assertEqual(len(self.connection.asked), 1)
        self.prove()
        self.assertEqual(len(self.on_disk()), 2 * PROOF_ANSWERS - 1)
        self.answer()
        self.tick(1)
        self.assertEqual(len(self.connection.asked), 1)
        self.prove()
        self.assertEqual(len(self.on_disk()), PROOF_ANSWERS)
        self.answer(PROOF_ANSWERS)
        self.assertEqual(len(self.connection.asked), 1)
        self.prove()
        self.assertEqual(self.on_disk(), [])

    def test_no_proof_for_long(self) -> None:
        """Without a proof only a limited number is sent, as they may have to be sent again."""
        self.put_many(2 * UNPROVEN)
        self.start()
        self.answer(UNPROVEN)
        self.tick(10)
        self.assertEqual(len(self.l1.asked), UNPROVEN)
        self.prove()
        self.assertEqual(len(self.l1.asked), UNPROVEN + 1)

    def test_answered_meanwhile(self) -> None:
        """A proof does not apply to answers that came after it had begun."""
        _, second = self.put_many(2)
        self.start()
        self.answer(2)
        self.prove()
        self.assertEqual(self.on_disk(), [second])
        self.tick(1)
        self.prove()
        self.assertEqual(self.on_disk(), [])

    def test_not_proven(self) -> None:
        """
        If a connection fails its proof, its requests are sent again, each as the first one on its
        connection; the log says so, and each is noted once.
        """
        names = self.put_many(3)
        self.start()
        self.answer(2)
        self.prove(False)
        self.assertEqual(
            self.logged(LogLevel.warn),
            [
                "l1: delayed requests are sent again, because their answers cannot be trusted:"
                f" {names[0]} and 1 more"
            ],
        )
        self.answer()  # the third, which is sent again as well
        for _ in range(3):
            self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:%d\n" % number for number in (1, 2, 3, 1, 2, 3)])
        self.assertEqual(self.l1.fresh, [b"put:1\n", b"put:2\n"])
        self.assertEqual((self.on_disk(), len(self.perm)), ([], 3))

    def test_order(self) -> None:
        """S13: with a request that is sent again, later ones are too, so the order stays."""
        self.put_many(2)
        other = Proofs()
        self.start()
        self.answer()
        self.l1.answer(b"ok\n", other)
        self.tick(1)
        other.asked.pop().callback(True)
        self.assertEqual(len(self.on_disk()), 2)
        self.prove(False)
        self.l1.answer()
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:2\n"] * 2)
        self.assertEqual(self.on_disk(), [])

    def test_sent_again_before_the_proof(self) -> None:
        """A proof does not apply to an answer that came over another connection since."""
        self.put_many(2)
        other, third = Proofs(), Proofs()
        self.start()
        self.answer()
        self.l1.answer(b"ok\n", other)
        self.tick(1)
        self.prove(False)
        self.l1.answer()
        self.l1.answer(b"refused\n", third)
        other.asked.pop().callback(True)
        self.assertEqual(len(self.on_disk()), 1)
        self.tick(1)
        third.asked.pop().callback(True)
        self.assertEqual(len(self.in_kept()), 2)

    def test_order_while_read(self) -> None:
        """S13: a request that is being read when earlier ones must be sent again waits for them."""
        threads: list[Callable[[], object]] = []

        def in_thread(function: Callable[[], T]) -> Deferred[T]:
            if not self.l1.asked:
                return execute(function)
            done = Deferred[T]()
            threads.append(lambda: execute(function).chainDeferred(done))
            return done

        self.service = self.make(in_thread)
        self.put_many(2)
        self.start()
        self.answer()
        self.prove(False)
        while threads:
            threads.pop(0)()
        self.l1.answer()
        while threads:
            threads.pop(0)()
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:1\n", b"put:2\n"])

    def test_host_lost(self) -> None:
        """If a request that is sent again gets con_lost, it stays until the host is back."""
        self.put(FIRST)
        self.start()
        self.answer()
        self.l1.alive = False
        self.prove(False)
        self.tick(5)
        self.assertEqual(len(self.l1.asked), 1)
        self.l1.alive = True
        self.service.retry("l1")
        self.l1.lose(Cause.TIMEOUT)
        self.tick(2)
        self.l1.answer()
        self.assertEqual(self.on_disk(), [])

    def test_taken_away(self) -> None:
        """A file that somebody deletes before the proof is no error."""
        self.put(FIRST)
        self.start()
        self.answer()
        self.take_away(FIRST)
        self.tick(3)
        self.prove()
        self.assertEqual(len(self.perm), 1)
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_stop(self) -> None:
        """stopService proves all answers, also those that only arrive then."""
        names = self.put_many(3)
        self.start()
        self.answer()
        self.prove()
        self.answer()
        stopped = self.service.stopService()
        self.prove()
        self.assertNoResult(stopped)
        self.answer()
        self.assertEqual(self.on_disk(), names[2:])
        self.prove()
        self.successResultOf(stopped)
        self.assertEqual(
            (self.on_disk(), self.l1.asked), ([], [b"put:1\n", b"put:2\n", b"put:3\n"])
        )

    def test_stopped_without(self) -> None:
        """What cannot be proven then stays on disk."""
        self.put(FIRST)
        self.start()
        self.answer()
        stopped = self.service.stopService()
        self.prove(False)
        self.successResultOf(stopped)
        self.assertEqual((self.on_disk(), self.perm), ([FIRST], []))


class SealedProofTests(ProofTests):
    """The same with requests that are sealed."""

    with_key = True
    noted = "S:l1:put"  # and no more of the request

    def test_not_proven_and_plain_stays(self) -> None:
        """Nothing is left of a discarded answer, even if the file cannot be deleted."""
        self.steps.fail("write form", errno.ENOSPC)
        self.put(FIRST)
        self.start()
        self.l1.answer(b"refused\n", self.connection)
        self.steps.faults.clear()
        self.steps.fail("remove plain", errno.EROFS)
        self.tick(int(TRY_AGAIN))
        self.prove(False)
        self.tick(int(TRY_AGAIN))
        self.steps.faults.clear()
        self.l1.answer(b"ok\n")
        self.tick(2 * int(TRY_AGAIN))
        self.assertEqual((self.on_disk(), self.in_kept()), ([], {}))

    def test_key_goes(self) -> None:
        """If the key is removed before a proof fails, the request stays until the key is back."""
        self.put(FIRST)
        self.start()
        self.answer()
        self.service.reconfigure(attrs.evolve(self.settings, delayed_key_file=None))
        self.tick(1)
        self.prove(False)
        self.tick(5)
        self.assertEqual((len(self.l1.asked), self.on_disk()), (1, [FIRST]))
        self.assertEqual(self.logged(LogLevel.critical), [])
        self.service.reconfigure(self.settings)
        self.tick(2)
        self.l1.answer()
        self.assertEqual((len(self.l1.asked), self.on_disk()), (2, []))


class HandedOnTests(DelayedCase):
    """Answered requests that cannot be deleted or moved, when another process takes over."""

    def hand_on(self) -> None:
        """Let another process take over; what it is given goes through JSON."""
        self.successResultOf(self.service.stopService())
        answered = json.loads(json.dumps(self.service.answered()))
        self.service = self.make()
        self.service.take_on(answered)
        self.service.startService()

    def test_not_sent_again(self) -> None:
        """Such a request is not sent again, and removed as soon as possible."""
        self.put(FIRST, b"put:1\n")
        self.put(SECOND, b"put:2\n")
        self.start()
        for step in ("remove request", "make note"):
            self.steps.fail(step, errno.EROFS)
        self.l1.answer()
        self.l1.answer(b"refused: \xff\n")
        self.hand_on()
        self.tick(10)
        self.assertEqual(self.on_disk(), [FIRST, SECOND])
        self.steps.faults.clear()
        self.tick(int(TRY_AGAIN))
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:2\n"])
        self.assertEqual(self.on_disk(), [])
        self.assertEqual(
            self.in_kept(), {SECOND: b"put:2\n", SECOND + ".answer": b"refused: \xff\n"}
        )

    def test_written_to(self) -> None:
        """If its file was written to since, it is another request, and sent."""
        self.put(FIRST, b"put:1\n")
        self.start()
        self.steps.fail("remove request", errno.EROFS)
        self.l1.answer()
        path = self.put(FIRST, b"put:12\n")
        os.utime(path, (1e9, 1e9))
        self.hand_on()
        self.steps.faults.clear()
        self.tick(4)
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:12\n"])

    def test_nonsense(self) -> None:
        """Wrong data from another process is an error at once."""
        nonsense: list[Any] = [{}, {"file": FIRST}, {"file": FIRST, "files": {FIRST: [1]}}, 3]
        for answered in nonsense:
            self.assertRaises((KeyError, TypeError), self.service.take_on, [answered])
