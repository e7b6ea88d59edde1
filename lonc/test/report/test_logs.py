"""The log files and the echo."""

from __future__ import annotations

import io
import json
import os
import re
import resource

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    capturedLogs,
    eventsFromJSONLogFile,
    formatEvent,
)
from twisted.python.failure import Failure
from twisted.python.log import LogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lonc.report import logs
from lonc.report.events import PARENT
from lonc.report.logs import (
    LONGEST,
    Echo,
    Form,
    LineFile,
    LoncLog,
    PermLog,
    SeedForm,
    complain,
    has_room,
    json_form,
    text_form,
)
from lonc.report.problems import Problems
from lonc.report.text_output import TextOutput
from lonc.test.fixtures.properties import given, settings, st
from lonc.test.fixtures.statuses import NOW, at_utc


def status_of(host_id: str) -> str:
    return f"{host_id} is fine"


def seed_form() -> SeedForm:
    return SeedForm(status_of, lambda: 17)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def event(words: str, kind: object = LogLevel.info, /, **fields: object) -> LogEvent:
    return {"log_format": words, "log_level": kind, "log_time": NOW} | fields


class SeedFormTests(SynchronousTestCase):
    """A line of ``lonc.log``."""

    def setUp(self) -> None:
        at_utc(self)

    def test_line(self) -> None:
        """S15: a line has time, pid, host id, status, and the message in loncnew's colours."""
        for made, host, shown in (
            (
                event("{n} connections", n=3, host_id="msul1"),
                "msul1",
                "<font color=yellow>INFO: 3 connections</font>",
            ),
            (event("x", LogLevel.critical), PARENT, "<font color=red>CRITICAL: x</font>"),
            (event("x", LogLevel.error), PARENT, "<font color=red>CRITICAL: x</font>"),
            (event("x", LogLevel.warn), PARENT, "<font color=blue>WARNING: x</font>"),
            (event("x", success=True), PARENT, "<font color=green>SUCCESS: x</font>"),
            (event("x"), PARENT, "<font color=yellow>INFO: x</font>"),
            (
                event("x", LogLevel.debug, debug_level=2),
                PARENT,
                "<font color=yellow>INFO: -Debug- x</font>",
            ),
        ):
            line = f"Tue Nov  3 05:02:00 2026 (17) [{host}] [{host} is fine] {shown}"
            self.assertEqual(seed_form()(made), line)

    @settings(derandomize=True, database=None, deadline=None)
    @given(st.text())
    def test_any_text_is_one_line(self, text: str) -> None:
        """Whatever a peer sends, there is one line, and no markup but this module's."""
        line = seed_form()(event("{text}", text=f"\r\n\x1b[2J</font><script>&\u2028\u202e{text}"))
        self.assertIn(r"INFO: \r\n\x1b[2J&lt;/font&gt;&lt;script&gt;&amp;\u2028\u202e", line)
        self.assertEqual(len(line.splitlines()), 1)
        self.assertEqual(re.findall("<[^>]*>", line), ["<font color=yellow>", "</font>"])

    def test_traceback_is_one_line(self) -> None:
        """An internal error is logged with its traceback in one line."""
        path = self.mktemp()
        log = Logger(observer=LoncLog(LineFile(path), seed_form()))
        try:
            raise RuntimeError("out of <cheese>")
        except RuntimeError:
            log.failure("Sweeping failed")
        (line,) = read(path).splitlines()
        self.assertIn("<font color=red>CRITICAL: Sweeping failed\\nTraceback", line)
        self.assertIn("RuntimeError: out of &lt;cheese&gt;</font>", line)

    def test_long_text_is_cut(self) -> None:
        """The middle of a long text is left out."""
        line = seed_form()(event("{text}", text="head" + "x" * 10_000_000 + "tail"))
        self.assertLess(len(line), LONGEST + 300)
        self.assertIn("INFO: headxxx", line)
        self.assertTrue(line.endswith("xxxtail</font>"))

    def test_no_status(self) -> None:
        """A line is written even if the status of its host cannot be determined."""

        def broken(host_id: str) -> str:
            raise KeyError(host_id)

        line = SeedForm(broken, lambda: 17)(event("gone", host_id="msul1"))
        self.assertIn("[msul1] [no status: KeyError] <font color=yellow>INFO: gone", line)

    def test_secret_in_a_fault(self) -> None:
        """Of an encrypted request in an exception, only the command is logged."""
        log = Logger()
        for request, shown in (
            (b"encrypt:auth:hunter2\n", "b'encrypt:auth...</font>"),
            (b"encrypt:hunter2's\n", 'b"encrypt:...</font>'),
            (b"sethost:l2:encrypt:auth:hunter2", "b'sethost:l2:encrypt:auth...</font>"),
        ):
            with capturedLogs() as events:
                try:
                    raise KeyError(request)
                except KeyError:
                    log.failure("a fault")
            self.flushLoggedErrors(KeyError)
            for line in (seed_form()(events[0]), text_form(events[0]), json_form(events[0])):
                self.assertNotIn("hunter2", line)
            self.assertTrue(seed_form()(events[0]).endswith(shown), seed_form()(events[0]))


class OtherFormsTests(SynchronousTestCase):
    """``--log-format json`` and ``text``."""

    def test_json(self) -> None:
        """
        Twisted reads an event back from one line of JSON, including bytes; long fields are
        shortened; the event is not changed, because other observers get it too.
        """
        made = event("{what} of {host_id}", what=b"\xffping\n", host_id="msul1", long=b"x" * 10**6)
        before = dict(made)
        line = json_form(made)
        self.assertEqual(made, before)
        self.assertEqual(len(line.splitlines()), 1)
        (back,) = eventsFromJSONLogFile(io.StringIO(line + "\n"))
        self.assertEqual(
            (back["host_id"], back["what"], back["log_level"]),
            ("msul1", "\xffping\n", LogLevel.info),
        )
        self.assertLess(len(back["long"]), 2 * LONGEST)
        endless: list[object] = []
        endless.append(endless)
        self.assertEqual(json.loads(json_form(event("x", endless=endless)))["text"], "x")

    def test_text(self) -> None:
        """The classic format has the event's origin and host."""
        made = event("a\nb", LogLevel.warn, log_namespace="lonc.service", host_id="msul1")
        at_utc(self)
        self.assertEqual(
            text_form(made), "2026-11-03T05:02:00+0000 [lonc.service#warn msul1] a\\nb"
        )


class LoncLogTests(SynchronousTestCase):
    """The observer that writes ``lonc.log``."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.reports: list[str] = []

    def observer(self, form: Form | None = None) -> LoncLog:
        return LoncLog(LineFile(self.path, self.reports.append), seed_form(), form)

    def test_interface(self) -> None:
        """Both observers implement the interface of Twisted's log system."""
        verifyObject(ILogObserver, self.observer())
        verifyObject(ILogObserver, Echo(print))

    def test_lines(self) -> None:
        """
        S15, S20: a line is appended for each event with text, also for those of Twisted's old log
        system, and for debug events that a host's level requires.
        """
        with open(self.path, "w", encoding="utf-8") as file:
            file.write("of yesterday\n")
        observer = self.observer()
        log = Logger(observer=observer)
        log.info("zwei \N{SNOWMAN}")
        log.debug("asked for", debug_level=9, host_id="msul1")
        log.debug("Twisted's own")
        observer({"log_level": LogLevel.info, "log_time": NOW})
        LogPublisher(publishPublisher=observer).msg("Starting factory")
        first, *lines = read(self.path).splitlines()
        self.assertEqual(first, "of yesterday")
        self.assertEqual(
            [re.sub("<.*?>", "", line.split("] ")[-1]) for line in lines],
            ["INFO: zwei \N{SNOWMAN}", "INFO: -Debug- asked for", "INFO: Starting factory"],
        )
        self.assertIn(f"[{PARENT}] [{PARENT} is fine] <font", lines[2])

    def test_faults(self) -> None:
        """Only logged exceptions are counted."""
        observer = self.observer()
        log = Logger(observer=observer)
        log.critical("host marked dead")
        self.assertEqual((observer.faults, observer.last_fault), (0, 0.0))
        log.failure("a fault inside lonc", Failure(KeyError()))
        self.assertEqual((observer.faults, observer.last_fault > 0.0), (1, True))

    def test_last_line(self) -> None:
        """S16: each host's last line is kept in loncnew's format until the host is forgotten."""
        for form in (None, json_form):
            observer = self.observer(form)
            log = Logger(observer=observer)
            for host_id, text in (("a", "one"), ("b", "two"), ("a", "three")):
                log.info(text, host_id=host_id)
            log.info("of nobody")
            for host_id, text in (("a", "three"), ("b", "two")):
                self.assertTrue(observer.last_line(host_id).endswith(f"INFO: {text}</font>"))
            self.assertEqual(observer.last_line("c"), "")
            observer.forget("a")
            self.assertEqual(observer.last_line("a"), "")
        written = read(self.path).splitlines()
        self.assertIn("INFO: three</font>", written[2])
        self.assertEqual(json.loads(written[6])["host_id"], "a")

    def test_reopen(self) -> None:
        """S15: after a rotation and ``reopen``, lines are written to the new file only."""
        observer = self.observer()
        log = Logger(observer=observer)
        log.info("old")
        os.rename(self.path, f"{self.path}.1")
        observer.reopen()
        log.info("new")
        self.assertIn("INFO: new<", read(self.path))
        self.assertNotIn("new", read(f"{self.path}.1"))


class LineFileTests(SynchronousTestCase):
    """A file that can fail."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        self.path = os.path.join(self.folder, "log")
        self.reports: list[str] = []
        self.problems = Problems()
        self.file = LineFile(self.path, self.reports.append, self.problems)
        self.addCleanup(self.file.close)

    def test_fails(self) -> None:
        """
        A file that cannot be written is reported once, and is a problem until a line is written;
        then the number of missing lines is reported. Whether one could be written can be found out.
        """
        self.file.append("one")
        self.file.append("two")
        why = f"{self.path}: cannot be written: No such file or directory"
        self.assertEqual(self.reports, [why])
        (problem,) = self.problems
        self.assertEqual(
            (problem.kind, problem.subject, problem.what), ("log-file", self.path, why)
        )
        self.assertFalse(has_room(self.path))
        os.mkdir(self.folder)
        self.assertTrue(has_room(self.path))
        self.assertEqual(len([*self.problems]), 1)
        self.file.append("three")
        self.file.append("four")
        self.assertEqual(read(self.path), "three\nfour\n")
        self.assertEqual(self.reports[1:], [f"{self.path}: can be written again; lines missing: 2"])
        self.assertEqual([*self.problems], [])

    def test_reopened(self) -> None:
        """A file that cannot be reopened is reported at once, although no line is missing yet."""
        self.file.reopen()
        self.file.reopen()
        self.assertEqual([each.kind for each in self.problems], ["log-file"])
        self.assertEqual(len(self.reports), 1)
        os.mkdir(self.folder)
        self.file.append("one")
        self.assertEqual([*self.problems], [])
        self.assertEqual(self.reports[1:], [f"{self.path}: can be written again; lines missing: 0"])

    def test_full_disk(self) -> None:
        """A full disk is reported too."""
        file = LineFile("/dev/full", self.reports.append)
        file.append("one")
        self.assertEqual(self.reports, ["/dev/full: cannot be written: No space left on device"])

    def test_report_that_is_logged(self) -> None:
        """A report that is written to the same file neither loops nor is lost."""

        def report(message: str) -> None:
            self.reports.append(message)
            file.append(message)

        file = LineFile(self.path, report)
        self.addCleanup(file.close)
        file.append("one")
        self.assertEqual(len(self.reports), 1)
        os.mkdir(self.folder)
        file.append("two")
        self.assertEqual(
            read(self.path), f"two\n{self.path}: can be written again; lines missing: 2\n"
        )

    def test_torn_line(self) -> None:
        """The line after one that was written in part begins on a new line."""
        os.mkdir(self.folder)
        self.file.append("first")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            self.file.append("second")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.file.append("third")
        self.assertEqual(read(self.path), "first\nseco\nthird\n")

    def test_complain(self) -> None:
        """A report is written to stderr and to the log."""
        reading, writing = os.pipe()
        with open(writing, "w") as stream, open(reading) as told:
            stderr = TextOutput(stream)
            self.patch(logs, "_stderr", lambda: stderr)
            with capturedLogs() as events:
                complain("no {space}")
            self.assertEqual(told.readline(), "lonc: no {space}\n")
            self.assertTrue(stderr.wait(60.0))
        self.assertEqual([formatEvent(made) for made in events], ["no {space}"])

    def test_mode(self) -> None:
        """Only its owner may write the log, whatever the umask."""
        os.mkdir(self.folder)
        self.addCleanup(os.umask, os.umask(0))
        self.file.append("x")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o644)


class EchoTests(SynchronousTestCase):
    """The lines on the terminal of ``twistd -n``."""

    def test_shows(self) -> None:
        """Each event that should be logged is a line."""
        shown: list[str] = []
        echo = Echo(shown.append, lambda made: str(made["log_format"]))
        log = Logger(observer=echo)
        log.info("one")
        log.debug("not wanted")
        Logger("twisted.web._newclient.HTTPClientParser", observer=echo).info("not wanted")
        log.info("two")
        self.assertEqual(shown, ["one", "two"])


class PermLogTests(SynchronousTestCase):
    """``lonnet.perm.log``."""

    def test_lines(self) -> None:
        """S15: each line has Unix time, message and local time; the file can be moved away."""
        at_utc(self)
        path = self.mktemp()
        log = PermLog(path, lambda: NOW + 0.7)
        for message, line in (
            ("S:msul1:ping\nF:forged", "S:msul1:ping\\nF:forged"),
            ("D:msul1:ping", "D:msul1:ping"),
        ):
            log.write(message)
            self.assertEqual(read(path), f"1793682120:{line}:Tue Nov  3 05:02:00 2026\n")
            os.rename(path, f"{path}.1")

    def test_failure(self) -> None:
        """A file that cannot be written is reported."""
        reports: list[str] = []
        PermLog(os.path.join(self.mktemp(), "perm"), report=reports.append).write("S:one")
        self.assertIn("No such file or directory", reports[0])
