"""
Detects that lonc's code on disk was replaced, by an upgrade, while it is running.
"""

from __future__ import annotations

import os
from typing import Final

import lonc


def _stamp() -> tuple[int, int]:
    try:
        found = os.stat(lonc.__file__)
    except OSError:  # being replaced
        return 0, 0
    return found.st_ino, found.st_mtime_ns


_STARTED_WITH: Final = _stamp()


def is_replaced() -> bool:
    """
    Return whether lonc was reinstalled since this process started.

    Modules that are imported on demand may not match then: pages, and commands of the management
    port.
    """
    return _stamp() != _STARTED_WITH
