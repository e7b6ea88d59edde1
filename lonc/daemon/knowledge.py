"""
What a process knows that is in none of its files, and the process after it should know: pauses,
delayed requests that are answered, and which hosts are DEAD.

At a take-over all of it goes to the new process. At a restart for which the listening sockets are
kept the clients wait there, and the hosts that are DEAD are left in a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from lonc.daemon.handover import Knowledge
from lonc.delayed.service import DelayedService
from lonc.disk.files import replace_file
from lonc.host.service import HostService, Pause

#: Seconds for which the file says something about the present.
FRESH: Final = 60.0


def knowledge_of(hosts: Mapping[str, HostService], delayed: DelayedService) -> Knowledge:
    """Return what the next process is to know."""
    return {
        "pauses": {host_id: host.paused for host_id, host in hosts.items() if host.paused},
        "answered": {each["file"]: each for each in delayed.answered()},
        "dead": dict.fromkeys(dead_of(hosts), True),
    }


def take_on(
    knowledge: Knowledge, hosts: Mapping[str, HostService], delayed: DelayedService
) -> None:
    """
    Go on where the process before this one was; the hosts listen already.

    :raises ValueError: it is not what `knowledge_of` returns.
    """
    try:
        delayed.take_on([*knowledge.get("answered", {}).values()])
        for host_id, fields in knowledge.get("pauses", {}).items():
            pause = Pause(**fields)
            left = pause.until - time.time() if pause.until else 0.0
            if host_id in hosts and (left > 0.0 or not pause.until):
                hosts[host_id].pause(pause, left)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(repr(error)) from None


def distrust(dead: Iterable[str], hosts: Mapping[str, HostService]) -> None:
    """
    Probe these hosts at once, and take them for unproven until then.

    What was DEAD a moment ago is not well, and may have come back.
    """
    for host_id in dead:
        if host_id in hosts:
            hosts[host_id].distrust()


def dead_of(hosts: Mapping[str, HostService]) -> list[str]:
    """Return the ids of the hosts that are DEAD, or were and have not answered since."""
    return [host_id for host_id, host in hosts.items() if host.state in ("DEAD", "unproven")]


def leave_dead(path: str, dead: Sequence[str]) -> None:
    """Leave the ids of these hosts in a file; raises OSError."""
    replace_file(path, json.dumps({"dead": dead}).encode(), sync=False)


def take_dead(path: str) -> list[str]:
    """Return what a process has left there within the last minute, and remove the file."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        with open(path, encoding="utf-8") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            dead = [str(each) for each in json.load(file)["dead"]]
        os.unlink(path)
        if 0.0 <= age <= FRESH:
            return dead
    return []
