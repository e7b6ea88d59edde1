"""
The names of what is logged, for programs that read the log.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from twisted.logger import LogEvent

#: What is not lonc's own, such as Twisted's lines on sockets.
OTHER: Final = "other"

_FIELD: Final = re.compile(r"\{[^{}]*\}")
_LEFT_OUT: Final = re.compile(r"'s\b|[\"']")
_END: Final = re.compile(r"[:;,(]")
_WORD: Final = re.compile(r"[a-z]+")


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
