"""
What can be wrong with a lond of the embedded cluster, by the name a person gives it.

``lonc-lond`` writes into a file of the cluster's folder which lond is how, and the cluster follows
that within a second: so a lond's illness can be played while lonc runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from lonc.disk.files import read_file, replace_file
from lonc.lond.faults import CLOSE, REFUSE, STALL, Fault, Faults, Step

#: Nothing is wrong.
WELL: Final = "well"

#: Nobody listens.
STOPPED: Final = "stopped"

#: Name -> what it means.
ILLNESSES: Final[Mapping[str, str]] = {
    WELL: "it does what a lond should",
    STOPPED: "nobody listens at its address: its machine is up, its lond is not",
    "silent": "it accepts connections and answers no request",
    "slow": "it answers each request, after 6 s",
    "breaking": "it hangs up at each request",
    "estranged": "it does not know this machine, and refuses its connections",
}

_FAULTS: Final[Mapping[str, tuple[Step, Fault]]] = {
    "silent": (Step.REQUEST, STALL),
    "slow": (Step.REQUEST, Fault(delay=6.0)),
    "breaking": (Step.REQUEST, CLOSE),
    "estranged": (Step.INIT, REFUSE),
}

_FILE: Final = "londs"
_SIZE_LIMIT: Final = 65536  # bytes of it


def read(folder: str) -> dict[str, str]:
    """
    Return how each lond is that is not well, by a host id of it; what has no meaning is left out.

    :param folder: the cluster's.
    """
    try:
        text = read_file(os.path.join(folder, _FILE), _SIZE_LIMIT).decode(errors="replace")
    except FileNotFoundError:
        return {}
    pairs = [line.split() for line in text.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1] in ILLNESSES}


def write(folder: str, host_id: str, illness: str) -> None:
    """
    Say how a lond shall be.

    :raises OSError: the file cannot be read or written.
    """
    ill = {**read(folder), host_id: illness}
    lines = [f"{each} {ill[each]}\n" for each in sorted(ill) if ill[each] != WELL]
    replace_file(os.path.join(folder, _FILE), "".join(lines).encode())


def order(faults: Faults, illness: str) -> None:
    """Have a lond that listens make the faults of an illness, and no others."""
    faults.clear()
    if illness in _FAULTS:
        faults.order(*_FAULTS[illness])
