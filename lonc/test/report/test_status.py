"""The status of hosts as text, and the status file."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from lonc.report.status import local_time, status_report, write_status
from lonc.test.fixtures.statuses import NOW, a_status, at_utc


class TextTests(SynchronousTestCase):
    """Times and hosts as text (row S16)."""

    def test_local_time(self) -> None:
        """As Perl's ``localtime`` has it: a one-digit day is padded, a fraction is cut off."""
        at_utc(self)
        for seconds in (NOW, NOW + 0.9):
            self.assertEqual(local_time(seconds), "Tue Nov  3 05:02:00 2026")

    def test_host(self) -> None:
        """
        S16: connections in all states are counted, of a stopping host too; the authentication mode
        is appended once it is known; for a DEAD host there is nothing else.
        """
        states = {"connecting": 1, "handshaking": 2, "idle": 3, "busy": 4}
        for fields, text in (
            (states | {"retries_left": 1}, "Connection count: 10 Retries remaining: 1"),
            ({"state": "stopping", "busy": 1}, "Connection count: 1 Retries remaining: 2"),
            ({"mode": "local"}, "Connection count: 0 Retries remaining: 2 (local)"),
            ({"mode": "insecure"}, "Connection count: 0 Retries remaining: 2 (insecure)"),
            (
                {"state": "unproven", "mode": "ssl"},
                "Connection count: 0 Retries remaining: 2 (unproven) (ssl)",
            ),
            ({"state": "unproven"}, "Connection count: 0 Retries remaining: 2 (unproven)"),
            ({"state": "DEAD"}, ">> DEAD <<"),
        ):
            self.assertEqual(a_status("msul1", **fields).text, f"msul1 {text}")


class StatusFileTests(SynchronousTestCase):
    """``loncstatus.txt``."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        self.path = os.path.join(self.folder, "loncstatus.txt")

    def test_format(self) -> None:
        """S16: a heading, a blank line, and a line of four fields for each host."""
        at_utc(self)
        statuses = [
            a_status("msul1", idle=1, last_log="Tue Nov  3 05:01:00 2026 (17) [msul1] ..."),
            a_status("msua1", state="DEAD"),
        ]
        self.assertEqual(
            status_report(statuses, 17, NOW),
            b"LONC status Tue Nov  3 05:02:00 2026 - parent 17\n"
            b"\n"
            b"17\tmsul1\tmsul1 Connection count: 1 Retries remaining: 2\t"
            b"Tue Nov  3 05:01:00 2026 (17) [msul1] ...\n"
            b"17\tmsua1\tmsua1 >> DEAD <<\t\n",
        )

    def test_last_log_line(self) -> None:
        """A tab or a newline in the last log line creates no other field and no other line."""
        report = status_report([a_status("a", last_log="one\ttwo\nthree\udc80")], 17, NOW)
        self.assertEqual(len(report.splitlines()), 3)
        self.assertEqual(report.splitlines()[2].split(b"\t")[3], b"one two three\\udc80")

    def test_written(self) -> None:
        """F10: the folder is created, and the file replaced as a whole; else the last one stays."""
        for host_id in "ab":
            write_status(self.path, [a_status(host_id)], 17, NOW)
            self.assertEqual(os.listdir(self.folder), ["loncstatus.txt"])
        os.mkdir(f"{self.path}.new")
        self.assertRaises(OSError, write_status, self.path, [a_status("c")], 17, NOW)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), status_report([a_status("b")], 17, NOW))

    def test_folder_that_is_a_link(self) -> None:
        """Nothing is written to where a link in place of the folder leads."""
        elsewhere = tempfile.mkdtemp()
        os.symlink(elsewhere, self.folder)
        error = self.assertRaises(OSError, write_status, self.path, [a_status("a")], 17, NOW)
        self.assertEqual(error.strerror, "it is a symbolic link; it must be a folder itself")
        self.assertEqual(os.listdir(elsewhere), [])
