"""
Named faults of londs of the embedded cluster, called illnesses.

``lonc-lond`` writes the illness of each lond to a file in the cluster's folder, and the cluster
applies it within a second, so that it can be tried out while lonc is running.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from lonc.disk.files import read_file, replace_file
from lonc.lond.faults import CLOSE, REFUSE, STALL, Fault, Faults, Step

#: No fault.
WELL: Final = "well"

#: The lond does not listen.
STOPPED: Final = "stopped"

#: Name -> description.
ILLNESSES: Final[Mapping[str, str]] = {
    WELL: "it does what a lond should",
    STOPPED: "nobody listens at its address: its machine is up, its lond is not",
    "silent": "it accepts connections and answers no request",
    "slow": "it answers each request, after 6 s",
    "breaking": "it closes the connection at each request",
    "estranged": "it does not know this machine, and refuses its connections",
}

_FAULTS: Final[Mapping[str, tuple[Step, Fault]]] = {
    "silent": (Step.REQUEST, STALL),
    "slow": (Step.REQUEST, Fault(delay=6.0)),
    "breaking": (Step.REQUEST, CLOSE),
    "estranged": (Step.INIT, REFUSE),
}

_FILE: Final = "londs"
_SIZE_LIMIT: Final = 65536  # bytes of the file


def read(folder: str) -> dict[str, str]:
    """
    Return the illnesses, by a host id of the lond; invalid entries are ignored.

    :param folder: of the cluster.
    """
    try:
        text = read_file(os.path.join(folder, _FILE), _SIZE_LIMIT).decode(errors="replace")
    except FileNotFoundError:
        return {}
    pairs = [line.split() for line in text.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1] in ILLNESSES}


def write(folder: str, host_id: str, illness: str) -> None:
    """
    Set the illness of a lond.

    :raises OSError: the file cannot be read or written.
    """
    ill = {**read(folder), host_id: illness}
    lines = [f"{each} {ill[each]}\n" for each in sorted(ill) if ill[each] != WELL]
    replace_file(os.path.join(folder, _FILE), "".join(lines).encode())


def order(faults: Faults, illness: str) -> None:
    """Set the faults of an illness, and no others."""
    faults.clear()
    if illness in _FAULTS:
        faults.order(*_FAULTS[illness])
