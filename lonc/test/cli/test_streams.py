"""Output to pipes, terminals, full disks and in limited encodings."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from contextlib import redirect_stdout
from unittest.mock import patch

import click
from twisted.trial.unittest import SynchronousTestCase

from lonc.cli import streams
from lonc.cli.arguments import confirm
from lonc.test.fixtures.daemon import DaemonTestCase, free_port
from lonc.test.fixtures.programs import run_program


class WriteTests(SynchronousTestCase):
    """Output of external content."""

    CONTENT = b"a\xff\x1b[2J\xc3\xbc\n"

    def written(self, is_terminal: bool) -> bytes:
        """Return the bytes that are written."""
        output = io.BytesIO()
        stream = io.TextIOWrapper(output, encoding="utf-8", write_through=True)
        with redirect_stdout(stream), patch.object(stream, "isatty", lambda: is_terminal):
            streams.prepare()
            streams.write(self.CONTENT)
            return output.getvalue()

    def test_pipe(self) -> None:
        """To a pipe it is written unchanged."""
        self.assertEqual(self.written(False), self.CONTENT)

    def test_terminal(self) -> None:
        """On a terminal control characters are escaped, and lines are kept."""
        self.assertEqual(self.written(True), b"a\\xff\\x1b[2J\xc3\xbc\n")

    def test_encodings(self) -> None:
        """Characters that the encoding lacks are escaped; bytes that are not UTF-8 are not."""
        output = io.BytesIO()
        stream = io.TextIOWrapper(output, encoding="ascii", write_through=True)
        with redirect_stdout(stream):
            streams.prepare()
            print("Z\xfcrich \u4e2d \U0001f600", os.fsdecode(b"\xff"))
        self.assertEqual(output.getvalue(), b"Z\\xfcrich \\u4e2d \\U0001f600 \xff\n")


class AnswersTests(SynchronousTestCase):
    """Confirmation of commands."""

    def test_nobody_to_ask(self) -> None:
        """Without a terminal or an answer, the error message names the option."""
        with patch.object(sys, "stdin", io.StringIO("")):
            error = self.assertRaises(click.UsageError, self.ask)
        self.assertIn("--yes", error.message)

    def test_answers(self) -> None:
        """An answer can come through a pipe; with --yes nothing is asked."""
        with patch.object(sys, "stdin", io.StringIO("y\nn\n")):
            self.ask()
            self.assertRaises(click.UsageError, self.ask)
            self.ask(yes=True)

    def ask(self, yes: bool = False) -> None:
        """Ask for confirmation."""
        with redirect_stdout(io.StringIO()):
            confirm("Stop?", yes)


class EverywhereTests(DaemonTestCase):
    """Every command that only shows something, on all kinds of output."""

    timeout = 600

    LOOKS = (
        *("status", "hosts", "hosts l2", "clients", "slow", "settings", "check"),
        *("delayed list", "delayed kept", "--help", "ask l1 ping"),
    )

    async def run_on(self, output: str, command: str, **environment: str) -> tuple[int, str]:
        """Run a command with this output; return its exit status and its errors."""
        where = () if command == "--help" else ("--standalone", self.folder)
        _, complaints, status = await run_program(
            *("-m", "lonc", *command.split(), *where),
            output=output,
            encoding="ascii",
            **environment,
        )
        return status, complaints.decode()

    async def on_terminal(self, command: str, width: int) -> tuple[int, str]:
        """Run a command on a terminal of this width."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        try:
            environ = {"COLUMNS": "", "TERM": "xterm", "PAGER": "cat"}
            return await self.run_on(os.ttyname(theirs), command, **environ)
        finally:
            os.close(ours)
            os.close(theirs)

    async def test_streams(self) -> None:
        """All work in ASCII and on a terminal of width 1; a full disk is an error of one line."""
        lonc = self.standalone("--lond-port", str(free_port("127.0.0.1", "127.0.0.2")))
        await lonc.says("Ctrl-C ends it")
        told = await self.on_terminal("pause l2 --reason Z\xfcrich\u4e2d", 80)
        self.assertEqual(told, (0, ""))
        full = "lonc: standard output: No space left on device\n"
        for command in ("status", "hosts --json", "ask l1 ping"):
            self.assertEqual(await self.run_on("/dev/full", command), (1, full), command)
        for command in self.LOOKS:
            for width in (1, 200) if command in ("status", "hosts l2") else (1,):
                told = await self.on_terminal(command, width)
                self.assertEqual(told, (0, ""), (command, width))
        self.assert_no_traceback(lonc)
