"""
Seals the delayed requests of all hosts, including DEAD and unknown ones.

After each scan of the folder it seals file by file, each in a separate disk call, beginning with
the first request of every host. A request is sealed before it is sent, but sent anyway if it cannot
be sealed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import attrs
from twisted.internet.interfaces import IReactorTime

from lonc.delayed.sealing import PlainStays
from lonc.delayed.spool import Spool
from lonc.delayed.states import State, StoredRequest
from lonc.disk.files import Changed, Unfinished, Unusable
from lonc.disk.threads import Disk, NoPlace, Stuck
from lonc.report.problems import Problems

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
    :param spool: the folder in use.
    :param problems: the list of problems.
    :param go_on: called with the host of a request that need not wait any longer; None for all.
    """

    _clock: IReactorTime
    _spool: Spool
    _disk: Disk
    _go_on: Callable[[str | None], None]
    _problems: Problems
    _kept: deque[str] = attrs.field(init=False, factory=deque)
    _next_look: float = attrs.field(init=False, default=0.0)
    _kept_fails: bool = attrs.field(init=False, default=False)
    #: The path of the latest disk call that did not return in time.
    _hangs_at: str = attrs.field(init=False, default="")

    def use(self, spool: Spool) -> None:
        """Use another folder, or another key; forget what was found before."""
        self._spool = spool
        self._kept.clear()
        self._end_problem()

    def must_wait(self, request: StoredRequest) -> bool:
        """
        Return whether a request must be sealed before it is sent.

        One that was being processed when the folder or the key was replaced is not: it still has
        the previous ones.
        """
        return (
            self._spool.key is not None
            and request.spool is self._spool
            and request.state in _NOT_SEALED
            and request.again <= self._clock.seconds()
            and not self._disk.is_at(self._hangs_at)
        )

    async def seal(
        self, requests: Iterable[Sequence[StoredRequest]], is_over: Callable[[], bool]
    ) -> None:
        """
        Seal the requests found by a scan, and then what was set aside without a key.

        There must be a key.

        :param requests: the requests of each host, in order.
        :param is_over: asked after each disk call whether the rest is left to the next scan.
        """
        spool = self._spool
        if self._disk.is_at(self._hangs_at):
            return
        ranked: list[tuple[int, StoredRequest, Sequence[StoredRequest]]] = []
        failing = self._kept_fails or bool(self._kept)  # which may fail again
        for of_host in requests:
            failing = failing or any(request.again > 0.0 for request in of_host)
            first = filter(self.must_wait, of_host)
            ranked.extend((number, each, of_host) for number, each in enumerate(first))
        if not failing:
            self._end_problem()
        ranked.sort(key=lambda each: each[0])
        try:
            for _, request, of_host in ranked:
                if request.is_ripe():
                    await self._seal(spool, request, of_host)
                    if is_over():
                        return
            if not self._kept and self._next_look <= self._clock.seconds():
                await self._look(spool)
            while self._kept and not is_over():
                file = self._kept.popleft()
                await self._try_kept(spool, spool.path(file), partial(spool.seal_kept, file))
        except NoPlace:
            pass  # the calls that hang were reported
        except Stuck as stuck:
            self._tell(spool, str(stuck))
            self._kept.clear()
            self._go_on(None)

    async def _seal(
        self, spool: Spool, request: StoredRequest, of_host: Sequence[StoredRequest]
    ) -> None:
        if request.busy or not self.must_wait(request) or self._disk.is_at(request.path):
            return  # it has changed since the scan
        request.busy = True
        path, now = request.path, self._clock.seconds()
        try:
            still = request.settled_stamp()
            form = await self._run(path, partial(spool.seal, request.file, still))
            if any(each.file == form for each in of_host):
                request.move(State.GONE)  # a crash had left both
            else:
                request.note_sealed(form)
        except Unfinished as unfinished:
            request.note_growth(unfinished.stamp)
        except Changed:
            pass
        except PlainStays as fault:
            self._tell(spool, f"{request.path}: {fault.strerror}")
            request.files, request.again = {request.file: fault.stamp}, now + TRY_AGAIN
            request.move(State.PROVEN)
        except FileNotFoundError:
            request.move(State.GONE)
        except (Unusable, OSError) as error:
            request.again = now + TRY_AGAIN
            if isinstance(error, OSError):
                self._tell(spool, f"{request.path}: {error.strerror}")
        except Stuck:
            raise
        except Exception:
            request.again = now + TRY_AGAIN
            raise
        finally:
            request.busy = False
            self._go_on(request.host_id)

    async def _look(self, spool: Spool) -> None:
        """Find unsealed files among those set aside."""
        self._next_look = self._clock.seconds() + TRY_AGAIN
        self._kept_fails = False
        self._kept.extend(await self._try_kept(spool, spool.kept, spool.kept_in_clear) or ())

    async def _try_kept(self, spool: Spool, path: str, call: Callable[[], T]) -> T | None:
        try:
            return await self._run(path, call)
        except (Unfinished, Unusable, Changed):
            pass
        except OSError as error:
            self._kept_fails = True
            self._tell(spool, f"{path}: {error.strerror}")
        return None

    async def _run(self, path: str, call: Callable[[], T]) -> T:
        try:
            return await self._disk.run(path, call)
        except Stuck as stuck:
            if not isinstance(stuck, NoPlace):
                self._hangs_at = path
            raise

    def _tell(self, spool: Spool, why: str) -> None:
        what = f"delayed requests cannot be sealed, and stay in the clear: {why}"
        self._problems.tell("delayed-unsealed", spool.folder, what)

    def _end_problem(self) -> None:
        self._problems.replace((), ("delayed-unsealed",))
