"""
Seals the delayed requests of all hosts, those of DEAD and of unknown ones too.

It goes on after each scan of the folder, from batch to batch, each a disk call that ends soon, and
takes the first requests of every host first. A request is sealed before it is sent, but does not
wait when it cannot be sealed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lonc.delayed.forms import Outcome
from lonc.delayed.queue import FileAges
from lonc.delayed.sealing import SEALED
from lonc.delayed.spool import Spool
from lonc.disk.files import Changed, Unfinished, Unusable
from lonc.disk.threads import Disk, NoPlace, Stuck

T = TypeVar("T")

#: Seals some files, until there is no more time.
Seal = Callable[[Callable[[], bool]], dict[str, Outcome]]

#: Files in a batch at most, and seconds after which it takes no more of them.
BATCH = 100
SHARE = 0.5

#: Seconds after which it is tried again to seal a file, and to find some among those set aside:
#: there they are in the clear when they are from a time without a key.
TRY_AGAIN = 60.0


class Sealer:
    """
    Seals what is whole.

    :ivar pending: the requests that are not to be sent before they are sealed.
    :param clock: the reactor's time.
    :param has_in_hand: whether a request is being dealt with elsewhere, and to be left alone.
    :param go_on: is told of requests that wait no longer.
    """

    def __init__(
        self,
        clock: IReactorTime,
        disk: Disk,
        file_ages: FileAges,
        has_in_hand: Callable[[str], bool],
        go_on: Callable[[Iterable[str]], None],
        log: Logger,
    ) -> None:
        self.pending: set[str] = set()
        self._clock = clock
        self._disk = disk
        self._file_ages = file_ages
        self._has_in_hand = has_in_hand
        self._go_on = go_on
        self._log = log
        self._spool: Spool | None = None
        self._limit = 0.0
        self._queue: deque[str] = deque()
        self._kept: deque[str] = deque()
        self._next_look = 0.0
        self._failed: dict[str, float] = {}
        self._last_error = ""
        self._place = ""
        self._inside: frozenset[str] = frozenset()

    def clear(self) -> None:
        """Forget what was found, and begin nothing more."""
        self._spool = None
        self.pending = set()
        self._queue.clear()
        self._kept.clear()

    def has(self, name: str) -> bool:
        """Return whether a request is in a batch that has not returned yet, and perhaps hangs."""
        return name in self._inside and self._disk.is_at(self._place)

    def found(
        self,
        spool: Spool,
        limit: float,
        requests: Mapping[str, Sequence[str]],
        plain: AbstractSet[str],
    ) -> None:
        """
        Take over what a scan found.

        :param spool: has a key.
        :param limit: seconds for a disk call.
        :param requests: all names, in order, for each host.
        :param plain: those that are there in the clear.
        """
        now = self._clock.seconds()
        self._spool, self._limit = spool, limit
        self._failed = {name: until for name, until in self._failed.items() if name in plain}
        self.pending = set()
        self._queue.clear()
        if self._disk.is_at(self._place):
            return  # it hangs, or there would be no scan
        ranked: list[tuple[int, str]] = []
        for names in requests.values():
            mine = [name for name in names if name in plain and self._wants(name, now)]
            self.pending.update(mine)
            ranked.extend(enumerate(mine))
        ranked.sort()
        self._queue.extend(name for _, name in ranked if self._file_ages.is_ripe(name, now))

    def _wants(self, name: str, now: float) -> bool:
        return self._failed.get(name, now) <= now and not self._has_in_hand(name)

    async def step(self) -> bool:
        """Make one disk call; return whether there was anything to do."""
        spool, now = self._spool, self._clock.seconds()
        if spool is None or self._disk.is_at(self._place):
            return False
        try:
            if self._queue:
                await self._seal(spool, now)
            elif self._kept:
                await self._batch(spool, self._kept, lambda names: partial(spool.seal_kept, names))
            elif self._next_look <= now:
                self._next_look = now + TRY_AGAIN
                await self._look(spool)
            else:
                return False
        except NoPlace:
            self._give_up()  # those that hang have been named
        except Stuck as stuck:
            self._log.warn("delayed requests are not sealed for now: {why}", why=stuck)
            self._give_up()
        except Exception:
            self._give_up()
            raise
        return True

    async def _seal(self, spool: Spool, now: float) -> None:
        def seal(names: Sequence[str]) -> Seal:
            return partial(spool.seal, {name: self._file_ages.still(name, now) for name in names})

        outcomes = await self._batch(spool, self._queue, seal)
        for name, outcome in outcomes.items():
            if isinstance(outcome, Unfinished):
                self._file_ages.watch({name: outcome.stamp}, now)
            elif not isinstance(outcome, Changed):
                self.pending.discard(name)
            if isinstance(outcome, Unusable | OSError):
                self._failed[name] = now + TRY_AGAIN
        self._go_on(outcomes)

    async def _look(self, spool: Spool) -> None:
        """Find what was set aside in the clear."""
        try:
            self._kept.extend(await self._run(spool, (), spool.kept_in_clear))
        except OSError as error:
            self._tell({spool.kept: error})

    async def _batch(
        self, spool: Spool, queue: deque[str], seal: Callable[[Sequence[str]], Seal]
    ) -> dict[str, Outcome]:
        """Seal the first ones of a queue, as many as time allows."""
        names = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
        work = seal(names)

        def call() -> dict[str, Outcome]:
            ends = self._clock.seconds() + SHARE
            return work(lambda: self._clock.seconds() >= ends)

        outcomes = await self._run(spool, names, call)
        queue.extendleft(name for name in reversed(names) if name not in outcomes)
        self._tell(outcomes)
        return outcomes

    async def _run(self, spool: Spool, names: Iterable[str], call: Callable[[], T]) -> T:
        self._inside = frozenset(names)
        self._place = spool.path(f"*{SEALED}")
        return await self._disk.run(self._place, self._limit, call)

    def _tell(self, outcomes: Mapping[str, Outcome]) -> None:
        """Log what is wrong with the disk, once until it is right again or something else is."""
        errors = {
            name: outcome.strerror or str(outcome)
            for name, outcome in outcomes.items()
            if isinstance(outcome, OSError) and not isinstance(outcome, FileNotFoundError)
        }
        name, error = next(iter(errors.items()), ("", ""))
        if error and error != self._last_error:
            message = "delayed requests cannot be sealed, and stay in the clear: {file}: {error}"
            self._log.error(message, file=name, error=error)
        self._last_error = error

    def _give_up(self) -> None:
        """Let all go that wait, as they are."""
        waiting, self.pending = self.pending, set()
        self._queue.clear()
        self._kept.clear()
        self._go_on(waiting)
