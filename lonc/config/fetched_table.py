"""
Checks whether what a server sent is plausible as the cluster's host table.

This module is pure.
"""

from __future__ import annotations

import attrs

from lonc.config.hosts import HostTable, TableError, parse_host_table
from lonc.config.settings import Settings

#: Hosts that a table may have more than the last one, however few that had.
FREE_GROWTH = 100

#: Part of the last table's hosts that one has at least whose length the server does not tell.
LEAST_UNCERTAIN = 0.9


class FetchError(Exception):
    """A server has no table that can be used; the message says why, for a person."""


@attrs.frozen
class Downloaded:
    """
    A file from a web server.

    :ivar certain: whether the server said how long it is: else it ends where the connection did.
    """

    content: bytes
    certain: bool = True


def check_table(
    downloaded: Downloaded, settings: Settings, known: int, last: int | None = None
) -> HostTable:
    """
    Parse the table that a server sent, and check that it is plausible.

    :param settings: its limits.
    :param known: how many hosts are known.
    :param last: how many hosts the last such table had, None where there was none.
    :raises FetchError: it is none, or one that is not to be believed.
    """
    text = downloaded.content
    if not downloaded.certain and not text.endswith(b"\n"):
        raise FetchError("it may be cut short: it came without a length, and it ends within a line")
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
            f"it may be cut short: it came without a length, and it has {count} hosts where the "
            f"last one had {last}"
        )
    if last is not None and count > max(settings.table_growth * last, last + FREE_GROWTH):
        raise FetchError(
            f"it has {count} hosts, and the last one had {last}: more growth than loncTableGrowth "
            "allows"
        )
    return table
