"""
What lonc changes in a process that is its own: descriptors, clock and signals.

A program that embeds lonc has its own mind about them.
"""

from __future__ import annotations

import os
import sys
import time

from lonc.daemon import signals


def fill_standard_descriptors() -> None:
    """
    Open ``/dev/null`` where stdin, stdout or stderr is closed.

    Otherwise the next file or socket would have its number, and what is meant for the terminal
    would go there, or twistd would close it when it goes into the background.
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
    Prepare a process that is lonc's own.

    Its reactor counts time by a clock that nobody sets, and signals wait until it runs: Twisted's
    is the wall clock, and a step of that would end or stop every wait. Nothing may be timed yet.
    """
    from twisted.internet import reactor

    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    signals.hold()
