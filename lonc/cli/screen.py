# Textual's App is generic in what it returns; twisted's Deferred has few annotations:
# mypy: allow-untyped-calls
"""The screen of ``lonc top``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar, Final, Protocol, TypeVar

import attrs
from rich.console import JustifyMethod
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, Static
from twisted.internet.defer import Deferred

from lonc.cli.hosts import HOST_COLUMNS, Row, about, rows
from lonc.cli.status import line_of
from lonc.cli.tables import STYLES, Column, fitting, ordered
from lonc.config.certificates import CertificateFiles
from lonc.control.client import ManagementClient
from lonc.control.errors import ManagementError
from lonc.report.problems import Problem, by_cause, state
from lonc.report.status import DaemonStatus
from lonc.report.units import count, duration
from lonc.wire.printable import printable

T = TypeVar("T")

#: A coroutine of the client, which uses Twisted.
Work = Coroutine[Any, Any, T]

#: Seconds between updates.
PAUSE: Final = 2.0

#: Columns of the terminal reserved for the scroll bar of the table.
SCROLL_BAR: Final = 2

#: Number of causes of problems shown above the table, the worst ones.
CAUSES: Final = 3


class Wait(Protocol):
    """Turns a coroutine of the client into an awaitable of asyncio."""

    def __call__(self, work: Work[T], /) -> Awaitable[T]:
        """Start it."""


def _cell(column: Column[Row], text: str) -> Text:
    shown = printable(text)
    justify: JustifyMethod = "right" if column.number else "left"
    return Text(shown, style=STYLES.get(shown, ""), justify=justify)


class Question(ModalScreen[str | None]):
    """Asks for a line, or for yes; Escape cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Leave it")]
    DEFAULT_CSS = """
    Question { align: center middle; }
    Question Vertical { width: 60; height: auto; border: round $warning; padding: 1 2; }
    """

    def __init__(self, text: str, hint: str) -> None:
        super().__init__()
        self._text = text
        self._hint = hint

    def compose(self) -> ComposeResult:
        """Yield the widgets, from top to bottom."""
        with Vertical():
            yield Label(self._text, markup=False)
            yield Input(placeholder=self._hint)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return what was typed."""
        self.dismiss(event.value)


class About(ModalScreen[None]):
    """Details of one host, updated periodically."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "dismiss", "Back")]
    DEFAULT_CSS = "About VerticalScroll { background: $surface; padding: 1 2; }"

    def __init__(self, lines: Callable[[], Awaitable[Iterable[Text]]]) -> None:
        super().__init__()
        self._lines = lines

    def compose(self) -> ComposeResult:
        """Yield the widgets, from top to bottom."""
        with VerticalScroll():
            yield Static(markup=False)
        yield Footer()

    async def on_mount(self) -> None:
        """Show the first state, and start updating."""
        await self.look()
        self.set_interval(PAUSE, self.look)

    async def look(self) -> None:
        """Fetch and show the current state."""
        try:
            text = Text("\n").join(await self._lines())
        except ManagementError as error:
            text = Text(printable(str(error)))
        self.query_one(Static).update(text)


class Top(App[None]):
    """
    The screen: the state of the daemon, and a table of its hosts, updated periodically.

    :param lonc: the client.
    :param wait: runs the client's coroutines.
    :param by: who pauses hosts.
    """

    TITLE = "lonc"
    ENABLE_COMMAND_PALETTE = False
    CSS = "#summary { height: auto; padding: 0 1; } DataTable { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", "Sort back"),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("p", "pause", "Pause"),
        Binding("u", "resume", "Resume"),
        Binding("t", "retry", "Retry"),
    ]

    def __init__(self, lonc: ManagementClient, wait: Wait, by: str) -> None:
        super().__init__()
        self._lonc = lonc
        self._wait = wait
        self._by = by
        self._sort = 1
        self._reverse = False
        self._filter = ""
        self._looking = False

    def compose(self) -> ComposeResult:
        """Yield the widgets, from top to bottom."""
        yield Static(id="summary", markup=False)
        yield DataTable[Text](cursor_type="row", zebra_stripes=True)
        yield Footer()

    async def on_mount(self) -> None:
        """Show the first state, and start updating."""
        self.query_one(DataTable).focus()
        await self.look()
        self.set_interval(PAUSE, self.look)

    async def look(self) -> None:
        """Fetch and show the current state, unless an earlier call is still waiting."""
        if self._looking:
            return
        self._looking = True
        with contextlib.suppress(NoMatches):  # the user has quit meanwhile
            await self._show()
        self._looking = False

    async def _show(self) -> None:
        try:
            problems = await self._wait(self._lonc.problems())
            daemon = await self._wait(self._lonc.about())
            hosts = await self._wait(self._lonc.hosts())
        except ManagementError as error:
            self.query_one("#summary", Static).update(printable(str(error)))
        else:
            self._show_summary(daemon, problems)
            self._show_rows(rows(hosts, problems))

    def _show_summary(self, daemon: DaemonStatus, problems: Sequence[Problem]) -> None:
        sums, level = daemon.totals, state(problems)
        text = Text(f"{printable(daemon.host_id)} is ").append(level, style=STYLES[level])
        text.append(
            f", up for {duration(time.time() - daemon.started)}; {sums['up']} of "
            f"{count(sums['hosts'], 'host')} up, {count(sums['clients'], 'client')}, "
            f"{sums['waiting']} waiting, {sums['delayed']} delayed; by "
            f"{HOST_COLUMNS[self._sort].name}{', reversed' if self._reverse else ''}"
        )
        if self._filter:
            text.append(f"; only with {self._filter!r}")
        for group in by_cause(problems)[:CAUSES]:
            text.append("\n").append_text(line_of(group, self.size.width - 2))
        self.query_one("#summary", Static).update(text)

    def _show_rows(self, listed: Sequence[Row]) -> None:
        table = self.query_one(DataTable)
        # Unless the user has moved the cursor, the worst hosts stay in view, whichever they are.
        chosen = self._chosen() if table.cursor_row else None
        row, scrolled = table.cursor_row, table.scroll_offset
        table.clear(columns=True)
        by = HOST_COLUMNS[self._sort]
        wanted = [each for each in listed if self._is_wanted(each)]
        shown = ordered(wanted, HOST_COLUMNS, by.name, self._reverse)
        columns = [attrs.evolve(each, weight=9) if each is by else each for each in HOST_COLUMNS]
        columns, widths = fitting(shown, columns, self.size.width - SCROLL_BAR)
        for column, width in zip(columns, widths, strict=True):
            table.add_column(_cell(column, column.name), width=width)
        for each in shown:
            cells = (_cell(column, column.text(each)) for column in columns)
            table.add_row(*cells, key=each.host.host_id)
        ids = [each.host.host_id for each in shown]
        table.move_cursor(row=ids.index(chosen) if chosen in ids else row, scroll=False)
        table.scroll_to(scrolled.x, scrolled.y, animate=False)

    def _is_wanted(self, row: Row) -> bool:
        return self._filter in f"{row.host.host_id} {row.state} {row.reason}".lower()

    def _chosen(self) -> str | None:
        """Return the id of the host under the cursor."""
        table = self.query_one(DataTable)
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    async def _from_the_top(self) -> None:
        table = self.query_one(DataTable)
        table.move_cursor(row=0)
        table.scroll_to(0, 0, animate=False)
        await self.look()

    async def action_sort(self, step: int) -> None:
        """Sort by another column."""
        self._sort = (self._sort + step) % len(HOST_COLUMNS)
        await self._from_the_top()

    async def action_reverse(self) -> None:
        """Reverse the order."""
        self._reverse = not self._reverse
        await self._from_the_top()

    def action_filter(self) -> None:
        """Show only hosts with a given text in their id, state or reason."""

        async def answered(text: str | None) -> None:
            if text is not None:
                self._filter = text.strip().lower()
                await self._from_the_top()

        self.push_screen(Question("Show hosts with", "a part of id, state or reason"), answered)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show details of the host under the cursor."""
        self.push_screen(About(lambda: self._about(str(event.row_key.value))))

    async def _about(self, host_id: str) -> Iterable[Text]:
        hosts = await self._wait(self._lonc.hosts())
        problems = await self._wait(self._lonc.problems())
        found = rows([each for each in hosts if each.host_id == host_id], problems)
        if not found:
            return [Text(f"{printable(host_id)} is not in hosts.tab any more")]
        connections = await self._wait(self._lonc.connections(host_id))
        return about(found[0], connections, time.time())

    def action_pause(self) -> None:
        """Pause a host, after asking for the reason."""
        self._ask(
            "Pause {host}: why?",
            "a reason; Escape cancels",
            lambda host, reason: self._lonc.pause(host, self._by, reason) if reason else None,
        )

    def action_resume(self) -> None:
        """End a pause."""
        self._confirm("Resume {host}?", self._lonc.resume)

    def action_retry(self) -> None:
        """Restore a host's retries."""
        self._confirm("Reset the retries of {host}?", self._lonc.reset_retries)

    def _confirm(self, text: str, act: Callable[[str], Work[None]]) -> None:
        self._ask(text, "yes", lambda host, answer: act(host) if answer == "yes" else None)

    def _ask(self, text: str, hint: str, act: Callable[[str, str], Work[None] | None]) -> None:
        host = self._chosen()
        if host is None:
            return

        async def answered(answer: str | None) -> None:
            doing = None if answer is None else act(host, answer.strip())
            if doing is not None:
                try:
                    await self._wait(doing)
                except ManagementError as error:
                    self.notify(str(error), severity="error", markup=False)
                await self.look()

        self.push_screen(Question(text.format(host=printable(host)), hint), answered)


def run(
    endpoint: str, timeout: float, by: str, certificates: CertificateFiles | None = None
) -> None:
    """
    Show the screen until the user quits.

    :raises lonc.control.errors.NoAnswer: no lonc answers.
    """
    from twisted.internet import asyncioreactor

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor: Any = asyncioreactor.AsyncioSelectorReactor(loop)
    reactor.startRunning(False)

    def wait(work: Work[T]) -> asyncio.Future[T]:
        return Deferred.fromCoroutine(work).asFuture(loop)

    async def show() -> None:
        lonc = await wait(ManagementClient.connect(reactor, endpoint, timeout, certificates))
        await Top(lonc, wait, by).run_async()
        await wait(lonc.close())

    loop.run_until_complete(show())
