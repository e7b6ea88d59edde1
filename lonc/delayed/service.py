"""
Sends the requests that wait on disk for a host to come back (protocol, section 6; rows S13 and F6).

The folder is scanned for all hosts at once. What is found for a host goes into its queue, and one
request after the other goes from there to the host, which makes a connection if it has none; the
queues do not wait for each other. The files themselves are :mod:`lonc.delayed.spool`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from random import Random
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lonc.config.settings import Settings
from lonc.delayed.logs import DelayedLogs
from lonc.delayed.names import ANSWER, REASON, host_of, stored_at
from lonc.delayed.queue import DelayedQueue, FileAges, Sender
from lonc.delayed.requests import DelayedRequests
from lonc.delayed.sealer import Sealer
from lonc.delayed.sealing import Key, UnusableKey, key_of, own_name
from lonc.delayed.spool import Found, Spool
from lonc.disk.files import Changed, Files, Stamp, Unfinished, Unusable
from lonc.disk.threads import Disk, InThread, NoPlace, Stuck
from lonc.wire.refusal import refusal
from lonc.wire.request import Cause, ConLost

#: Seconds between two scans of the folder.
SCAN_PAUSE = 1.0

#: Seconds after a scan in which sealing goes on before the next one.
SEALING_TIME = 0.75

#: Seconds after which a request is tried again that failed while its host was alive: they double.
FIRST_PAUSE = 1.0
LAST_PAUSE = 60.0

#: Seconds after which it is tried again to delete or to move a file.
TRY_AGAIN = 60.0

#: Failures that would be the same each time.
_HOPELESS = {
    Cause.TOO_LONG: "it was sent, but it or its answer is over the line limit",
    Cause.CONTROL_BYTE: "its command word holds a control byte",
    Cause.WRONG_HOST: "it is for another host than its name says",
}


class DelayedService(Service):
    """
    Sends delayed requests.

    :param clock: the reactor's time.
    :param sender_of: a host id -> who sends to it; None when the table has no such host. It is
        asked each time, so hosts may come and go.
    :param in_thread: runs a function in a thread, as ``deferToThread`` does.
    :param perm_log: takes the lines of ``lonnet.perm.log``.
    :param random: the jitter of the pauses.
    :param make_spool: folder, folder of those set aside, key -> :class:`lonc.delayed.spool.Spool`.
    :raise lonc.delayed.sealing.UnusableKey: the key that the settings name cannot be used.
    :ivar requests: the requests for people, who look at them and steer them.
    :ivar kept: how many the last scan found set aside.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: Settings,
        sender_of: Callable[[str], Sender | None],
        in_thread: InThread,
        perm_log: Callable[[str], None],
        random: Random,
        make_spool: Callable[[str, str, Key | None], Spool] = Spool,
        log: Logger | None = None,
    ) -> None:
        self.log = log or Logger()
        self._clock = clock
        self._settings = settings
        self._sender_of = sender_of
        self._disk = Disk(clock, in_thread)
        self._logs = DelayedLogs(self.log, perm_log)
        self._random = random
        self._make_spool = make_spool
        self._key = key_of(settings)
        self._spool = make_spool(settings.delayed_dir, settings.kept_dir, self._key)
        self._queues: dict[str, DelayedQueue] = {}
        self._file_ages = FileAges()
        self._sealer = Sealer(
            clock, self._disk, self._file_ages, self._has_in_hand, self._go_on, self.log
        )
        self.requests = DelayedRequests(
            self._disk,
            lambda: self._spool,
            lambda: self._settings.disk_timeout,
            self._queues,
            self._has_in_hand,
            self.kick,
        )
        self._counts: dict[str, int] = {}
        self._oldest: dict[str, float] = {}
        self.kept = 0
        self._found: Found | None = None
        self._known: frozenset[str] = frozenset()
        self._scan_error = ""
        self._scans: LoopingCall | None = None
        self._tasks: set[Deferred[None]] = set()

    # ------------------------------------------------------------------ from outside

    def startService(self) -> None:
        """Scan the folder now and every second; it is made when it is missing."""
        super().startService()  # type: ignore[no-untyped-call]
        self._scans = LoopingCall(lambda: self._spawn(self._scan()))
        self._scans.clock = self._clock
        self._scans.start(SCAN_PAUSE)

    def stopService(self) -> Deferred[None]:
        """
        Begin nothing new.

        :return: fires when nothing is under way: requests end with their hosts, what has its
            answer is deleted or moved, and a disk that hangs is waited for no longer than ever.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._scans is not None:
            self._scans.stop()
            self._scans = None
        return DeferredList(list(self._tasks)).addCallback(lambda _: None)

    def reconfigure(self, settings: Settings) -> None:
        """
        Use other settings from now on; what is under way ends where it began.

        The key file is read again, unless the settings are the very same; if it cannot be used the
        key of before stays.
        """
        if settings is self._settings:
            return
        before, self._settings = self._settings, settings
        key_before = self._key
        try:
            self._key = key_of(settings)
        except UnusableKey as error:
            self.log.error("the key of before stays in use: {error}", error=error)
        if settings.delayed_dir != before.delayed_dir:
            self._counts = {}
        elif self._key == key_before:
            return
        self._spool = self._make_spool(settings.delayed_dir, settings.kept_dir, self._key)
        self._logs.locked(0)
        self._found = None
        self._sealer.clear()
        for queue in self._queues.values():
            queue.waiting.clear()

    def kick(self, host_id: str) -> None:
        """Try a host's requests at once: it has come back."""
        queue = self._queues.get(host_id)
        if queue is not None:
            queue.pause = queue.not_before = 0.0
            self._begin(queue)

    def counts(self) -> Mapping[str, int]:
        """Return how many delayed requests the last scan found, for each host that has any."""
        return self._counts

    def oldest(self) -> Mapping[str, float]:
        """Return when the oldest of these was stored, in Unix time, as far as its name tells."""
        return self._oldest

    def _spawn(self, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        """Run a coroutine that stopService waits for."""
        task = Deferred.fromCoroutine(work)
        task.addErrback(
            lambda failure: self.log.failure("looking for delayed requests failed", failure)
        )
        self._tasks.add(task)
        return task.addBoth(lambda _: self._tasks.discard(task))

    # ------------------------------------------------------------------ the scan

    async def _scan(self) -> None:
        spool = self._spool
        if self._disk.is_at(spool.folder):
            return
        try:
            found = await self._disk.run(spool.folder, self._settings.disk_timeout, spool.scan)
        except NoPlace:
            return  # those that hang have been named
        except (Stuck, OSError) as error:
            if str(error) != self._scan_error:
                self.log.error("cannot look for delayed requests: {error}", error=error)
            self._scan_error = str(error)
            return
        self._scan_error = ""
        if spool is not self._spool:
            return
        if not self._is_as_before(found):
            self._take_over(found)
        until = self._clock.seconds() + SEALING_TIME
        while self.running and await self._sealer.step() and self._clock.seconds() < until:
            pass

    def _is_as_before(self, found: Found) -> bool:
        """Return whether nothing has come or gone; if so, go on where a host may be asked."""
        known = frozenset(x for x in found.requests if self._sender_of(x) is not None)
        same = found is self._found and known == self._known
        self._found, self._known = found, known
        if not same or (self._spool.key is not None and found.plain):
            return False
        for host_id, queue in list(self._queues.items()):
            sender = self._sender_of(host_id)
            if sender is not None and sender.alive:
                self._fill(queue, found)
        return True

    def _fill(self, queue: DelayedQueue, found: Found) -> None:
        locked = found.sealed if self._spool.key is None else frozenset()
        names = found.requests.get(queue.host_id, [])
        queue.found([name for name in names if name not in locked])
        if queue.waiting:
            self._begin(queue)
        elif not queue.busy:
            del self._queues[queue.host_id]

    def _take_over(self, found: Found) -> None:
        self._counts = {host_id: len(names) for host_id, names in found.requests.items()}
        self.kept = found.kept
        self._oldest = {
            host_id: min(map(stored_at, names)) for host_id, names in found.requests.items()
        }
        self._file_ages.found(found.plain, self._clock.seconds())
        if self._spool.key is None:
            self._logs.locked(len(found.sealed))
        else:
            limit = self._settings.disk_timeout
            self._sealer.found(self._spool, limit, found.requests, found.plain)
        unknown = {}
        for host_id, names in found.requests.items():
            if self._sender_of(host_id) is None:
                unknown[host_id] = names
            elif host_id not in self._queues:
                self._queues[host_id] = DelayedQueue(host_id)
        self._logs.unknown(unknown, self._spool)
        for queue in list(self._queues.values()):
            self._fill(queue, found)

    # ------------------------------------------------------------------ what the sealer asks

    def _has_in_hand(self, name: str) -> bool:
        queue = self._queues.get(host_of(own_name(name)) or "")
        at_disk = self._disk.is_at(self._spool.path(name))
        return at_disk or (queue is not None and queue.has_in_hand(name))

    def _go_on(self, names: Iterable[str]) -> None:
        for host_id in dict.fromkeys(host_of(own_name(name)) for name in names):
            queue = self._queues.get(host_id or "")
            if queue is not None:
                self._begin(queue)

    # ------------------------------------------------------------------ a queue

    def _begin(self, queue: DelayedQueue) -> None:
        if self.running and not queue.busy:
            queue.busy = True
            self._spawn(self._work(queue))

    async def _work(self, queue: DelayedQueue) -> None:
        """Send a host's requests, until there is nothing to send or to be done now."""
        try:
            while queue.waiting:
                name = queue.waiting[-1]
                if name in self._sealer.pending:
                    return
                now = self._clock.seconds()
                at_disk = self._disk.is_at(self._spool.path(name))
                if not at_disk and queue.skipped.get(name, now) <= now:
                    sender = self._sender_of(queue.host_id)
                    if sender is None or not sender.alive or now < queue.not_before:
                        return
                    queue.current = name
                    if not await self._deal_with(queue, name, sender):
                        return
                # A scan may have put others here meanwhile.
                if queue.waiting and queue.waiting[-1] == name:
                    queue.waiting.pop()
        except Exception:
            self._put_off(queue, name, "see the next line")
            self.log.failure("sending a delayed request failed", host_id=queue.host_id)
        finally:
            queue.busy = False

    async def _deal_with(self, queue: DelayedQueue, name: str, sender: Sender) -> bool:
        """Do what can be done with a file now; return whether the next one may follow."""
        path = self._spool.path(name)
        limit = self._settings.disk_timeout
        try:
            clear = queue.answered.get(name) or await self._try(queue, name, sender)
            if clear is None:
                return False
            await self._disk.run(path, limit, clear)
        except NoPlace:
            return False
        except Stuck as stuck:
            self.log.warn("delayed request left for later: {why}", why=stuck, host_id=queue.host_id)
            return True
        except Changed:
            # What has been written meanwhile was not sent, so the whole file is, once more.
            message = "delayed request {file} has changed meanwhile: once more"
            self.log.warn(message, file=name, host_id=queue.host_id)
        except FileNotFoundError:
            pass  # somebody took it away
        except OSError as error:
            self._skip(queue, name, error)
            return True
        queue.answered.pop(name, None)
        return True

    async def _try(
        self, queue: DelayedQueue, name: str, sender: Sender
    ) -> Callable[[], object] | None:
        """Send a request; return how to clear it away, or None when it has to wait."""
        spool, settings = self._spool, self._settings
        clear: Callable[[], object]
        still = self._file_ages.still(name, self._clock.seconds())
        read = partial(spool.take, name, settings.max_line, still)
        try:
            taken = await self._disk.run(spool.path(name), settings.disk_timeout, read)
            if not self.running or not self._file_ages.is_ripe(name, self._clock.seconds()):
                return None
            answer = await sender.ask(taken.line)
        except Unfinished as unfinished:
            await self._watch_unfinished(queue, name, unfinished.stamp)
            return None
        except Unusable as fault:
            return self._set_aside(queue, spool, name, fault.files, str(fault))
        except ConLost as lost:
            if lost.cause in _HOPELESS:
                clear = self._set_aside(queue, spool, name, taken.files, _HOPELESS[lost.cause])
                queue.answered[name] = clear
                return clear
            self._put_off(queue, name, lost.cause.value)
            return None
        except FileNotFoundError:
            raise
        except OSError as error:
            self._put_off(queue, name, str(error))
            return None
        queue.pause = queue.not_before = 0.0
        self._logs.answered(queue.host_id, name, taken.line, answer, self._spool)
        if refusal(answer) is None:
            clear = partial(spool.remove, taken.files)
        else:
            clear = partial(spool.keep, name, taken.files, ANSWER, answer)
        queue.answered[name] = clear
        return clear

    async def _watch_unfinished(self, queue: DelayedQueue, name: str, stamp: Stamp) -> None:
        """Time how long a file stays as it is, and with it those that wait behind it."""
        if not self._file_ages.knows(name, stamp):
            # Or each would take its time anew when its turn comes.
            look = partial(self._spool.stamps, list(queue.waiting))
            path, limit = self._spool.path(name), self._settings.disk_timeout
            self._file_ages.watch(await self._disk.run(path, limit, look), self._clock.seconds())

    def _set_aside(
        self, queue: DelayedQueue, spool: Spool, name: str, files: Files, reason: str
    ) -> Callable[[], object]:
        """Return how to set a request aside that cannot be sent."""
        if name not in queue.skipped:
            self._logs.set_aside(queue.host_id, name, spool.kept, reason)
        return partial(spool.keep, name, files, REASON, f"{reason}\n".encode())

    # ------------------------------------------------------------------ later

    def _put_off(self, queue: DelayedQueue, name: str, cause: str) -> None:
        """Let a host rest after a failure, longer each time."""
        queue.tried(name, cause)
        queue.pause = min(2 * queue.pause, LAST_PAUSE) or FIRST_PAUSE
        pause = queue.pause * self._random.uniform(0.8, 1.0)
        queue.not_before = self._clock.seconds() + pause
        self._logs.put_off(queue.host_id, name, pause, cause)

    def _skip(self, queue: DelayedQueue, name: str, error: OSError) -> None:
        """Pass over a file that cannot be cleared away; the log says so once."""
        if name not in queue.skipped:
            self._logs.not_cleared(queue.host_id, name, error)
        queue.skipped[name] = self._clock.seconds() + TRY_AGAIN
