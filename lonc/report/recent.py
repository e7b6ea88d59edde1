"""
Recent and usual figures of a host's requests, from which problems are found.

The counts of each host are sampled every half minute, so that requests cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from lonc.report.times import SLOT, SLOTS, Durations, HostTimes, Parts

#: Slots after which a median is recorded, and the number of medians kept: one each half hour, for a
#: day, which includes a host's usual load and a nightly backup.
TURNS: Final = round(1800.0 / SLOT)
MEDIANS: Final = 48

#: Number of answers in five minutes from which their median is significant.
ENOUGH: Final = 20

_NO_LOSSES: Final[Mapping[str, int]] = {}


@attrs.frozen
class Lately:
    """
    The last five minutes of a host.

    :ivar requests: number of requests.
    :ivar con_lost: those that ended with ``con_lost``, by cause, without zeros.
    :ivar usual: the median of the last 24 hours in seconds; 0.0 if there is none yet.
    :ivar seconds: durations of requests.
    """

    requests: int
    con_lost: Mapping[str, int]
    usual: float
    seconds: Parts


#: The value for a host whose recent figures were not requested.
NOTHING_LATELY: Final = Lately(0, _NO_LOSSES, 0.0, HostTimes().of_late())


class Recent:
    """Keeps the figures of one host for the last five minutes and the last day."""

    __slots__ = ("_before", "_medians", "_slots_begun")

    def __init__(self) -> None:
        #: Requests and losses at the beginning of each slot, the oldest first.
        self._before: Sequence[tuple[int, Mapping[str, int]]] = ()
        #: Medians of five minutes with enough answers, the oldest first.
        self._medians: Sequence[float] = ()
        self._slots_begun = 0

    def begin_slot(self, requests: int, con_lost: Mapping[str, int], total: Durations) -> None:
        """
        Begin another slot; call it every :data:`lonc.report.times.SLOT` seconds.

        :param requests: number since the start.
        :param con_lost: numbers since the start, by cause.
        :param total: durations of requests in the last five minutes.
        """
        losses = {cause: number for cause, number in con_lost.items() if number}
        before = requests, losses or _NO_LOSSES
        if self._before and self._before[-1] == before:
            before = self._before[-1]  # quiet slots share one, since there are many hosts
        self._before = [*self._before, before][-SLOTS:]
        self._slots_begun += 1
        if self._slots_begun % TURNS == 0 and total["count"] >= ENOUGH:
            self._medians = [*self._medians, total["p50"]][-MEDIANS:]

    def lately(self, requests: int, con_lost: Mapping[str, int], seconds: Parts) -> Lately:
        """Return the figures of the last five minutes, given the counts since the start."""
        asked, lost = self._before[0] if self._before else (0, _NO_LOSSES)
        losses = {cause: number - lost.get(cause, 0) for cause, number in con_lost.items()}
        medians = sorted(self._medians)
        return Lately(
            requests - asked,
            {cause: number for cause, number in losses.items() if number > 0},
            medians[len(medians) // 2] if medians else 0.0,
            seconds,
        )
