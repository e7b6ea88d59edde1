# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""Pages of a listing: AMP ends a value at 65,535 bytes, and a long one keeps the loop too long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar, cast

import attrs

from lonc.control.commands import ManagementCommand
from lonc.control.errors import BadArguments

#: Bytes of a page: it takes some 10 ms to make, and others are served before the next one. One row
#: always fits into a value of AMP.
PAGE: Final = 16_384

K = TypeVar("K", int, str)
T = TypeVar("T")


def behind(rows: Mapping[K, T], after: object) -> list[T]:
    """
    Return the values whose keys are greater than one, in the order of their keys.

    A key stays a row's own while others come and go, so none is hidden or repeated.

    :param after: the key of the last row of the page before; None for the first page.
    :raises BadArguments: it cannot be compared with the keys.
    """
    last = cast("K | None", after)
    try:
        return [rows[key] for key in sorted(key for key in rows if last is None or key > last)]
    except TypeError:
        raise BadArguments(f"after is no key of these rows: {after!r}") from None


def page(
    command: type[ManagementCommand], rows: Iterable[attrs.AttrsInstance]
) -> dict[str, object]:
    """Return an answer with the rows that fit into a page, and whether there are more."""
    name, _ = command.response[0]
    fitting, more = first_of(command, rows)
    return {name.decode(): fitting, "more": more}


def first_of(
    command: type[ManagementCommand], rows: Iterable[attrs.AttrsInstance]
) -> tuple[list[dict[str, object]], bool]:
    """
    Return as many rows as fit into a page, one at least, and whether there are more.

    :param command: has a list of rows first in its response, and ``more`` second.
    :param rows: made one by one, as far as they are needed.
    """
    _, argument = command.response[0]
    page: list[dict[str, object]] = []
    size = 0
    for row in rows:
        fields = attrs.asdict(row, recurse=False)
        size += len(argument.toStringProto([fields], None))
        if size > PAGE and page:
            return page, True
        page.append(fields)
    return page, False
