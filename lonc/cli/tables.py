"""
Listings as tables and as JSON.

Tables never wrap: on a narrow terminal less important columns are left out, and finally the longest
text is cut. Output to files and pipes is not cut.
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

#: Width of lines that are not written to a terminal: nothing is cut there.
UNLIMITED: Final = 10_000

#: Characters between two columns.
_GAP: Final = 2

#: Styles of states and levels.
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
    """Return the console, with colours only on a terminal and without ``NO_COLOR``."""
    width = None if sys.stdout.isatty() else UNLIMITED
    return Console(width=width, highlight=False, soft_wrap=width is not None, emoji=False)


def overflow(printed: Console) -> OverflowMethod:
    """Return how to cut a long line: with an ellipsis if the encoding has one."""
    return "ellipsis" if printed.encoding.startswith("utf") else "crop"


def print_line(out: Console, line: str | Text, style: str | None = None) -> None:
    """Print one line, cut at the width of the terminal."""
    out.print(line, style=style, no_wrap=True, overflow=overflow(out))


@attrs.frozen
class Column(Generic[R]):
    """
    One column of a listing.

    :ivar name: its heading, by which the listing can be sorted.
    :ivar text: returns the text of a cell.
    :ivar weight: importance; columns with the least are left out first, those with 9 never.
    :ivar order: returns the sort key, if that is not the text.
    :ivar number: whether it is right-aligned.
    :ivar least: minimum width to which it is cut before others are left out; 0 if it is not cut.
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
    """Return a column of numbers, right-aligned and sorted with the largest first."""
    return Column(name, lambda row: text(value(row)), weight, lambda row: -value(row), number=True)


def show(rows: Sequence[R], columns: Sequence[Column[R]], empty: str) -> None:
    """
    Print a listing, page by page if it is longer than the terminal.

    :param empty: text for an empty listing.
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
    """Select the columns that fit, and their widths."""
    wanted = {
        column.name: max(
            [len(column.name), *(cell_len(printable(column.text(row))) for row in rows)]
        )
        for column in columns
    }
    widths = {
        each.name: min(wanted[each.name], each.least or wanted[each.name]) for each in columns
    }
    shown = list(columns)

    def spare() -> int:
        return width - sum(widths[column.name] + _GAP for column in shown)

    while spare() < 0 and len(shown) > 1:
        light = min(shown, key=lambda column: column.weight)
        if light.weight >= 9:
            break
        shown.remove(light)
    for name in [column.name for column in shown]:
        widths[name] = min(wanted[name], widths[name] + max(0, spare()))
    while spare() < 0:
        widest = max(shown, key=lambda column: widths[column.name]).name
        if widths[widest] <= 4:
            break
        widths[widest] = max(4, widths[widest] + spare())
    return shown, [widths[column.name] for column in shown]


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

    :param name: name of the list in JSON.
    :param empty: text for an empty listing.
    :param as_object: returns the JSON object of a row.
    """
    listed = ordered(rows, columns, sort, reverse)
    if wants_json:
        as_json(**{name: [as_object(row) for row in listed]})
    else:
        show(listed, columns, empty)


def as_json(**named: object) -> None:
    """Print a JSON object with the schema and the arguments; records become objects."""
    click.echo(json.dumps({"schema": 1, **named}, default=attrs.asdict, indent=2))
