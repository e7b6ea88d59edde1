"""
Types of settings: which texts are allowed, and how they are parsed.
"""

from __future__ import annotations

import grp
import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs


class SettingsError(Exception):
    """
    The settings are unusable. The message is a readable line with file and line, or option.

    It is made from such a line, or from several errors, whose messages it joins.
    """

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))

    @property
    def errors(self) -> Sequence[Exception]:
        """All errors, each with its own message."""
        return self.args if len(self.args) > 1 else [self]


# Kinds of values


@attrs.frozen
class Kind:
    """
    A type of values.

    :ivar unit: its unit, for display.
    :ivar allowed: the allowed texts, worded to follow "is not".
    :ivar parse: converts text to a value; raises ValueError for texts that are not allowed.
    """

    unit: str
    allowed: str
    parse: Callable[[str], Any]


def _match(pattern: str, text: str) -> re.Match[str]:
    match = re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    return match


def _check(allowed: bool) -> None:
    if not allowed:
        raise ValueError


def _range(unit: str, what: str, least: object, most: object, read: Callable[[str], float]) -> Kind:
    """Return the kind of values in a range, both ends included."""

    def parse(text: str) -> float:
        value = read(text)
        _check(read(str(least)) <= value <= read(str(most)))
        return value

    return Kind(unit, f"{what} from {least} to {most}", parse)


def whole(unit: str, least: int, most: int) -> Kind:
    """Return the kind of whole numbers in a range."""
    return _range(
        unit, "a whole number", least, most, lambda text: int(_match("[0-9]{1,18}", text)[0])
    )


def seconds(least: float, most: float) -> Kind:
    """Return the kind of times in seconds, with fractions, in a range."""
    form = r"[0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18}"
    return _range("seconds", "a number", least, most, lambda text: float(_match(form, text)[0]))


def size(least: str, most: str) -> Kind:
    """Return the kind of sizes in bytes, KiB, MiB or GiB in a range."""
    return _range("bytes", "a size", least, most, _in_bytes)


def _in_bytes(text: str) -> int:
    match = _match(r"([0-9]{1,18})[ \t]*(?:([KMG])(?:iB)?)?", text)
    return int(match[1]) << 10 * " KMG".index((match[2] or " ").upper())


def _mode(text: str) -> int:
    value = int(_match("(?:0o?)?([0-7]{3})", text)[1], 8)
    _check(value & 0o600 == 0o600)  # Without it lonc's own user could not connect.
    return value


def _group(text: str) -> int:
    if re.fullmatch("[0-9]{1,10}", text):
        _check(int(text) < 2**32 - 1)  # chown takes the largest number as "unchanged".
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError(text) from None


def _name_of_file(text: str) -> str:
    # A path with other characters could not be shown in a log line.
    _check(bool(text) and text.isprintable())
    return text


def _file(text: str) -> str:
    _check(text.startswith("/"))
    return _name_of_file(text)


def _folder(text: str) -> str:
    return _file(text).rstrip("/") or "/"


def _switch(text: str) -> bool:
    return _match("[01]", text)[0] == "1"


def _endpoint(text: str) -> str:
    _check(text.isprintable())
    return _match("[a-z][a-z0-9]*:.+", text)[0]


def _host_id(text: str) -> str:
    _check(text not in (".", ".."))
    return _match("[a-z0-9_.-]+", text)[0]


def one_of(*words: str) -> Kind:
    """Return the kind that allows only ``words``."""

    def parse(text: str) -> str:
        _check(text in words)
        return text

    return Kind("word", "one of " + ", ".join(words), parse)


def _managing_names(text: str) -> tuple[tuple[str, bool], ...]:
    """Return each name in lower case, and whether it may steer."""
    found = (_match(r"([a-z0-9-]+(?:\.[a-z0-9-]+)*)(:steer)?", each) for each in text.split())
    return tuple((each[1].lower(), each[2] is not None) for each in found)


def _names(text: str) -> tuple[str, ...]:
    """Return each name in lower case."""
    name = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
    return tuple(_match(name, each)[0].lower() for each in text.split())


def _host_ids(text: str) -> tuple[str, ...]:
    return tuple(_host_id(each) for each in text.split())


def _or_none(unit: str, allowed: str, parse: Callable[[str], object], none: object = None) -> Kind:
    """Return a kind that also allows the word none."""
    return Kind(unit, f"{allowed}, or none", lambda text: none if text == "none" else parse(text))


HOST_ID = Kind("host id", "a host id (letters, digits, _, - and .)", _host_id)
HOST_IDS = _or_none("host ids", "host ids separated by spaces", _host_ids, ())
MANAGING_NAMES = _or_none(
    "host names",
    "host names separated by spaces, each followed by :steer if it may steer",
    _managing_names,
    (),
)
HOST_NAMES = _or_none("host names", "host names separated by spaces", _names, ())
FOLDER = Kind("folder", "an absolute path in printable characters", _folder)
OPTIONAL_FILE = _or_none("file", FOLDER.allowed, _file)
OPTIONAL_FOLDER = attrs.evolve(OPTIONAL_FILE, unit="folder")
NAME_OF_FILE = _or_none("file", "a name or a path in printable characters", _name_of_file)
SWITCH = Kind("switch", "1 (on) or 0 (off)", _switch)
MODE = Kind("octal mode", "an octal mode from 0600 to 0777 with read and write for the user", _mode)
GROUP = _or_none("group", "the name or number of a group of this machine", _group)
_AN_ENDPOINT = "a Twisted endpoint description such as tcp:"
ENDPOINT = Kind("endpoint", f"{_AN_ENDPOINT}7000:interface=127.0.0.1", _endpoint)
OPTIONAL_ENDPOINT = _or_none("endpoint", f"{_AN_ENDPOINT}8663", _endpoint)
