"""Listings as tables and as JSON."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stdout
from unittest.mock import patch

import attrs
import click
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from lonc.cli import tables
from lonc.cli.tables import Column, as_json, ordered, show


@attrs.frozen
class Row:
    """A row."""

    name: str
    count: int = 0


COLUMNS = (
    Column[Row]("name", lambda row: row.name),
    Column[Row]("light", lambda row: "l" * 10, 1),
    Column[Row]("count", lambda row: f"{row.count}", 5, lambda row: row.count, number=True),
)


class TableTests(SynchronousTestCase):
    """Tables in terminals of any width."""

    def lines(self, rows: list[Row], width: int | None = None) -> list[str]:
        """Return the lines printed in a terminal of this width, or without a terminal."""
        output = io.StringIO()
        with redirect_stdout(output):
            if width is None:
                show(rows, COLUMNS, "nothing")
            else:
                terminal = Console(width=width, file=output, highlight=False)
                with patch.object(tables, "console", lambda: terminal):
                    show(rows, COLUMNS, "nothing")
        return [line.rstrip() for line in output.getvalue().splitlines()]

    def test_width(self) -> None:
        """
        If not all columns fit, the least important is left out; finally the widest one is cut: a
        row is always one line. Numbers are right-aligned.
        """
        for row, width, head, line in (
            (Row("a", 1), 40, "name  light       count", "a     llllllllll      1"),
            (Row("bc", 23), 40, "name  light       count", "bc    llllllllll     23"),
            (Row("a", 1), 16, "name  count", "a         1"),
            (Row("a" * 30, 1), 12, "name", "aaaaaaaaa\N{HORIZONTAL ELLIPSIS}"),
        ):
            self.assertEqual(self.lines([row], width), [head, line])

    def test_no_terminal(self) -> None:
        """Without a terminal, nothing is cut, padded or coloured."""
        [_, line] = self.lines([Row("a" * 300, 1)])
        self.assertTrue(line.startswith("a" * 300 + "  llllllllll"))
        self.assertNotIn("\x1b", line)

    def test_empty(self) -> None:
        """An empty table is replaced by a sentence."""
        self.assertEqual(self.lines([]), ["nothing"])

    def test_cursor_stays(self) -> None:
        """External text cannot move the cursor, and is not interpreted as markup."""
        lines = self.lines([Row("\x1b[2J[red]x")])
        self.assertIn("\\x1b[2J[red]x", lines[1])

    def test_sorting(self) -> None:
        """Rows are sorted by any column, in either direction."""
        rows = [Row("a", 2), Row("b", 1)]
        self.assertEqual([row.name for row in ordered(rows, COLUMNS, "count")], ["b", "a"])
        self.assertEqual([row.name for row in ordered(rows, COLUMNS, "name", True)], ["b", "a"])
        error = self.assertRaises(click.BadParameter, ordered, rows, COLUMNS, "colour")
        self.assertIn("there are name, light, count", error.message)

    def test_colour(self) -> None:
        """There are no colours with NO_COLOR or without a terminal."""
        # Not by a copy of all variables: a process title takes their place in memory.
        os.environ["NO_COLOR"] = "1"
        self.addCleanup(os.environ.pop, "NO_COLOR", None)
        self.assertTrue(tables.console().no_color)
        del os.environ["NO_COLOR"]
        with redirect_stdout(io.StringIO()):
            self.assertFalse(tables.console().is_terminal)


class JsonTests(SynchronousTestCase):
    """JSON output."""

    def test_records(self) -> None:
        """Records become objects; the schema is included."""
        output = io.StringIO()
        with redirect_stdout(output):
            as_json(rows=[Row("a", 1)])
        told = {"schema": 1, "rows": [{"name": "a", "count": 1}]}
        self.assertEqual(json.loads(output.getvalue()), told)
