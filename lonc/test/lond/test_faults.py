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

    def test_no_fault(self) -> None:
        """Without any field set the answer is as it was."""
        self.assertEqual(self.acts(Fault()), [b"ok\n"])

    def test_delay(self) -> None:
        """The answer comes after the delay."""
        self.assertEqual(self.acts(Fault(delay=3.0)), [3.0, b"ok\n"])

    def test_stall(self) -> None:
        """Nothing is said, and nothing else is done."""
        self.assertEqual(self.acts(STALL), [])

    def test_close(self) -> None:
        """Nothing is said, and the line goes dead."""
        self.assertEqual(self.acts(CLOSE), [Close.CLOSE])

    def test_split(self) -> None:
        """Each byte goes out by itself, after a pause."""
        self.assertEqual(self.acts(SPLIT), [b"o", 0.001, b"k", 0.001, b"\n", 0.001])

    def test_cut(self) -> None:
        """The end of the answer is held back."""
        self.assertEqual(self.acts(Fault(cut=2)), [b"o"])

    def test_after(self) -> None:
        """What follows is in the same segment."""
        self.assertEqual(self.acts(Fault(after=b"and\n")), [b"ok\nand\n"])

    def test_after_delay(self) -> None:
        """What follows comes later."""
        fault = Fault(after=b"and\n", after_delay=2.0)
        self.assertEqual(self.acts(fault), [b"ok\n", 2.0, b"and\n"])

    def test_endless(self) -> None:
        """A line without an end goes on in pieces, with a breath between them."""
        acts = self.acts(Fault(endless=True))
        self.assertEqual(acts[0], b"ok\n")
        self.assertEqual(len(acts), 10)
        self.assertNotIn(b"\n", b"".join(act for act in acts[1:] if isinstance(act, bytes)))
        self.assertGreater(min(act for act in acts if isinstance(act, float)), 0)

    def test_all_together(self) -> None:
        """The fields combine, in the order in which they are described."""
        fault = Fault(
            delay=1.0,
            instead=b"abc",
            cut=1,
            after=b"x",
            after_delay=2.0,
            pause=0.5,
            close=True,
        )
        self.assertEqual(self.acts(fault), [1.0, b"a", 0.5, b"b", 0.5, 2.0, b"x", Close.CLOSE])

    def test_named(self) -> None:
        """Each fault that has a name for people changes something."""
        for name, fault in NAMED.items():
            self.assertNotEqual(self.acts(fault), self.acts(Fault()), name)


class OrderTests(SynchronousTestCase):
    """Which fault is made, and how often."""

    def setUp(self) -> None:
        """Begin without orders."""
        self.faults = Faults()

    def test_none(self) -> None:
        """Without an order there is no fault."""
        self.assertIsNone(self.faults.next_fault(Step.INIT))

    def test_step(self) -> None:
        """An order is for its step, again and again."""
        self.faults.order(Step.KEY, STALL)
        self.assertIsNone(self.faults.next_fault(Step.INIT))
        self.assertEqual([self.faults.next_fault(Step.KEY)] * 3, [STALL] * 3)

    def test_times(self) -> None:
        """An order that is counted ends."""
        self.faults.order(Step.KEY, STALL, times=2)
        taken = [self.faults.next_fault(Step.KEY) for _ in range(3)]
        self.assertEqual(taken, [STALL, STALL, None])

    def test_one_after_the_other(self) -> None:
        """The oldest order serves first."""
        self.faults.order(Step.KEY, STALL, times=1)
        self.faults.order(Step.KEY, CLOSE)
        taken = [self.faults.next_fault(Step.KEY) for _ in range(3)]
        self.assertEqual(taken, [STALL, CLOSE, CLOSE])

    def test_command(self) -> None:
        """An order for a command leaves the others alone, and is not used up by them."""
        self.faults.order(Step.REQUEST, STALL, times=1, command=b"put")
        self.assertIsNone(self.faults.next_fault(Step.REQUEST, b"get"))
        self.assertEqual(self.faults.next_fault(Step.REQUEST, b"put"), STALL)

    def test_clear_a_step(self) -> None:
        """The orders for one step go, the others stay."""
        self.faults.order(Step.KEY, STALL)
        self.faults.order(Step.INIT, CLOSE)
        self.faults.clear(Step.KEY)
        self.assertIsNone(self.faults.next_fault(Step.KEY))
        self.assertEqual(self.faults.next_fault(Step.INIT), CLOSE)

    def test_clear(self) -> None:
        """What was ordered is forgotten."""
        self.faults.order(Step.KEY, STALL)
        self.faults.order(Step.INIT, CLOSE)
        self.faults.clear()
        self.assertIsNone(self.faults.next_fault(Step.KEY))
        self.assertIsNone(self.faults.next_fault(Step.INIT))
