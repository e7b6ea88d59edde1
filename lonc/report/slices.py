# deferLater has few annotations:
# mypy: allow-untyped-calls
"""
Runs long work in slices, between which the event loop serves others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

#: Seconds of work per slice, plus at most one step; too short for anybody to notice.
SLICE = 0.005


async def in_slices(
    clock: IReactorTime, steps: Iterator[object], go_on: Callable[[], bool]
) -> None:
    """
    Run all steps, in as many iterations of the event loop as necessary.

    :param clock: the reactor's clock.
    :param steps: short steps.
    :param go_on: called before each further slice; if it returns False, the rest is skipped.
    """
    until = clock.seconds() + SLICE
    for _ in steps:
        if clock.seconds() >= until:
            await deferLater(clock, 0)
            if not go_on():
                return
            until = clock.seconds() + SLICE
