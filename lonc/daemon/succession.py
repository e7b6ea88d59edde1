"""
Taking over state from the previous process, and leaving state to the next one.

The next process needs state that is not in files: pauses, answered delayed requests, and which
hosts are DEAD. A take-over passes on all of it. A restart with stored sockets only passes on which
hosts are DEAD, in a file: clients wait meanwhile, and should not run into a DEAD host that is
considered healthy.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs
from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import deferLater

from lonc.config.current import InForce
from lonc.config.host_rows import TAKE_OVER_SOCKET
from lonc.daemon.handover import HandOver, Holdings, Knowledge
from lonc.daemon.kept_sockets import KeptSockets
from lonc.daemon.outside import Outside
from lonc.daemon.pidfile import PidFileError
from lonc.daemon.takeover import Predecessor, TakeOverError
from lonc.delayed.service import DelayedService
from lonc.disk.files import open_own, replace_file
from lonc.disk.threads import Disk, InThread, Stuck
from lonc.host.pause import Pause
from lonc.host.service import HostService
from lonc.local.limits import Clients
from lonc.report.events import Logger

#: Seconds in which connected clients can still send requests and get answers, while new clients
#: wait for the next lonc. Programs send at once, but on a busy machine that may take a while.
LAST_WORDS: Final = 1.0

#: Maximum age of the file in seconds.
FRESH: Final = 60.0

#: Maximum size of the file in bytes: enough for 50,000 hosts.
SIZE_LIMIT: Final = 4 * 1024 * 1024

log = Logger()


@attrs.define(eq=False)
class Succession:
    """
    Takes over from the previous process, and hands over to the next.

    :param kept: the listening sockets of the hosts.
    :param in_thread: runs the function that waits for a new process.
    :param unshared: services that only one process can have at a time.
    :ivar hand_over: hands everything over to a new process.
    """

    _outside: Outside
    _in_force: InForce
    _kept: KeptSockets
    _delayed: DelayedService
    _clients: Clients
    _disk: Disk
    _in_thread: InThread
    _unshared: Sequence[Service]
    hand_over: HandOver = attrs.field(init=False)
    _retired: bool = attrs.field(init=False, default=False)  # a new process serves
    _predecessor: Predecessor | None = attrs.field(init=False)  # until this one serves

    @hand_over.default
    def _make_hand_over(self) -> HandOver:
        return HandOver(
            self._outside.reactor,
            self._in_thread,
            lambda: os.path.join(self._in_force.settings.sock_dir, TAKE_OVER_SOCKET),
            self._holdings,
            self._unshared,
            self.restore_pid_file,
            self._retire,
        )

    @_predecessor.default
    def _first_predecessor(self) -> Predecessor | None:
        return self._outside.predecessor

    # ------------------------------------------------------------------ the previous process

    @property
    def following(self) -> bool:
        """Whether the previous process still serves."""
        return self._predecessor is not None

    def claim(self) -> None:
        """
        Write the pid file, unless the previous process still uses it.

        :raises lonc.daemon.pidfile.PidFileError: that failed.
        """
        if not self.following:
            self._outside.pid_file.write()

    def restore_pid_file(self) -> None:
        """Write the pid file again if it was deleted or names another process."""
        pid_file, problems = self._outside.pid_file, self._outside.problems
        try:
            if not self.hand_over.under_way and pid_file.restore():
                log.warn("{path} has been written again", path=pid_file.path)
        except PidFileError as error:
            problems.tell("pid-file", pid_file.path, str(error))
        else:
            problems.over("pid-file", pid_file.path)

    def complete(self) -> None:
        """
        Replace the previous process; all hosts must listen already.

        :raises lonc.daemon.takeover.TakeOverError: it continues.
        """
        if self.following:
            dead = self._take_over()
        else:
            left = take_dead(self._in_force.settings.health_file)
            dead = left if self._kept.has_resumed else []
        distrust(dead, self._outside.hosts)
        self._kept.close_unclaimed()

    def _take_over(self) -> Iterable[str]:
        """Restore the old process's state, and make it end; return its DEAD hosts."""
        predecessor = self._predecessor
        assert predecessor is not None
        knowledge = predecessor.holdings.knowledge
        try:
            take_on(knowledge, self._outside.hosts, self._delayed)
        except ValueError as error:  # it is of another release
            raise TakeOverError(
                f"cannot take over: process {predecessor.pid} continues running: this lonc does "
                f"not understand what it sent: {error}"
            ) from None
        self._outside.pid_file.write()
        predecessor.relieve()
        self._predecessor = None
        predecessor.serve_clients(self._outside.reactor, self._kept.serve)
        return knowledge.get("dead", {})

    # ------------------------------------------------------------------ the next process

    def _holdings(self) -> Holdings:
        """Copy what a new process gets; raises OSError."""
        knowledge = knowledge_of(self._outside.hosts, self._delayed)
        sockets, pid_file = self._kept.copies(), self._outside.pid_file
        return Holdings(pid_file.path, pid_file.duplicate(), sockets, knowledge)

    def _retire(self) -> None:
        """Stop, because a new process serves."""
        self._retired = True
        with contextlib.suppress(ReactorNotRunning):  # it is already stopping
            self._outside.reactor.stop()

    def stop_accepting(self) -> bool:
        """Stop accepting; return whether sockets keep listening for the next process."""
        if self.following:
            self._kept.give_back()
            return False
        return self._kept.stop_accepting(self._retired)

    async def leave_to_next(self) -> None:
        """Leave state to the next process, and make clients connect to it."""
        if not self._retired:  # otherwise it was handed over
            settings, dead = self._in_force.settings, dead_of(self._outside.hosts)
            leave = partial(leave_dead, settings.health_file, dead)
            with contextlib.suppress(OSError, Stuck):  # the next process will find out
                await self._disk.run(settings.health_file, leave)
        await self.hand_over.pass_on(self._kept.clients())
        until = self._outside.reactor.seconds() + LAST_WORDS
        while self._clients.everyone and self._outside.reactor.seconds() < until:
            for client in list(self._clients.everyone):
                client.hang_up()  # its next request goes to the next lonc
            await deferLater(self._outside.reactor, LAST_WORDS / 20)

    def release(self) -> None:
        """Release the folders for another lonc."""
        if self._predecessor is not None:
            self._kept.give_back()
            self._predecessor.close()
        if self._predecessor is not None or self._retired:
            self._outside.pid_file.close()
        else:
            self._outside.pid_file.release()


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
    Restore the state of the previous process; all hosts must listen already.

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

    They were DEAD a moment ago, and may have recovered.
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
            dead = [str(each) for each in json.loads(file.read(SIZE_LIMIT))["dead"]]
        os.unlink(path)
        if 0.0 <= age <= FRESH:
            return dead
    return []
