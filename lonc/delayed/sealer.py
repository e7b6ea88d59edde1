"""
Seals the delayed requests of all hosts, those of DEAD and of unknown ones too.

It goes on after each scan of the folder, from file to file, each a disk call of its own, and takes
the first request of every host first. A request is sealed before it is sent, but does not wait
when it cannot be sealed.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, BinaryIO

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lonc.delayed.outbox import is_being_stored
from lonc.delayed.queue import FileAges
from lonc.delayed.sealing import OVERHEAD, SEALED, is_form_of, numbered, seal_parts
from lonc.disk.files import (
    LINKED,
    Changed,
    Stamp,
    StepHook,
    Unfinished,
    Unusable,
    check,
    held_against,
    new_file,
    open_file,
    sync_folder,
)
from lonc.disk.threads import Disk, NoPlace, Stuck

if TYPE_CHECKING:
    from lonc.delayed.spool import Spool

#: Bytes that are sealed at a time.
PART = 1024 * 1024

#: What a form's name ends in while it is written.
SEALING = "~sealing"

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
        self._hangs_at = ""  # the path of the latest disk call that did not return in time

    def clear(self) -> None:
        """Forget what was found, and begin nothing more."""
        self._spool = None
        self.pending = set()
        self._queue.clear()
        self._kept.clear()

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
        if self._disk.is_at(self._hangs_at):
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
        if spool is None or self._disk.is_at(self._hangs_at):
            return False
        try:
            if self._queue:
                await self._seal(spool, self._queue.popleft(), now)
            elif self._kept:
                file = self._kept.popleft()
                path = os.path.join(spool.kept, file)
                await self._try(file, path, partial(spool.seal_kept, file))
            elif self._next_look <= now:
                self._next_look = now + TRY_AGAIN
                await self._try(spool.kept, spool.kept, partial(self._look, spool))
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

    async def _seal(self, spool: Spool, name: str, now: float) -> None:
        if self._has_in_hand(name):  # since the scan
            return
        still = self._file_ages.still(name, now)
        fault = await self._try(name, spool.path(name), partial(spool.seal, name, still))
        if isinstance(fault, Unfinished):
            self._file_ages.watch({name: fault.stamp}, now)
        elif not isinstance(fault, Changed):
            self.pending.discard(name)
        if isinstance(fault, Unusable | OSError):
            self._failed[name] = now + TRY_AGAIN
        self._go_on([name])

    def _look(self, spool: Spool) -> None:
        """Find what was set aside in the clear."""
        self._kept.extend(spool.kept_in_clear())

    async def _try(
        self, file: str, path: str, call: Callable[[], object]
    ) -> Unfinished | Unusable | Changed | OSError | None:
        """Make a disk call for a file; return what was in the way."""
        try:
            await self._disk.run(path, self._limit, call)
        except (Unfinished, Unusable, Changed) as fault:
            return fault
        except Stuck:
            self._hangs_at = path
            raise
        except OSError as error:
            self._tell(file, error)
            return error
        self._failed.pop(file, None)
        if not self._failed:
            self._last_error = ""
        return None

    def _tell(self, file: str, error: OSError) -> None:
        """Log what is wrong with the disk, once until it is right again or something else is."""
        told = error.strerror or str(error)
        if told != self._last_error and not isinstance(error, FileNotFoundError):
            message = "delayed requests cannot be sealed, and stay in the clear: {file}: {error}"
            self._log.error(message, file=file, error=told)
            self._last_error = told

    def _give_up(self) -> None:
        """Let all go that wait, as they are."""
        waiting, self.pending = self.pending, set()
        self._queue.clear()
        self._kept.clear()
        self._go_on(waiting)


# What blocks, and is called in a thread


def seal_file(
    key: bytes, folder: str, name: str, is_whole: Callable[[Stamp], bool], step: StepHook
) -> str:
    """
    Put a sealed form in the place of a file in the clear; return the form's name.

    It is written under another name, synced and renamed, and the folder is synced, before the file
    in the clear goes. So whatever step the machine stops at, one of them is there, or both. When
    both are found it is seen that they are the same, and the one in the clear goes.

    :param is_whole: whether the file is whole in this state without a newline at its end.
    :param step: called before each step on the disk with its name; a test stops there.
    :raise Unfinished: it may still be being written.
    :raise Unusable: it cannot be read, or holds nothing that can be sealed.
    :raise Changed: it has changed meanwhile; it and the form of what it was are there.
    :raise OSError: something else that passes.
    """
    path = os.path.join(folder, name)
    form, stamp = _write_form(key, path, is_whole, step)
    step("sync forms")
    sync_folder(folder)
    check(path, stamp)
    step("remove plain")
    os.unlink(path)
    return form


def _write_form(
    key: bytes, path: str, is_whole: Callable[[Stamp], bool], step: StepHook
) -> tuple[str, Stamp]:
    """Write a file's form, unless it is there; return its name, and of which state it is."""
    folder, name = os.path.split(path)
    with open_file(path, step) as file:
        stamp = Stamp.of(os.fstat(file.fileno()))
        parts = _Parts(file, path, stamp, step)
        if os.fstat(file.fileno()).st_nlink > 1 and not is_being_stored(path, stamp):
            # Somebody may be about to take the other name away, as who stores it may be.
            if is_whole(stamp):
                raise Unusable(LINKED, {name: stamp})
            raise Unfinished(stamp)
        if not is_whole(stamp) and not parts.end_in_newline():
            raise Unfinished(stamp)
        for number in count():
            form = numbered(name, number) + SEALED
            target = os.path.join(folder, form)
            if not os.path.lexists(target):
                break
            if _is_form(key, target, parts, step):
                return form, stamp
        writing = path + SEALING
        with contextlib.suppress(FileNotFoundError):
            os.unlink(writing)  # a crash has left it
        with new_file(writing, "form", step) as made:
            made.writelines(seal_parts(key, name, parts))
            step("look again")
            if Stamp.of(os.fstat(file.fileno())) != stamp:
                raise Unfinished(stamp)
        try:
            step("name form")
            os.rename(writing, target)
        except OSError:
            os.unlink(writing)
            raise
    return form, stamp


def _is_form(key: bytes, form: str, parts: _Parts, step: StepHook) -> bool:
    """Return whether this is a form of the file, as a crash leaves it beside it."""
    try:
        with open_file(form, step) as sealed:
            if os.fstat(sealed.fileno()).st_size != parts.stamp.size + OVERHEAD:
                return False
            return is_form_of(key, os.path.basename(form), sealed, parts)
    except Unusable:
        return False


class _Parts:
    """An open file's content in parts, as often as it is asked for."""

    def __init__(self, file: BinaryIO, path: str, stamp: Stamp, step: StepHook) -> None:
        self.stamp = stamp
        self._file = file
        self._path = path
        self._step = step

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        with held_against(self._path, self.stamp):
            self._step("read request")
            while part := self._file.read(PART):
                yield part

    def end_in_newline(self) -> bool:
        """Return whether there is something, and a newline at its end."""
        if not any(part.strip() for part in self):
            return False
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"
