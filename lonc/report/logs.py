"""
The log files: ``lonc.log``, ``lonnet.perm.log``, and an echo for a terminal (rows S15 and S20).

Peers determine part of a log line, a web page shows the file, and tools read it line by line. So
each event becomes exactly one line, nothing in it can start another, and in the seed's format it
contains no markup except that of this module. (The seed is loncnew, the program that lonc
replaces.)

Logging never raises an exception: a full disk must not stop a request.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsJSON, eventAsText
from zope.interface import implementer

from lonc.disk.files import open_own
from lonc.report.events import PARENT, Logger, event_name, without_host
from lonc.report.problems import Problems
from lonc.report.status import local_time
from lonc.report.text_output import TextOutput
from lonc.wire.printable import printable

log = Logger()

#: Maximum length of a text or field of an event; the middle of a longer one is left out.
LONGEST: Final = 8192

#: Escapes for markup. html.escape() would do, but importing it loads half a megabyte of entities.
_MARKUP: Final = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
_COLOURS: Final = {"CRITICAL": "red", "SUCCESS": "green", "INFO": "yellow", "WARNING": "blue"}

#: An encrypted request in the repr of bytes, as in the text of an exception.
_SECRET: Final = re.compile(r"""(\bb["'](?:sethost:[^:\n]*:)*encrypt:(?:\w{1,32}(?=:))?)[^\n]*""")

#: Formats an event as a line, without a newline.
Form = Callable[[LogEvent], str]


_HTTP_CLIENT = "twisted.web._newclient.HTTPClientParser"


def wanted(event: LogEvent) -> bool:
    """
    Return whether an event should be logged.

    Debug events are only emitted if the debug level of a host requires it (row S20), and have their
    level in ``debug_level`` (``level`` is reserved by Twisted); those without it are Twisted's.
    Events without text are ignored, and so are those that a web server can cause in Twisted with
    every 16 bytes that it sends.
    """
    if event.get("log_format") is None and "log_failure" not in event:
        return False
    if event.get("log_namespace") == _HTTP_CLIENT and event.get("log_level") is LogLevel.info:
        return False
    return "debug_level" in event or event.get("log_level") is not LogLevel.debug


class SeedForm:
    """
    The seed's format (protocol section 7): ``<time> (<pid>) [<host id>] [<status>] <message>``.

    :param status_of: returns the status text of a host id, or of :data:`PARENT`; called
        for each line.
    :param pid: returns the process id, which changes when twistd goes into the background.
    """

    def __init__(self, status_of: Callable[[str], str], pid: Callable[[], int] = os.getpid) -> None:
        self._status_of = status_of
        self._pid = pid

    def __call__(self, event: LogEvent) -> str:
        """Format an event."""
        host_id = _host_id(event)
        severity = _severity(event)
        debug = "-Debug- " if event.get("log_level") is LogLevel.debug else ""
        message = printable(_message(event)).translate(_MARKUP)
        return (
            f"{local_time(event.get('log_time', 0.0))} ({self._pid()}) [{printable(host_id)}] "
            f"[{self._status(host_id)}] "
            f"<font color={_COLOURS[severity]}>{severity}: {debug}{message}</font>"
        )

    def _status(self, host_id: str) -> str:
        try:
            return printable(self._status_of(host_id))
        except Exception as error:  # the line is more important than the status
            return f"no status: {type(error).__name__}"


def text_form(event: LogEvent) -> str:
    """Twisted's classic format with a host id: ``<time> [lonc.x#info msul1] <message>``."""
    level = event.get("log_level") or LogLevel.info
    named = {
        "log_time": event.get("log_time"),
        "log_system": f"{event.get('log_namespace', '-')}#{level.name} {_host_id(event)}",
        "log_format": "{text}",
        "text": _message(event),
    }
    return printable(eventAsText(named))


def json_form(event: LogEvent) -> str:
    """
    Format an event as JSON with all of its fields, and its name as ``event``.

    :func:`twisted.logger.eventsFromJSONLogFile` reads it.
    """
    name = event_name(event)
    try:
        # A copy, because eventAsJSON modifies the event, which other observers get too.
        fields = {field: _shown(value) for field, value in without_host(event).items()}
        return eventAsJSON({**fields, "event": name})
    except Exception as error:  # a field may have any type
        fields = {"text": _message(event), "unfit": repr(error), "event": name}
        return json.dumps({"log_format": "{text}", **fields})


@cache
def _stderr() -> TextOutput | None:
    # Not sys.stderr, which twistd redirects to the log.
    try:
        return None if sys.__stderr__ is None else TextOutput(sys.__stderr__)
    except (OSError, ValueError):  # it is closed, or not a file
        return None


def complain(message: str) -> None:
    """Report on stderr and in the log that a log file fails."""
    log.error("{text}", text=message, event="log-file")
    stderr = _stderr()
    if stderr is not None:
        stderr.show(f"lonc: {message}")


def has_room(path: str) -> bool:
    """Return whether a line could be written to a file now, according to its file system."""
    try:
        fd = open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        return False
    try:
        return os.fstatvfs(fd).f_bavail > 0
    finally:
        os.close(fd)


class LineFile:
    """
    A file to which lines are appended, and which may fail temporarily.

    The first line that cannot be written is reported; each later line is tried again, and once one
    is written, the number of missing lines is reported.

    :param path: created if it does not exist; its folder must exist.
    :param report: called with a readable line.
    :param problems: where the failure is listed while it lasts.
    """

    def __init__(
        self,
        path: str,
        report: Callable[[str], None] = complain,
        problems: Problems | None = None,
    ) -> None:
        self._path = path
        self._report = report
        self._problems = Problems() if problems is None else problems
        self._fd = -1
        self._lost = 0
        self._fails = False
        self._torn = False

    def open(self) -> None:
        """
        Open the file, or create it.

        :raises OSError: that failed; it is tried again with the next line.
        """
        if self._fd < 0:
            self._fd = open_own(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, line: str) -> None:
        """Append ``line``, given without its newline. Never raises."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        if self._torn:
            data = b"\n" + data  # part of an earlier line was written
        try:
            self.open()
            while data:
                data = data[os.write(self._fd, data) :]
                self._torn = bool(data)
        except OSError as error:
            self.close()
            self._lost += 1
            self._failed(error)
        else:
            # Reset before reporting, because the report may be logged through this file.
            failed, self._fails = self._fails, False
            lost, self._lost = self._lost, 0
            if failed:
                self._problems.over("log-file", self._path)
                self._report(f"{self._path}: can be written again; lines missing: {lost}")

    def reopen(self) -> None:
        """Reopen the file by its name; never raises."""
        self.close()
        try:
            self.open()
        except OSError as error:  # reported now, since the next line may be hours away
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        what = f"{self._path}: cannot be written: {error.strerror}"
        self._problems.tell("log-file", self._path, what)
        if not self._fails:
            self._fails = True
            self._report(what)

    def close(self) -> None:
        """Close the file. The next line opens it again by its name."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


@implementer(ILogObserver)
class LoncLog:
    """
    Writes ``lonc.log`` (row S15).

    :param file: the file.
    :param seed_form: the seed's format.
    :param form: the format of the file; None for the seed's.
    :ivar faults: number of exceptions logged since the start; none is expected.
    :ivar last_fault: when the last was, in Unix time; 0.0 for never.
    """

    def __init__(self, file: LineFile, seed_form: SeedForm, form: Form | None = None) -> None:
        self.faults, self.last_fault = 0, 0.0
        self._file = file
        self._seed_form = seed_form
        self._form = form
        self._last: dict[str, str] = {}

    def __call__(self, event: LogEvent) -> None:
        """Write an event, if it should be logged."""
        if not wanted(event):
            return
        if "log_failure" in event:
            self.faults += 1
            self.last_fault = event.get("log_time", 0.0)
        line = self._seed_form(event)
        self._last[_host_id(event)] = line
        self._file.append(line if self._form is None else self._form(event))

    def last_line(self, host_id: str) -> str:
        """
        Return the host's last line without its newline, for the status file; empty at first.

        It is in the seed's format, like the status file, whatever the format of the log.
        """
        return self._last.get(host_id, "")

    def forget(self, host_id: str) -> None:
        """Drop the last line of a host that has left the table."""
        self._last.pop(host_id, None)

    def reopen(self) -> None:
        """Reopen the file by its name (USR1, after a rotation)."""
        self._file.reopen()


@implementer(ILogObserver)
class Echo:
    """
    Shows the same events on a terminal, for ``twistd -n``.

    :param show: writes a line; must neither block nor raise.
    """

    def __init__(self, show: Callable[[str], None], form: Form = text_form) -> None:
        self._show = show
        self._form = form

    def __call__(self, event: LogEvent) -> None:
        """Show an event, if it should be logged."""
        if wanted(event):
            self._show(self._form(event))


class PermLog:
    """
    Writes ``lonnet.perm.log``, the log of delayed requests (row S15, protocol section 7).

    The file is opened for each line, so that it can be rotated at any time.

    :param now: returns the Unix time.
    """

    def __init__(
        self,
        path: str,
        now: Callable[[], float] = time.time,
        report: Callable[[str], None] = complain,
        problems: Problems | None = None,
    ) -> None:
        self._file = LineFile(path, report, problems)
        self._now = now

    def write(self, message: str) -> None:
        """
        Append ``<unix time>:<message>:<local time>``. Never raises.

        :param message: begins with ``S:``, ``D:`` or ``F:``.
        """
        now = self._now()
        self._file.append(f"{int(now)}:{printable(message)}:{local_time(now)}")
        self._file.close()


def _host_id(event: LogEvent) -> str:
    return str(event.get("host_id", PARENT))


def _severity(event: LogEvent) -> str:
    level = event.get("log_level")
    if level in (LogLevel.error, LogLevel.critical) or event.get("start_or_end"):
        return "CRITICAL"  # the only severity in the seed that stands out
    if level is LogLevel.warn:
        return "WARNING"
    return "SUCCESS" if event.get("success") else "INFO"


def _message(event: LogEvent) -> str:
    text = eventAsText(without_host(event), includeTimestamp=False, includeSystem=False)
    return str(_shown(text.strip("\n")))


def _shown(value: object) -> object:
    """
    Shorten values that a peer may have made long, so that log lines and their copies stay small.

    Only the command of an encrypted request is shown, even in the traceback of a bug in lonc.
    """
    if isinstance(value, str) and "encrypt:" in value:
        value = _SECRET.sub(r"\1...", value)
    if not isinstance(value, str | bytes) or len(value) <= LONGEST:
        return value
    text = value if isinstance(value, str) else value.decode("latin-1")
    half = LONGEST // 2
    return f"{text[:half]} ...({len(text) - LONGEST} left out)... {text[-half:]}"
