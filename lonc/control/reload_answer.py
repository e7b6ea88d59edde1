"""What a person is told of a configuration that has been taken over."""

from __future__ import annotations

import grp
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from lonc.transport.unix_socket import GroupError, SocketError

#: Of what could not be carried out, and of what is wrong, so many lines are told.
MOST_TOLD: Final = 8

#: Characters of what has changed that are told: AMP has no room for more than 65,535 bytes.
MOST_CHARACTERS: Final = 15_000


@attrs.frozen
class ReloadAnswer:
    """
    The parts of the answer.

    :ivar summary: how many hosts are new, gone, changed or as before.
    :ivar changes: what has changed, setting by setting and host by host.
    :ivar not_done: what could not be carried out, and why.
    :ivar problems: what is wrong with what is in force.
    """

    summary: str
    changes: Sequence[str]
    not_done: Sequence[str]
    problems: Sequence[str]

    def __str__(self) -> str:
        """Put them together: a line, one for each change, and last one for each problem."""
        told = self.summary
        if self.not_done:
            told += f"; not carried out: {'; '.join(_first(self.not_done))}"
        problems = [f"problem: {each}" for each in _first(self.problems)]
        return "\n".join([told, *fitting(self.changes, MOST_CHARACTERS), *problems])


def _first(lines: Sequence[str]) -> list[str]:
    left_out = len(lines) - MOST_TOLD
    more = [f"{left_out} more: lonc status"] if left_out > 0 else []
    return [*lines[:MOST_TOLD], *more]


def fitting(lines: Sequence[str], limit: int) -> list[str]:
    """Return the first lines that fit into so many characters, and how many are left out."""
    kept: list[str] = []
    for line in lines:
        limit -= len(line) + 1
        if limit < 0:
            return [*kept, f"and {len(lines) - len(kept)} more"]
        kept.append(line)
    return kept


def told_of_sockets(errors: Sequence[SocketError], group: int | None) -> Iterator[str]:
    """
    Yield a line for each error, but a single one for a group that no socket can be given to.

    :param group: the id of the group that may connect; None for none.
    """
    groups = [str(error) for error in errors if isinstance(error, GroupError)]
    if groups:
        count = f" (and {len(groups) - 1} more)" if len(groups) > 1 else ""
        yield f"loncSocketGroup {_group_name(group)}: {groups[0]}{count}"
    yield from (str(error) for error in errors if not isinstance(error, GroupError))


def _group_name(group: int | None) -> str:
    try:
        return "none" if group is None else grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
