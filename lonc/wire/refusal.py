"""
Which answers of a lond say no (row F8).

This module is pure: it imports nothing of lonc.
"""

from __future__ import annotations

import re

#: Answers that say no, by their first word; ``error`` and whatever follows it is one too. Programs
#: of the network compare answers with these. All else (``ok``, values, numbers, nothing) is a yes.
_NO = frozenset(
    b"refused rejected unknown_cmd unknown_user unknown_host no_host no_such_host no_such_user"
    b" no_such_file file_not_found not_found not_home not_right_home non_authorized unauthorized"
    b" forbidden invalid_client auth_mode_error pwchange_failure key_exists already_exists failed"
    b" con_lost con_delayed con_failed error".split()
)

#: The first word, where it is one: values go on with ``=`` or ``&``.
_WORD = re.compile(rb"\s*(error(?![\w=&])|\w+(?=[:\s]|\Z))", re.IGNORECASE)


def refusal(answer: bytes) -> str | None:
    """Return the word by which an answer says no; None when it says yes."""
    match = _WORD.match(answer)
    word = match[1].lower() if match else b""
    return word.decode() if word in _NO else None
