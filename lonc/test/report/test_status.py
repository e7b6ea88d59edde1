"""What hosts report, the status file and the process title."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from lonc.report.status import HostStatus, local_time, process_title, status_report, write_status
from lonc.test.fixtures.statuses import NOW, a_status, at_utc


class LocalTimeTests(SynchronousTestCase):
    """The time as Perl's ``localtime`` says it."""

    def test_day_is_padded_with_a_blank(self) -> None:
        """A day of one digit takes two places."""
        at_utc(self)
        self.assertEqual(local_time(NOW), "Tue Nov  3 05:02:00 2026")

    def test_fraction_is_cut(self) -> None:
        """A time between two seconds is the earlier one."""
        at_utc(self)
        self.assertEqual(local_time(NOW + 0.9), "Tue Nov  3 05:02:00 2026")


class TextTests(SynchronousTestCase):
    """How a host is described in words (row S16)."""

    def test_up(self) -> None:
        """S16: connections in every state count."""
        status = a_status("msul1", connecting=1, handshaking=2, idle=3, busy=4, retries_left=1)
        self.assertEqual(status.text, "msul1 Connection count: 10 Retries remaining: 1")

    def test_stopping(self) -> None:
        """S16: a host that stops is still described by its connections."""
        status = a_status("msul1", state="stopping", busy=1)
        self.assertEqual(status.text, "msul1 Connection count: 1 Retries remaining: 2")

    def test_way_in(self) -> None:
        """S16: the way in stands at the end once it is known, of an unproven host too."""
        line = "msul1 Connection count: 1 Retries remaining: 2"
        for mode in ("local", "ssl", "insecure"):
            self.assertEqual(a_status("msul1", busy=1, mode=mode).text, f"{line} ({mode})")
        status = a_status("msul1", busy=1, state="unproven", mode="ssl")
        self.assertEqual(status.text, f"{line} (unproven) (ssl)")
        self.assertEqual(a_status("msul1", busy=1, state="unproven").text, f"{line} (unproven)")

    def test_dead(self) -> None:
        """S16: a DEAD host says only that."""
        self.assertEqual(a_status("msul1", state="DEAD").text, "msul1 >> DEAD <<")


class ProcessTitleTests(SynchronousTestCase):
    """One line for all hosts."""

    def test_sum(self) -> None:
        """S16: hosts, DEAD ones, connections and waiting requests are added up."""
        at_utc(self)
        statuses = [
            a_status("a", idle=5, waiting=7),
            a_status("b", busy=6, connecting=1, waiting=1),
            a_status("c", state="DEAD"),
        ]
        self.assertEqual(
            process_title(statuses, NOW),
            "lonc: 3 hosts, 1 DEAD, 12 connections, 8 waiting Tue Nov  3 05:02:00 2026",
        )

    def test_one(self) -> None:
        """S16: one is not a plural."""
        title = process_title([a_status("a", idle=1)], NOW)
        self.assertIn("lonc: 1 host, 0 DEAD, 1 connection, 0 waiting ", title)


class StatusReportTests(SynchronousTestCase):
    """The content of ``loncstatus.txt``."""

    def test_form(self) -> None:
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

    def test_log_line_cannot_break_the_form(self) -> None:
        """A tab or a newline in the last log line makes no field and no line of its own."""
        report = status_report([a_status("a", last_log="one\ttwo\nthree\udc80")], 17, NOW)
        self.assertEqual(len(report.splitlines()), 3)
        self.assertEqual(report.splitlines()[2].split(b"\t")[3], b"one two three\\udc80")


class WriteStatusTests(SynchronousTestCase):
    """The file itself."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        self.path = os.path.join(self.folder, "loncstatus.txt")

    def write(self, *statuses: HostStatus) -> None:
        write_status(self.path, statuses, 17, NOW)

    def content(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def test_folder_is_made(self) -> None:
        """The report is found where it belongs though its folder was missing."""
        self.write(a_status("a"))
        self.assertEqual(self.content(), status_report([a_status("a")], 17, NOW))

    def test_replaced_as_a_whole(self) -> None:
        """F10: who has the old file open goes on reading the old one, and nothing else is left."""
        self.write(a_status("a"), a_status("b"))
        before = self.content()
        with open(self.path, "rb") as reader:
            first = reader.read(20)
            self.write(a_status("c"))
            self.assertEqual(first + reader.read(), before)
        self.assertEqual(self.content(), status_report([a_status("c")], 17, NOW))
        self.assertEqual(os.listdir(self.folder), ["loncstatus.txt"])

    def test_what_a_crash_left_is_overwritten(self) -> None:
        """F10: a longer half-written report of a crashed lonc leaves no trace."""
        os.mkdir(self.folder)
        with open(f"{self.path}.new", "wb") as file:
            file.write(b"x" * 10_000)
        self.write(a_status("a"))
        self.assertEqual(self.content(), status_report([a_status("a")], 17, NOW))
        self.assertEqual(os.listdir(self.folder), ["loncstatus.txt"])

    def test_mode(self) -> None:
        """The web server can read it under the strictest umask."""
        self.addCleanup(os.umask, os.umask(0o077))
        self.write(a_status("a"))
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o644)

    def test_failure_leaves_the_old_file(self) -> None:
        """F10: when the report cannot be written the caller is told, and the last one stays."""
        self.write(a_status("a"))
        before = self.content()
        os.mkdir(f"{self.path}.new")
        self.assertRaises(OSError, self.write, a_status("b"))
        self.assertEqual(self.content(), before)

    def test_link_is_not_followed(self) -> None:
        """What was put where the report is prepared leads nowhere, and holds nothing up."""
        os.mkdir(self.folder)
        other = os.path.join(tempfile.mkdtemp(), "other")
        with open(other, "w") as file:
            file.write("another's")
        for put in (
            lambda path: os.symlink(other, path),
            lambda path: os.link(other, path),
            os.mkfifo,
        ):
            put(f"{self.path}.new")
            self.write(a_status("a"))
            self.assertEqual(self.content(), status_report([a_status("a")], 17, NOW))
            with open(other) as file:
                self.assertEqual(file.read(), "another's")

    def test_folder_that_is_a_link(self) -> None:
        """Nothing is written where a link in the place of the folder leads."""
        elsewhere = tempfile.mkdtemp()
        os.symlink(elsewhere, self.folder)
        error = self.assertRaises(OSError, self.write, a_status("a"))
        self.assertEqual(error.strerror, "it is a symbolic link; it must be a folder itself")
        self.assertEqual(os.listdir(elsewhere), [])
