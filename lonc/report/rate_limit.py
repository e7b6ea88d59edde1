"""Keeps a line that others can cause from filling the log."""

from __future__ import annotations

from typing import Protocol


class _Seconds(Protocol):
    def seconds(self) -> float: ...


class RateLimited:
    """
    Keeps a warning that repeats from filling the log.

    ::

        left_out = self._too_many.allow(host_id)
        if left_out is not None:
            log.warn("... ({left_out} more of these were not logged)", left_out=left_out)

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

    def allow(self, key: str = "") -> int | None:
        """
        Tell whether to log now: ``None`` if not, else how many were left out since the last.

        The first comes at once, later ones at most every ``interval`` seconds for each key.
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
        return left_out
