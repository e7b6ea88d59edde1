"""
Delayed requests and those that are kept, as the daemon shows them to people and lets them be
steered: the calls to the disk of :mod:`lonc.delayed.listing`, each with a time limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from lonc.delayed.listing import KEPT, Listing, UnknownRequest
from lonc.delayed.queue import DelayedQueue
from lonc.delayed.sealing import SEALED
from lonc.delayed.spool import Spool
from lonc.disk.threads import Disk
from lonc.report.records import DelayedStatus

#: In whose name people's looks at the folder are done.
LISTING = "listing"

T = TypeVar("T")


class DelayedRequests:
    """
    Lists delayed requests, and does with them what people want.

    :param spool: gives the folder in use.
    :param limit: gives the seconds for a disk call.
    :param queues: those of the hosts that have any.
    :param has_in_hand: whether a request is being dealt with, and to be left alone.
    :param kick: tries a host's requests at once.
    """

    def __init__(
        self,
        disk: Disk,
        spool: Callable[[], Spool],
        limit: Callable[[], float],
        queues: Mapping[str, DelayedQueue],
        has_in_hand: Callable[[str], bool],
        kick: Callable[[str], None],
    ) -> None:
        self._disk = disk
        self._spool = spool
        self._limit = limit
        self._queues = queues
        self._has_in_hand = has_in_hand
        self._kick = kick

    async def listed(self, host_id: str | None, after: str = "") -> Sequence[DelayedStatus]:
        """
        List delayed requests and those kept, as many as there is room for; None: of all hosts.

        :param after: leave out those up to this one.
        :raise OSError: the folder cannot be read.
        :raise lonc.disk.threads.Stuck: not within the disk timeout.
        """
        tries = {name: x for queue in self._queues.values() for name, x in queue.tries.items()}
        return await self._run(partial(self._listing().rows, host_id, tries, after))

    async def show(self, file: str, limit: int) -> tuple[bytes, bool]:
        """
        Return the beginning of a request, and whether it goes on; errors as of :meth:`listed`.

        :raise lonc.delayed.listing.UnknownRequest: there is none of that name.
        """
        return await self._run(partial(self._listing().show, file, limit))

    async def drop(self, file: str) -> None:
        """
        Delete a request; errors as of :meth:`show`.

        :raise lonc.delayed.listing.UnknownRequest: it is being sent, too.
        """
        name = file.removesuffix(SEALED)
        if not file.startswith(KEPT) and self._has_in_hand(name):
            raise UnknownRequest(f"{file} is being sent")
        await self._run(partial(self._listing().drop, file), self._spool().path(name))

    async def requeue(self, file: str) -> None:
        """Put a request that is kept back among those that are sent; errors as of :meth:`show`."""
        await self._run(partial(self._listing().requeue, file))

    def retry(self, host_id: str | None) -> None:
        """Try a host's requests now; None: those of all hosts."""
        for each in list(self._queues) if host_id is None else [host_id]:
            self._kick(each)

    def _listing(self) -> Listing:
        spool = self._spool()
        return Listing(spool.folder, spool.key, time.time)

    async def _run(self, work: Callable[[], T], path: str = LISTING) -> T:
        return await self._disk.run(path, self._limit(), work)
