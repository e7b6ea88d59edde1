"""
What a host's requests were like of late, and what is usual: to judge whether something is wrong.

Each host's counts are looked at every half minute, so no request costs anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from lonc.report.times import SLOT, SLOTS, Durations, HostTimes, Parts

#: Turns after which a median is noted, and how many of these are kept: half an hour each, a day
#: in all. A busy day has a host's usual load in it, and a nightly backup too.
TURNS: Final = round(1800.0 / SLOT)
MEDIANS: Final = 48

#: Answers of five minutes from which on their median says something.
ENOUGH: Final = 20

_NO_LOSSES: Final[Mapping[str, int]] = {}


@attrs.frozen
class Lately:
    """
    The last five minutes of a host.

    :ivar requests: how many were asked.
    :ivar con_lost: those that ended with ``con_lost``, by cause; causes with none are left out.
    :ivar usual: the median of the last 24 hours in seconds; 0.0 while there are none.
    :ivar seconds: how long requests took.
    """

    requests: int
    con_lost: Mapping[str, int]
    usual: float
    seconds: Parts


#: Of a host that was not asked for it.
NOTHING_LATELY: Final = Lately(0, _NO_LOSSES, 0.0, HostTimes().of_late())


class Recent:
    """Keeps what is needed to tell one host's last five minutes from its last day."""

    __slots__ = ("_before", "_medians", "_slots_begun")

    def __init__(self) -> None:
        #: Requests and losses at the beginning of each slot, the oldest first.
        self._before: Sequence[tuple[int, Mapping[str, int]]] = ()
        #: Medians of five minutes with enough answers, the oldest first.
        self._medians: Sequence[float] = ()
        self._slots_begun = 0

    def begin_slot(self, requests: int, con_lost: Mapping[str, int], total: Durations) -> None:
        """
        Begin another slot; to be called every :data:`lonc.report.times.SLOT` seconds.

        :param requests: since the start.
        :param con_lost: since the start, by cause.
        :param total: how long the requests of the last five minutes took.
        """
        losses = {cause: number for cause, number in con_lost.items() if number}
        self._before = [*self._before, (requests, losses or _NO_LOSSES)][-SLOTS:]
        self._slots_begun += 1
        if self._slots_begun % TURNS == 0 and total["count"] >= ENOUGH:
            self._medians = [*self._medians, total["p50"]][-MEDIANS:]

    def lately(self, requests: int, con_lost: Mapping[str, int], seconds: Parts) -> Lately:
        """Say what the last five minutes were like; the counts are those since the start."""
        asked, lost = self._before[0] if self._before else (0, _NO_LOSSES)
        losses = {cause: number - lost.get(cause, 0) for cause, number in con_lost.items()}
        medians = sorted(self._medians)
        return Lately(
            requests - asked,
            {cause: number for cause, number in losses.items() if number > 0},
            medians[len(medians) // 2] if medians else 0.0,
            seconds,
        )
