"""
Delayed requests and those that are kept, for people: list them, look into one, drop it, send it
again (rows F7 and F8).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import attrs

from lonc.delayed.names import (
    KEPT_FOLDER,
    NOTES,
    SEALED_FOLDER,
    Order,
    host_of_file,
    is_kept,
    name_of,
    order,
    stored_at,
)
from lonc.delayed.sealing import SEALED, NotAuthentic, own_name, unseal
from lonc.delayed.spool import Spool
from lonc.delayed.states import StoredRequest
from lonc.disk.files import Unusable, check_own_folder, open_file, sync_folder
from lonc.disk.threads import Disk
from lonc.report.records import DelayedStatus
from lonc.wire.escaping import to_text
from lonc.wire.request import command_word

#: Bytes of a request or an answer that are looked at for a listing: a command word, or a reason.
_HEAD: Final = 256

#: Rows at a time: more than fit into an answer of the management port.
MOST: Final = 200

#: In whose name people's looks at the folder are done.
LISTING: Final = "listing"

#: Two requests of one name are not put back at the same time: one would take the other's place.
_ONE_AT_A_TIME: Final = threading.Lock()

T = TypeVar("T")


class UnknownRequest(Exception):
    """There is no such delayed request, or it cannot be looked into; the message says why."""


@attrs.define(eq=False)
class DelayedRequests:
    """
    The delayed requests of the daemon: each call to the disk in a thread, with a time limit.

    :param spool: gives the folder in use.
    :param limit: gives the seconds for a disk call.
    :param requests: gives what is known of each file.
    :param is_in_hand: whether a request is being dealt with, and to be left alone.
    :param is_known: whether the table has a host.
    :param retry: tries a host's requests at once; None: those of all hosts.
    """

    _disk: Disk
    _spool: Callable[[], Spool]
    _limit: Callable[[], float]
    _requests: Callable[[], Iterable[StoredRequest]]
    _is_in_hand: Callable[[StoredRequest], bool]
    _is_known: Callable[[str], bool]
    retry: Callable[[str | None], None]

    async def listed(self, host_id: str | None, after: str = "") -> Sequence[DelayedStatus]:
        """
        List delayed requests and those kept, as many as there is room for; None: of all hosts.

        :param after: leave out those up to this one.
        :raise OSError: the folder cannot be read.
        :raise lonc.disk.threads.Stuck: not within the disk timeout.
        """
        tries = {each.file: (each.tries, self._outcome(each)) for each in self._requests()}
        return await self._run(partial(self._listing().rows, host_id, tries, after))

    def _outcome(self, request: StoredRequest) -> str:
        if not self._is_known(request.host_id):
            return f"the host table has no {request.host_id}"
        if request.is_locked:
            return "it is sealed, and no key is set"
        return request.outcome

    async def show(self, file: str, limit: int) -> tuple[bytes, bool]:
        """
        Return the beginning of a request, and whether it goes on; errors as of :meth:`listed`.

        :raise UnknownRequest: there is none of that name.
        """
        return await self._run(partial(self._listing().show, file, limit))

    async def drop(self, file: str) -> None:
        """
        Delete a request; errors as of :meth:`show`.

        :raise UnknownRequest: it is being sent, too.
        """
        if not file.startswith(KEPT_FOLDER):
            twins = (each for each in self._requests() if name_of(each.file) == name_of(file))
            if any(self._is_in_hand(each) for each in twins):
                raise UnknownRequest(f"{file} is being sent")
        await self._run(partial(self._listing().drop, file), self._spool().path(file))

    async def requeue(self, file: str) -> None:
        """Put a request that is kept back among those that are sent; errors as of :meth:`show`."""
        await self._run(partial(self._listing().requeue, file))

    def _listing(self) -> Listing:
        return Listing(self._spool())

    async def _run(self, work: Callable[[], T], path: str = LISTING) -> T:
        return await self._disk.run(path, self._limit(), work)


@attrs.frozen
class Listing:
    """
    The folder of delayed requests, with those inside it; all of this blocks.

    :ivar spool: where they are, with the key.
    :ivar now: gives the Unix time.
    """

    spool: Spool
    now: Callable[[], float] = time.time

    def rows(
        self, host_id: str | None, tries: Mapping[str, tuple[int, str]], after: str = ""
    ) -> list[DelayedStatus]:
        """
        List them in the order in which they are sent, then those kept, :data:`MOST` at most.

        :param host_id: of which host; None: of all.
        :param tries: for each file that was tried: how often, and what came of it last.
        :param after: leave out those up to this one.
        :raise OSError: the folder cannot be read.
        """
        kept = set(self._names(KEPT_FOLDER))
        waiting = [*self._names(""), *self._names(SEALED_FOLDER)]
        sealed = {name_of(file) for file in waiting if file.endswith(SEALED)}
        files = [
            # What is there sealed as well is the same request.
            *(x for x in waiting if x.endswith(SEALED) or name_of(x) not in sealed),
            *filter(is_kept, kept),
        ]
        behind = _place(after) if after else None
        wanted = sorted(
            place
            for place in map(_place, files)
            if (behind is None or place > behind)
            and (host := host_of_file(place[1][-1])) is not None
            and host_id in (None, host)
        )
        rows: list[DelayedStatus] = []
        now = self.now()  # the same for all: by age they stay in their order
        for _, (*_, file) in islice(wanted, MOST):
            with contextlib.suppress(OSError):  # it has gone meanwhile
                rows.append(self._row(file, now, kept, tries))
        return rows

    def _names(self, folder: str) -> list[str]:
        """Return the files of a folder."""
        names = self.spool.names(self.spool.path(folder.rstrip("/")))
        return [folder + name for name in names]

    def _row(
        self, file: str, now: float, kept: set[str], tries: Mapping[str, tuple[int, str]]
    ) -> DelayedStatus:
        count, last = tries.get(file, (0, ""))
        return DelayedStatus(
            file=file,
            host_id=host_of_file(file) or "",
            command=self._command(file),
            age=max(0.0, now - stored_at(file)),
            size=os.lstat(self.spool.path(file)).st_size,
            tries=count,
            last_answer=last or self._note(file, kept),
            kept=file.startswith(KEPT_FOLDER),
        )

    def _command(self, file: str) -> str:
        try:
            return command_word(self._content(file, _HEAD))
        except (UnknownRequest, OSError):
            return ""

    def _note(self, file: str, kept: set[str]) -> str:
        """Return what stands beside a request that is kept."""
        for beside in _notes(file):
            if beside in kept:
                with contextlib.suppress(UnknownRequest, OSError):
                    note = self._content(beside, _HEAD)
                    return to_text(note.strip())
        return ""

    def show(self, file: str, limit: int) -> tuple[bytes, bool]:
        """
        Return the beginning of a request, and whether it goes on.

        :param limit: bytes.
        :raise UnknownRequest: there is none of that name, or it cannot be read.
        """
        self._check(file, [file])
        try:
            content = self._content(file, limit + 1)
        except OSError as error:
            raise UnknownRequest(f"{file}: {error.strerror}") from None
        return content[:limit], len(content) > limit

    def _content(self, file: str, limit: int) -> bytes:
        """Return the beginning of a file, or all of it where it is sealed."""
        is_sealed, key = file.endswith(SEALED), self.spool.key
        if is_sealed and key is None:
            raise UnknownRequest(f"{file} is sealed, and there is no key (loncDelayedKeyFile)")
        path = self.spool.path(file)
        try:
            with open_file(path, self.spool.step) as opened:
                data = opened.read(-1 if is_sealed else limit)
            return unseal(key, path, data)[:limit] if key and is_sealed else data
        except (Unusable, NotAuthentic) as error:
            raise UnknownRequest(f"{file}: {error}") from None

    def drop(self, file: str) -> None:
        """
        Delete a request, and what stands beside it.

        What an earlier call left, since the machine stopped, goes as well.

        :raise UnknownRequest: there is none of that name.
        :raise OSError: it cannot be deleted.
        """
        name = name_of(file)
        if file.startswith(KEPT_FOLDER):
            forms = [KEPT_FOLDER + name, KEPT_FOLDER + name + SEALED, *_notes(file)]
        else:
            forms = [name, name + SEALED, SEALED_FOLDER + name + SEALED]
        self._check(file, forms)
        self._delete(forms)
        for folder in {os.path.dirname(form) for form in forms}:
            with contextlib.suppress(FileNotFoundError):
                sync_folder(self.spool.path(folder))

    def requeue(self, file: str) -> str:
        """
        Put a request that is kept back among those that are sent; return its name there.

        What an earlier call left undone, since the machine stopped, is done as well.

        :raise UnknownRequest: it is not kept, or one of its name waits already.
        :raise OSError: it cannot be moved.
        """
        notes = _notes(file)
        self._check(file, [file, *notes])
        if not file.startswith(KEPT_FOLDER):
            raise UnknownRequest(f"{file} is not kept: it is sent by itself")
        target = own_name(file) + (SEALED if file.endswith(SEALED) else "")
        with _ONE_AT_A_TIME:
            if os.path.lexists(self.spool.path(file)):  # else only its notes are left
                self._move_back(file, target)
        self.spool.step("sync folder")
        sync_folder(self.spool.folder)
        self.spool.step("sync kept")
        sync_folder(self.spool.path(KEPT_FOLDER))
        self._delete(notes)
        return target

    def _move_back(self, file: str, target: str) -> None:
        path, target_path = self.spool.path(file), self.spool.path(target)
        info = os.lstat(path)
        for link in self._links(info) if info.st_nlink > 1 else ():
            if link != file and own_name(link) == own_name(file):
                # Left by a lonc that stopped when the request had both names.
                self._delete([link, *_notes(link)] if link.startswith(KEPT_FOLDER) else [link])
        if os.path.lexists(target_path):
            raise UnknownRequest(f"{target} waits already: drop one of the two")
        self.spool.step("move request")
        os.rename(path, target_path)

    def _links(self, info: os.stat_result) -> list[str]:
        """Return the files, waiting or kept, that are this one."""
        found = []
        for file in [*self._names(""), *self._names(KEPT_FOLDER)]:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(self.spool.path(file)), info):
                    found.append(file)
        return found

    def _delete(self, files: Iterable[str]) -> None:
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                self.spool.step("delete")
                os.unlink(self.spool.path(file))

    def _check(self, file: str, forms: Iterable[str]) -> None:
        """
        See that a name is one of a request, and of nothing else that is or is not there.

        :param forms: what may be there of it.
        :raise OSError: its folder is a link, or no folder.
        """
        folder = os.path.dirname(file)
        if folder not in ("", SEALED_FOLDER[:-1], KEPT_FOLDER[:-1]) or host_of_file(file) is None:
            raise UnknownRequest(f"{file} is not the name of a delayed request")
        with contextlib.suppress(FileNotFoundError):
            check_own_folder(self.spool.folder)
            check_own_folder(self.spool.path(folder))
        if not any(os.path.lexists(self.spool.path(form)) for form in forms):
            raise UnknownRequest(f"there is no delayed request {file}")


def _place(file: str) -> tuple[bool, Order]:
    """Return by what files are listed: those kept come last."""
    return file.startswith(KEPT_FOLDER), order(file)


def _notes(file: str) -> list[str]:
    return [file.removesuffix(SEALED) + ending for ending in NOTES]
