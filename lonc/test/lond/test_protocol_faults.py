"""A lond that was told to do wrong, step by step."""

from __future__ import annotations

from lonc.lond.faults import (
    CLOSE,
    EXTRA_LINE,
    NO_NEWLINE,
    NOT_A_FRAME,
    REFUSE,
    SPLIT,
    STALL,
    Fault,
    Step,
)
from lonc.test.fixtures.lond_caller import Caller, LondTestCase

#: The steps of the one way in that every lond has; the others' are in `test_modes`.
STEPS: list[Step] = [
    step
    for step in Step
    if step not in (Step.LOCAL, Step.SSL, Step.TLS, Step.TLS_KEY, Step.TLS_END)
]


class FaultTests(LondTestCase):
    """Faults at each step of the insecure mode."""

    #: What a caller says at each step, and what is answered without a fault.
    LINES = (
        (Step.VERSION, b"version", b"$Revision: 1.0 $\n"),
        (Step.SETHOST, b"sethost:l2", b"ok\n"),
        (Step.REQUEST, b"ping", b"l2\n"),
    )

    def setUp(self) -> None:
        """Create a lond."""
        super().setUp()
        self.factory = self.lond()
        self.faults = self.factory.faults

    def at(self, step: Step) -> tuple[Caller, bytes]:
        """Return a caller at a step, and what it receives there."""
        caller = Caller(self.factory)
        if step is Step.CONNECT:
            return caller, caller.heard()
        said = caller.say(b"init")
        if step is Step.INIT:
            return caller, said
        said = caller.say(said[:-1])
        lines = {Step.KEY: b"ekey", **{each: line for each, line, _ in self.LINES}}
        return caller, said if step is Step.CHALLENGE else caller.say(lines[step])

    def test_steps_without_a_fault(self) -> None:
        """Each step has an answer, whose absence the other tests can notice."""
        for step in STEPS:
            caller, said = self.at(step)
            self.assertEqual(said == b"", step is Step.CONNECT, step)
            self.assertFalse(caller.hung_up)
        for step, _, answer in self.LINES:
            self.assertEqual(self.at(step)[1], answer)

    def test_each_step(self) -> None:
        """At each step the lond can stall, close, refuse or send anything else."""
        for step in STEPS:
            for fault, says, hangs_up in (
                (STALL, b"", False),
                (CLOSE, b"", True),
                (REFUSE, b"refused\n", True),
                (Fault(instead=b"lie\n"), b"lie\n", False),
            ):
                self.faults.clear()
                self.faults.order(step, fault)
                caller, said = self.at(step)
                self.assertEqual((said, caller.hung_up), (says, hangs_up), (step, fault))

    def test_split(self) -> None:
        """An answer is sent byte by byte, and then the next one."""
        self.faults.order(Step.REQUEST, SPLIT, times=1)
        caller, said = self.at(Step.REQUEST)
        caller.lond.dataReceived(b"pong\n")
        heard = [said]
        for _ in range(3):
            self.clock.advance(0.001)
            heard.append(caller.heard())
        self.assertEqual(heard, [b"l", b"2", b"\n", b"l2:l1\n"])

    def test_delay(self) -> None:
        """An answer is late."""
        self.faults.order(Step.REQUEST, Fault(delay=3.0))
        caller, said = self.at(Step.REQUEST)
        self.clock.advance(2.9)
        self.assertEqual(said + caller.heard(), b"")
        self.clock.advance(0.1)
        self.assertEqual(caller.heard(), b"l2\n")

    def test_line_while_idle(self) -> None:
        """Another line follows later."""
        self.faults.order(Step.REQUEST, Fault(after=b"hello\n", after_delay=5.0))
        caller, said = self.at(Step.REQUEST)
        self.assertEqual(said, b"l2\n")
        self.clock.advance(5)
        self.assertEqual(caller.heard(), b"hello\n")

    def test_wrong_answers(self) -> None:
        """An additional line, a missing newline, and an invalid frame."""
        for fault, answer, hangs_up in (
            (EXTRA_LINE, b"l2\nnobody asked\n", False),
            (NO_NEWLINE, b"l2", True),
            (NOT_A_FRAME, b"enc:5:zz\n", False),
        ):
            self.faults.order(Step.REQUEST, fault, times=1)
            caller, said = self.at(Step.REQUEST)
            self.assertEqual((said, caller.hung_up), (answer, hangs_up))

    def test_by_command(self) -> None:
        """A fault for a command is applied to encrypted requests, too."""
        self.faults.order(Step.REQUEST, STALL, command=b"pong")
        caller, said = self.at(Step.REQUEST)
        self.assertEqual(said, b"l2\n")
        self.assertEqual(caller.say(b"pong"), b"")
        self.assertEqual(caller.say(caller.cipher().encrypt(b"pong")), b"")

    def test_changed_while_it_runs(self) -> None:
        """Changes of faults apply to open connections."""
        caller, _ = self.at(Step.REQUEST)
        self.faults.order(Step.REQUEST, STALL)
        self.assertEqual(caller.say(b"ping"), b"")
        self.faults.clear()
        self.assertEqual(caller.say(b"ping"), b"l2\n")

    def test_request_was_served(self) -> None:
        """A request whose answer is lost has been carried out."""
        self.faults.order(Step.REQUEST, STALL, command=b"inc")
        caller, _ = self.at(Step.REQUEST)
        caller.say(b"inc:d:u:n:a=1")
        self.assertEqual(caller.say(b"get:d:u:n:a"), b"1\n")

    def test_caller_that_talks_on(self) -> None:
        """A caller that sends too much before its answer is disconnected."""
        factory = self.lond(line_limit=10)
        factory.faults.order(Step.REQUEST, Fault(delay=3.0))
        caller = Caller(factory)
        caller.enter()
        caller.say(b"ping")
        caller.say(b"ping")
        self.assertFalse(caller.hung_up)
        caller.say(b"0123456789")
        self.assertTrue(caller.hung_up)
