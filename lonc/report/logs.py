"""
The log files: ``lonc.log``, ``lonnet.perm.log``, and an echo for a terminal (rows S15 and S20).

A peer decides part of what stands in a log line, a web page shows the file, and tools take it line
by line. So each event becomes exactly one line, nothing in it can start another, and in the
seed's form nothing in it is markup but what this module puts there. (The seed is loncnew, the
program that lonc replaces.)

Nothing here ever raises into the program: a full disk must not stop a request.
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

#: Characters of an event's text or field that are written: the head and the tail of a longer one.
LONGEST: Final = 8192

#: What a browser would take for markup. The html module's escape() would do, but with it comes
#: half a megabyte of entities.
_MARKUP: Final = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
_COLOURS: Final = {"CRITICAL": "red", "SUCCESS": "green", "INFO": "yellow", "WARNING": "blue"}

#: A request that is secret on its way, as an exception shows the bytes that it is about.
_SECRET: Final = re.compile(r"""(\bb["'](?:sethost:[^:\n]*:)*encrypt:(?:\w{1,32}(?=:))?)[^\n]*""")

#: Makes an event into its line, without a newline.
Form = Callable[[LogEvent], str]


_HTTP_CLIENT = "twisted.web._newclient.HTTPClientParser"


def wanted(event: LogEvent) -> bool:
    """
    Tell whether an event is for the log at all.

    Debug events are made only where a host's debug level asks for them (row S20), and carry their
    level as ``debug_level`` (Twisted keeps ``level`` for itself); what has none is Twisted's own
    debugging. An event without a text says nothing. What a web server can have Twisted say for
    every 16 bytes that it sends is left out as well.
    """
    if event.get("log_format") is None and "log_failure" not in event:
        return False
    if event.get("log_namespace") == _HTTP_CLIENT and event.get("log_level") is LogLevel.info:
        return False
    return "debug_level" in event or event.get("log_level") is not LogLevel.debug


class SeedForm:
    """
    The seed's form (protocol section 7): ``<local time> (<pid>) [<host id>] [<status>] <message>``.

    :param status_of: gives the current status text of a host id, or of :data:`PARENT`; called
        for each line.
    :param pid: gives the process id, which changes when twistd goes into the background.
    """

    def __init__(self, status_of: Callable[[str], str], pid: Callable[[], int] = os.getpid) -> None:
        self._status_of = status_of
        self._pid = pid

    def __call__(self, event: LogEvent) -> str:
        """Give the event's line."""
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
        except Exception as error:  # the line matters more than what goes with it
            return f"no status: {type(error).__name__}"


def text_form(event: LogEvent) -> str:
    """Twisted's classic form with a host id in it: ``<time> [lonc.x#info msul1] <message>``."""
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
    Give JSON with every field of the event, and its name as ``event``.

    :func:`twisted.logger.eventsFromJSONLogFile` reads it back.
    """
    name = event_name(event)
    try:
        # A copy: making JSON of an event adds to it, and other observers get it too.
        fields = {field: _shown(value) for field, value in without_host(event).items()}
        return eventAsJSON({**fields, "event": name})
    except Exception as error:  # a field may be anything at all
        fields = {"text": _message(event), "unfit": repr(error), "event": name}
        return json.dumps({"log_format": "{text}", **fields})


@cache
def _stderr() -> TextOutput | None:
    # Not sys.stderr: twistd makes log events of what that gets.
    try:
        return None if sys.__stderr__ is None else TextOutput(sys.__stderr__)
    except (OSError, ValueError):  # it is closed, or no file
        return None


def complain(message: str, show: Callable[[str], None] | None = None) -> None:
    """
    Say on stderr and in the log that a log file fails; one of the two may still be read.

    :param show: shows a line elsewhere than on stderr.
    """
    log.error("{text}", text=message, event="log-file")
    stderr = _stderr()
    if show is None and stderr is not None:
        show = stderr.show
    if show is not None:
        show(f"lonc: {message}")


def has_room(path: str) -> bool:
    """Return whether a line could be written to a file now, as far as its disk tells."""
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
    A file that lines are appended to, and that may fail and come back.

    The first line that cannot be written is reported; every later line tries anew, and once one
    is written, how many are missing is reported.

    :param path: made when it is not there; its folder is not.
    :param report: is told, in a line for a person.
    :param problems: has the file on it while it fails.
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
        Open the file, or make it.

        :raises OSError: it cannot be had; a later line tries anew.
        """
        if self._fd < 0:
            self._fd = open_own(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, line: str) -> None:
        """Append ``line``, given without its newline. Never raises."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        if self._torn:
            data = b"\n" + data  # a part of an earlier line stands there
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
            # Forgotten before it is told: the report may well come back here as a line.
            failed, self._fails = self._fails, False
            lost, self._lost = self._lost, 0
            if failed:
                self._problems.over("log-file", self._path)
                self._report(f"{self._path}: can be written again; lines missing: {lost}")

    def reopen(self) -> None:
        """Write to the file that has the name now; never raises."""
        self.close()
        try:
            self.open()
        except OSError as error:  # seen now, since the next line may be hours away
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        what = f"{self._path}: cannot be written: {error.strerror}"
        self._problems.tell("log-file", self._path, what)
        if not self._fails:
            self._fails = True
            self._report(what)

    def close(self) -> None:
        """Let the file go. The next line opens the one that bears its name then."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


@implementer(ILogObserver)
class LoncLog:
    """
    Writes ``lonc.log`` (row S15).

    :param file: where the lines go.
    :param seed_form: the seed's form.
    :param form: the form of the file; the seed's unless given.
    """

    def __init__(self, file: LineFile, seed_form: SeedForm, form: Form | None = None) -> None:
        self._file = file
        self._seed_form = seed_form
        self._form = form
        self._last: dict[str, str] = {}

    def __call__(self, event: LogEvent) -> None:
        """Write the event, if it is wanted."""
        if not wanted(event):
            return
        line = self._seed_form(event)
        self._last[_host_id(event)] = line
        self._file.append(line if self._form is None else self._form(event))

    def last_line(self, host_id: str) -> str:
        """
        Give the host's last line without its newline, for the status file; empty at first.

        It is in the seed's form, as the status file is, whatever the form of the log.
        """
        return self._last.get(host_id, "")

    def forget(self, host_id: str) -> None:
        """Drop the last line of a host that has left the table."""
        self._last.pop(host_id, None)

    def reopen(self) -> None:
        """Write to the file that bears the name now (USR1, after a rotation)."""
        self._file.reopen()


@implementer(ILogObserver)
class Echo:
    """
    Shows the same events on a terminal, for ``twistd -n``.

    :param show: shows a line, and neither waits nor raises.
    """

    def __init__(self, show: Callable[[str], None], form: Form = text_form) -> None:
        self._show = show
        self._form = form

    def __call__(self, event: LogEvent) -> None:
        """Show the event, if it is wanted."""
        if wanted(event):
            self._show(self._form(event))


class PermLog:
    """
    Writes ``lonnet.perm.log`` (row S15, protocol section 7): what became of delayed requests.

    The file is opened for each line, so that it can be rotated at any time.

    :param now: gives the Unix time.
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
        return "CRITICAL"  # the seed has no other word for what everybody should see
    if level is LogLevel.warn:
        return "WARNING"
    return "SUCCESS" if event.get("success") else "INFO"


def _message(event: LogEvent) -> str:
    text = eventAsText(without_host(event), includeTimestamp=False, includeSystem=False)
    return str(_shown(text.strip("\n")))


def _shown(value: object) -> object:
    """
    Cut what a peer may have made long, so that a log line and its copies stay small.

    Of a secret request no more than its command is shown, even where a fault inside lonc is told.
    """
    if isinstance(value, str) and "encrypt:" in value:
        value = _SECRET.sub(r"\1...", value)
    if not isinstance(value, str | bytes) or len(value) <= LONGEST:
        return value
    text = value if isinstance(value, str) else value.decode("latin-1")
    half = LONGEST // 2
    return f"{text[:half]} ...({len(text) - LONGEST} left out)... {text[-half:]}"
