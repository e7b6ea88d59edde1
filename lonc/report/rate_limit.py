"""Keeps a line that others can cause from filling the log."""

from __future__ import annotations

from typing import Protocol


class _Seconds(Protocol):
    def seconds(self) -> float: ...


class RateLimited:
    """
    Keeps a warning that repeats from filling the log.

    ::

        more = self._too_many.allow(host_id)
        if more is not None:
            log.warn("...{more}", more=more)

    :param clock: the reactor, or a :class:`twisted.internet.task.Clock`.
    :param interval: seconds between two of the same key.
    :param max_keys: keys that are remembered; more than that share one.
    """

    __slots__ = ("_clock", "_interval", "_max_keys", "_seen")

    def __init__(self, clock: _Seconds, interval: float, max_keys: int = 1000) -> None:
        self._clock = clock
        self._interval = interval
        self._max_keys = max_keys
        self._seen: dict[str | None, tuple[float, int]] = {}  # key -> (silent until, left out)

    def allow(self, key: str = "") -> str | None:
        """
        Tell whether to log now: the first time at once, later every ``interval`` seconds at most.

        :return: None if not, else what the line ends with: how many were left out since the last.
        """
        now = self._clock.seconds()
        place: str | None = key
        if key not in self._seen and len(self._seen) >= self._max_keys:
            self._seen = {k: v for k, v in self._seen.items() if v[0] > now}
            if len(self._seen) >= self._max_keys:
                place = None
        until, left_out = self._seen.get(place, (now, 0))
        if now < until:
            self._seen[place] = (until, left_out + 1)
            return None
        self._seen[place] = (now + self._interval, 0)
        return f" ({left_out} like this left out)" if left_out else ""
