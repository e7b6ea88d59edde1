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
from typing import Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from lonc.config.current import InForce
from lonc.config.hosts import HostTable, TableError, TableServer, parse_host_table
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

#: Additional hosts that a table may always have, however few the last one had.
FREE_GROWTH = 100

#: Fraction of the last table's hosts that a table sent without a length must have.
LEAST_UNCERTAIN = 0.9

log = Logger()


class FetchError(Exception):
    """A server has no usable table; the message is a readable reason."""


@attrs.frozen
class Downloaded:
    """
    A file from a web server.

    :ivar certain: whether its length was sent; otherwise the end of the connection was its end.
    """

    content: bytes
    certain: bool = True


#: Downloads a file, like :func:`lonc.config.download.download`: its URL, the maximum size in bytes
#: and a file with an authority for ``https``; fails with FetchError.
Download = Callable[[str, int, str | None], Deferred[Downloaded]]


def check_table(
    downloaded: Downloaded, settings: Settings, known: int, last: int | None = None
) -> HostTable:
    """
    Parse a table sent by a server, and check that it is plausible.

    :param settings: for the limits.
    :param known: number of known hosts.
    :param last: number of hosts in the last such table, None if there was none.
    :raises FetchError: it is not a table, or implausible.
    """
    text = downloaded.content
    if not downloaded.certain and not text.endswith(b"\n"):
        raise FetchError("it may be truncated: it came without a length, and it ends within a line")
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
            f"it may be truncated: it came without a length, and it has {count} hosts where the "
            f"last one had {last}"
        )
    if last is not None and count > max(settings.table_growth * last, last + FREE_GROWTH):
        raise FetchError(
            f"it has {count} hosts, and the last one had {last}: more growth than loncTableGrowth "
            "allows"
        )
    return table


def _authority(settings: Settings) -> str | None:
    """Return the file with the cluster's authority, which may have signed servers' certificates."""
    name, folder = settings.certificate_authority, settings.certificate_directory
    return None if name is None else os.path.join(folder or "", name)


class TableFetcher(Service):
    """
    Fetches the cluster's table at the start, on request, and at intervals of loncTableInterval.

    Only one fetch is in progress at a time, and nothing waits for it.

    :param clock: the reactor's clock.
    :param in_force: the settings and the table in force.
    :param download: downloads a file from a web server.
    :param in_thread: runs a function in a thread.
    :param random: for the jitter.
    :param arrived: called when ``dns_hosts.tab`` has been replaced.
    :param problems: where a failure to fetch is reported.
    """

    def __init__(
        self,
        clock: IReactorTime,
        in_force: InForce,
        download: Download,
        in_thread: InThread,
        random: Random,
        arrived: Callable[[], object],
        problems: Problems,
    ) -> None:
        self._clock = clock
        self._in_force = in_force
        self._download = download
        self._disk = Disk(clock, in_thread, lambda: in_force.settings.disk_timeout)
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
        if not self._in_force.table.servers:
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
        settings = self._in_force.settings
        interval = settings.table_interval
        pause = interval if succeeded else min(self._pause, interval)
        self._pause = FIRST_PAUSE if succeeded else 2 * pause
        pause *= self._random.uniform(1 - JITTER, 1 + JITTER)
        if self._once_more:
            self._once_more, pause = False, 0.0
        if succeeded:
            self._problems.replace((), (NOT_FETCHED,))
        else:
            what = f"no new host table, the last one stays in use: {self._why}"
            self._problems.replace(
                [problem(NOT_FETCHED, settings.fetched_hosts_file, what)], (NOT_FETCHED,)
            )
            message = "no new host table: the last one stays in use, next try in {pause:.0f} s"
            log.warn(message, pause=pause)
        self._timer = self._clock.callLater(pause, self._fetch)
        return succeeded

    async def _ask_in_turn(self) -> bool:
        """Try one server after the other; return whether a table was stored."""
        for server in self._in_force.table.servers:
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
        settings, table = self._in_force.settings, self._in_force.table
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
        return await self._disk.run(path, keep)
