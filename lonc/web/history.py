"""The last hour of all hosts together and of each, for the graphs on the pages."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import attrs

from lonc.report.status import HostStatus

#: Seconds between two samples, and how many there are: an hour.
PAUSE: Final = 30.0
SAMPLES: Final = 120

#: Units of a drawing: a sample is two wide.
WIDTH: Final = 2 * SAMPLES
HEIGHT: Final = 40

#: Seconds of a minute, in which losses are told.
MINUTE: Final = 60.0


class Series:
    """
    Samples of the last hour, the latest last. A host's take some 2 KB.

    :ivar rate: requests a second.
    :ivar waiting: requests that waited for a connection.
    :ivar p99: seconds; of all hosts together, the slowest one's.
    :ivar lost: ``con_lost`` a minute.
    """

    __slots__ = ("lost", "p99", "rate", "waiting")

    def __init__(self) -> None:
        self.rate, self.waiting = array("f"), array("f")
        self.p99, self.lost = array("f"), array("f")

    def add(self, rate: float, waiting: float, p99: float, lost: float) -> None:
        """Take a sample, and forget the one of an hour ago."""
        values = (rate, waiting, p99, lost)
        for series, value in zip(
            (self.rate, self.waiting, self.p99, self.lost), values, strict=True
        ):
            series.append(value)
            del series[:-SAMPLES]


@attrs.frozen
class _Counted:
    """What had been counted of a host at a sample."""

    requests: int
    lost: int


class History:
    """
    The last hour; a host of which there is nothing to tell has no series.

    :ivar total: of all hosts together.
    :ivar hosts: host id -> its own.
    """

    def __init__(self) -> None:
        self.total = Series()
        self.hosts: dict[str, Series] = {}
        self._when: float | None = None  # the last sample was complete
        self._before: dict[str, _Counted] = {}
        self._now: dict[str, tuple[_Counted, int, float]] = {}

    def note(self, host: HostStatus) -> None:
        """Take what a host reports into the sample that is being made."""
        counted = _Counted(host.requests, host.lost)
        self._now[host.host_id] = counted, host.waiting, host.total["p99"]

    def complete(self, now: float) -> None:
        """
        Complete a sample; hosts that it has not are forgotten.

        :param now: in seconds of the reactor's clock.
        """
        noted, self._now = self._now, {}
        before, self._before = self._before, {each: noted[each][0] for each in noted}
        when, self._when = self._when, now
        if when is None:
            return
        took = max(now - when, 1.0)
        sums = [0.0, 0.0, 0.0, 0.0]
        self.hosts = {each: series for each, series in self.hosts.items() if each in noted}
        for host_id, (counted, waiting, p99) in noted.items():
            # A host that came, or was started again, counts from 0.
            then = before.get(host_id, _Counted(0, 0))
            rate = max(0, counted.requests - then.requests) / took
            lost = max(0, counted.lost - then.lost) * MINUTE / took
            sums = [sums[0] + rate, sums[1] + waiting, max(sums[2], p99), sums[3] + lost]
            series = self.hosts.get(host_id)
            if series is None and (rate or waiting or lost):
                series = self.hosts[host_id] = Series()
            if series is not None:
                series.add(rate, waiting, p99, lost)
        self.total.add(*sums)

    def lost_per_minute(self, host: HostStatus, now: float) -> float:
        """
        Return how many ``con_lost`` a minute a host has of late.

        :param now: in seconds of the reactor's clock.
        """
        series = self.hosts.get(host.host_id)
        last = series.lost[-1] if series is not None else 0.0
        counted = self._before.get(host.host_id)
        if counted is None or self._when is None:
            return last
        # What came since the last sample, with as much of that as makes half a minute.
        since = now - self._when
        more = max(0, host.lost - counted.lost)
        part = max(0.0, PAUSE - since)
        return (more * MINUTE + last * part) / max(since + part, 1.0)


@attrs.frozen
class Graph:
    """
    A line, to be drawn in a box of :data:`WIDTH` and :data:`HEIGHT`.

    :ivar points: as SVG's ``polyline`` takes them.
    :ivar last: the latest value; 0.0 when there is none.
    :ivar highest: the greatest.
    :ivar top: what the upper edge stands for; the lower one is 0.
    """

    points: str
    last: float
    highest: float
    top: float


def graph(values: Sequence[float]) -> Graph:
    """Draw a line whose latest value is at the right."""
    highest = max(values, default=0.0)
    top = scale_end(highest)
    left = WIDTH - 2 * len(values)
    points = " ".join(
        f"{left + 2 * index},{HEIGHT - value * HEIGHT / top:.1f}"
        for index, value in enumerate([*values, *values[-1:]])  # the latest lasts until now
    )
    return Graph(points, values[-1] if values else 0.0, highest, top)


def scale_end(highest: float) -> float:
    """Return the end of a scale up to a value: 1, 2 or 5 times a power of ten, 1 where it is 0."""
    if highest <= 0.0:
        return 1.0
    power = 1e-6
    while highest > 10 * power:
        power *= 10
    return next(step * power for step in (1, 2, 5, 10) if highest <= step * power)
