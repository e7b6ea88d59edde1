# Twisted's Service and Failure have few annotations:
# mypy: allow-untyped-calls
"""
The cluster's host table: asked for, looked at with suspicion, and kept in ``dns_hosts.tab``.

The servers that ``hosts.tab`` names are asked in turn (protocol, section 7). What they send is
used only when it is a host table, and not much shorter than what is known; otherwise the last one
goes on serving.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lonc.config.hosts import HostTable, TableError, TableServer, parse_host_table
from lonc.config.settings import Settings
from lonc.disk.files import replace_file
from lonc.disk.threads import Disk, InThread, Stuck

#: Seconds before the servers are asked again when none had a table; doubled each time, up to the
#: usual interval. A machine that starts may have no network yet.
FIRST_PAUSE = 60.0

#: Hosts that a table may have more than the last one, however few that had.
FREE_GROWTH = 100

#: Part of the last table's hosts that one has at least whose length the server does not tell.
LEAST_UNCERTAIN = 0.9

#: How much earlier or later than planned, so that a cluster's machines do not ask all at once.
JITTER = 0.1

log = Logger()


class FetchError(Exception):
    """A server has no table that can be used; the message says why, for a person."""


@attrs.frozen
class Downloaded:
    """
    A file from a web server.

    :ivar certain: whether the server said how long it is: else it ends where the connection did.
    """

    content: bytes
    certain: bool = True


class Download(Protocol):
    """Who gets a file from a web server: :func:`lonc.config.download.download`."""

    def __call__(self, url: str, limit: int, authority: str | None, /) -> Deferred[Downloaded]:
        """Get it; fails with FetchError."""


def web_client(reactor: Any) -> Download:
    """Return who gets files for a reactor."""

    def get(url: str, limit: int, authority: str | None) -> Deferred[Downloaded]:
        # Not before it is needed, for most machines' tables name no server: see there.
        from lonc.config.download import download

        return Deferred.fromCoroutine(download(reactor, url, limit, authority))

    return get


def check_table(
    downloaded: Downloaded, settings: Settings, known: int, last: int | None = None
) -> HostTable:
    """
    Return the table that a server sent, if it is one.

    :param settings: its limits.
    :param known: how many hosts are known.
    :param last: how many hosts the last such table had, None where there was none.
    :raises FetchError: it is none, or one that is not to be believed.
    """
    text = downloaded.content
    if not downloaded.certain and not text.endswith(b"\n"):
        raise FetchError("it may be cut short: its length is not told, and it ends within a line")
    try:
        table = parse_host_table(
            text, "the table", settings.max_host_id, max_problems=1, fetched=True
        )
    except TableError as error:
        raise FetchError(str(error)) from None
    count = len(table.hosts)
    if count < table.unusable:
        raise FetchError(
            f"{table.unusable} of its lines cannot be understood, and only {count} can; "
            f"{table.problems[0]}"
        )
    if not count:
        raise FetchError("it has no hosts")
    if 2 * count < known:
        raise FetchError(f"it has {count} hosts, fewer than half of the {known} that are known")
    if not downloaded.certain and last is not None and count < LEAST_UNCERTAIN * last:
        raise FetchError(
            f"it may be cut short: its length is not told, and it has {count} hosts where the last "
            f"one had {last}"
        )
    if last is not None and count > max(settings.table_growth * last, last + FREE_GROWTH):
        raise FetchError(
            f"it has {count} hosts, and the last one had {last}: more growth than loncTableGrowth "
            "allows"
        )
    return table


def _authority(settings: Settings) -> str | None:
    """Return the file of the cluster's authority, which servers' certificates may be of."""
    name, folder = settings.certificate_authority, settings.certificate_directory
    return None if name is None else os.path.join(folder or "", name)


class TableFetcher(Service):
    """
    Fetches the cluster's table when it is started, when it is asked to, and twice a day.

    Only one fetch is under way at a time, and nothing waits for it.

    :param clock: the reactor's time.
    :param current: gives the settings and the table that are in force.
    :param download: gets a file from a web server.
    :param in_thread: runs a function in a thread.
    :param random: the jitter.
    :param arrived: called when ``dns_hosts.tab`` has been replaced.
    """

    def __init__(
        self,
        clock: IReactorTime,
        current: Callable[[], tuple[Settings, HostTable]],
        download: Download,
        in_thread: InThread,
        random: Random,
        arrived: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._current = current
        self._download = download
        self._disk = Disk(clock, in_thread)
        self._random = random
        self._arrived = arrived
        self._pause = FIRST_PAUSE
        self._timer: IDelayedCall | None = None
        self._round: Deferred[bool] | None = None
        self._once_more = False

    def startService(self) -> None:
        """Fetch the table as soon as the start is over."""
        super().startService()
        self.fetch_soon()

    def stopService(self) -> Deferred[None]:
        """Give up what is under way; fires when that is done."""
        super().stopService()
        self._once_more = False
        self._cancel_timer()
        if self._round is None:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._round.addBoth(lambda _: ended.callback(None))
        self._round.cancel()
        return ended

    def fetch_soon(self) -> None:
        """Fetch the table at the next turn, or once more when the fetch under way is over."""
        if self._round is not None:
            self._once_more = True
        elif self.running:
            self._cancel_timer()
            self._timer = self._clock.callLater(0, self._fetch)

    def _fetch(self) -> None:
        self._timer = None
        if self._current()[1].servers:
            self._round = under_way = Deferred.fromCoroutine(self._ask_in_turn())
            under_way.addErrback(self._failed).addCallback(self._plan)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _failed(self, failure: Failure) -> bool:
        if not failure.check(CancelledError):
            log.failure("fetching the host table failed", failure)
        return False

    def _plan(self, succeeded: bool) -> bool:
        """Say when the next one is due."""
        self._round = None
        if not self.running:
            return succeeded
        interval = self._current()[0].table_interval
        pause = interval if succeeded else min(self._pause, interval)
        self._pause = FIRST_PAUSE if succeeded else 2 * pause
        pause *= self._random.uniform(1 - JITTER, 1 + JITTER)
        if self._once_more:
            self._once_more, pause = False, 0.0
        if not succeeded:
            message = "no new host table: the last one serves, next try in {pause:.0f} s"
            log.warn(message, pause=pause)
        self._timer = self._clock.callLater(pause, self._fetch)
        return succeeded

    async def _ask_in_turn(self) -> bool:
        """Ask one server after the other; return whether there is a table now."""
        for server in self._current()[1].servers:
            try:
                count = await self._take_from(server)
            except FetchError as error:
                log.warn("no host table from {url}: {error}", url=server.url, error=error)
                continue
            except (OSError, Stuck) as error:
                log.error("the fetched host table cannot be written: {error}", error=error)
                return False
            log.info("{count} hosts fetched from {url}", count=count, url=server.url)
            self._arrived()
            return True
        return False

    async def _take_from(self, server: TableServer) -> int:
        """Get a server's table and write it down; return how many hosts it has."""
        settings, table = self._current()
        asked = self._download(server.url, settings.table_limit, _authority(settings))
        limit = settings.table_timeout
        try:
            downloaded = await asked.addTimeout(limit, self._clock)
        except TimeoutError:
            raise FetchError(f"it did not come within {limit:g} s") from None
        # Refused for want of descriptors is known all the same.
        known = len(table.hosts) + len(table.refused)
        path = settings.fetched_hosts_file

        def keep() -> int:
            found = check_table(downloaded, settings, known, table.fetched)
            replace_file(path, downloaded.content)
            return len(found.hosts)

        # In a thread, and not only for the disk: a long table takes a second to look at.
        return await self._disk.run(path, settings.disk_timeout, keep)
