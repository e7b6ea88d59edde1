"""
Seals the delayed requests of all hosts, including DEAD and unknown ones.

After each scan of the folder it seals file by file, each in a separate disk call, beginning with
the first request of every host. A request is sealed before it is sent, but sent anyway if it cannot
be sealed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import attrs
from twisted.internet.interfaces import IReactorTime

from lonc.delayed.logs import DelayedLogs
from lonc.delayed.seal_file import PlainStays
from lonc.delayed.spool import Spool
from lonc.delayed.states import State, StoredRequest
from lonc.disk.files import Changed, Unfinished, Unusable
from lonc.disk.threads import Disk, NoPlace, Stuck

#: Seconds until sealing a file is tried again, and between searches for unsealed files among those
#: set aside, which may date from a time without a key.
TRY_AGAIN = 60.0

T = TypeVar("T")

_NOT_SEALED = (State.FOUND, State.GROWING, State.WHOLE)


@attrs.define(eq=False)
class Sealer:
    """
    Seals complete requests.

    :param clock: the reactor's clock.
    :param go_on: called with a request that need not wait any longer; None for all of them.
    """

    _clock: IReactorTime
    _disk: Disk
    _go_on: Callable[[StoredRequest | None], None]
    _logs: DelayedLogs
    _spool: Spool | None = attrs.field(init=False, default=None)
    _limit: float = attrs.field(init=False, default=0.0)
    _queue: deque[StoredRequest] = attrs.field(init=False, factory=deque)
    _kept: deque[str] = attrs.field(init=False, factory=deque)
    _next_look: float = attrs.field(init=False, default=0.0)
    _kept_fails: bool = attrs.field(init=False, default=False)
    #: The path of the latest disk call that did not return in time.
    _hangs_at: str = attrs.field(init=False, default="")

    def reset(self) -> None:
        """Forget what was found, and start nothing new."""
        self._spool = None
        self._queue.clear()
        self._kept.clear()
        self._logs.end_unsealed()

    def must_wait(self, request: StoredRequest) -> bool:
        """Return whether a request must be sealed before it is sent."""
        return (
            self._spool is not None
            and request.state in _NOT_SEALED
            and request.again <= self._clock.seconds()
            and not self._disk.is_at(self._hangs_at)
        )

    def plan(self, spool: Spool, limit: float, requests: Iterable[Sequence[StoredRequest]]) -> None:
        """
        Plan sealing the requests found by a scan.

        :param spool: must have a key.
        :param limit: time limit of a disk call in seconds.
        :param requests: the requests of each host, in order.
        """
        now = self._clock.seconds()
        self._spool, self._limit = spool, limit
        ranked: list[tuple[int, StoredRequest]] = []
        failing = False
        for of_host in requests:
            mine = [request for request in of_host if self.must_wait(request)]
            ranked.extend(enumerate(mine))
            failing = failing or any(request.again > 0.0 for request in of_host)
        if not failing and not self._kept_fails and not self._disk.is_at(self._hangs_at):
            self._logs.end_unsealed()
        ranked.sort(key=lambda pair: pair[0])
        self._queue = deque(request for _, request in ranked if request.is_ripe(now))

    async def step(self) -> bool:
        """Make one disk call; return whether there was anything to do."""
        spool, now = self._spool, self._clock.seconds()
        if spool is None or self._disk.is_at(self._hangs_at):
            return False
        try:
            if self._queue:
                await self._seal(spool, self._queue.popleft())
            elif self._kept:
                name = self._kept.popleft()
                path = os.path.join(spool.kept, name)
                await self._try_kept(spool, path, partial(spool.seal_kept, name))
            elif self._next_look <= now:
                self._next_look = now + TRY_AGAIN
                await self._try_kept(spool, spool.kept, partial(self._look, spool))
            else:
                return False
        except NoPlace:
            self._queue.clear()  # the calls that hang were reported
        except Stuck as stuck:
            self._logs.tell_unsealed(spool.folder, str(stuck))
            self._queue.clear()
            self._kept.clear()
            self._go_on(None)
        return True

    async def _seal(self, spool: Spool, request: StoredRequest) -> None:
        if request.busy or not self.must_wait(request) or self._disk.is_at(request.path):
            return  # it has changed since the scan
        request.busy = True
        path, now = request.path, self._clock.seconds()
        try:
            still = request.settled_stamp(now)
            form = await self._run(path, partial(spool.seal, request.file, still))
            request.note_sealed(form, self._clock.seconds())
        except Unfinished as unfinished:
            request.note_growth(unfinished.stamp, now)
        except Changed:
            pass
        except PlainStays as fault:
            self._tell(spool, request.path, fault.error)
            request.files, request.again = {request.file: fault.stamp}, now + TRY_AGAIN
            request.move(State.PROVEN, now)
        except FileNotFoundError:
            request.move(State.GONE, now)
        except (Unusable, OSError) as error:
            request.again = now + TRY_AGAIN
            if isinstance(error, OSError):
                self._tell(spool, request.path, error)
        except Stuck:
            raise
        except Exception:
            request.again = now + TRY_AGAIN
            raise
        finally:
            request.busy = False
            self._go_on(request)

    def _look(self, spool: Spool) -> None:
        """Find unsealed files among those set aside."""
        self._kept.extend(spool.kept_in_clear())
        self._kept_fails = False

    async def _try_kept(self, spool: Spool, path: str, call: Callable[[], object]) -> None:
        try:
            await self._run(path, call)
        except (Unfinished, Unusable, Changed):
            pass
        except (PlainStays, OSError) as fault:
            self._kept_fails = True
            error = fault.error if isinstance(fault, PlainStays) else fault
            self._tell(spool, path, error)

    async def _run(self, path: str, call: Callable[[], T]) -> T:
        try:
            return await self._disk.run(path, self._limit, call)
        except Stuck as stuck:
            if not isinstance(stuck, NoPlace):
                self._hangs_at = path
            raise

    def _tell(self, spool: Spool, path: str, error: OSError) -> None:
        self._logs.tell_unsealed(spool.folder, f"{path}: {error.strerror}")
