# Textual's App is generic in what it returns; twisted's Deferred has few annotations:
# mypy: allow-untyped-calls
"""The screen of ``lonc top``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, Static
from twisted.internet.defer import Deferred

from lonc.cli.hosts import HOST_COLUMNS
from lonc.cli.tables import STYLES, Column, ordered
from lonc.config.certificates import CertificateFiles
from lonc.control.client import ManagementClient
from lonc.control.errors import ManagementError
from lonc.report.judgement import summary
from lonc.report.problems import Problem
from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.units import duration
from lonc.wire.printable import printable

#: Seconds between two looks.
PAUSE: Final = 2.0


class Question(ModalScreen[str | None]):
    """Asks for a line, or for yes; Escape takes it back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave it")]
    DEFAULT_CSS = """
    Question { align: center middle; }
    Question Vertical { width: 60; height: auto; border: round $warning; padding: 1 2; }
    """

    def __init__(self, text: str, hint: str) -> None:
        super().__init__()
        self._text = text
        self._hint = hint

    def compose(self) -> ComposeResult:
        """Return what it consists of, from the top."""
        with Vertical():
            yield Label(self._text, markup=False)
            yield Input(placeholder=self._hint)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return what was typed."""
        self.dismiss(event.value)

    def action_leave(self) -> None:
        """Close the question without an answer."""
        self.dismiss(None)


class Top(App[None]):
    """
    The screen: how the daemon is, and a table of its hosts, renewed again and again.

    :param lonc: is asked again and again.
    :param wait: turns a coroutine of the client into something asyncio can await.
    """

    TITLE = "lonc"
    ENABLE_COMMAND_PALETTE = False
    CSS = "#summary { height: auto; padding: 0 1; } DataTable { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("s", "sort", "Sort by the next column"),
        Binding("v", "reverse", "Reverse"),
        Binding("p", "pause", "Pause"),
        Binding("u", "resume", "Resume"),
        Binding("t", "retry", "Retry"),
    ]

    def __init__(
        self, lonc: ManagementClient, wait: Callable[[Any], Awaitable[Any]], by: str
    ) -> None:
        super().__init__()
        self._lonc = lonc
        self._wait = wait
        self._by = by
        self._columns: Sequence[Column[HostStatus]] = HOST_COLUMNS
        self._sort = 1
        self._reverse = False
        self._looking = False

    def compose(self) -> ComposeResult:
        """Return what it consists of, from the top."""
        yield Static(id="summary", markup=False)
        yield DataTable[Text](cursor_type="row", zebra_stripes=True)
        yield Footer()

    async def on_mount(self) -> None:
        """Set the table up, and look for the first time."""
        self.query_one(DataTable).add_columns(*(column.name for column in self._columns))
        await self.look()
        self.set_interval(PAUSE, self.look)

    async def look(self) -> None:
        """Ask, and show the answer; an answer that is late is not asked for twice."""
        if self._looking:
            return
        self._looking = True
        try:
            problems = await self._wait(self._lonc.problems())
            daemon = await self._wait(self._lonc.about())
            hosts = await self._wait(self._lonc.hosts())
        except ManagementError as error:
            self.query_one("#summary", Static).update(str(error))
        else:
            self._show(daemon, hosts, problems)
        finally:
            self._looking = False

    def _show(
        self, daemon: DaemonStatus, hosts: Sequence[HostStatus], problems: Sequence[Problem]
    ) -> None:
        now = time.time()
        found = summary(daemon, hosts, problems)
        totals = found["totals"]
        text = Text(f"{daemon.host_id} is ")
        text.append(found["state"], style=STYLES[found["state"]])
        text.append(
            f", up for {duration(now - daemon.started)}; {totals['up']} of {totals['hosts']} hosts "
            f"up, {totals['clients']} clients, {totals['waiting']} waiting, "
            f"{totals['delayed']} delayed; by {self._columns[self._sort].name}"
        )
        self.query_one("#summary", Static).update(text)
        table = self.query_one(DataTable)
        row, left = table.cursor_row, table.scroll_offset
        chosen = self._chosen()
        table.clear()
        column = self._columns[self._sort]
        listed = ordered(hosts, self._columns, column.name, self._reverse)
        for host in listed:
            cells = [printable(each.text(host)) for each in self._columns]
            table.add_row(
                *(Text(cell, style=STYLES.get(cell, "")) for cell in cells), key=host.host_id
            )
        ids = [host.host_id for host in listed]
        table.move_cursor(row=ids.index(chosen) if chosen in ids else row)
        table.scroll_to(left.x, left.y, animate=False)

    def _chosen(self) -> str | None:
        """Return the id of the host under the cursor."""
        table = self.query_one(DataTable)
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    async def action_sort(self) -> None:
        """Sort by the next column."""
        self._sort = (self._sort + 1) % len(self._columns)
        await self.look()

    async def action_reverse(self) -> None:
        """Turn the order round."""
        self._reverse = not self._reverse
        await self.look()

    def action_pause(self) -> None:
        """Pause a host, once there is a reason."""
        self._ask(
            "Pause {host}: why?",
            "a reason; Escape leaves it",
            lambda host, reason: self._lonc.pause(host, self._by, reason) if reason else None,
        )

    def action_resume(self) -> None:
        """End a pause."""
        self._ask(
            "Resume {host}?",
            "yes",
            lambda host, answer: self._lonc.resume(host) if answer == "yes" else None,
        )

    def action_retry(self) -> None:
        """Give a host its retries back."""
        self._ask(
            "Give {host} its retries back?",
            "yes",
            lambda host, answer: self._lonc.reset_retries(host) if answer == "yes" else None,
        )

    def _ask(self, text: str, hint: str, act: Callable[[str, str], Awaitable[None] | None]) -> None:
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
    Show the screen until the user leaves it.

    :raises lonc.control.errors.NoAnswer: no lonc answers there.
    """
    from twisted.internet import asyncioreactor

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor: Any = asyncioreactor.AsyncioSelectorReactor(loop)
    reactor.startRunning(False)

    def wait(work: Any) -> asyncio.Future[Any]:
        return Deferred.fromCoroutine(work).asFuture(loop)

    async def show() -> None:
        lonc = await wait(ManagementClient.connect(reactor, endpoint, timeout, certificates))
        await Top(lonc, wait, by).run_async()
        await wait(lonc.close())

    loop.run_until_complete(show())
