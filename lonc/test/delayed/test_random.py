"""Whatever happens, in whatever order: no delayed request is lost, and none is taken for done."""

from __future__ import annotations

import errno
import os
from random import Random

import attrs
from twisted.internet.task import Clock

from lonc.delayed.sending import TRY_AGAIN
from lonc.test.fixtures.delayed import DelayedCase, Host, Proofs, Steps
from lonc.wire.request import Cause

#: What may happen to a request, to a proof, to the disk, to lonc, and how often.
EVENTS = {
    "answer": 12,
    "prove": 5,
    "wait": 5,
    "store": 4,
    "lose": 2,
    "crash": 1,
}

#: Histories that are tried; `make soak` tries 1,000.
SEEDS = int(os.environ.get("EXAMPLES", "24"))

#: After these requests may go out in another order.
DISTURBING = {"heal": 2, "break_disk": 1, "change_key": 1}


class RandomTests(DelayedCase):
    """Random histories of the requests of one host."""

    def begin(self, seed: int) -> None:
        """Begin anew."""
        self.setUp()
        self.random = Random(seed)
        self.stored: list[bytes] = []
        self.yes: set[bytes] = set()  # what has an answer that counts
        self.no: set[bytes] = set()
        self.proofs = [Proofs(), Proofs()]
        self.unproven: list[tuple[bytes, bytes, int]] = []  # request, answer, connection
        self.sent: list[bytes] = []
        for _ in range(self.random.randint(1, 8)):
            self.store()
        self.start()

    def store(self) -> None:
        number = len(self.stored) + 1
        self.stored.append(b"put:%d\n" % number)
        self.put(f"1.{number}.4711.put.l1", self.stored[-1])

    def answer(self) -> None:
        if self.l1.owes:
            reply, connection = self.random.choice([b"ok\n", b"ok\n", b"refused\n"]), None
            number = self.random.randint(-2, 1)
            if number < 0:
                self.count(self.l1.asked[-1], reply)
            else:
                connection = self.proofs[number]
                self.unproven.append((self.l1.asked[-1], reply, number))
            self.l1.answer(reply, connection)

    def count(self, line: bytes, reply: bytes) -> None:
        """Note a valid answer."""
        (self.yes if reply == b"ok\n" else self.no).add(line)

    def lose(self) -> None:
        if self.l1.owes:
            self.l1.lose(self.random.choice([Cause.BROKEN, Cause.TIMEOUT, Cause.NOT_SERVED]))

    def prove(self) -> None:
        self.end_proofs(self.random.random() < 0.6)

    def end_proofs(self, outcome: bool) -> None:
        """End each proof that was begun."""
        for number, proofs in enumerate(self.proofs):
            if proofs.asked:
                answered = [each for each in self.unproven if each[2] == number]
                self.unproven = [each for each in self.unproven if each[2] != number]
                for line, reply, _ in answered if outcome else ():
                    self.count(line, reply)
            while proofs.asked:
                proofs.asked.pop(0).callback(outcome)

    def wait(self) -> None:
        self.tick(self.random.randint(1, 4))

    def break_disk(self) -> None:
        steps = ["remove request", "remove plain", "name form", "move request", "write note"]
        self.steps.fail(self.random.choice(steps), errno.EROFS)

    def heal(self) -> None:
        self.steps.faults.clear()

    def crash(self) -> None:
        """Stop at one of the next steps on the disk, and begin anew with what is there."""
        self.steps.crash_at = len(self.steps.taken) + self.random.randint(0, 9)
        self.answer()
        self.end_proofs(True)
        self.tick(2)
        self.sent += self.l1.asked
        self.clock, self.steps = Clock(), Steps()
        self.hosts["l1"] = self.l1 = Host()
        self.proofs, self.unproven = [Proofs(), Proofs()], []
        self.service = self.make()
        self.start()

    def change_key(self) -> None:
        with_key = self.settings_with_key("key")
        there = self.settings.delayed_key_file is None
        self.settings = with_key if there else attrs.evolve(with_key, delayed_key_file=None)
        self.service.reconfigure(self.settings)

    def on_the_disk(self) -> set[bytes]:
        """Return all requests in the folders, waiting, sealed or kept."""
        numbers = set()
        for folder in ("", "sealed", "kept"):
            path = os.path.join(self.settings.delayed_dir, folder)
            for name in os.listdir(path) if os.path.isdir(path) else ():
                if name.startswith("1.") and ".answer" not in name and "~sealing" not in name:
                    numbers.add(b"put:%d\n" % int(name.split(".")[1]))
        return numbers

    def finish(self) -> None:
        """Repair everything, and let all requests be answered."""
        self.heal()
        self.settings = self.settings_with_key("key")
        self.service.reconfigure(self.settings)
        minute = int(TRY_AGAIN) + 1
        for seconds in [*[1] * 10, minute, *[1] * len(self.stored), minute]:
            self.end_proofs(True)
            while self.l1.owes:
                self.count(self.l1.asked[-1], b"ok\n")
                self.l1.answer()
            self.tick(seconds)
            self.service.retry("l1")

    def test_any(self) -> None:
        """F8, S13: a request only leaves the disk with a valid answer; each is sent in the end."""
        for seed in range(SEEDS):
            self.begin(seed)
            events = EVENTS | DISTURBING if seed % 2 else EVENTS
            for name in self.random.choices([*events], [*events.values()], k=80):
                getattr(self, name)()
                lost = set(self.stored) - self.on_the_disk() - self.yes
                self.assertEqual(lost, set(), f"seed {seed}: {name}")
            self.finish()
            kept = self.on_the_disk()
            left = [name for name in self.on_disk() if not name.endswith("~sealing")]  # of a crash
            self.assertEqual(left, [], f"seed {seed}")
            self.assertLessEqual(kept, self.no, f"seed {seed}")
            self.assertLessEqual(set(self.stored) - kept, self.yes, f"seed {seed}")
            sent = [*self.sent, *self.l1.asked]
            self.assertEqual({*sent}, {*self.stored}, f"seed {seed}")
            failures = [str(each["log_failure"]) for each in self.events if "log_failure" in each]
            self.assertEqual([each for each in failures if "Crash" not in each], [])
            if events is EVENTS:
                last = [len(sent) - sent[::-1].index(line) for line in self.stored]
                self.assertEqual(last, sorted(last), f"seed {seed}")
