"""
State that is in no file and that the next process needs: pauses, delayed requests that have been
answered, and which hosts are DEAD.

A take-over passes on all of it. A restart with stored sockets passes on which hosts are DEAD, in a
file: clients wait meanwhile, and should not find a DEAD host taken for a healthy one.
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
from lonc.disk.files import open_own, replace_file
from lonc.host.service import HostService, Pause

#: Seconds after which the file is out of date.
FRESH: Final = 60.0


def knowledge_of(hosts: Mapping[str, HostService], delayed: DelayedService) -> Knowledge:
    """Return the state that the next process needs."""
    return {
        "pauses": {host_id: host.paused for host_id, host in hosts.items() if host.paused},
        "answered": {each["file"]: each for each in delayed.answered()},
        "dead": dict.fromkeys(dead_of(hosts), True),
    }


def take_on(
    knowledge: Knowledge, hosts: Mapping[str, HostService], delayed: DelayedService
) -> None:
    """
    Take over the state of the process before this one; all hosts have to listen already.

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
    Make these hosts unproven and probe them at once.

    They were DEAD a moment ago, and may have come back.
    """
    for host_id in dead:
        if host_id in hosts:
            hosts[host_id].distrust()


def dead_of(hosts: Mapping[str, HostService]) -> list[str]:
    """Return the ids of the hosts that are DEAD or unproven."""
    return [host_id for host_id, host in hosts.items() if host.state in ("DEAD", "unproven")]


def leave_dead(path: str, dead: Sequence[str]) -> None:
    """Write the ids of these hosts to a file; raises OSError."""
    replace_file(path, json.dumps({"dead": dead}).encode(), sync=False)


def take_dead(path: str) -> list[str]:
    """Read such a file, if it is not older than a minute, and delete it."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        with open(open_own(path, os.O_RDONLY), encoding="utf-8") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            dead = [str(each) for each in json.load(file)["dead"]]
        os.unlink(path)
        if 0.0 <= age <= FRESH:
            return dead
    return []
