"""
The status of a host (row S16) and its connections.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from lonc.config.hosts import Host
from lonc.host.connection_states import ConnectionState
from lonc.host.dependencies import HostDependencies
from lonc.host.health import State
from lonc.host.lond_user import Member
from lonc.host.machine import Machine
from lonc.report.recent import Lately
from lonc.report.records import ConnectionStatus
from lonc.report.status import HostStatus, PauseStatus

_WORDS: Final = {
    ConnectionState.CONNECTING: "connecting",
    ConnectionState.HANDSHAKING: "handshaking",
    ConnectionState.IDLE: "idle",
}


class Reported(Member, Protocol):
    """The part of :class:`lonc.host.service.HostService` needed for reports."""

    host: Host
    machine: Machine
    machines: list[Machine]
    requests: int

    @property
    def clients(self) -> int:
        """The number of clients connected to its socket."""

    @property
    def con_lost(self) -> Mapping[str, int]:
        """Requests that ended with ``con_lost``, by cause."""

    @property
    def paused(self) -> PauseStatus:
        """Its pause, if any."""

    @property
    def state(self) -> str:
        """Its state in one word."""


def host_status(
    host: Reported,
    dependencies: HostDependencies,
    delayed: int,
    last_log: str,
    oldest_delayed: float,
    lately: Lately,
) -> HostStatus:
    """
    Return the status of a host.

    :param delayed: the number of its delayed requests on disk.
    :param last_log: its last log line.
    :param oldest_delayed: age of the oldest delayed request, in seconds.
    :param lately: figures of the last five minutes.
    """
    pool, waiting = host.machine.pool, host.machine.waiting_since(host.host_id)
    lond, last_answer = host.machine.lond, host.machine.last_answer
    handshake_times = lond.handshake_times.totals()
    handshakes = {"ready": sum(handshake_times.counts), "failed": lond.failed_handshakes}
    owing = [each for machine in host.machines for each in machine.owing_to(host)]
    now, seconds = time.time(), dependencies.clock.seconds()
    name = dependencies.name_trouble(host.host.target)
    return HostStatus(
        host_id=host.host_id,
        state=host.state,
        connecting=len(pool.connecting),
        handshaking=len(pool.handshaking),
        idle=len(pool.idle),
        busy=len(pool.owing) + len(pool.proving),
        clients=host.clients,
        waiting=len(waiting),
        oldest_waiter=seconds - min(waiting, default=seconds),
        retries_left=lond.health.left,
        next_probe=lond.health.probes.left,
        delayed=delayed,
        requests=host.requests,
        answers=host.times.answers,
        con_lost=host.con_lost,
        lond_version=lond.memory.facts.version,
        mode=lond.memory.facts.mode,
        debug_level=host.debug_level,
        last_log=last_log,
        since=now - (seconds - lond.health.since),
        last_failure=lond.troubles.last_failure,
        last_answer=now - (seconds - last_answer) if last_answer >= 0.0 else 0.0,
        handshakes=handshakes,
        oldest_owed=max((seconds - each.since for each in owing), default=0.0),
        paused=host.paused,
        ping_tells=lond.auditor.ping_tells,
        astray=lond.auditor.astray,
        last_astray=now - (seconds - lond.auditor.last_astray)
        if lond.auditor.last_astray >= 0.0
        else 0.0,
        not_served=lond.served.refused.get(host.host_id, ""),
        machine=lond.name,
        name_failure="" if name is None else name.why,
        name_failing_since=0.0 if name is None else now - (seconds - name.since),
        tried=bool(
            lond.health.state is not State.UP
            or last_answer >= 0.0
            or lond.troubles.last_failure
            or any(handshakes.values())
        ),
        oldest_delayed=oldest_delayed,
        requests_lately=lately.requests,
        con_lost_lately=lately.con_lost,
        usual=lately.usual,
        seconds=lately.seconds,
    )


def connection_statuses(host: Reported, seconds: float) -> Iterator[ConnectionStatus]:
    """
    Yield the status of each connection to a host's lond, in the order in which they were made.

    :param seconds: now, by the clock.
    """
    now = time.time()
    for connection in host.machine.pool.all():
        yield ConnectionStatus(
            number=connection.number,
            host_id=host.host_id,
            state=_WORDS.get(connection.state, "busy"),
            since=now - (seconds - connection.begun),
            seconds=seconds - connection.since,
        )
