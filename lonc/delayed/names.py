"""
The names of files in the folder of delayed requests (protocol section 6).

A *file* is identified by its path below that folder: ``<name>`` or ``<name>~sealed`` where programs
store requests, ``sealed/<name>~sealed`` for those that lonc has sealed, ``kept/...`` for those that
it has set aside.
"""

from __future__ import annotations

import os
import re
from typing import Final

from lonc.disk.files import Stamp

#: ``<time>.<pid>.<letters>.<host id>``. Older programs omit the pid, later ones put a count before
#: it. The letters are never only digits, so names are unambiguous.
_NAME = re.compile(r"(?:\d+\.){1,3}(?!\d+\.)\w*\.([\w.-]+)", re.ASCII)

#: Ending of the name of a sealed file. No host id contains a ``~``, so other programs do not take
#: such a file for a request.
SEALED: Final = "~sealed"

#: Endings of the note beside a request that was set aside: the answer, or why it was not sent.
ANSWER: Final = ".answer"
REASON: Final = ".reason"
NOTES: Final = (ANSWER, REASON, ANSWER + SEALED, REASON + SEALED)

#: The folders inside that of the delayed requests.
SEALED_FOLDER: Final = "sealed/"
KEPT_FOLDER: Final = "kept/"

#: Ending of the name of a sealed form while it is being written.
SEALING: Final = "~sealing"

#: A sort key of files.
Order = tuple[str, bool, int, str]

_NUMBER = re.compile(r"([0-9]+)")


def numbered(name: str, number: int) -> str:
    """Return a name with a number, or the name itself for 0."""
    return f"{name}~{number}" if number else name


def own_name(file: str) -> str:
    """
    Return the authenticated name, for the path or name of a file or its sealed form.

    It excludes numbers, because a file may get one when it is moved.
    """
    return re.sub(r"~\d+", "", os.path.basename(file).removesuffix(SEALED), flags=re.ASCII)


def host_of(name: str) -> str | None:
    """Return the host id at the end of a name; None if it is not that of a delayed request."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def host_of_file(file: str) -> str | None:
    """Return the host id of a file, sealed or not; None as for :func:`host_of`."""
    is_sealed = file.endswith(SEALED) or file.startswith(KEPT_FOLDER)
    return host_of(own_name(file) if is_sealed else file)


def name_of(file: str) -> str:
    """Return the name of a file, the same for a request and its sealed form."""
    return os.path.basename(file).removesuffix(SEALED)


def order(file: str) -> Order:
    """
    Return a sort key for sending, listing and paging (row S13).

    It is the request's name, with numbers compared as numbers, because lonnet does not pad its
    count. Of files with the same name the sealed ones come first, since they were stored first, by
    the number after ``~``.
    """
    name, number, is_plain = file.rpartition("/")[2], 0, True
    if "~" in name:
        own = own_name(name)
        behind = name_of(name).removeprefix(own).removeprefix("~")
        number, is_plain = int(behind) if behind.isdecimal() else 0, not name.endswith(SEALED)
        name = own
    # For speed, numbers become text that sorts in the same order: their length, then their digits.
    parts = _NUMBER.split(name)
    parts[1::2] = [f"{len(each.lstrip('0')):03}{each.lstrip('0')}" for each in parts[1::2]]
    return "".join(parts), is_plain, number, file


def is_kept(file: str) -> bool:
    """Return whether a file among those set aside is a request, not a note."""
    name = own_name(file)
    return host_of(name) is not None and not name.endswith((ANSWER, REASON))


def stored_at(file: str) -> float:
    """Return the Unix time at the beginning of a request's name; 0.0 if there is none."""
    first = os.path.basename(file).partition(".")[0]
    return float(first) if first.isdecimal() and len(first) < 16 else 0.0


def hidden_name(name: str) -> str:
    """Return the temporary name under which a request is written, which lonc ignores."""
    return f".{name}.part"


def is_unfinished(file: str) -> bool:
    """Return whether a name is the temporary name of a request or its sealed form."""
    name = file.removesuffix(SEALING)
    if name == file:
        name = file.removeprefix(".").removesuffix(".part").removesuffix(SEALED)
        if file not in (hidden_name(name), hidden_name(name + SEALED)):
            return False
    return host_of(name) is not None


def has_another_name(path: str, info: os.stat_result) -> bool:
    """
    Return whether a file has a name other than its own and its temporary one.

    While a request is stored it has both, and after a crash it may keep both.
    """
    if info.st_nlink <= 1:
        return False
    folder, name = os.path.split(path)
    try:
        hidden = os.lstat(os.path.join(folder, hidden_name(name)))
    except OSError:
        return True
    return Stamp.of(hidden) != Stamp.of(info)
