"""What a lond is told to do wrong."""

from __future__ import annotations

from itertools import islice

from twisted.trial.unittest import SynchronousTestCase

from lonc.lond.faults import CLOSE, NAMED, SPLIT, STALL, Close, Fault, Faults, Step


class ActsTests(SynchronousTestCase):
    """What a fault makes of an answer."""

    def acts(self, fault: Fault) -> list[object]:
        """Play a fault on the answer ``ok``; no more of it than any but an endless one has."""
        return list(islice(fault.acts(b"ok\n"), 10))

    def test_acts(self) -> None:
        """Each field does what it says, alone and together with others."""
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
        """A line without an end goes on in pieces, with a breath between them."""
        acts = self.acts(Fault(endless=True))
        self.assertEqual(acts[0], b"ok\n")
        self.assertEqual(len(acts), 10)
        self.assertNotIn(b"\n", b"".join(act for act in acts[1:] if isinstance(act, bytes)))
        self.assertGreater(min(act for act in acts if isinstance(act, float)), 0)

    def test_named(self) -> None:
        """Each fault that has a name for people changes something."""
        for name, fault in NAMED.items():
            self.assertNotEqual(self.acts(fault), self.acts(Fault()), name)


class OrderTests(SynchronousTestCase):
    """Which fault is made, and how often."""

    def setUp(self) -> None:
        self.faults = Faults()

    def assert_next(self, step: Step, *faults: Fault | None, command: bytes = b"") -> None:
        """These faults are made at a step, one after the other."""
        made = [self.faults.next_fault(step, command) for _ in faults]
        self.assertEqual(made, list(faults))

    def test_step(self) -> None:
        """An order is for its step, again and again; without one there is no fault."""
        self.faults.order(Step.KEY, STALL)
        self.assert_next(Step.INIT, None)
        self.assert_next(Step.KEY, STALL, STALL, STALL)

    def test_times(self) -> None:
        """An order that is counted ends; the oldest order serves first."""
        self.faults.order(Step.KEY, STALL, times=2)
        self.faults.order(Step.KEY, CLOSE, times=1)
        self.assert_next(Step.KEY, STALL, STALL, CLOSE, None)

    def test_command(self) -> None:
        """An order for a command leaves the others alone, and is not used up by them."""
        self.faults.order(Step.REQUEST, STALL, times=1, command=b"put")
        self.assert_next(Step.REQUEST, None, command=b"get")
        self.assert_next(Step.REQUEST, STALL, command=b"put")

    def test_clear(self) -> None:
        """The orders for one step go, or all."""
        self.faults.order(Step.KEY, STALL)
        self.faults.order(Step.INIT, CLOSE)
        self.faults.clear(Step.KEY)
        self.assert_next(Step.KEY, None)
        self.assert_next(Step.INIT, CLOSE)
        self.faults.clear()
        self.assert_next(Step.INIT, None)
