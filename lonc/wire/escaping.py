"""
Escaping of values in requests and replies, as used in the network.

A value may contain any byte, while colons, ``=`` and ``&`` separate the fields of a request. So
every byte except letters, digits and ``_`` is sent as ``%`` and two hex digits. They are lower-case
because the network's Perl code writes them so, and a lond compares keys in escaped form: ``%3A``
and ``%3a`` would be two keys. When reading, both are accepted.

This module is pure: it imports nothing of lonc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar
from urllib.parse import unquote_to_bytes

#: A value given by a program: text is sent as UTF-8, bytes unchanged.
Value = str | bytes

K = TypeVar("K", str, bytes, Value)


def escape(value: Value) -> bytes:
    """
    Escape a value for use in a request.

    :raises ValueError: text that cannot be encoded as UTF-8 (half a surrogate pair).
    """
    return re.sub(rb"[^A-Za-z0-9_]", lambda found: b"%%%02x" % found[0][0], to_bytes(value))


def unescape(escaped: Value) -> bytes:
    """Reverse `escape`; a ``%`` not followed by two hex digits is left unchanged."""
    return unquote_to_bytes(escaped)


def pack(values: Mapping[K, Value]) -> bytes:
    """Return ``key=value&key=value``, escaped, in the order of the mapping."""
    return b"&".join(escape(key) + b"=" + escape(value) for key, value in values.items())


def unpack(packed: bytes) -> dict[bytes, bytes]:
    """
    Return the mapping packed by :func:`pack`; if a key occurs twice, the last value counts.

    :raises ValueError: not a packed mapping, such as ``error:...`` or ``con_lost``.
    """
    pairs = [pair.partition(b"=") for pair in packed.split(b"&") if pair]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("not of the form key=value&key=value")
    return {unescape(key): unescape(value) for key, _, value in pairs}


def pack_list(values: Iterable[Value]) -> bytes:
    """Return ``value&value``, escaped."""
    return b"&".join(map(escape, values))


def unpack_list(packed: bytes) -> list[bytes]:
    """
    Return the values of ``value&value``.

    A list of one empty value is packed like an empty list, and is therefore read as empty.
    """
    return [unescape(value) for value in packed.split(b"&")] if packed else []


def to_bytes(value: Value) -> bytes:
    """
    Return text encoded as UTF-8, and bytes unchanged.

    :raises ValueError: text that cannot be encoded as UTF-8.
    """
    return value.encode() if isinstance(value, str) else value


def to_text(value: bytes) -> str:
    r"""Return bytes as readable text; those that are not UTF-8 are written as ``\xff``."""
    return value.decode("utf-8", "backslashreplace")
