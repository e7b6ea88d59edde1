"""
Listing, showing, dropping and requeueing delayed and kept requests, for administrators (rows F7
and F8).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final

import attrs

from lonc.delayed.names import (
    KEPT_FOLDER,
    NOTES,
    SEALED,
    SEALED_FOLDER,
    Order,
    host_of_file,
    is_kept,
    name_of,
    order,
    own_name,
    stored_at,
)
from lonc.delayed.sealing import NotAuthentic, unseal
from lonc.delayed.spool import Spool
from lonc.disk.files import Unusable, check_own_folder, open_file, sync_folder
from lonc.report.records import DelayedStatus
from lonc.wire.escaping import to_text
from lonc.wire.request import command_word

#: Bytes of a file that are read for a listing: a command word, or a reason.
_HEAD: Final = 256

#: Rows returned at a time: more than fit into an answer of the management port.
MOST: Final = 200

#: Requeueing is serialised: of two requests with one name, one would replace the other.
_ONE_AT_A_TIME: Final = threading.Lock()


class UnknownRequest(Exception):
    """There is no such delayed request, or it cannot be read; the message says why."""


@attrs.frozen
class Listing:
    """
    The folder of delayed requests, with its subfolders; all methods block.

    :ivar spool: the folder, with the key.
    :ivar now: returns the Unix time.
    """

    spool: Spool
    now: Callable[[], float] = time.time

    def rows(
        self, host_id: str | None, tries: Mapping[str, tuple[int, str]], after: str = ""
    ) -> list[DelayedStatus]:
        """
        List them in the order in which they are sent, then those kept, at most :data:`MOST`.

        :param host_id: None for all hosts.
        :param tries: for each file, the number of attempts and the last result.
        :param after: only those after this one.
        :raises OSError: the folder cannot be read.
        """
        kept = set(self.spool.files(KEPT_FOLDER))
        waiting = [*self.spool.files(""), *self.spool.files(SEALED_FOLDER)]
        sealed = {name_of(file) for file in waiting if file.endswith(SEALED)}
        files = [
            # Without those that also exist sealed, which are the same request.
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
        now = self.now()  # the same for all rows, to keep their order by age
        for _, (*_, file) in islice(wanted, MOST):
            with contextlib.suppress(OSError):  # deleted meanwhile
                rows.append(self._row(file, now, kept, tries))
        return rows

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
        """Return the note beside a kept request."""
        for beside in _notes(file):
            if beside in kept:
                with contextlib.suppress(UnknownRequest, OSError):
                    note = self._content(beside, _HEAD)
                    return to_text(note.strip())
        return ""

    def show(self, file: str, limit: int) -> tuple[bytes, bool]:
        """
        Return the beginning of a request, and whether it was cut.

        :param limit: number of bytes.
        :raises UnknownRequest: there is no such request, or it cannot be read.
        """
        self._check(file, [file])
        try:
            content = self._content(file, limit + 1)
        except OSError as error:
            raise UnknownRequest(f"{file}: {error.strerror}") from None
        return content[:limit], len(content) > limit

    def _content(self, file: str, limit: int) -> bytes:
        """Return the beginning of a file, decrypted if it is sealed."""
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
        Delete a request and its notes, and also what an interrupted call left.

        :raises UnknownRequest: there is no such request.
        :raises OSError: it cannot be deleted.
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
        Move a kept request back to those that are sent; return its name there.

        This also completes an interrupted call.

        :raises UnknownRequest: it is not kept, or one with its name is waiting already.
        :raises OSError: it cannot be moved.
        """
        notes = _notes(file)
        self._check(file, [file, *notes])
        if not file.startswith(KEPT_FOLDER):
            raise UnknownRequest(f"{file} is not kept: it is sent by itself")
        target = own_name(file) + (SEALED if file.endswith(SEALED) else "")
        with _ONE_AT_A_TIME:
            if os.path.lexists(self.spool.path(file)):  # otherwise only its notes are left
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
                # An interrupted lonc left the request under both names.
                self._delete([link, *_notes(link)] if link.startswith(KEPT_FOLDER) else [link])
        if os.path.lexists(target_path):
            raise UnknownRequest(f"{target} waits already: drop one of the two")
        self.spool.step("move request")
        os.rename(path, target_path)

    def _links(self, info: os.stat_result) -> list[str]:
        """Return all names of this file, waiting or kept."""
        found = []
        for file in [*self.spool.files(""), *self.spool.files(KEPT_FOLDER)]:
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
        Check that a name is that of an existing request.

        :param forms: files of which at least one must exist.
        :raises UnknownRequest: it is not.
        :raises OSError: its folder is a link, or not a folder.
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
    """Return the sort key of a listing: kept requests come last."""
    return file.startswith(KEPT_FOLDER), order(file)


def _notes(file: str) -> list[str]:
    return [file.removesuffix(SEALED) + ending for ending in NOTES]
