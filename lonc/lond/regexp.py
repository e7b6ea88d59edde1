"""
Regular expressions of strangers, with a bound on their cost. This module is pure.

Python's `re` tries one way through an expression after the other and knows no time limit; while
it does, nothing else in the process runs. The number of ways can be bounded before it starts, as
long as no group is repeated: each repetition ends at one of the ``length + 1`` places of the
text, and each group takes one of its branches. Each way has no more steps than the expression has
bytes. An expression whose bound is too high is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

#: Steps for one request at most: under a second, and far from it in ordinary use.
_STEPS: Final = 100_000_000
#: Bytes of an expression.
_LENGTH: Final = 500

_PART: Final = re.compile(
    rb"(?P<reference>\\[1-9])"
    rb"|\\."
    rb"|\[\^?\]?(?:\\.|[^\]\\])*\]"
    rb"|(?P<group>\((?:\?:)?(?P<special>\?)?)"
    rb"|(?P<end>\))"
    rb"|(?P<branch>\|)"
    rb"|(?P<repeat>(?:[*+?]|\{\d*,?\d*\})[+?]?)"
    rb"|.",
    re.DOTALL,
)


class RegexpError(Exception):
    """The expression is none, or would take too long. The message is for a person."""


def matching(regexp: bytes, keys: Iterable[bytes]) -> set[bytes]:
    """
    Return the keys that an expression matches anywhere.

    :param regexp: the expression, escaped as keys and values are (``%5e`` for ``^``).
    :param keys: escaped; the expression is held against what they stand for.
    :raise RegexpError: when it is not understood, or costs too much on these keys.
    """
    text = unquote_to_bytes(regexp)
    if len(text) > _LENGTH:
        raise RegexpError(f"a regular expression of more than {_LENGTH} bytes")
    repeats, branches = _count(text)
    try:
        search = re.compile(text).search
    except (re.error, RecursionError, OverflowError) as error:
        raise RegexpError(f"not a regular expression: {error}") from None
    found = set()
    steps = 0
    for key in keys:
        plain = unquote_to_bytes(key)
        ways = branches * (len(plain) + 1) ** (repeats + 1)  # + 1: it may begin anywhere
        steps += ways * len(text)
        if steps > _STEPS:
            raise RegexpError("a regular expression that would take too long on this data")
        if search(plain):
            found.add(key)
    return found


def _count(text: bytes) -> tuple[int, int]:
    """Return how many repetitions there are, and how many combinations of branches."""
    repeats, branches = 0, 1
    open_groups = [1]  # branches of each group that is still open; the first is the whole
    after_group = False
    for part in _PART.finditer(text):
        kind = part.lastgroup
        if part["reference"] or part["special"]:
            raise RegexpError("a regular expression with references or (? is not served")
        if kind == "repeat":
            if after_group and not part.group().startswith(b"?"):
                raise RegexpError("a regular expression that repeats a group is not served")
            repeats += 1
        elif kind == "group":
            open_groups.append(1)
        elif kind == "branch":
            open_groups[-1] += 1
        elif kind == "end" and len(open_groups) > 1:
            branches *= open_groups.pop()
        after_group = kind == "end"
    return repeats, branches  # of the whole, one branch is tried and then the next
