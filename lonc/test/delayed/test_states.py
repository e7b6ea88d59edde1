"""The table of states of a delayed request, and its picture in the documentation."""

from __future__ import annotations

import re

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.delayed.spool import Spool
from lonc.delayed.states import MOVES, State, StoredRequest
from lonc.test.fixtures.source import read

NAME = "1062000000.4711.put.l1"


class TableTests(SynchronousTestCase):
    """The states of a delayed request and their transitions."""

    def test_documented(self) -> None:
        """The page on the architecture has the same states and transitions."""
        page = read("docs", "architecture.rst")
        rows = re.findall(r"^   \* - \*(\w+)\*\n     - (?:.*\n)+?     - (.*)$", page, re.MULTILINE)
        documented = {state: sorted(re.findall(r"\w+", moves)) for state, moves in rows}
        moves = {x.value: sorted(y.value for y in MOVES[x]) or ["nothing"] for x in State}
        self.assertEqual(documented, moves)

    def test_reached(self) -> None:
        """Each state is a first one or follows another; only two have no successor."""
        after = {state for moves in MOVES.values() for state in moves}
        self.assertEqual(set(State) - after, set())
        self.assertEqual([x for x in State if not MOVES[x]], [State.KEPT, State.GONE])

    def test_no_other_move(self) -> None:
        """Other transitions are errors: an answered request is not sent again."""
        request = StoredRequest(Spool(""), NAME, Clock())
        self.assertIs(request.state, State.FOUND)
        for state in (State.WHOLE, State.SENDING, State.ANSWERED, State.PROVEN):
            request.move(state)
        self.assertRaises(AssertionError, request.move, State.SENDING)

    def test_where_it_is_found(self) -> None:
        """A request found in the folder of sealed ones begins as sealed."""
        request = StoredRequest(Spool(""), f"sealed/{NAME}~sealed", Clock())
        self.assertEqual((request.state, request.host_id), (State.SEALED, "l1"))
