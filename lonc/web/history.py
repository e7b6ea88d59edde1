"""The last hour, for the small graphs on the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

#: Seconds between two samples, and how many there are: an hour.
PAUSE: Final = 30.0
SAMPLES: Final = 120

#: Units of a drawing: a sample is two wide.
WIDTH: Final = 2 * SAMPLES
HEIGHT: Final = 40


@attrs.frozen
class Sample:
    """
    :ivar rate: requests a second.
    :ivar waiting: requests that waited for a connection.
    :ivar p99: seconds, of the slowest host.
    """

    rate: float
    waiting: float
    p99: float


class History:
    """Samples of the last hour."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._before: tuple[float, int] | None = None

    def add(self, now: float, requests: int, waiting: int, p99: float) -> None:
        """
        Take a sample.

        :param now: in seconds of the reactor's clock.
        :param requests: how many there were since the start; fewer where a host has gone.
        """
        if self._before is not None:
            then, counted = self._before
            rate = max(0, requests - counted) / max(now - then, 1.0)
            self.samples.append(Sample(rate, waiting, p99))
        self._before = (now, requests)


@attrs.frozen
class Graph:
    """
    A line, to be drawn in a box of :data:`WIDTH` and :data:`HEIGHT`.

    :ivar points: as SVG's ``polyline`` takes them.
    :ivar last: the latest value; 0.0 when there is none.
    :ivar highest: the greatest.
    """

    points: str
    last: float
    highest: float


def graph(values: Sequence[float]) -> Graph:
    """Draw a line whose latest value is at the right."""
    highest = max(values, default=0.0)
    scale = (HEIGHT - 2) / highest if highest else 0.0
    left = WIDTH - 2 * len(values)
    points = " ".join(
        f"{left + 2 * index},{HEIGHT - 1 - value * scale:.1f}" for index, value in enumerate(values)
    )
    return Graph(points, values[-1] if values else 0.0, highest)
