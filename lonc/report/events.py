"""
What is logged: which host it concerns, its name, for programs that read the log, and how often.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from twisted.internet.interfaces import IReactorTime
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


class RateLimited:
    """
    Keeps a warning that repeats from filling the log.

    ::

        more = self._too_many.allow(host_id)
        if more is not None:
            log.warn("...{more}", more=more)

    :param clock: the reactor, or a :class:`twisted.internet.task.Clock`.
    :param interval: seconds between two of the same key.
    :param max_keys: keys that are remembered; more than that share one.
    """

    __slots__ = ("_clock", "_interval", "_max_keys", "_seen")

    def __init__(self, clock: IReactorTime, interval: float, max_keys: int = 1000) -> None:
        self._clock = clock
        self._interval = interval
        self._max_keys = max_keys
        self._seen: dict[str | None, tuple[float, int]] = {}  # key -> (silent until, left out)

    def allow(self, key: str = "") -> str | None:
        """
        Tell whether to log now: the first time at once, later every ``interval`` seconds at most.

        :return: None if not, else what the line ends with: how many were left out since the last.
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
