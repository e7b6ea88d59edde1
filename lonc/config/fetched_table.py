"""
Checks whether what a server sent is plausible as the cluster's host table.

This module is pure.
"""

from __future__ import annotations

import attrs

from lonc.config.hosts import HostTable, TableError, parse_host_table
from lonc.config.settings import Settings

#: Additional hosts that a table may always have, however few the last one had.
FREE_GROWTH = 100

#: Fraction of the last table's hosts that a table sent without a length must have.
LEAST_UNCERTAIN = 0.9


class FetchError(Exception):
    """A server has no usable table; the message is a readable reason."""


@attrs.frozen
class Downloaded:
    """
    A file from a web server.

    :ivar certain: whether its length was sent; otherwise the end of the connection was its end.
    """

    content: bytes
    certain: bool = True


def check_table(
    downloaded: Downloaded, settings: Settings, known: int, last: int | None = None
) -> HostTable:
    """
    Parse a table sent by a server, and check that it is plausible.

    :param settings: for the limits.
    :param known: number of known hosts.
    :param last: number of hosts in the last such table, None if there was none.
    :raises FetchError: it is not a table, or implausible.
    """
    text = downloaded.content
    if not downloaded.certain and not text.endswith(b"\n"):
        raise FetchError("it may be truncated: it came without a length, and it ends within a line")
    try:
        table = parse_host_table(
            text, "the table", settings.max_host_id, max_problems=1, fetched=True
        )
    except TableError as error:
        raise FetchError(str(error)) from None
    count = len(table.hosts)
    if count < table.unusable:
        raise FetchError(
            f"{table.unusable} of its lines cannot be understood, and only {count} can; "
            f"{table.problems[0]}"
        )
    if not count:
        raise FetchError("it has no hosts")
    if 2 * count < known:
        raise FetchError(f"it has {count} hosts, fewer than half of the {known} that are known")
    if not downloaded.certain and last is not None and count < LEAST_UNCERTAIN * last:
        raise FetchError(
            f"it may be truncated: it came without a length, and it has {count} hosts where the "
            f"last one had {last}"
        )
    if last is not None and count > max(settings.table_growth * last, last + FREE_GROWTH):
        raise FetchError(
            f"it has {count} hosts, and the last one had {last}: more growth than loncTableGrowth "
            "allows"
        )
    return table
