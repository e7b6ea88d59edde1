# Twisted's Service and Failure have few annotations:
# mypy: allow-untyped-calls
"""
Fetches the cluster's host table, checks it, and stores it as ``dns_hosts.tab``.

The servers named in ``hosts.tab`` are tried one after the other (protocol, section 7). What they
send is only used if it is a plausible host table; otherwise the last one stays in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from lonc.config.fetched_table import Downloaded, FetchError, check_table
from lonc.config.hosts import HostTable, TableServer
from lonc.config.settings import Settings
from lonc.disk.files import replace_file
from lonc.disk.threads import Disk, InThread, Stuck
from lonc.report.events import Logger
from lonc.report.problems import Problems, problem

#: Seconds until the servers are tried again if none had a table; doubled each time, up to the
#: usual interval. A machine that is starting may have no network yet.
FIRST_PAUSE = 60.0

#: Relative random variation, so that a cluster's machines do not all ask at once.
JITTER = 0.1

#: The kind of problem while no table can be fetched.
NOT_FETCHED: Final = "table-not-fetched"

log = Logger()


class Download(Protocol):
    """Downloads a file from a web server, as :func:`lonc.config.download.download` does."""

    def __call__(self, url: str, limit: int, authority: str | None, /) -> Deferred[Downloaded]:
        """Download it; fails with FetchError."""


def web_client(reactor: Any) -> Download:
    """Return a Download that uses a reactor."""

    def get(url: str, limit: int, authority: str | None) -> Deferred[Downloaded]:
        # Imported only when needed, because most tables name no server.
        from lonc.config.download import download

        return Deferred.fromCoroutine(download(reactor, url, limit, authority))

    return get


def _authority(settings: Settings) -> str | None:
    """Return the file with the cluster's authority, which may have signed servers' certificates."""
    name, folder = settings.certificate_authority, settings.certificate_directory
    return None if name is None else os.path.join(folder or "", name)


class TableFetcher(Service):
    """
    Fetches the cluster's table at the start, on request, and at intervals of loncTableInterval.

    Only one fetch is in progress at a time, and nothing waits for it.

    :param clock: the reactor's clock.
    :param current: returns the settings and the table in force.
    :param download: downloads a file from a web server.
    :param in_thread: runs a function in a thread.
    :param random: for the jitter.
    :param arrived: called when ``dns_hosts.tab`` has been replaced.
    :param problems: where a failure to fetch is reported.
    """

    def __init__(
        self,
        clock: IReactorTime,
        current: Callable[[], tuple[Settings, HostTable]],
        download: Download,
        in_thread: InThread,
        random: Random,
        arrived: Callable[[], object],
        problems: Problems,
    ) -> None:
        self._clock = clock
        self._current = current
        self._download = download
        self._disk = Disk(clock, in_thread)
        self._random = random
        self._arrived = arrived
        self._problems = problems
        self._pause = FIRST_PAUSE
        self._timer: IDelayedCall | None = None
        self._round: Deferred[bool] | None = None
        self._once_more = False
        self._why = "unknown"  # the reason of the last failure, if known

    def startService(self) -> None:
        """Fetch the table once the start is complete."""
        super().startService()
        self.fetch_soon()

    def stopService(self) -> Deferred[None]:
        """Cancel a fetch in progress; fires when that is done."""
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
        """Fetch the table in the next iteration, or again after a fetch in progress."""
        if self._round is not None:
            self._once_more = True
        elif self.running:
            self._cancel_timer()
            self._timer = self._clock.callLater(0, self._fetch)

    def _fetch(self) -> None:
        self._timer = None
        if not self._current()[1].servers:
            self._problems.replace((), (NOT_FETCHED,))
        else:
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
        """Schedule the next fetch."""
        self._round = None
        if not self.running:
            return succeeded
        interval = self._current()[0].table_interval
        pause = interval if succeeded else min(self._pause, interval)
        self._pause = FIRST_PAUSE if succeeded else 2 * pause
        pause *= self._random.uniform(1 - JITTER, 1 + JITTER)
        if self._once_more:
            self._once_more, pause = False, 0.0
        file = self._current()[0].fetched_hosts_file
        if succeeded:
            self._problems.replace((), (NOT_FETCHED,))
        else:
            what = f"no new host table, the last one stays in use: {self._why}"
            self._problems.replace([problem(NOT_FETCHED, file, what)], (NOT_FETCHED,))
            message = "no new host table: the last one stays in use, next try in {pause:.0f} s"
            log.warn(message, pause=pause)
        self._timer = self._clock.callLater(pause, self._fetch)
        return succeeded

    async def _ask_in_turn(self) -> bool:
        """Try one server after the other; return whether a table was stored."""
        for server in self._current()[1].servers:
            try:
                count = await self._take_from(server)
            except FetchError as error:
                self._why = f"{server.url}: {error}"
                log.warn("no host table from {url}: {error}", url=server.url, error=error)
                continue
            except (OSError, Stuck) as error:
                self._why = str(error)
                log.error("the fetched host table cannot be written: {error}", error=error)
                return False
            log.info("hosts fetched from {url}: {count}", count=count, url=server.url)
            self._arrived()
            return True
        return False

    async def _take_from(self, server: TableServer) -> int:
        """Download and store a server's table; return its number of hosts."""
        settings, table = self._current()
        asked = self._download(server.url, settings.table_limit, _authority(settings))
        limit = settings.table_timeout
        try:
            downloaded = await asked.addTimeout(limit, self._clock)
        except TimeoutError:
            raise FetchError(f"it did not come within {limit:g} s") from None
        # Hosts refused for lack of descriptors are known, too.
        known = len(table.hosts) + len(table.refused)
        path = settings.fetched_hosts_file

        def keep() -> int:
            found = check_table(downloaded, settings, known, table.fetched)
            replace_file(path, downloaded.content)
            return len(found.hosts)

        # In a thread, and not only because of the disk: parsing a long table takes a second.
        return await self._disk.run(path, settings.disk_timeout, keep)
