"""
The processes before and after this one: what is taken over from one, and left to the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial
from typing import Final

import attrs
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import deferLater

from lonc.config.current import InForce
from lonc.daemon.handover import HandOver, Holdings
from lonc.daemon.kept_sockets import KeptSockets
from lonc.daemon.knowledge import dead_of, distrust, knowledge_of, leave_dead, take_dead, take_on
from lonc.daemon.outside import Outside
from lonc.daemon.takeover import Predecessor, TakeOverError
from lonc.delayed.service import DelayedService
from lonc.disk.threads import Disk, Stuck
from lonc.local.limits import Clients

#: Seconds in which clients that have connected can ask, and have their answers, where newcomers
#: wait for the next lonc. Programs ask at once, but on a busy machine not within a tenth of that.
LAST_WORDS: Final = 1.0


@attrs.define(eq=False)
class Succession:
    """
    Follows the process before this one, and makes way for the next.

    :param kept: the listening sockets of the hosts.
    """

    _outside: Outside
    _in_force: InForce
    _kept: KeptSockets
    _delayed: DelayedService
    _clients: Clients
    _disk: Disk
    _retired: bool = attrs.field(init=False, default=False)  # a new process serves
    _predecessor: Predecessor | None = attrs.field(init=False)  # until this one serves

    @_predecessor.default
    def _first_predecessor(self) -> Predecessor | None:
        return self._outside.predecessor

    # ------------------------------------------------------------------ the process before

    @property
    def following(self) -> bool:
        """Whether the process before this one still serves."""
        return self._predecessor is not None

    def claim(self) -> None:
        """
        Write the pid file, unless it is still that of the process before.

        :raises lonc.daemon.pidfile.PidFileError: that cannot be done.
        """
        if not self.following:
            self._outside.pid_file.write()

    def complete(self) -> None:
        """
        Serve in place of the process before; all hosts listen by now.

        :raises lonc.daemon.takeover.TakeOverError: it goes on.
        """
        if self.following:
            dead = self._take_over()
        else:
            left = take_dead(self._in_force.settings.health_file)
            dead = left if self._kept.has_resumed else []
        distrust(dead, self._outside.hosts)
        self._kept.close_unclaimed()

    def _take_over(self) -> Iterable[str]:
        """Know what the old process knew, and have it go; return the hosts that it found DEAD."""
        predecessor = self._predecessor
        assert predecessor is not None
        knowledge = predecessor.holdings.knowledge
        try:
            take_on(knowledge, self._outside.hosts, self._delayed)
        except ValueError as error:  # it is of another release
            raise TakeOverError(
                f"cannot take over: process {predecessor.pid} goes on: it tells what this lonc "
                f"does not understand: {error}"
            ) from None
        self._outside.pid_file.write()
        predecessor.relieve()
        self._predecessor = None
        predecessor.serve_clients(self._outside.reactor, self._kept.serve)
        return knowledge.get("dead", {})

    # ------------------------------------------------------------------ the process after

    def holdings(self) -> Holdings:
        """Copy what a new process gets; raises OSError."""
        knowledge = knowledge_of(self._outside.hosts, self._delayed)
        sockets = self._kept.copies()
        return Holdings(
            self._outside.pid_file.path, self._outside.pid_file.duplicate(), sockets, knowledge
        )

    def retire(self) -> None:
        """End: a new process serves."""
        self._retired = True
        with contextlib.suppress(ReactorNotRunning):  # it stops already
            self._outside.reactor.stop()

    def stop_accepting(self) -> bool:
        """Return whether sockets go on listening for the next process, which serves newcomers."""
        if self.following:
            self._kept.give_back()
            return False
        return self._kept.stop_accepting(self._retired)

    async def leave(self, hand_over: HandOver) -> None:
        """Leave the next process what it needs, and have clients connect to it."""
        if not self._retired:  # else it knows
            settings = self._in_force.settings
            path, limit, dead = (
                settings.health_file,
                settings.disk_timeout,
                dead_of(self._outside.hosts),
            )
            with contextlib.suppress(OSError, Stuck):  # it will find out
                await self._disk.run(path, limit, partial(leave_dead, path, dead))
        await hand_over.pass_on(self._kept.clients())
        until = self._outside.reactor.seconds() + LAST_WORDS
        while self._clients.everyone and self._outside.reactor.seconds() < until:
            for client in list(self._clients.everyone):
                client.hang_up()  # it connects to the next lonc when it asks again
            await deferLater(self._outside.reactor, LAST_WORDS / 20)

    def release(self) -> None:
        """Give the folders free for another lonc."""
        if self._predecessor is not None:
            self._kept.give_back()
            self._predecessor.close()
        if self._predecessor is not None or self._retired:
            self._outside.pid_file.close()
        else:
            self._outside.pid_file.release()
