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

    def test_host(self) -> None:
        """S15: a line about a host has time, pid, host id, status and the coloured message."""
        line = seed_form()(event("{n} connections", n=3, host_id="msul1"))
        self.assertEqual(
            line,
            "Tue Nov  3 05:02:00 2026 (17) [msul1] [msul1 is fine] "
            "<font color=yellow>INFO: 3 connections</font>",
        )

    def test_parent(self) -> None:
        """S15: a line that belongs to no host is the parent's."""
        line = seed_form()(event("hello"))
        self.assertIn(f" (17) [{PARENT}] [{PARENT} is fine] ", line)

    def test_severities(self) -> None:
        """S15: each kind of event has the seed's word and colour."""
        for made, font in [
            (event("x", LogLevel.critical), "<font color=red>CRITICAL: x</font>"),
            (event("x", LogLevel.error), "<font color=red>CRITICAL: x</font>"),
            (event("x", LogLevel.warn), "<font color=blue>WARNING: x</font>"),
            (event("x", success=True), "<font color=green>SUCCESS: x</font>"),
            (event("x"), "<font color=yellow>INFO: x</font>"),
            (
                event("x", LogLevel.debug, debug_level=2),
                "<font color=yellow>INFO: -Debug- x</font>",
            ),
        ]:
            self.assertTrue(seed_form()(made).endswith("] " + font), seed_form()(made))

    def test_nothing_can_be_forged(self) -> None:
        """A peer's newline, escape sequence or markup is shown, and does nothing."""
        line = seed_form()(event("got {what}", what="a\r\n\x1b[2J</font><script>&\u2028\u202e"))
        self.assertTrue(
            line.endswith(
                r"INFO: got a\r\n\x1b[2J&lt;/font&gt;&lt;script&gt;&amp;\u2028\u202e</font>"
            ),
            line,
        )

    @settings(derandomize=True, database=None, deadline=None)
    @given(st.text())
    def test_any_text_is_one_line(self, text: str) -> None:
        """Whatever a peer sends, there is one line, and no markup but this module's own."""
        line = seed_form()(event("{text}", text=text))
        self.assertEqual(len(line.splitlines()), 1)
        self.assertEqual(re.findall("<[^>]*>", line), ["<font color=yellow>", "</font>"])

    def test_traceback_is_one_line(self) -> None:
        """An internal error is logged with its traceback, in a single line."""
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
        """A text of any length makes a line of limited length, with its head and its tail."""
        line = seed_form()(event("{text}", text="head" + "x" * 10_000_000 + "tail"))
        self.assertLess(len(line), LONGEST + 300)
        self.assertIn("INFO: headxxx", line)
        self.assertTrue(line.endswith("xxxtail</font>"))

    def test_no_status(self) -> None:
        """A line is written though its host's status cannot be had."""

        def broken(host_id: str) -> str:
            raise KeyError(host_id)

        line = SeedForm(broken, lambda: 17)(event("gone", host_id="msul1"))
        self.assertIn("[msul1] [no status: KeyError] <font color=yellow>INFO: gone", line)

    def test_secret_in_a_fault(self) -> None:
        """An exception that tells a request's bytes shows no more than the command of a secret."""
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
        """Twisted's own reader gets the event back from one line of JSON, bytes included."""
        made = event("{what} of {host_id}", what=b"\xffping\n", host_id="msul1")
        line = json_form(made)
        self.assertEqual(len(line.splitlines()), 1)
        (back,) = eventsFromJSONLogFile(io.StringIO(line + "\n"))
        self.assertEqual(
            (back["host_id"], back["what"], back["log_level"]),
            ("msul1", "\xffping\n", LogLevel.info),
        )

    def test_json_leaves_the_event_alone(self) -> None:
        """Other observers find in the event what they would have found without this one."""
        made = event("x {y}", y=1)
        before = dict(made)
        json_form(made)
        self.assertEqual(made, before)

    def test_json_of_anything(self) -> None:
        """An event that JSON cannot hold still makes a line of JSON with its text."""
        endless: list[object] = []
        endless.append(endless)
        self.assertEqual(json.loads(json_form(event("x", endless=endless)))["text"], "x")

    def test_json_of_long_fields(self) -> None:
        """A field of any length makes a line of limited length."""
        line = json_form(event("x", text="x" * 1_000_000, data=b"x" * 1_000_000))
        self.assertLess(len(line), 3 * LONGEST)

    def test_text(self) -> None:
        """The classic form says where the event comes from and which host it is about."""
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
        """Both observers are what Twisted's log system asks for."""
        verifyObject(ILogObserver, self.observer())
        verifyObject(ILogObserver, Echo(print))

    def test_appends(self) -> None:
        """S15: a line for each event, after what the file held."""
        with open(self.path, "w", encoding="utf-8") as file:
            file.write("of yesterday\n")
        log = Logger(observer=self.observer())
        log.info("one")
        log.info("zwei \N{SNOWMAN}")
        lines = read(self.path).splitlines()
        self.assertEqual(lines[0], "of yesterday")
        self.assertIn("INFO: one<", lines[1])
        self.assertIn("INFO: zwei \N{SNOWMAN}<", lines[2])
        self.assertEqual(len(lines), 3)

    def test_faults(self) -> None:
        """Exceptions that are logged are counted, and whatever else is logged is not."""
        observer = self.observer()
        log = Logger(observer=observer)
        log.critical("host marked dead")
        self.assertEqual((observer.faults, observer.last_fault), (0, 0.0))
        log.failure("a fault inside lonc", Failure(KeyError()))
        self.assertEqual((observer.faults, observer.last_fault > 0.0), (1, True))

    def test_debug(self) -> None:
        """S20: a debug event that a host's level asked for is written, any other is not."""
        log = Logger(observer=self.observer())
        log.debug("asked for", debug_level=9, host_id="msul1")
        log.debug("Twisted's own")
        self.assertIn("INFO: -Debug- asked for<", read(self.path))
        self.assertNotIn("own", read(self.path))

    def test_event_without_text(self) -> None:
        """An event that says nothing makes no line."""
        self.observer()({"log_level": LogLevel.info, "log_time": NOW})
        self.assertFalse(os.path.exists(self.path))

    def test_legacy(self) -> None:
        """What the older parts of Twisted log is the parent's INFO."""
        LogPublisher(publishPublisher=self.observer()).msg("Starting factory")
        self.assertIn(f"[{PARENT}] [{PARENT} is fine] <font", read(self.path))
        self.assertIn("INFO: Starting factory<", read(self.path))

    def test_last_line(self) -> None:
        """S16: each host's last line is kept as it was written, until the host has gone."""
        observer = self.observer()
        log = Logger(observer=observer)
        for host_id in ["a", "b", "a"]:
            log.info("of {host_id}", host_id=host_id)
        log.info("of nobody")
        lines = read(self.path).splitlines()
        self.assertEqual(observer.last_line("a"), lines[2])
        self.assertEqual(observer.last_line("b"), lines[1])
        self.assertEqual(observer.last_line("c"), "")
        observer.forget("a")
        self.assertEqual(observer.last_line("a"), "")

    def test_other_form(self) -> None:
        """The file has the form that was asked for, the last line is the seed's even so."""
        observer = self.observer(json_form)
        Logger(observer=observer).info("x", host_id="a")
        self.assertEqual(json.loads(read(self.path))["host_id"], "a")
        self.assertTrue(observer.last_line("a").endswith("INFO: x</font>"))

    def test_reopen(self) -> None:
        """S15: after a rotation and ``reopen`` lines go to the new file, none to the old."""
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
        self.file = LineFile(self.path, self.reports.append)
        self.addCleanup(self.file.close)

    def test_comes_back(self) -> None:
        """While its folder is missing nothing is raised; then it is written, and both are told."""
        self.file.append("one")
        self.file.append("two")
        self.assertEqual(
            self.reports, [f"{self.path}: cannot be written: No such file or directory"]
        )
        os.mkdir(self.folder)
        self.file.append("three")
        self.file.append("four")
        self.assertEqual(read(self.path), "three\nfour\n")
        self.assertEqual(self.reports[1:], [f"{self.path}: can be written again; lines missing: 2"])

    def test_report_that_is_logged(self) -> None:
        """A report that comes back as a line of the same file neither loops nor is lost."""
        told: list[str] = []

        def report(message: str) -> None:
            told.append(message)
            file.append(message)

        file = LineFile(self.path, report)
        self.addCleanup(file.close)
        file.append("one")
        self.assertEqual(len(told), 1)
        os.mkdir(self.folder)
        file.append("two")
        self.assertEqual(
            read(self.path), f"two\n{self.path}: can be written again; lines missing: 2\n"
        )

    def test_full_disk(self) -> None:
        """On a full disk nothing is raised, one report is made, and it is a problem."""
        problems = Problems()
        file = LineFile("/dev/full", self.reports.append, problems)
        file.append("one")
        file.append("two")
        self.assertEqual(self.reports, ["/dev/full: cannot be written: No space left on device"])
        (problem,) = problems
        self.assertEqual(
            (problem.kind, problem.subject, problem.what),
            ("log-file", "/dev/full", "/dev/full: cannot be written: No space left on device"),
        )

    def test_reopened(self) -> None:
        """A file that cannot be opened anew is a problem at once, though no line is lost yet."""
        problems = Problems()
        file = LineFile(self.path, self.reports.append, problems)
        self.addCleanup(file.close)
        file.reopen()
        file.reopen()
        self.assertEqual([each.kind for each in problems], ["log-file"])
        self.assertEqual(len(self.reports), 1)
        os.mkdir(self.folder)
        file.append("one")
        self.assertEqual([*problems], [])
        self.assertEqual(self.reports[1:], [f"{self.path}: can be written again; lines missing: 0"])

    def test_problem_over(self) -> None:
        """A line that is written ends the problem; that one could be is seen without a line."""
        problems = Problems()
        file = LineFile(self.path, self.reports.append, problems)
        self.addCleanup(file.close)
        file.append("one")
        self.assertFalse(has_room(self.path))
        os.mkdir(self.folder)
        self.assertTrue(has_room(self.path))
        self.assertEqual(len([*problems]), 1)
        file.append("two")
        self.assertEqual([*problems], [])

    def test_torn_line(self) -> None:
        """A line that could be written in part does not run into the next one."""
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
        """A report goes to stderr and to the log."""
        shown: list[str] = []
        with capturedLogs() as events:
            complain("no {space}", shown.append)
        self.assertEqual(shown, ["lonc: no {space}"])
        self.assertEqual([formatEvent(made) for made in events], ["no {space}"])

    def test_mode(self) -> None:
        """The log is for its owner to write, whatever the umask."""
        os.mkdir(self.folder)
        self.addCleanup(os.umask, os.umask(0))
        self.file.append("x")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o644)


class EchoTests(SynchronousTestCase):
    """The terminal of ``twistd -n``."""

    def test_shows(self) -> None:
        """Each wanted event is a line."""
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

    def test_form(self) -> None:
        """S15: Unix time, message and local time, a line for each."""
        at_utc(self)
        path = self.mktemp()
        log = PermLog(path, lambda: NOW + 0.7)
        log.write("S:msul1:ping\nF:forged")
        log.write("D:msul1:ping")
        self.assertEqual(
            read(path),
            "1793682120:S:msul1:ping\\nF:forged:Tue Nov  3 05:02:00 2026\n"
            "1793682120:D:msul1:ping:Tue Nov  3 05:02:00 2026\n",
        )

    def test_rotation(self) -> None:
        """S15: the file can be moved away at any time; the next line makes a new one."""
        path = self.mktemp()
        log = PermLog(path)
        log.write("S:one")
        os.rename(path, f"{path}.1")
        log.write("S:two")
        self.assertIn(":S:two:", read(path))
        self.assertNotIn("two", read(f"{path}.1"))

    def test_failure(self) -> None:
        """A file that cannot be written raises nothing and is reported."""
        reports: list[str] = []
        PermLog(os.path.join(self.mktemp(), "perm"), report=reports.append).write("S:one")
        self.assertIn("No such file or directory", reports[0])
