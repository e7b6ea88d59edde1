# deferLater has few annotations:
# mypy: allow-untyped-calls
"""
Long work in slices, between which the loop serves everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

#: Seconds of work at a time; one step more may follow. Nobody notices a wait as short as that.
SLICE = 0.01


async def in_slices(
    clock: IReactorTime, steps: Iterator[object], go_on: Callable[[], bool]
) -> None:
    """
    Take all steps, in as many turns of the loop as it takes.

    :param clock: the reactor's time.
    :param steps: short ones.
    :param go_on: asked at the beginning of each further turn; if not, the rest is left.
    """
    until = clock.seconds() + SLICE
    for _ in steps:
        if clock.seconds() >= until:
            await deferLater(clock, 0)
            if not go_on():
                return
            until = clock.seconds() + SLICE
