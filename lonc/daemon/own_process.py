"""
What lonc changes in its own process: standard descriptors, clock and signals.

A program that embeds lonc decides these for itself.
"""

from __future__ import annotations

import os
import sys
import time

from lonc.daemon import signals


def fill_standard_descriptors() -> None:
    """
    Open ``/dev/null`` where stdin, stdout or stderr is closed.

    Otherwise the next file or socket would get that number: text for the terminal would be written
    to it, or twistd would close it when it goes into the background.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # has the lowest free number: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def take_over_process() -> None:
    """
    Give the reactor a monotonic clock, and block signals until the reactor runs.

    Twisted uses the wall clock: setting it would end, or prolong, every wait. No timer may have
    been started yet.
    """
    from twisted.internet import reactor

    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    signals.hold()
