# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""
The responders of the AMP commands (row S18), which call the parts of the daemon.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Final

import attrs
from twisted.internet.defer import Deferred, TimeoutError
from twisted.protocols import amp

from lonc.config.settings import PARAMETERS, Settings, SettingsError
from lonc.control import commands
from lonc.control.access import Caller, Level, user_name
from lonc.control.commands import rows_after
from lonc.control.errors import (
    BadArguments,
    BadLevel,
    NotDone,
    ReportFailed,
    UnknownFile,
    UnknownHost,
)
from lonc.control.parts import Parts
from lonc.control.reporter import in_slices
from lonc.delayed.people import UnknownRequest
from lonc.disk.threads import Stuck
from lonc.host.pause import Pause
from lonc.host.service import HostService
from lonc.local.limits import Client
from lonc.report.events import PARENT, Logger
from lonc.report.recent import Watcher
from lonc.report.records import ClientStatus, ConnectionStatus, SettingStatus
from lonc.report.status import HostStatus

#: Bytes of a log line that are sent, so that a page has room for many hosts.
LONGEST_TEXT: Final = 1000

#: Maximum bytes of a message about changes, limited by AMP.
LONGEST_MESSAGE: Final = 60_000

#: Maximum bytes of a delayed request that are shown, limited by AMP.
SHOWN: Final = 60_000

#: Maximum duration of a pause in seconds, a year; 0 means without an end.
LONGEST_PAUSE: Final = 366 * 86400.0

#: Maximum length of the reason and author of a pause, which are part of each status of the host.
LONGEST_REASON: Final = 500

#: Seconds after which a trace without requests is answered, and the client calls again.
TRACE_WAIT: Final = 1.0

#: Shown instead of the value in the file if the file is unusable.
UNREADABLE: Final = "the file cannot be used now: see lonc check"

#: An answer's fields, by their names.
Answer = dict[str, object]

log = Logger()


class Responders(amp.CommandLocator):
    """
    Responds to the commands of one connection.

    :param parts: the parts of the daemon.
    :param caller: the client of the connection.
    """

    def __init__(self, parts: Parts, caller: Caller) -> None:
        super().__init__()
        self._parts = parts
        self._caller = caller
        self._watcher: Watcher | None = None

    def close(self) -> None:
        """Stop tracing, because the connection has ended."""
        if self._watcher is not None:
            self._parts.request_log.remove_watcher(self._watcher)
            self._watcher = None

    def _chosen(self, host: str) -> list[HostService]:
        """Return the host named in a command, or all."""
        hosts = self._parts.hosts
        return [hosts[host]] if self._host_id(host) else list(hosts.values())

    def _host_id(self, host: str) -> str | None:
        """Return the host id named in a command, None for all; raises UnknownHost."""
        if host and host not in self._parts.hosts:
            raise UnknownHost(f"{host} is not in hosts.tab")
        return host or None

    def _log_asked(self, asked: str, host: str = "") -> None:
        """Log a request; raises UnknownHost."""
        self._host_id(host)
        self._caller.log_asked(asked, host or PARENT)

    # ------------------------------------------------------------------ queries

    @commands.About.responder
    def about(self) -> Answer:
        """Return the status of the daemon."""
        return attrs.asdict(self._parts.reporter.about(), recurse=False)

    @commands.ListHosts.responder
    def list_hosts(self, after: str) -> Answer:
        """Return the status of hosts."""
        ids = rows_after({host_id: host_id for host_id in self._parts.hosts}, after)
        return commands.ListHosts.page(self._host_status(host_id) for host_id in ids)

    def _host_status(self, host_id: str) -> HostStatus:
        status = self._parts.reporter.status(host_id)
        return attrs.evolve(status, last_log=cut(status.last_log))

    @commands.ListClients.responder
    def list_clients(self, host: str, after: object) -> Answer:
        """Return the open clients."""
        host_id, everyone = self._host_id(host), self._parts.clients.everyone
        clients = {each.number: each for each in everyone if host_id in (None, each.host_id)}
        now, wall, name_of = self._parts.clients.seconds(), time.time(), cache(user_name)
        coming = rows_after(clients, after)
        return commands.ListClients.page(
            _client_status(each, name_of, now, wall) for each in coming
        )

    @commands.ListConnections.responder
    def list_connections(self, host: str, after: object) -> Answer:
        """Return the connections to londs."""
        rows: dict[int, ConnectionStatus] = {}
        for one in self._chosen(host):
            for status in one.connection_statuses():
                rows.setdefault(status.number, status)  # ids of one machine share connections
        return commands.ListConnections.page(rows_after(rows, after))

    @commands.ListSlow.responder
    def list_slow(self, host: str, after: object) -> Answer:
        """Return the slowest recent requests."""
        slowest = self._parts.request_log.slowest(self._host_id(host))
        return commands.ListSlow.page(rows_after({each.number: each for each in slowest}, after))

    @commands.ListProblems.responder
    async def list_problems(self, host: str, after: object) -> Answer:
        """Return the current problems."""
        host_id = self._host_id(host)
        if after is None:  # not again for each page
            await self._parts.refresh_problems()
        problems = self._parts.reporter.problems
        known = {each.number: each for each in problems if host_id in (None, each.host)}
        return commands.ListProblems.page(rows_after(known, after))

    @commands.ListSettings.responder
    async def list_settings(self, host: str, after: object) -> Answer:
        """Return the settings, with the values now in the file."""
        parts = self._parts
        settings = parts.in_force.settings
        now: Settings | None = None
        # The settings in force can be returned even if the file cannot be read.
        with contextlib.suppress(SettingsError, Stuck):
            now = await parts.disk.run(settings.config_file, parts.read_settings)
        rows = {each.name: each for each in _settings(settings, now)}
        return commands.ListSettings.page(rows_after(rows, after))

    @commands.ListDelayed.responder
    async def list_delayed(self, host: str, after: object) -> Answer:
        """
        Return delayed requests in the order in which they are sent, then those kept.

        The host need not be in the table.
        """
        if not isinstance(after, str | None):
            raise BadArguments("after is not a file name")
        with _disk_errors("delayed requests cannot be listed"):
            rows = await self._parts.delayed.listed(host or None, after or "")
        if not rows:
            self._host_id(host)
        return commands.ListDelayed.page(rows)

    @commands.Trace.responder
    async def trace(self, host: str, after: object, contents: bool) -> Answer:
        """Return requests as they end."""
        if contents:
            self._caller.require(Level.OWN, "the requests themselves")
        host_id, watcher = self._host_id(host), self._watcher
        if watcher is None:
            self._log_asked("trace", host)
        if watcher is None or (watcher.host_id, watcher.contents) != (host_id, contents):
            self.close()
            self._watcher = watcher = self._parts.request_log.add_watcher(host_id, contents)
        with contextlib.suppress(TimeoutError):
            await watcher.wait().addTimeout(TRACE_WAIT, self._parts.clock)
        told, more = commands.Trace.fitting(watcher.seen)
        for _ in told:
            watcher.seen.popleft()
        return {"rows": told, "more": more}

    # ------------------------------------------------------------------ actions

    @commands.Report.responder
    async def report(self, host: str) -> Answer:
        """Write the status file."""
        self._log_asked("report", host)
        try:
            await in_slices(self._parts.clock, self._parts.reporter.reporting())
        except OSError as error:
            raise ReportFailed(f"the status file cannot be written: {error}") from error
        return {}

    def _each(self, host: str, do: Callable[[HostService], object]) -> Deferred[Answer]:
        """Call a function for a host or all, in slices, starting at once."""
        steps = map(do, self._chosen(host))
        done = Deferred.fromCoroutine(in_slices(self._parts.clock, steps))
        return done.addCallback(lambda _: {})

    @commands.ResetRetries.responder
    def reset_retries(self, host: str) -> Deferred[Answer]:
        """Restore a host's retries (row S18)."""
        self._log_asked("reset retries", host)
        return self._each(host, lambda each: each.reset_retries())

    @commands.CloseConnections.responder
    def close_connections(self, host: str) -> Deferred[Answer]:
        """Close a host's connections."""
        self._log_asked("close connections", host)
        return self._each(host, lambda each: each.close_connections())

    @commands.SetDebugLevel.responder
    def set_debug_level(self, host: str, level: int) -> Deferred[Answer]:
        """Set a host's debug level (row S20)."""
        if not 0 <= level <= 9:
            raise BadLevel(f"{host or 'all hosts'}: {level} is not a debug level from 0 to 9")
        self._log_asked(f"debug level {level}", host)
        return self._each(host, partial(_set_debug_level, level))

    @commands.Pause.responder
    async def pause(self, host: str, by: str, reason: str, seconds: float, fail: bool) -> Answer:
        """Pause a host; return when none of its requests is in flight."""
        if not 0.0 <= seconds <= LONGEST_PAUSE:
            raise BadArguments(f"a pause has 0 to {LONGEST_PAUSE:.0f} seconds")
        self._check_steady()
        by, reason = by[:LONGEST_REASON], reason[:LONGEST_REASON]
        self._log_asked(f"pause, for {by}: {reason}" if reason else f"pause, for {by}", host)
        now = time.time()
        pause = Pause(by, reason, now, now + seconds if seconds else 0.0, fail)
        quiet: list[Deferred[None]] = []
        await self._each(host, lambda each: quiet.append(self._steady(each).pause(pause, seconds)))
        for each in quiet:
            await each
        return {}

    @commands.Resume.responder
    def resume(self, host: str) -> Deferred[Answer]:
        """End a host's pause."""
        self._check_steady()
        self._log_asked("resume", host)
        return self._each(host, lambda each: self._steady(each).resume())

    def _steady(self, host: HostService) -> HostService:
        self._check_steady()
        return host

    def _check_steady(self) -> None:
        if self._parts.handing_over():  # the pauses were already sent to it
            raise NotDone("a new process is taking over: try again in a moment")

    @commands.ShowDelayed.responder
    async def show_delayed(self, file: str) -> Answer:
        """Return the beginning of a delayed request, and whether it was cut."""
        self._log_asked(f"show delayed request {file}")
        with _disk_errors(f"{file} cannot be read"):
            content, more = await self._parts.delayed.show(file, SHOWN)
        return {"content": content, "more": more}

    @commands.DropDelayed.responder
    async def drop_delayed(self, file: str) -> Answer:
        """Delete a delayed request."""
        self._log_asked(f"drop delayed request {file}")
        with _disk_errors(f"{file} cannot be deleted"):
            await self._parts.delayed.drop(file)
        return {}

    @commands.RequeueDelayed.responder
    async def requeue_delayed(self, file: str) -> Answer:
        """Move a kept request back to those that are sent."""
        self._log_asked(f"put back delayed request {file}")
        with _disk_errors(f"{file} cannot be put back"):
            await self._parts.delayed.requeue(file)
        return {}

    @commands.RetryDelayed.responder
    def retry_delayed(self, host: str) -> Answer:
        """Try to send a host's delayed requests now."""
        self._log_asked("retry delayed requests", host)
        self._parts.delayed.retry(self._host_id(host))
        return {}

    @commands.RereadTable.responder
    async def reread_table(self) -> Answer:
        """Read the host table again."""
        self._log_asked("read the table again")
        return {"message": cut(await self._parts.reread_table(), LONGEST_MESSAGE)}

    @commands.Reload.responder
    async def reload(self) -> Answer:
        """Read the configuration and the host table again."""
        self._log_asked("reload")
        return {"message": cut(await self._parts.reload(), LONGEST_MESSAGE)}

    @commands.HandOver.responder
    async def hand_over(self) -> Answer:
        """Prepare to hand everything over to a new process."""
        self._log_asked("hand over to a new process")
        return {"path": await self._parts.hand_over()}

    @commands.Stop.responder
    def stop(self) -> Answer:
        """Stop lonc, after the answer was sent."""
        self._log_asked("stop")
        self._parts.clock.callLater(0, self._parts.stop)
        return {}


@contextlib.contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    """Convert errors with delayed requests to UnknownFile or NotDone."""
    try:
        yield
    except UnknownRequest as error:
        raise UnknownFile(str(error)) from None
    except (OSError, Stuck) as error:
        raise NotDone(f"{what}: {error}") from None


def _client_status(
    client: Client, name_of: Callable[[int], str], now: float, wall: float
) -> ClientStatus:
    """
    Return the status of a client.

    :param name_of: returns the name of a user.
    :param now: the reactor's time.
    :param wall: the Unix time.
    """
    pid, uid = client.peer
    waits_for, since = client.waits_for
    return ClientStatus(
        number=client.number,
        host_id=client.host_id,
        pid=pid,
        user=name_of(uid),
        since=wall - (now - client.since),
        requests=client.requests,
        waits_for=waits_for,
        waiting=now - since if since else 0.0,
    )


def _set_debug_level(level: int, host: HostService) -> None:
    host.debug_level = level
    log.info("debug level {number}", number=level, host_id=host.host_id, success=True)


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


def cut(text: str, limit: int = LONGEST_TEXT) -> str:
    """Cut a text to a number of bytes in UTF-8."""
    data = text.encode("utf-8", "backslashreplace")
    return data[:limit].decode("utf-8", "ignore")
