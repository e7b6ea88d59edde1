"""
Values in requests and replies, as the network writes them.

A value may hold any byte, and colons, ``=`` and ``&`` part the fields of a request. So every byte
but letters, digits and ``_`` travels as ``%`` and two hex digits. They are lower-case, because that
is what the network's Perl writes and a lond compares keys as they come: ``%3A`` and ``%3a`` would
be two keys. When reading, either is understood.

This module is pure: it imports nothing of lonc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar
from urllib.parse import unquote_to_bytes

#: What a program may hand over: text is sent as UTF-8, bytes as they are.
Value = str | bytes

K = TypeVar("K", str, bytes, Value)


def escape(value: Value) -> bytes:
    """
    Return a value so that it can stand in a request.

    :raise ValueError: it is text that has no UTF-8 form (half a surrogate pair).
    """
    return re.sub(rb"[^A-Za-z0-9_]", lambda found: b"%%%02x" % found[0][0], to_bytes(value))


def unescape(escaped: Value) -> bytes:
    """Return what was escaped; a ``%`` without two hex digits after it stays as it is."""
    return unquote_to_bytes(escaped)


def pack(values: Mapping[K, Value]) -> bytes:
    """Return ``key=value&key=value``, all of them escaped, in the mapping's order."""
    return b"&".join(escape(key) + b"=" + escape(value) for key, value in values.items())


def unpack(packed: bytes) -> dict[bytes, bytes]:
    """
    Return the mapping that :func:`pack` packed; of a key that comes twice, the last value.

    :raise ValueError: it is none: an ``error:...`` or ``con_lost`` is not taken for data.
    """
    pairs = [pair.partition(b"=") for pair in packed.split(b"&") if pair]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("not of the form key=value&key=value")
    return {unescape(key): unescape(value) for key, _, value in pairs}


def pack_list(values: Iterable[Value]) -> bytes:
    """Return ``value&value``, all of them escaped."""
    return b"&".join(map(escape, values))


def unpack_list(packed: bytes) -> list[bytes]:
    """
    Return the values of ``value&value``; none when it is empty.

    A list of one empty value is packed the same as an empty list, and comes back as that.
    """
    return [unescape(value) for value in packed.split(b"&")] if packed else []


def to_bytes(value: Value) -> bytes:
    """
    Return text as UTF-8, and bytes as they are.

    :raise ValueError: it is text that has no UTF-8 form.
    """
    return value.encode() if isinstance(value, str) else value


def to_text(value: bytes) -> str:
    r"""Return bytes as text for a person; those that are no UTF-8 are written as ``\xff``."""
    return value.decode("utf-8", "backslashreplace")
