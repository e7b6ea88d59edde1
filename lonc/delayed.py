"""
Sends the requests that wait on disk for a host to come back (protocol section 6; S13, F6 to F9).

The folder is scanned for all hosts at once. What is found for a host goes into its lane, and one
request after the other goes from there to the host, which makes a connection if it has none; the
lanes do not wait for each other. The files themselves are :mod:`lonc.spool`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from random import Random
from typing import Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lonc.answers import refusal
from lonc.disk import Disk, InThread, NoPlace, Stuck
from lonc.request import Cause, ConLost, command_word
from lonc.settings import Settings
from lonc.spool import ANSWER, REASON, Changed, Spool, Stamp, Unfinished, Unusable

#: Seconds between two scans of the folder.
SCAN_PAUSE = 1.0

#: Seconds without a change after which a file is whole without a newline at its end (F7).
STILL = 2.0

#: Seconds from a file's discovery to its request's way out. lonnet looks after a pause of up to
#: two seconds whether what it wrote is there; were it gone, it would tell its caller con_failed.
READ_BACK = 2.5

#: Seconds after which a request is tried again that failed while its host was alive: they double.
FIRST_PAUSE = 1.0
LAST_PAUSE = 60.0

#: Seconds after which it is tried again to delete or to move a file.
TRY_AGAIN = 60.0

#: A request whose content passes over the network only enciphered.
_SECRET = re.compile(rb"(sethost:[^:]*:)?encrypt:")


class Sender(Protocol):
    """What takes requests for one host: a :class:`lonc.host.HostService`."""

    @property
    def alive(self) -> bool:
        """Whether a request has a chance; false while the host is DEAD."""

    def ask(self, line: bytes) -> Deferred[bytes]:
        """Fire with the answer and its newline; fail with :exc:`lonc.request.ConLost`."""


@attrs.define
class _Lane:
    """
    One host's requests.

    :ivar waiting: names of the last scan that are still to be looked at, the first at the end.
    :ivar seen: when each name was first found.
    :ivar busy: whether one of them is under way.
    :ivar pause: how long the last failure made us wait; 0.0 after a success.
    :ivar not_before: when the next one may be tried.
    :ivar growing: the state of the first file when it is not whole, and since when it has that.
    :ivar answered: how to clear away what has its answer, and must not be sent again.
    :ivar skipped: when to look again at files that could not be deleted or moved.
    """

    host_id: str
    waiting: list[str] = attrs.field(factory=list)
    seen: dict[str, float] = attrs.field(factory=dict)
    busy: bool = False
    pause: float = 0.0
    not_before: float = 0.0
    growing: tuple[Stamp, float] | None = None
    answered: dict[str, Callable[[], object]] = attrs.field(factory=dict)
    skipped: dict[str, float] = attrs.field(factory=dict)

    def found(self, names: list[str], now: float) -> None:
        """Take over what a scan found, and forget what has gone."""
        self.waiting = names[::-1]
        self.seen = {name: self.seen.get(name, now) for name in names}
        self.answered = {name: x for name, x in self.answered.items() if name in self.seen}
        self.skipped = {name: x for name, x in self.skipped.items() if name in self.seen}

    def still(self, now: float) -> Stamp | None:
        """Return the state that a file has had for long enough to be whole, if it has."""
        return self.growing[0] if self.growing and now - self.growing[1] >= STILL else None

    def unfinished(self, stamp: Stamp, now: float) -> None:
        """Watch a file that is not whole."""
        if self.growing is None or self.growing[0] != stamp:
            self.growing = (stamp, now)


class DelayedService(Service):
    """
    Sends delayed requests.

    :param clock: the reactor's time.
    :param sender_of: a host id -> who sends to it; None when the table has no such host. It is
        asked each time, so hosts may come and go.
    :param in_thread: runs a function in a thread, as ``deferToThread`` does.
    :param perm_log: takes the lines of ``lonnet.perm.log``.
    :param random: the jitter of the pauses.
    :param make_spool: folder, folder of those set aside -> :class:`lonc.spool.Spool`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: Settings,
        sender_of: Callable[[str], Sender | None],
        in_thread: InThread,
        perm_log: Callable[[str], None],
        random: Random,
        make_spool: Callable[[str, str], Spool] = Spool,
        log: Logger | None = None,
    ) -> None:
        self.log = log or Logger()
        self._clock = clock
        self._settings = settings
        self._sender_of = sender_of
        self._disk = Disk(clock, in_thread)
        self._perm_log = perm_log
        self._random = random
        self._make_spool = make_spool
        self._spool = make_spool(settings.delayed_dir, settings.kept_dir)
        self._lanes: dict[str, _Lane] = {}
        self._counts: dict[str, int] = {}
        self._strangers: set[str] = set()
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
        """Use other settings from now on; what is under way ends where it began."""
        folder = self._settings.delayed_dir
        self._settings = settings
        if settings.delayed_dir != folder:
            self._spool = self._make_spool(settings.delayed_dir, settings.kept_dir)
            self._counts = {}

    def kick(self, host_id: str) -> None:
        """Try a host's requests at once: it has come back."""
        lane = self._lanes.get(host_id)
        if lane is not None:
            lane.pause = lane.not_before = 0.0
            self._begin(lane)

    def counts(self) -> Mapping[str, int]:
        """Return how many delayed requests the last scan found, for each host that has any."""
        return self._counts

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
        if spool is self._spool:
            self._take_over(found)

    def _take_over(self, found: dict[str, list[str]]) -> None:
        now = self._clock.seconds()
        self._counts = {host_id: len(names) for host_id, names in found.items()}
        strangers: set[str] = set()
        for host_id, names in found.items():
            if self._sender_of(host_id) is None:
                self._warn_of_strangers(host_id, names)
                strangers.update(names)
            elif host_id not in self._lanes:
                self._lanes[host_id] = _Lane(host_id)
        self._strangers = strangers
        for host_id, lane in list(self._lanes.items()):
            lane.found(found.get(host_id, []), now)
            if lane.waiting:
                self._begin(lane)
            elif not lane.busy:
                del self._lanes[host_id]

    def _warn_of_strangers(self, host_id: str, names: list[str]) -> None:
        new = [name for name in names if name not in self._strangers]
        if new:
            self.log.warn(
                "delayed requests stay on disk, the host table has no {unknown}: {file}{more}",
                unknown=host_id,
                file=self._spool.path(new[0]),
                more=f" and {len(new) - 1} more" if new[1:] else "",
            )

    # ------------------------------------------------------------------ a lane

    def _begin(self, lane: _Lane) -> None:
        if self.running and not lane.busy:
            lane.busy = True
            self._spawn(self._work(lane))

    async def _work(self, lane: _Lane) -> None:
        """Send a host's requests, until there is nothing to send or to be done now."""
        try:
            while lane.waiting:
                name = lane.waiting[-1]
                now = self._clock.seconds()
                at_disk = self._disk.is_at(self._spool.path(name))
                if not at_disk and lane.skipped.get(name, now) <= now:
                    sender = self._sender_of(lane.host_id)
                    if sender is None or not sender.alive or now < lane.not_before:
                        return
                    if not await self._deal_with(lane, name, sender):
                        return
                # A scan may have put others here meanwhile.
                if lane.waiting and lane.waiting[-1] == name:
                    lane.waiting.pop()
        except Exception:
            self._put_off(lane, name, "see the next line")
            self.log.failure("sending a delayed request failed", host_id=lane.host_id)
        finally:
            lane.busy = False

    async def _deal_with(self, lane: _Lane, name: str, sender: Sender) -> bool:
        """Do what can be done with a file now; return whether the next one may follow."""
        path = self._spool.path(name)
        limit = self._settings.disk_timeout
        try:
            clear = lane.answered.get(name) or await self._try(lane, name, sender)
            if clear is None:
                return False
            await self._disk.run(path, limit, clear)
        except NoPlace:
            return False
        except Stuck as stuck:
            self.log.warn("delayed request left for later: {why}", why=stuck, host_id=lane.host_id)
            return True
        except Changed:
            # What has been written meanwhile was not sent, so the whole file is, once more.
            message = "delayed request {file} has changed meanwhile: once more"
            self.log.warn(message, file=name, host_id=lane.host_id)
        except FileNotFoundError:
            pass  # somebody took it away
        except OSError as error:
            self._skip(lane, name, error)
            return True
        lane.answered.pop(name, None)
        return True

    async def _try(self, lane: _Lane, name: str, sender: Sender) -> Callable[[], object] | None:
        """Send a request; return how to clear it away, or None when it has to wait."""
        spool, settings = self._spool, self._settings
        clear: Callable[[], object]
        still = lane.still(self._clock.seconds())
        read = partial(spool.take, name, settings.max_line, still)
        try:
            taken = await self._disk.run(spool.path(name), settings.disk_timeout, read)
            now = self._clock.seconds()
            if not self.running or now < lane.seen.get(name, now) + READ_BACK:
                return None
            answer = await sender.ask(taken.line)
        except Unfinished as unfinished:
            lane.unfinished(unfinished.stamp, self._clock.seconds())
            return None
        except Unusable as fault:
            return self._set_aside(lane, spool, name, fault.stamp, str(fault))
        except ConLost as lost:
            if lost.cause is Cause.TOO_LONG:  # and would be so each time
                reason = "it was sent, but it or its answer is over the line limit"
                clear = self._set_aside(lane, spool, name, taken.stamp, reason)
                lane.answered[name] = clear
                return clear
            self._put_off(lane, name, lost.cause.value)
            return None
        except FileNotFoundError:
            raise
        except OSError as error:
            self._put_off(lane, name, str(error))
            return None
        lane.pause = lane.not_before = 0.0
        self._note(lane, name, taken.line, answer)
        if refusal(answer) is None:
            clear = partial(spool.remove, name, taken.stamp)
        else:
            clear = partial(spool.keep, name, taken.stamp, ANSWER, answer)
        lane.answered[name] = clear
        return clear

    def _note(self, lane: _Lane, name: str, line: bytes, answer: bytes) -> None:
        """Tell both logs that a request has its answer (F9)."""
        command = command_word(line)
        shown = command.encode() if _SECRET.match(line) else line[:-1]
        self._perm_log(f"S:{lane.host_id}:{shown.decode('utf-8', 'backslashreplace')}")
        fields = {"file": name, "command": command, "host_id": lane.host_id}
        word = refusal(answer)
        if word is None:
            self.log.info("delayed request sent: {file} ({command})", success=True, **fields)
        else:
            self.log.warn(
                "delayed request sent: {file} ({command}); the answer is {word}, so it is kept in"
                " {kept}",
                word=word,
                kept=self._settings.kept_dir,
                **fields,
            )

    def _set_aside(
        self, lane: _Lane, spool: Spool, name: str, stamp: Stamp | None, reason: str
    ) -> Callable[[], object]:
        """Return how to set a request aside that cannot be sent."""
        if name not in lane.skipped:
            self.log.warn(
                "delayed request {file} goes to {kept}: {reason}",
                file=name,
                kept=spool.kept,
                reason=reason,
                host_id=lane.host_id,
            )
        return partial(spool.keep, name, stamp, REASON, f"{reason}\n".encode())

    # ------------------------------------------------------------------ later

    def _put_off(self, lane: _Lane, name: str, cause: str) -> None:
        """Let a host rest after a failure, longer each time."""
        lane.pause = min(2 * lane.pause, LAST_PAUSE) or FIRST_PAUSE
        pause = lane.pause * self._random.uniform(0.8, 1.0)
        lane.not_before = self._clock.seconds() + pause
        self.log.info(
            "delayed request {file} stays, next try in {pause:.1f} s: {cause}",
            file=name,
            pause=pause,
            cause=cause,
            host_id=lane.host_id,
        )

    def _skip(self, lane: _Lane, name: str, error: OSError) -> None:
        """Pass over a file that cannot be cleared away; the log says so once."""
        if name not in lane.skipped:
            self.log.error(
                "delayed request {file} cannot be cleared away: {error}",
                file=name,
                error=error,
                host_id=lane.host_id,
            )
        lane.skipped[name] = self._clock.seconds() + TRY_AGAIN
