"""What the management port needs of the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from lonc.control.steering import Steered
from lonc.report.status import DaemonStatus, HostStatus


class Daemon(Protocol):
    """
    What the management port needs of the daemon.

    ``host_id`` is one that :meth:`host_ids` has just named, or ``None`` for all hosts. But for
    :meth:`reread_table` and :meth:`reload` everything happens at once.

    :ivar operations: what else there is to list and to steer.
    """

    @property
    def operations(self) -> Steered:
        """What lists, pauses, traces and has delayed requests in hand."""

    def about(self) -> DaemonStatus:
        """Report on the daemon as a whole."""

    def host_ids(self) -> Sequence[str]:
        """Return the ids of all hosts, in any order."""

    def status(self, host_id: str) -> HostStatus:
        """Report on one host."""

    def report(self) -> None:
        """
        Write the status file.

        :raises OSError: it cannot be written.
        """

    def reset_retries(self, host_id: str | None) -> None:
        """Give a host its retries back."""

    def close_connections(self, host_id: str | None) -> None:
        """Close a host's connections and start afresh."""

    def set_debug(self, host_id: str | None, level: int) -> None:
        """Set a host's debug level, 0 to 9."""

    def reread_table(self) -> Deferred[str]:
        """
        Do what USR2 does, within a limited time, and tell a person what has changed.

        :raises ReloadFailed: the table is unusable, and why. The Deferred may fail with it too.
        """

    def reload(self) -> Deferred[str]:
        """Do what HUP does; otherwise as :meth:`reread_table`."""

    def stop(self) -> None:
        """Begin to stop, as at TERM."""

    async def hand_over(self) -> str:
        """
        Be ready to hand everything over to a new process; return the path of the socket for it.

        :raises NotDone: it cannot be now.
        """
