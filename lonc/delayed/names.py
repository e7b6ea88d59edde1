"""
What the name of a file in the folder of delayed requests tells (protocol section 6).
"""

from __future__ import annotations

import re

from lonc.delayed.outbox import hidden_name
from lonc.delayed.sealer import SEALING
from lonc.delayed.sealing import SEALED, own_name

#: ``<time>.<pid>.<letters>.<host id>``. Older writers leave the pid out, later ones put a count
#: before it. The letters are never digits alone, so a name can be read in one way only.
_NAME = re.compile(r"(?:\d+\.){1,3}(?!\d+\.)\w*\.([\w.-]+)", re.ASCII)

#: Beside a request that was set aside: the lond's answer, or why it was not sent.
ANSWER = ".answer"
REASON = ".reason"


def host_of(name: str) -> str | None:
    """Return the host id that a file's name ends in; None when it is no delayed request."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def is_kept(file: str) -> bool:
    """Return whether a file in the folder of what is kept is a request, not what stands beside."""
    name = own_name(file)
    return host_of(name) is not None and not name.endswith((ANSWER, REASON))


def stored_at(name: str) -> float:
    """Return when a request was stored, in Unix time, as its name begins; 0.0 for no such name."""
    first = name.partition(".")[0]
    return float(first) if first.isdecimal() and len(first) < 16 else 0.0


def is_unfinished(file: str) -> bool:
    """Return whether a file's name is one under which requests, or their sealed forms, are made."""
    name = file.removesuffix(SEALING)
    if name == file:
        name = file.removeprefix(".").removesuffix(".part").removesuffix(SEALED)
        if file not in (hidden_name(name), hidden_name(name + SEALED)):
            return False
    return host_of(name) is not None
