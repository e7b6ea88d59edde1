"""
Untrusted regular expressions with bounded cost. This module is pure.

Python's `re` backtracks without a time limit, and blocks the process meanwhile. But as long as no
group is repeated, the number of paths through an expression can be bounded in advance: each
repetition ends at one of the ``length + 1`` positions of the text, and each group takes one of its
branches. Each path has at most as many steps as the expression has bytes. An expression whose bound
is too high is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

#: Maximum steps for one request: below a second, and far more than ordinary use needs.
_STEPS: Final = 100_000_000
#: Maximum bytes of an expression.
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
    """The expression is invalid, or would take too long. The message is readable."""


def matching(regexp: bytes, keys: Iterable[bytes]) -> set[bytes]:
    """
    Return the keys that an expression matches anywhere.

    :param regexp: the expression, escaped as keys and values are (``%5e`` for ``^``).
    :param keys: escaped; the expression is matched with the unescaped keys.
    :raises RegexpError: the expression is invalid, or too costly for these keys.
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
        ways = branches * (len(plain) + 1) ** (repeats + 1)  # + 1: the match may begin anywhere
        steps += ways * len(text)
        if steps > _STEPS:
            raise RegexpError("a regular expression that would take too long on this data")
        if search(plain):
            found.add(key)
    return found


def _count(text: bytes) -> tuple[int, int]:
    """Return the numbers of repetitions and of combinations of branches."""
    repeats, branches = 0, 1
    open_groups = [1]  # branches of each open group; the first is the whole expression
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
    return repeats, branches  # branches of the whole are tried in turn
