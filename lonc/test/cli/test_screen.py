"""What ``lonc top`` shows, and what its keys do."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from lonc.control.client import ManagementClient
from lonc.control.errors import ManagementError, UnknownHost
from lonc.report.judgement import totals
from lonc.report.problems import Problem, problem
from lonc.report.records import ConnectionStatus
from lonc.report.status import DaemonStatus, HostStatus
from lonc.test.fixtures.statuses import a_daemon, a_status

try:
    from textual.pilot import Pilot
    from textual.widgets import DataTable, Static

    from lonc.cli import screen
    from lonc.cli.screen import About, Question, Top
except ImportError:
    skip = "textual is not installed"


class Lonc:
    """A client of a lonc with two hosts, which records what it is asked to do."""

    def __init__(self) -> None:
        self.listed = [a_status("well", waiting=3), a_status("dead", state="DEAD")]
        self.done: list[tuple[object, ...]] = []
        self.error: ManagementError | None = None

    async def about(self) -> DaemonStatus:
        return a_daemon(totals=totals(self.listed, {}, 0))

    async def problems(self) -> list[Problem]:
        if self.error is not None:
            raise self.error
        return [problem("host-refused", "dead", "DEAD: refused: nobody listens there")]

    async def connections(self, host_id: str) -> list[ConnectionStatus]:
        return []

    async def hosts(self) -> list[HostStatus]:
        return self.listed

    async def pause(self, host_id: str, by: str, reason: str) -> None:
        self.done.append(("pause", host_id, by, reason))

    async def resume(self, host_id: str) -> None:
        self.done.append(("resume", host_id))
        raise UnknownHost("no such host")

    async def reset_retries(self, host_id: str) -> None:
        self.done.append(("retry", host_id))


def on_screen(
    test: Callable[[TopTests, Top, Pilot[None]], Awaitable[None]],
) -> Callable[[TopTests], None]:
    """Run a test with a screen that needs no terminal."""

    async def wait(work: Any) -> Any:
        return await work

    async def run(self: TopTests) -> None:
        top = Top(cast(ManagementClient, self.lonc), wait, "alice")
        async with top.run_test() as pilot:
            await pilot.pause()
            await test(self, top, pilot)

    @functools.wraps(test)
    def run_test(self: TopTests) -> None:
        asyncio.run(run(self))

    return run_test


class TopTests(SynchronousTestCase):
    """The keys, and what the screen shows."""

    def setUp(self) -> None:
        self.lonc = Lonc()
        self.patch(screen, "PAUSE", 600.0)  # a test looks when it wants to

    def rows(self, top: Top) -> list[str]:
        """Return the hosts in the order of the table."""
        table = top.query_one(DataTable)
        return [str(table.get_row_at(number)[0]) for number in range(table.row_count)]

    def summary(self, top: Top) -> str:
        """Return the text above the table."""
        return str(top.query_one("#summary", Static).render())

    @on_screen
    async def test_sorting(self, top: Top, pilot: Pilot[None]) -> None:
        """The worst hosts are first; keys reverse the order and select other columns."""
        self.assertEqual(self.rows(top), ["dead", "well"])
        await pilot.press("r")
        self.assertEqual(self.rows(top), ["well", "dead"])
        await pilot.press("r", "s", "s", "s")  # waiting
        self.assertEqual(self.rows(top), ["well", "dead"])
        await pilot.press("S", "S", "S")  # state
        self.assertEqual(self.rows(top), ["dead", "well"])

    @on_screen
    async def test_top_stays(self, top: Top, pilot: Pilot[None]) -> None:
        """The worst hosts stay in view as they change; a selected host stays selected."""
        self.lonc.listed = [a_status(f"h{each:02}") for each in range(60)]
        await top.look()
        table = top.query_one(DataTable)
        self.lonc.listed[40] = a_status("h40", state="DEAD")
        await top.look()
        self.assertEqual(self.rows(top)[0], "h40")
        self.assertEqual((table.cursor_row, table.scroll_offset.y), (0, 0))
        await pilot.press("down", "down")
        self.lonc.listed[50] = a_status("h50", state="DEAD")
        await top.look()
        self.assertEqual(self.rows(top)[table.cursor_row], "h01")
        await pilot.press("end", "s")
        await pilot.pause()
        self.assertEqual((table.cursor_row, table.scroll_offset.y), (0, 0))

    @on_screen
    async def test_look(self, top: Top, pilot: Pilot[None]) -> None:
        """A problem is shown in the host's row and, by cause, above; numbers are right-aligned."""
        table = top.query_one(DataTable)
        row = table.get_row_at(0)
        self.assertEqual(str(row[-1]), "refused: nobody listens there")
        justified = {str(each.label): each.label.justify for each in table.ordered_columns}
        self.assertEqual((justified["waiting"], justified["host"]), ("right", "left"))
        self.assertEqual(row[list(justified).index("waiting")].justify, "right")
        self.assertLessEqual(table.virtual_size.width, top.size.width)
        self.assertIn("warning  dead DEAD: refused", self.summary(top))

    @on_screen
    async def test_filter(self, top: Top, pilot: Pilot[None]) -> None:
        """A filter shows only hosts with a text, and is shown itself, until it is cleared."""
        await pilot.press("slash", *"NOBODY", "enter")
        await pilot.pause()
        self.assertEqual(self.rows(top), ["dead"])
        self.assertIn("only with 'nobody'", self.summary(top))
        await pilot.press("slash", "enter")
        await pilot.pause()
        self.assertEqual(self.rows(top), ["dead", "well"])

    @on_screen
    async def test_about(self, top: Top, pilot: Pilot[None]) -> None:
        """Enter shows the details of a host, and Escape leads back."""
        await pilot.press("enter")
        await pilot.pause()
        self.assertIsInstance(top.screen, About)
        told = str(top.screen.query_one(Static).render())
        self.assertIn("dead is DEAD", told)
        self.assertIn("refused: nobody listens there", told)
        await pilot.press("escape")
        await pilot.pause()
        self.assertEqual(self.rows(top), ["dead", "well"])

    @on_screen
    async def test_actions(self, top: Top, pilot: Pilot[None]) -> None:
        """
        The host under the cursor is paused after a reason was given, and retried after yes, not
        after Escape or any other answer. If lonc refuses an action, the screen stays.
        """
        await pilot.press("down", "p")
        self.assertIsInstance(top.screen, Question)
        await pilot.press(*"disk", "enter")
        await pilot.pause()
        await pilot.press("t", "escape")
        await pilot.press("t", "n", "enter")
        await pilot.pause()
        self.assertEqual(self.lonc.done, [("pause", "well", "alice", "disk")])
        await pilot.press("t", *"yes", "enter")
        await pilot.press("u", *"yes", "enter")
        await pilot.pause()
        self.assertEqual(self.lonc.done[1:], [("retry", "well"), ("resume", "well")])
        self.assertEqual(self.rows(top), ["dead", "well"])

    @on_screen
    async def test_lonc_goes(self, top: Top, pilot: Pilot[None]) -> None:
        """When lonc does not answer, the screen says so, and keeps showing its last state."""
        self.lonc.error = ManagementError("lonc has gone")
        await top.look()
        self.assertIn("lonc has gone", self.summary(top))
        self.assertEqual(self.rows(top), ["dead", "well"])

    def test_quit_meanwhile(self) -> None:
        """An answer that arrives after the user has quit is no error."""
        tops: list[Top] = []

        @on_screen
        async def quit_at_once(self: TopTests, top: Top, pilot: Pilot[None]) -> None:
            tops.append(top)

        quit_at_once(self)
        for self.lonc.error in (None, ManagementError("lonc has gone")):
            asyncio.run(tops[0].look())
