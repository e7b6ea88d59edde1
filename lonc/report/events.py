"""
Log events: the host they concern, their names for programs that read the log, rate limits.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogEvent, LogLevel

from twisted import logger

#: The name of events that are not lonc's, such as Twisted's lines about sockets.
OTHER: Final = "other"

_FIELD: Final = re.compile(r"\{[^{}]*\}")
_LEFT_OUT: Final = re.compile(r"'s\b|[\"']")
_END: Final = re.compile(r"[:;,(]")
_WORD: Final = re.compile(r"[a-z]+")


#: The host id of lines that concern no host.
PARENT: Final = "Parent"

#: Prefix of texts that concern a host: the log of a program that embeds lonc shows only texts.
_NAMED: Final = "{host_id}: "


class Logger(logger.Logger):  # noqa: TID251
    """Logs events, and prefixes their text with ``host_id`` if they concern a host."""

    def emit(self, level: LogLevel, format: str | None = None, **fields: object) -> None:
        """Log an event."""
        if format is not None and fields.get("host_id", PARENT) != PARENT:
            format = _NAMED + format
        super().emit(level, format, **fields)


def without_host(event: LogEvent) -> LogEvent:
    """Return an event without that prefix, for output that shows the host separately."""
    format = event.get("log_format")
    if not isinstance(format, str) or not format.startswith(_NAMED):
        return event
    return {**event, "log_format": format.removeprefix(_NAMED)}


@lru_cache(maxsize=256)
def name_of(message: str) -> str:
    """
    Return the name of a message: its words up to the first colon, comma, semicolon or bracket,
    joined by hyphens.

    Fields are not part of it, so the name identifies the documented message. Messages that begin
    alike share a name.

    :param message: the text with its fields in braces.
    """
    words = _LEFT_OUT.sub("", _FIELD.sub(" ", message)).lstrip(" :;,.()-")
    return "-".join(_WORD.findall(_END.split(words)[0].lower().replace("_", " "))) or OTHER


def event_name(event: LogEvent) -> str:
    """
    Return the name of an event.

    An event whose text consists only of fields has its name in the field ``event``, or is named
    after the field ``what``.
    """
    if not str(event.get("log_namespace", "")).startswith("lonc."):
        return OTHER
    given = event.get("event")
    if given is not None:
        return str(given)
    name = name_of(str(event.get("log_format", "")))
    return name_of(str(event["what"])) if name == OTHER and "what" in event else name


class RateLimited:
    """
    Prevents repeated warnings from filling the log.

    ::

        more = self._too_many.allow(host_id)
        if more is not None:
            log.warn("...{more}", more=more)

    :param clock: the reactor, or a :class:`twisted.internet.task.Clock`.
    :param interval: minimum seconds between two warnings with the same key.
    :param max_keys: number of keys that are distinguished; additional ones share one limit.
    """

    __slots__ = ("_clock", "_interval", "_max_keys", "_seen")

    def __init__(self, clock: IReactorTime, interval: float, max_keys: int = 1000) -> None:
        self._clock = clock
        self._interval = interval
        self._max_keys = max_keys
        self._seen: dict[str | None, tuple[float, int]] = {}  # key -> (silent until, left out)

    def allow(self, key: str = "") -> str | None:
        """
        Determine whether to log now: at most every ``interval`` seconds for each key.

        :return: None if not, else a suffix for the line: how many were left out since the last.
        """
        now = self._clock.seconds()
        place: str | None = key
        if key not in self._seen and len(self._seen) >= self._max_keys:
            self._seen = {k: v for k, v in self._seen.items() if v[0] > now}
            if len(self._seen) >= self._max_keys:
                place = None
        until, left_out = self._seen.get(place, (now, 0))
        if now < until:
            self._seen[place] = (until, left_out + 1)
            return None
        self._seen[place] = (now + self._interval, 0)
        return f" ({left_out} like this left out)" if left_out else ""
