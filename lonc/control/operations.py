"""
What people ask the daemon for, and have it do, beyond its status: the management port's side of
its parts (row S18).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from lonc.config.current import InForce
from lonc.config.parameters import PARAMETERS
from lonc.config.settings import Settings, SettingsError
from lonc.control.access import user_name
from lonc.control.errors import NotDone, UnknownFile
from lonc.delayed.listing import UnknownRequest
from lonc.delayed.requests import DelayedRequests
from lonc.disk.threads import Disk, Stuck
from lonc.host.service import HostService, Pause
from lonc.local.limits import Clients
from lonc.report.problems import Problem, Problems
from lonc.report.records import (
    ClientStatus,
    ConnectionStatus,
    DelayedStatus,
    RequestRecord,
    SettingStatus,
)
from lonc.report.request_log import RequestLog, Watcher

#: Bytes of a delayed request that are shown: they have to fit into an answer.
SHOWN: Final = 60_000

#: In place of what the file says, when it says nothing that can be used.
UNREADABLE: Final = "the file cannot be used now: see lonc check"


class Operations:
    """
    Lists and steers; ``host_id`` is ``None`` for all hosts, else one that there is.

    :param hosts: host id -> its service.
    :param in_force: the settings in force.
    :param clients: those who are connected.
    :param delayed: the delayed requests.
    :param requests: those that are slow, or watched.
    :param disk: reads the settings again.
    :param read_settings: does so; raises SettingsError.
    :param known: the list of problems.
    :param look: brings that up to date.
    """

    def __init__(
        self,
        hosts: Mapping[str, HostService],
        in_force: InForce,
        clients: Clients,
        delayed: DelayedRequests,
        requests: RequestLog,
        disk: Disk,
        read_settings: Callable[[], Settings],
        known: Problems,
        look: Callable[[], Awaitable[None]],
    ) -> None:
        self._hosts = hosts
        self._in_force = in_force
        self._clients = clients
        self._delayed = delayed
        self._requests = requests
        self._disk = disk
        self._read_settings = read_settings
        self._known = known
        self._look = look

    # ------------------------------------------------------------------ lists

    def clients(self, host_id: str | None) -> Iterator[ClientStatus]:
        """Report on each open client."""
        now, wall = self._clients.seconds(), time.time()
        names: dict[int, str] = {}
        for client in list(self._clients.everyone):
            if host_id not in (None, client.host_id):
                continue
            pid, uid = client.credentials
            if uid not in names:
                names[uid] = user_name(uid)
            waits_for, since = client.waits_for
            yield ClientStatus(
                number=client.number,
                host_id=client.host_id,
                pid=pid,
                user=names[uid],
                since=wall - (now - client.since),
                requests=client.requests,
                waits_for=waits_for,
                waiting=now - since if since else 0.0,
            )

    def connections(self, host_id: str | None) -> Iterable[ConnectionStatus]:
        """Report on each connection to a lond."""
        statuses = (each for host in self._chosen(host_id) for each in host.connection_statuses())
        return (attrs.evolve(each, number=number) for number, each in enumerate(statuses, 1))

    def slow(self, host_id: str | None) -> Iterable[RequestRecord]:
        """Report the slowest requests of late."""
        return self._requests.slowest(host_id)

    def watch(self, host_id: str | None, contents: bool) -> Watcher:
        """Have requests noted as they end, with their lines if they are wanted."""
        return self._requests.watch(host_id, contents)

    def leave(self, watcher: Watcher) -> None:
        """Watch no more."""
        self._requests.leave(watcher)

    async def problems(self, host_id: str | None) -> Sequence[Problem]:
        """Report on what is wrong now."""
        await self._look()
        return [each for each in self._known if host_id in (None, each.host)]

    async def settings_in_force(self) -> Sequence[SettingStatus]:
        """Report on each setting, and on what the file says by now."""
        settings = self._in_force.settings
        now: Settings | None = None
        # What is asked for are the settings in force, and they are known.
        with contextlib.suppress(SettingsError, Stuck):
            now = await self._disk.run(
                settings.config_file, settings.disk_timeout, self._read_settings
            )
        return list(_settings(settings, now))

    async def delayed_requests(
        self, host_id: str | None, after: str = ""
    ) -> Sequence[DelayedStatus]:
        """
        Report on each delayed request, and on each that is kept, as far as an answer has room.

        :param after: leave out those up to this one.
        :raises NotDone: the disk does not tell.
        """
        try:
            return await self._delayed.listed(host_id, after)
        except (OSError, Stuck) as error:
            raise NotDone(f"delayed requests cannot be listed: {error}") from None

    # ------------------------------------------------------------------ pauses

    def _chosen(self, host_id: str | None) -> list[HostService]:
        return list(self._hosts.values()) if host_id is None else [self._hosts[host_id]]

    async def pause(
        self, host_id: str | None, by: str, reason: str, seconds: float, fail: bool
    ) -> None:
        """
        Send a host nothing; return when nothing is in flight any more.

        :param seconds: how long; 0.0 until :meth:`resume`.
        :param fail: whether requests get ``con_lost`` and do not wait.
        """
        now = time.time()
        pause = Pause(by, reason, now, now + seconds if seconds else 0.0, fail)
        quiet = [host.pause(pause, seconds) for host in self._chosen(host_id)]
        for each in quiet:
            await each

    def resume(self, host_id: str | None) -> None:
        """End a host's pause."""
        for host in self._chosen(host_id):
            host.resume()

    # ------------------------------------------------------------------ delayed requests

    async def show_delayed(self, file: str) -> tuple[bytes, bool]:
        """
        Return the beginning of a delayed request, and whether it goes on.

        :raises UnknownFile: there is none of that name, or it cannot be deciphered.
        :raises NotDone: the disk does not give it.
        """
        try:
            return await self._delayed.show(file, SHOWN)
        except UnknownRequest as error:
            raise UnknownFile(str(error)) from None
        except (OSError, Stuck) as error:
            raise NotDone(f"{file} cannot be read: {error}") from None

    async def drop_delayed(self, file: str) -> None:
        """Delete a delayed request; errors as of :meth:`show_delayed`."""
        try:
            await self._delayed.drop(file)
        except UnknownRequest as error:
            raise UnknownFile(str(error)) from None
        except (OSError, Stuck) as error:
            raise NotDone(f"{file} cannot be deleted: {error}") from None

    async def requeue_delayed(self, file: str) -> None:
        """Put one that is kept back; errors as of :meth:`show_delayed`."""
        try:
            await self._delayed.requeue(file)
        except UnknownRequest as error:
            raise UnknownFile(str(error)) from None
        except (OSError, Stuck) as error:
            raise NotDone(f"{file} cannot be put back: {error}") from None

    def retry_delayed(self, host_id: str | None) -> None:
        """Try a host's delayed requests now."""
        self._delayed.retry(host_id)


def _settings(in_force: Settings, file: Settings | None) -> Iterator[SettingStatus]:
    for each in PARAMETERS:
        value, source = in_force.written.get(each.variable, (each.default or "", "default"))
        if file is None:
            differs = UNREADABLE
        elif getattr(file, each.attribute) == getattr(in_force, each.attribute):
            differs = ""
        else:
            differs = file.written.get(each.variable, ("",))[0]
        yield SettingStatus(
            name=each.variable, value=value, unit=each.kind.unit, source=source, differs=differs
        )
