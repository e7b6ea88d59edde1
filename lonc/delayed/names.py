"""
What the names of files in the folder of delayed requests tell (protocol section 6).

A *file* is given by its path below that folder: ``<name>`` or ``<name>~sealed`` where requests are
stored, ``sealed/<name>~sealed`` where lonc keeps those that it has sealed, ``kept/...`` where it
puts those that it will not send.
"""

from __future__ import annotations

import os
import re
from typing import Final

from lonc.delayed.sealing import SEALED, own_name

#: ``<time>.<pid>.<letters>.<host id>``. Older writers leave the pid out, later ones put a count
#: before it. The letters are never digits alone, so a name can be read in one way only.
_NAME = re.compile(r"(?:\d+\.){1,3}(?!\d+\.)\w*\.([\w.-]+)", re.ASCII)

#: Beside a request that was set aside: the lond's answer, or why it was not sent.
ANSWER: Final = ".answer"
REASON: Final = ".reason"
NOTES: Final = (ANSWER, REASON, ANSWER + SEALED, REASON + SEALED)

#: The folders inside that of the delayed requests.
SEALED_FOLDER: Final = "sealed/"
KEPT_FOLDER: Final = "kept/"

#: What a sealed form's name ends in while it is written.
SEALING: Final = "~sealing"

#: What files are sorted by.
Order = tuple[str, bool, int, str]

_NUMBER = re.compile(r"([0-9]+)")


def host_of(name: str) -> str | None:
    """Return the host id that a request's name ends in; None when it is no delayed request."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def host_of_file(file: str) -> str | None:
    """Return the host id that a file's name tells, sealed or not; None as for :func:`host_of`."""
    is_sealed = file.endswith(SEALED) or file.startswith(KEPT_FOLDER)
    return host_of(own_name(file) if is_sealed else file)


def name_of(file: str) -> str:
    """Return a file's name, the same for a request in the clear and its sealed form."""
    return os.path.basename(file).removesuffix(SEALED)


def order(file: str) -> Order:
    """
    Return what files are sorted by, for sending, listing and paging (row S13).

    That is the request's name, in which numbers count as numbers: lonnet does not pad its count. Of
    those with one name the sealed ones come first, for they were stored first, by the number
    behind ``~``; then the text decides.
    """
    name, number, is_plain = file.rpartition("/")[2], 0, True
    if "~" in name:
        own = own_name(name)
        behind = name_of(name).removeprefix(own).removeprefix("~")
        number, is_plain = int(behind) if behind.isdecimal() else 0, not name.endswith(SEALED)
        name = own
    # There may be many: a number becomes text that sorts as it does, by its length first.
    parts = _NUMBER.split(name)
    parts[1::2] = [f"{len(each.lstrip('0')):03}{each.lstrip('0')}" for each in parts[1::2]]
    return "".join(parts), is_plain, number, file


def is_kept(file: str) -> bool:
    """Return whether a file in the folder of what is kept is a request, not what stands beside."""
    name = own_name(file)
    return host_of(name) is not None and not name.endswith((ANSWER, REASON))


def stored_at(file: str) -> float:
    """Return when a request was stored, in Unix time, as its name begins; 0.0 for no such name."""
    first = os.path.basename(file).partition(".")[0]
    return float(first) if first.isdecimal() and len(first) < 16 else 0.0


def hidden_name(name: str) -> str:
    """Return the name under which a request is written, which lonc passes over."""
    return f".{name}.part"


def is_unfinished(file: str) -> bool:
    """Return whether a file's name is one under which requests, or their sealed forms, are made."""
    name = file.removesuffix(SEALING)
    if name == file:
        name = file.removeprefix(".").removesuffix(".part").removesuffix(SEALED)
        if file not in (hidden_name(name), hidden_name(name + SEALED)):
            return False
    return host_of(name) is not None
