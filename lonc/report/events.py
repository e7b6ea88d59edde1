"""
What is logged: which host it concerns, and its name, for programs that read the log.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from twisted.logger import LogEvent, LogLevel

from twisted import logger

#: What is not lonc's own, such as Twisted's lines on sockets.
OTHER: Final = "other"

_FIELD: Final = re.compile(r"\{[^{}]*\}")
_LEFT_OUT: Final = re.compile(r"'s\b|[\"']")
_END: Final = re.compile(r"[:;,(]")
_WORD: Final = re.compile(r"[a-z]+")


#: The host id of lines that belong to no host.
PARENT: Final = "Parent"

#: Begins the text of what concerns a host: the log of a program that embeds lonc shows texts alone.
_NAMED: Final = "{host_id}: "


class Logger(logger.Logger):  # noqa: TID251
    """Logs events whose text names the host that they concern, as ``host_id`` does."""

    def emit(self, level: LogLevel, format: str | None = None, **fields: object) -> None:
        """Log an event."""
        if format is not None and fields.get("host_id", PARENT) != PARENT:
            format = _NAMED + format
        super().emit(level, format, **fields)


def without_host(event: LogEvent) -> LogEvent:
    """Return an event whose text does not name the host; where it is shown by itself."""
    format = event.get("log_format")
    if not isinstance(format, str) or not format.startswith(_NAMED):
        return event
    return {**event, "log_format": format.removeprefix(_NAMED)}


@lru_cache(maxsize=256)
def name_of(message: str) -> str:
    """
    Return the name of a message: its words up to the first colon, comma or bracket, with hyphens.

    What differs from line to line is no part of it, so the documentation of the message is that of
    the name. Messages that begin alike share one.

    :param message: the text with its fields in braces.
    """
    words = _LEFT_OUT.sub("", _FIELD.sub(" ", message)).lstrip(" :;,.()-")
    return "-".join(_WORD.findall(_END.split(words)[0].lower().replace("_", " "))) or OTHER


def event_name(event: LogEvent) -> str:
    """
    Return the name of an event.

    One whose text comes from elsewhere brings its name along as ``event``, or was put together
    from a text of lonc's, ``what``.
    """
    if not str(event.get("log_namespace", "")).startswith("lonc."):
        return OTHER
    given = event.get("event")
    if given is not None:
        return str(given)
    name = name_of(str(event.get("log_format", "")))
    return name_of(str(event["what"])) if name == OTHER and "what" in event else name
