"""
Whether the code on disk is still the code that runs: an upgrade replaces it under a running lonc.
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
    Return whether lonc has been installed anew since this process started.

    What is loaded on demand does not fit then: pages, and the commands of the management port.
    """
    return _stamp() != _STARTED_WITH
