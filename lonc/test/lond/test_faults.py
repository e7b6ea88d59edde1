"""What a lond is told to do wrong."""

from __future__ import annotations

from itertools import islice

from twisted.trial.unittest import SynchronousTestCase

from lonc.lond.faults import CLOSE, NAMED, SPLIT, STALL, Close, Fault, Faults, Step


class ActsTests(SynchronousTestCase):
    """The actions of a fault."""

    def acts(self, fault: Fault) -> list[object]:
        """Return at most ten actions of a fault for the answer ``ok``."""
        return list(islice(fault.acts(b"ok\n"), 10))

    def test_acts(self) -> None:
        """Each field has its effect, alone and with others."""
        for fault, acts in (
            (Fault(), [b"ok\n"]),
            (Fault(delay=3.0), [3.0, b"ok\n"]),
            (STALL, []),
            (CLOSE, [Close.CLOSE]),
            (SPLIT, [b"o", 0.001, b"k", 0.001, b"\n", 0.001]),
            (Fault(cut=2), [b"o"]),
            (Fault(after=b"and\n"), [b"ok\nand\n"]),
            (Fault(after=b"and\n", after_delay=2.0), [b"ok\n", 2.0, b"and\n"]),
            (
                Fault(
                    delay=1.0,
                    instead=b"abc",
                    cut=1,
                    after=b"x",
                    after_delay=2.0,
                    pause=0.5,
                    close=True,
                ),
                [1.0, b"a", 0.5, b"b", 0.5, 2.0, b"x", Close.CLOSE],
            ),
        ):
            self.assertEqual(self.acts(fault), acts, fault)

    def test_endless(self) -> None:
        """An endless line is sent in pieces with pauses."""
        acts = self.acts(Fault(endless=True))
        self.assertEqual(acts[0], b"ok\n")
        self.assertEqual(len(acts), 10)
        self.assertNotIn(b"\n", b"".join(act for act in acts[1:] if isinstance(act, bytes)))
        self.assertGreater(min(act for act in acts if isinstance(act, float)), 0)

    def test_named(self) -> None:
        """Each named fault changes the answer."""
        for name, fault in NAMED.items():
            self.assertNotEqual(self.acts(fault), self.acts(Fault()), name)


class OrderTests(SynchronousTestCase):
    """Which fault is applied, and how often."""

    def setUp(self) -> None:
        self.faults = Faults()

    def assert_next(self, step: Step, *faults: Fault | None, command: bytes = b"") -> None:
        """Check the faults of a step, one after the other."""
        made = [self.faults.next_fault(step, command) for _ in faults]
        self.assertEqual(made, list(faults))

    def test_step(self) -> None:
        """A fault is applied at its step, every time; without faults there is none."""
        self.faults.order(Step.KEY, STALL)
        self.assert_next(Step.INIT, None)
        self.assert_next(Step.KEY, STALL, STALL, STALL)

    def test_times(self) -> None:
        """A fault is applied a number of times; the oldest one first."""
        self.faults.order(Step.KEY, STALL, times=2)
        self.faults.order(Step.KEY, CLOSE, times=1)
        self.assert_next(Step.KEY, STALL, STALL, CLOSE, None)

    def test_command(self) -> None:
        """A fault for a command is not applied to others, and not used up by them."""
        self.faults.order(Step.REQUEST, STALL, times=1, command=b"put")
        self.assert_next(Step.REQUEST, None, command=b"get")
        self.assert_next(Step.REQUEST, STALL, command=b"put")

    def test_clear(self) -> None:
        """The faults of one step can be removed, or all."""
        self.faults.order(Step.KEY, STALL)
        self.faults.order(Step.INIT, CLOSE)
        self.faults.clear(Step.KEY)
        self.assert_next(Step.KEY, None)
        self.assert_next(Step.INIT, CLOSE)
        self.faults.clear()
        self.assert_next(Step.INIT, None)
