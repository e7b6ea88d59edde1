"""Samples of the last hour, in total and for each host, for the graphs on the pages."""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple

from lonc.report.status import HostStatus

#: Seconds between two samples, and number of samples in an hour.
PAUSE: Final = 30.0
SAMPLES: Final = 120

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


class _Sample(NamedTuple):
    """The figures of a host at one time; the first two are counted since its start."""

    requests: int = 0
    lost: int = 0
    waiting: int = 0
    p99: float = 0.0


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
        self._before: dict[str, _Sample] = {}
        self._now: dict[str, _Sample] = {}

    def note(self, host: HostStatus) -> None:
        """Add the status of a host to the current sample."""
        sample = _Sample(host.requests, host.lost, host.waiting, host.total["p99"])
        self._now[host.host_id] = sample

    def complete(self, now: float) -> None:
        """
        Complete the current sample; hosts that are not in it are forgotten.

        :param now: the reactor's time.
        """
        noted, self._now = self._now, {}
        before, self._before = self._before, noted
        when, self._when = self._when, now
        if when is None:
            return
        took = max(now - when, 1.0)
        sums = [0.0, 0.0, 0.0, 0.0]
        self.hosts = {each: series for each, series in self.hosts.items() if each in noted}
        for host_id, sample in noted.items():
            # The counters of a new or restarted host begin at 0.
            then = before.get(host_id, _Sample())
            rate = max(0, sample.requests - then.requests) / took
            lost = max(0, sample.lost - then.lost) * MINUTE / took
            waiting, p99 = sample.waiting, sample.p99
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
