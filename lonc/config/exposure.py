"""
What others on this machine can get at though they should not: told at the start and at HUP.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from lonc.config.certificates import Certificates
from lonc.config.settings import Settings


def exposed(settings: Settings, certificates: Certificates | None) -> Iterator[str]:
    """Give a line for each folder that everybody can write in, and for a key that all can read."""
    for folder in (settings.sock_dir, settings.delayed_dir):
        if _has(folder, stat.S_IWOTH):
            yield f"{folder} can be written by everybody: whoever can may ask and answer as lonc"
    if certificates is not None and _has(certificates.files.key, stat.S_IROTH):
        yield f"{certificates.files.key} can be read by everybody: the private key is no secret"


def _has(path: str, right: int) -> bool:
    try:
        return bool(os.stat(path).st_mode & right)
    except OSError:  # not made yet, or gone since it was read
        return False
