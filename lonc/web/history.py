"""Samples of the last hour, in total and for each host, for the graphs on the pages."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import attrs

from lonc.report.status import HostStatus

#: Seconds between two samples, and number of samples in an hour.
PAUSE: Final = 30.0
SAMPLES: Final = 120

#: Size of a graph in units; a sample is two wide.
WIDTH: Final = 2 * SAMPLES
HEIGHT: Final = 40

#: Losses are shown per minute; in seconds.
MINUTE: Final = 60.0


class Series:
    """
    Samples of the last hour, the latest last. They take about 2 KB.

    :ivar rate: requests per second.
    :ivar waiting: requests waiting for a connection.
    :ivar p99: in seconds; in the total, that of the slowest host.
    :ivar lost: ``con_lost`` per minute.
    """

    __slots__ = ("lost", "p99", "rate", "waiting")

    def __init__(self) -> None:
        self.rate, self.waiting = array("f"), array("f")
        self.p99, self.lost = array("f"), array("f")

    def add(self, rate: float, waiting: float, p99: float, lost: float) -> None:
        """Add a sample, and drop the one of an hour ago."""
        values = (rate, waiting, p99, lost)
        for series, value in zip(
            (self.rate, self.waiting, self.p99, self.lost), values, strict=True
        ):
            series.append(value)
            del series[:-SAMPLES]


@attrs.frozen
class _Counted:
    """The counters of a host at a sample."""

    requests: int
    lost: int


class History:
    """
    The last hour; a host without any requests has no series.

    :ivar total: the series of all hosts together.
    :ivar hosts: host id -> its series.
    """

    def __init__(self) -> None:
        self.total = Series()
        self.hosts: dict[str, Series] = {}
        self._when: float | None = None  # the last sample was completed
        self._before: dict[str, _Counted] = {}
        self._now: dict[str, tuple[_Counted, int, float]] = {}

    def note(self, host: HostStatus) -> None:
        """Add the status of a host to the current sample."""
        counted = _Counted(host.requests, host.lost)
        self._now[host.host_id] = counted, host.waiting, host.total["p99"]

    def complete(self, now: float) -> None:
        """
        Complete the current sample; hosts that are not in it are forgotten.

        :param now: the reactor's time.
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
            # The counters of a new or restarted host begin at 0.
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
        Return the recent ``con_lost`` per minute of a host.

        :param now: the reactor's time.
        """
        series = self.hosts.get(host.host_id)
        last = series.lost[-1] if series is not None else 0.0
        counted = self._before.get(host.host_id)
        if counted is None or self._when is None:
            return last
        # Losses since the last sample, extended with that sample to at least half a minute.
        since = now - self._when
        more = max(0, host.lost - counted.lost)
        part = max(0.0, PAUSE - since)
        return (more * MINUTE + last * part) / max(since + part, 1.0)


@attrs.frozen
class Graph:
    """
    A line in a box of :data:`WIDTH` and :data:`HEIGHT`.

    :ivar points: for SVG's ``polyline``.
    :ivar last: the latest value; 0.0 if there is none.
    :ivar highest: the maximum.
    :ivar top: the value at the upper edge; that at the lower edge is 0.
    """

    points: str
    last: float
    highest: float
    top: float


def graph(values: Sequence[float]) -> Graph:
    """Compute a graph with the latest value at the right edge."""
    highest = max(values, default=0.0)
    top = scale_end(highest)
    left = WIDTH - 2 * len(values)
    points = " ".join(
        f"{left + 2 * index},{HEIGHT - value * HEIGHT / top:.1f}"
        for index, value in enumerate(
            [*values, *values[-1:]]
        )  # the latest value extends to the edge
    )
    return Graph(points, values[-1] if values else 0.0, highest, top)


def scale_end(highest: float) -> float:
    """Return the end of a scale: 1, 2 or 5 times a power of ten, or 1 if the value is 0."""
    if highest <= 0.0:
        return 1.0
    power = 1e-6
    while highest > 10 * power:
        power *= 10
    return next(step * power for step in (1, 2, 5, 10) if highest <= step * power)
