"""
The service for delayed requests (protocol, section 6; rows S13 and F6).

The folder is scanned for all hosts at once, and each file has a record (:mod:`lonc.delayed.states`)
in the queue of its host. :mod:`lonc.delayed.sealer` seals them if there is a key,
:mod:`lonc.delayed.sending` sends them; :mod:`lonc.delayed.spool` accesses the files.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from random import Random

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from lonc.config.settings import Settings
from lonc.delayed.names import KEPT_FOLDER, SEALED, name_of, order, own_name, stored_at
from lonc.delayed.people import Listing, UnknownRequest
from lonc.delayed.sealer import Sealer
from lonc.delayed.sealing import Key, UnusableKey, key_of
from lonc.delayed.sending import PROOF_PAUSE, Sending
from lonc.delayed.spool import Found, Spool
from lonc.delayed.states import Answered, DelayedQueue, Sender, State, StoredRequest
from lonc.disk.files import why
from lonc.disk.threads import Disk, InThread, NoPlace, Stuck
from lonc.report.events import Logger
from lonc.report.problems import Problem, Problems, problem
from lonc.report.records import DelayedStatus
from lonc.report.units import count

#: Seconds between two scans of the folder.
SCAN_PAUSE = 1.0

#: Seconds after each scan that may be spent on sealing.
SEALING_TIME = 0.75

#: The name under which disk calls for administrators are made.
LISTING = "listing"


class DelayedService(Service):
    """
    Scans for, seals and sends delayed requests.

    :param clock: the reactor's clock.
    :param sender_of: host id -> its sender; None if the host is not in the table. Called each time,
        because hosts may be added and removed.
    :param in_thread: runs a function in a thread, as ``deferToThread`` does.
    :param perm_log: writes a line to ``lonnet.perm.log``.
    :param random: for the jitter of the pauses.
    :param problems: the list of problems.
    :param make_spool: folder, key -> :class:`lonc.delayed.spool.Spool`.
    :raises lonc.delayed.sealing.UnusableKey: the key configured in the settings is unusable.
    :ivar counts: number of requests of each host that has any, at the last scan.
    :ivar oldest: when the oldest request of each host was stored, in Unix time, from its name.
    :ivar kept: number of requests set aside, at the last scan.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: Settings,
        sender_of: Callable[[str], Sender | None],
        in_thread: InThread,
        perm_log: Callable[[str], None],
        random: Random,
        problems: Problems,
        make_spool: Callable[[str, Key | None], Spool] = Spool,
        log: Logger | None = None,
    ) -> None:
        self.log = log or Logger()
        self._clock = clock
        self._settings = settings
        self._sender_of = sender_of
        self._disk = Disk(clock, in_thread, lambda: self._settings.disk_timeout)
        self._problems = problems
        self._make_spool = make_spool
        self._key = key_of(settings)
        self._spool = make_spool(settings.delayed_dir, self._key)
        self._queues: dict[str, DelayedQueue] = {}
        self._sealer = Sealer(clock, self._spool, self._disk, self._go_on, problems)
        self._sending = Sending(
            clock,
            self._disk,
            sender_of,
            lambda: self._settings,
            self._sealer.must_wait,
            self._spawn,
            random,
            problems,
            perm_log,
            self.log,
        )
        self.counts: dict[str, int] = {}
        self.oldest: dict[str, float] = {}
        self.kept = 0
        self._found: Found | None = None
        self._known: frozenset[str] = frozenset()
        self._scans: LoopingCall | None = None
        self._tasks: set[Deferred[None]] = set()
        self._handed_on: dict[str, Answered] = {}

    # ------------------------------------------------------------------ interface

    def startService(self) -> None:
        """Scan the folder now and every second; it is created if it is missing."""
        super().startService()  # type: ignore[no-untyped-call]
        self._sending.running = True
        self._scans = LoopingCall(lambda: self._spawn(self._scan()))
        self._scans.clock = self._clock
        self._scans.start(SCAN_PAUSE)

    def stopService(self) -> Deferred[None]:
        """
        Start nothing new.

        :return: fires when nothing is in progress: requests end with their hosts, answers are
            proven and their files deleted or moved, and disk calls have their usual time limit.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._scans is not None:
            self._scans.stop()
            self._scans = None
        self._sending.running = False
        for queue in self._queues.values():
            self._sending.prove(queue)
        return Deferred.fromCoroutine(self._ended())

    def stop_within(self, limit: float) -> Deferred[None]:
        """Stop; fires after at most ``limit`` seconds, even if something is still in progress."""
        done: Deferred[None] = Deferred()
        self.stopService().chainDeferred(done)
        return done.addTimeout(limit, self._clock, lambda *_: None)

    async def _ended(self) -> None:
        while self._tasks:
            await DeferredList(list(self._tasks))

    def reconfigure(self, settings: Settings) -> None:
        """
        Use new settings; operations in progress finish with the old ones.

        The key file is read again, unless the settings object is the same; if it is unusable the
        previous key stays in use.
        """
        if settings is self._settings:
            return
        before, self._settings = self._settings, settings
        key_before = self._key
        try:
            self._key = key_of(settings)
        except UnusableKey as error:
            self.log.error("the previous key stays in use: {error}", error=error)
            what = f"the previous key for delayed requests stays in use: {error}"
            self._problems.tell("reload-failed", settings.config_file, what)
        if settings.delayed_dir != before.delayed_dir:
            self.counts = {}
        elif self._key == key_before:
            return
        self._spool = self._make_spool(settings.delayed_dir, self._key)
        self._found = None
        self._sealer.use(self._spool)
        for queue in self._queues.values():
            queue.waiting.clear()

    def retry(self, host_id: str | None) -> None:
        """Try the requests of a host at once, as when it has come back; None for all hosts."""
        for queue in self._queues_of(host_id):
            queue.pause = queue.not_before = 0.0
            self._sending.begin(queue)

    def _queues_of(self, host_id: str | None) -> list[DelayedQueue]:
        """Return the queue of a host if it has one; None for those of all hosts."""
        names = list(self._queues) if host_id is None else [host_id]
        return [self._queues[name] for name in names if name in self._queues]

    # ------------------------------------------------------------------ for administrators

    async def listed(self, host_id: str | None, after: str = "") -> Sequence[DelayedStatus]:
        """
        List delayed and kept requests, at most :data:`lonc.delayed.people.MOST`.

        :param host_id: None for all hosts.
        :param after: only those after this one.
        :raises OSError: the folder cannot be read.
        :raises lonc.disk.threads.Stuck: the disk timeout is over.
        """
        tries = {each.file: (each.tries, self._outcome(each)) for each in self._all()}
        return await self._disk.run(
            LISTING, partial(Listing(self._spool).rows, host_id, tries, after)
        )

    def _outcome(self, request: StoredRequest) -> str:
        if self._sender_of(request.host_id) is None:
            return f"the host table has no {request.host_id}"
        if request.is_locked:
            return "it is sealed, and no key is set"
        return request.outcome

    async def show(self, file: str, limit: int) -> tuple[bytes, bool]:
        """
        Return the beginning of a request, and whether it was cut; raises also as :meth:`listed`.

        :raises lonc.delayed.people.UnknownRequest: there is no such request.
        """
        return await self._disk.run(LISTING, partial(Listing(self._spool).show, file, limit))

    async def drop(self, file: str) -> None:
        """
        Delete a request; raises also as :meth:`show`.

        :raises lonc.delayed.people.UnknownRequest: it is being sent.
        """
        if not file.startswith(KEPT_FOLDER):
            twins = (each for each in self._all() if name_of(each.file) == name_of(file))
            if any(self._sending.is_in_hand(each) for each in twins):
                raise UnknownRequest(f"{file} is being sent")
        await self._disk.run(self._spool.path(file), partial(Listing(self._spool).drop, file))

    async def requeue(self, file: str) -> None:
        """Move a kept request back to those that are sent; raises as :meth:`show`."""
        await self._disk.run(LISTING, partial(Listing(self._spool).requeue, file))

    # ------------------------------------------------------------------ for the daemon

    def answered(self) -> list[Answered]:
        """Return requests that another process must not send again, for its :meth:`take_on`."""
        return [x.as_dict() for x in self._all() if x.state in (State.PROVEN, State.SKIPPED)]

    def take_on(self, answered: Sequence[Answered]) -> None:
        """Do not send requests again that the previous process could not remove."""
        for each in answered:
            self._begun(each["file"]).restore(each)  # to raise errors now
            self._handed_on[each["file"]] = each

    def _all(self) -> list[StoredRequest]:
        return [each for queue in self._queues.values() for each in queue.requests]

    def _spawn(self, work: Coroutine[Deferred[object], object, None]) -> Deferred[None]:
        """Run a coroutine that stopService waits for."""
        task = Deferred.fromCoroutine(work)
        task.addErrback(
            lambda failure: self.log.failure("looking for delayed requests failed", failure)
        )
        self._tasks.add(task)
        return task.addBoth(lambda _: self._tasks.discard(task))

    # ------------------------------------------------------------------ the scan

    async def _scan(self) -> None:
        spool, began = self._spool, self._clock.seconds()
        for queue in list(self._queues.values()):
            if began >= queue.proved + 0.9 * PROOF_PAUSE:  # a scan may be slightly early
                self._sending.prove(queue)
        if self._disk.is_at(spool.folder):
            return
        try:
            found = await self._disk.run(spool.folder, spool.scan)
        except NoPlace:
            return  # the calls that hang were reported
        except (Stuck, OSError) as error:
            what = f"cannot look for delayed requests: {why(error)}"
            self._problems.tell("delayed-folder", spool.folder, what)
            return
        if spool is not self._spool:
            return
        self._problems.replace(spool.faults, ("delayed-folder", "delayed-disk-full"))
        if self._sending.cannot_clear:
            left = (x for x in self._all() if x.state in (State.PROVEN, State.SKIPPED))
            self._sending.cannot_clear = any(x.again for x in left)
        if not self._sending.cannot_clear:
            self._problems.replace((), ("delayed-not-cleared",))
        if not self._is_as_before(found):
            self._reconcile(found, began)
        if self._key is not None:
            unsealed = [x.requests for x in self._queues.values()] if found.unsealed else []
            until = self._clock.seconds() + SEALING_TIME

            def is_over() -> bool:
                is_replaced = spool is not self._spool
                return is_replaced or not self.running or self._clock.seconds() >= until

            await self._sealer.seal(unsealed, is_over)

    def _is_as_before(self, found: Found) -> bool:
        """Return whether nothing has changed; if so, continue with the queues of alive hosts."""
        known = frozenset(x for x in found.requests if self._sender_of(x) is not None)
        same = found is self._found and known == self._known
        self._found, self._known = found, known
        if not same or (self._key is not None and found.unsealed):
            return False
        for host_id, queue in list(self._queues.items()):
            sender = self._sender_of(host_id)
            if sender is not None and sender.alive:
                self._fill(queue)
        return True

    def _reconcile(self, found: Found, began: float) -> None:
        self.counts = {x: len(set(map(name_of, files))) for x, files in found.requests.items()}
        self.oldest = {x: min(map(stored_at, files)) for x, files in found.requests.items()}
        self.kept = found.kept
        for host_id in list({**self._queues, **found.requests}):
            queue = self._queues.setdefault(host_id, DelayedQueue(host_id))
            self._reconcile_queue(queue, found.requests.get(host_id, ()), began)
            if not queue.requests and not queue.busy:
                del self._queues[host_id]
        self._handed_on.clear()
        self._problems.replace(self._problems_found(), ("delayed-locked", "delayed-unknown"))
        for queue in list(self._queues.values()):
            self._fill(queue)

    def _problems_found(self) -> Iterator[Problem]:
        """Yield the problems of requests that cannot be sent."""
        if self._key is None:
            sealed = {name_of(x.file) for x in self._all() if x.file.endswith(SEALED)}
            if sealed:
                requests = count(len(sealed), "sealed delayed request")
                what = f"{requests}, and no key is set (loncDelayedKeyFile)"
                yield problem("delayed-locked", "", what)
        for host_id, number in self.counts.items():
            if host_id not in self._known:
                what = f"is not in the host table, and has {count(number, 'delayed request')}"
                yield problem("delayed-unknown", host_id, what)

    def _reconcile_queue(self, queue: DelayedQueue, files: Sequence[str], began: float) -> None:
        """Update a queue from a scan: add new files, remove those that are gone."""
        over = (State.KEPT, State.GONE)
        known = {path: x for x in queue.requests if x.state not in over for path in x.paths}
        # The form of such a request appears in between, and must not be sent.
        leaving = {own_name(x.file) for x in known.values() if self._is_being_set_aside(x)}
        requests = dict.fromkeys(
            known.get(self._spool.path(file)) or self._begun(file)
            for file in files
            if self._spool.path(file) in known or own_name(file) not in leaving
        )
        # The scan did not see files moved meanwhile, nor those in a previous folder.
        left = [
            x
            for x in dict.fromkeys(known.values())
            if x not in requests and (x.moved >= began or self._is_to_stay(x))
        ]
        queue.requests = [*requests]
        if left:
            queue.requests = sorted([*requests, *left], key=lambda x: order(x.file))
        for each in queue.requests:
            if each.spool.folder == self._spool.folder and not each.busy:
                each.spool = self._spool

    def _is_being_set_aside(self, request: StoredRequest) -> bool:
        return request.ending != "" and (request.busy or self._disk.is_at(request.path))

    def _begun(self, file: str) -> StoredRequest:
        request = StoredRequest(self._spool, file, self._clock)
        if file in self._handed_on:
            request.restore(self._handed_on[file])
        return request

    def _is_to_stay(self, request: StoredRequest) -> bool:
        """Return whether a request must be kept although its file was not found."""
        if request.spool.folder != self._spool.folder:
            return request.state in (State.PROVEN, State.SENDING, State.ANSWERED)
        return request.busy or request.state in (State.SENDING, State.ANSWERED)

    def _fill(self, queue: DelayedQueue) -> None:
        queue.refill(self._key is not None)
        self._sending.begin(queue)

    def _go_on(self, host_id: str | None) -> None:
        """Continue with a host after one of its requests was sealed, or not; None for all."""
        for queue in self._queues_of(host_id):
            self._sending.begin(queue)
