"""
How listings look in a terminal, and as JSON.

A table never wraps: where the terminal is narrow its less important columns are left out, and at
last the longest text is cut. Where the output is no terminal nothing is cut.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import attrs
import click
from rich.cells import cell_len
from rich.console import Console, OverflowMethod
from rich.text import Text

from lonc.wire.printable import printable

R = TypeVar("R")

#: Characters in a line where the output is no terminal: nothing is cut there.
UNLIMITED: Final = 10_000

#: Characters between two columns.
_GAP: Final = 2

#: The style of each state, mode of a pause and level of a finding.
STYLES: Final = {
    "DEAD": "bold red",
    "critical": "bold red",
    "error": "bold red",
    "unproven": "yellow",
    "warning": "yellow",
    "paused": "yellow",
    "up": "green",
    "ok": "green",
    "note": "cyan",
}


def console() -> Console:
    """Return what to print to: colour on terminals only, and not where ``NO_COLOR`` is set."""
    width = None if sys.stdout.isatty() else UNLIMITED
    return Console(width=width, highlight=False, soft_wrap=width is not None, emoji=False)


def overflow(printed: Console) -> OverflowMethod:
    """Return how a line is cut that does not fit: with an ellipsis where the encoding has one."""
    return "ellipsis" if printed.encoding.startswith("utf") else "crop"


@attrs.frozen
class Column(Generic[R]):
    """
    One column of a listing.

    :ivar name: its heading, by which the listing can be sorted.
    :ivar text: gives the cell of a row.
    :ivar weight: how important it is; the lightest are left out first, 9 never.
    :ivar order: gives what rows are sorted by, where that is not the text.
    :ivar number: whether it stands to the right.
    :ivar least: how narrow it may become before others are left out for it; 0: not at all.
    """

    name: str
    text: Callable[[R], str]
    weight: int = 9
    order: Callable[[R], Any] | None = None
    number: bool = False
    least: int = 0


def numbers(
    name: str,
    weight: int,
    value: Callable[[R], float],
    text: Callable[[float], str] = "{:.0f}".format,
) -> Column[R]:
    """Return a column of numbers, which stand to the right and are sorted by size."""
    return Column(name, lambda row: text(value(row)), weight, lambda row: -value(row), number=True)


def show(rows: Sequence[R], columns: Sequence[Column[R]], empty: str) -> None:
    """
    Print a listing; where it is longer than the terminal, page by page.

    :param empty: what to say when there is no row.
    """
    if not rows:
        click.echo(empty)
        return
    out = console()
    shown, widths = fitting(rows, columns, out.width)
    cut = overflow(out)
    names = [Text(column.name, style="bold") for column in shown]
    lines = [_line(shown, widths, names, cut)]
    for row in rows:
        cells = (printable(column.text(row)) for column in shown)
        texts = [Text(cell, style=STYLES.get(cell, "")) for cell in cells]
        lines.append(_line(shown, widths, texts, cut))
    listing = Text("\n").join(lines)
    if not out.is_terminal:
        click.echo(listing.plain)
    elif len(lines) < out.height:
        out.print(listing, no_wrap=True, overflow="crop")
    else:
        with out.capture() as pages:
            out.print(listing, no_wrap=True, overflow="crop")
        click.echo_via_pager(pages.get(), color=out.color_system is not None)


def _line(
    columns: Sequence[Column[R]], widths: Sequence[int], cells: Sequence[Text], cut: OverflowMethod
) -> Text:
    line = Text()
    for column, width, cell in zip(columns, widths, cells, strict=True):
        cell.truncate(width, overflow=cut)
        cell.align("right" if column.number else "left", width)
        line.append_text(cell).append(" " * _GAP)
    line.rstrip()
    return line


def fitting(
    rows: Sequence[R], columns: Sequence[Column[R]], width: int
) -> tuple[list[Column[R]], list[int]]:
    """Choose the columns that fit, and how wide each may be."""
    wanted = {
        column.name: max(
            [len(column.name), *(cell_len(printable(column.text(row))) for row in rows)]
        )
        for column in columns
    }
    natural = {
        each.name: min(wanted[each.name], each.least or wanted[each.name]) for each in columns
    }
    shown = list(columns)

    def needed() -> int:
        return sum(natural[column.name] + _GAP for column in shown)

    while needed() > width:
        light = min(shown, key=lambda column: column.weight)
        if light.weight >= 9 or len(shown) == 1:
            break
        shown.remove(light)
    for column in shown:
        spare = max(0, width - needed())
        natural[column.name] = min(wanted[column.name], natural[column.name] + spare)
    while needed() > width:
        widest = max(shown, key=lambda column: natural[column.name]).name
        others = needed() - natural[widest]
        if natural[widest] <= 4:
            break
        natural[widest] = max(4, width - others)
    return shown, [natural[column.name] for column in shown]


def ordered(
    rows: Iterable[R], columns: Sequence[Column[R]], name: str, reverse: bool = False
) -> list[R]:
    """
    Sort rows by a column.

    :raises click.BadParameter: there is no such column.
    """
    for column in columns:
        if column.name == name:
            return sorted(rows, key=column.order or column.text, reverse=reverse)
    names = ", ".join(column.name for column in columns)
    raise click.BadParameter(f"no column {name!r}: there are {names}", param_hint="--sort")


def listing(
    name: str,
    rows: Iterable[R],
    columns: Sequence[Column[R]],
    sort: str,
    wants_json: bool,
    empty: str,
    reverse: bool = False,
    as_object: Callable[[R], object] = lambda row: row,
) -> None:
    """
    Print rows in order, as a table or as JSON.

    :param name: of the list in JSON.
    :param empty: what to say when there is no row.
    :param as_object: gives what JSON has of a row.
    """
    listed = ordered(rows, columns, sort, reverse)
    if wants_json:
        as_json(**{name: [as_object(row) for row in listed]})
    else:
        show(listed, columns, empty)


def as_json(**named: object) -> None:
    """Print one object: its schema and what is named; records become objects of their fields."""
    click.echo(json.dumps({"schema": 1, **named}, default=attrs.asdict, indent=2))
