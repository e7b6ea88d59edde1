"""
Delayed requests and those that are kept, for people: list them, look into one, drop it, send it
again (rows F7 and F8).

Everything here blocks, and is called in a thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

import attrs

from lonc.delayed.names import ANSWER, REASON, host_of, is_kept, stored_at
from lonc.delayed.sealing import SEALED, NotAuthentic, own_name, unseal
from lonc.disk.files import Unusable, check_own_folder, open_file, sync_folder
from lonc.report.records import DelayedStatus
from lonc.wire.request import command_word

#: Bytes of a request or an answer that are looked at for a listing: a command word, or a reason.
_HEAD: Final = 256

#: Rows at a time: more than fit into an answer of the management port.
MOST: Final = 1000

#: The prefix of what is kept, in a listing.
KEPT: Final = "kept/"


class UnknownRequest(Exception):
    """There is no such delayed request, or it cannot be looked into; the message says why."""


@attrs.frozen
class Listing:
    """
    A folder of delayed requests, with that of those kept inside it.

    :ivar folder: where they are.
    :ivar key: seals them; None where there is none.
    :ivar now: gives the Unix time.
    """

    folder: str
    key: bytes | None
    now: Callable[[], float]

    def rows(
        self, host_id: str | None, tries: Mapping[str, tuple[int, str]], after: str = ""
    ) -> list[DelayedStatus]:
        """
        List them in the order of their names, :data:`MOST` at most.

        :param host_id: of which host; None: of all.
        :param tries: for the names of those that were tried: how often, and what came of it last.
        :param after: leave out those up to this one.
        :raise OSError: the folder cannot be read.
        """
        rows: list[DelayedStatus] = []
        for prefix in ("", KEPT):
            there = self._names(prefix)
            names = [name for name in sorted(there) if prefix + name > after]
            wanted = (name for name in names if self._is_request(name, prefix, host_id, there))
            for name in islice(wanted, MOST - len(rows)):
                with contextlib.suppress(OSError):  # it has gone meanwhile
                    rows.append(self._row(prefix, name, there, {} if prefix else tries))
        return rows

    def _names(self, prefix: str) -> set[str]:
        try:
            check_own_folder(self._path(prefix))
        except FileNotFoundError:
            return set()
        return set(os.listdir(self._path(prefix)))

    def _is_request(self, file: str, prefix: str, host_id: str | None, there: set[str]) -> bool:
        host = host_of(own_name(file))
        if host is None or host_id not in (None, host) or (prefix and not is_kept(file)):
            return False
        return file.endswith(SEALED) or file + SEALED not in there  # else the same request

    def _row(
        self, prefix: str, file: str, there: set[str], tries: Mapping[str, tuple[int, str]]
    ) -> DelayedStatus:
        name = own_name(file)
        count, last = tries.get(file.removesuffix(SEALED), (0, ""))
        return DelayedStatus(
            file=prefix + file,
            host_id=host_of(name) or "",
            command=self._command(prefix + file),
            age=max(0.0, self.now() - stored_at(name)),
            size=os.lstat(self._path(prefix + file)).st_size,
            tries=count,
            last_answer=last or self._note(prefix + file, there),
            kept=bool(prefix),
        )

    def _command(self, file: str) -> str:
        try:
            return command_word(self._content(file, _HEAD))
        except (UnknownRequest, OSError):
            return ""

    def _note(self, file: str, files: set[str]) -> str:
        """Return what stands beside a request that is kept."""
        for ending in (ANSWER, REASON, ANSWER + SEALED, REASON + SEALED):
            beside = file.removesuffix(SEALED) + ending
            if os.path.basename(beside) in files:
                with contextlib.suppress(UnknownRequest, OSError):
                    note = self._content(beside, _HEAD)
                    return note.strip().decode("utf-8", "backslashreplace")
        return ""

    def show(self, file: str, limit: int) -> tuple[bytes, bool]:
        """
        Return the beginning of a request, and whether it goes on.

        :param limit: bytes.
        :raise UnknownRequest: there is none of that name, or it cannot be read.
        """
        self._check(file)
        try:
            content = self._content(file, limit + 1)
        except OSError as error:
            raise UnknownRequest(f"{file}: {error.strerror}") from None
        return content[:limit], len(content) > limit

    def _content(self, file: str, limit: int) -> bytes:
        """Return the beginning of a file, or all of it where it is sealed."""
        is_sealed = file.endswith(SEALED)
        if is_sealed and self.key is None:
            raise UnknownRequest(f"{file} is sealed, and there is no key (loncDelayedKeyFile)")
        path = self._path(file)
        try:
            with open_file(path, lambda step: None) as opened:
                data = opened.read(-1 if is_sealed else limit)
            return unseal(self.key, path, data)[:limit] if self.key and is_sealed else data
        except Unusable as error:
            raise UnknownRequest(f"{file}: {error}") from None
        except NotAuthentic as error:
            raise UnknownRequest(f"{file}: {error}") from None

    def drop(self, file: str) -> None:
        """
        Delete a request, and what stands beside it.

        :raise UnknownRequest: there is none of that name.
        :raise OSError: it cannot be deleted.
        """
        self._check(file)
        other = file.removesuffix(SEALED)
        for form in (other, other + SEALED):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(form))
        if file.startswith(KEPT):
            self._drop_notes(other)
        sync_folder(self._path(os.path.dirname(file)))

    def requeue(self, file: str) -> str:
        """
        Put a request that is kept back among those that are sent; return its name there.

        :raise UnknownRequest: it is not kept, or one of its name waits already.
        :raise OSError: it cannot be moved.
        """
        self._check(file)
        if not file.startswith(KEPT):
            raise UnknownRequest(f"{file} is not kept: it is sent by itself")
        sealed = SEALED if file.endswith(SEALED) else ""
        target = own_name(file) + sealed
        try:
            os.link(self._path(file), self._path(target), follow_symlinks=False)
        except FileExistsError:
            raise UnknownRequest(f"{target} waits already: drop one of the two") from None
        # Synced before the other name goes: whatever happens it is in one of the two.
        sync_folder(self.folder)
        os.unlink(self._path(file))
        self._drop_notes(file.removesuffix(SEALED))
        sync_folder(self._path(KEPT))
        return target

    def _drop_notes(self, file: str) -> None:
        for ending in (ANSWER, REASON, ANSWER + SEALED, REASON + SEALED):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(file + ending))

    def _check(self, file: str) -> None:
        """See that a name is one of a request, and of nothing else that is or is not there."""
        name = file.removeprefix(KEPT)
        if "/" in name or host_of(own_name(name)) is None:
            raise UnknownRequest(f"{file} is not the name of a delayed request")
        if not os.path.lexists(self._path(file)):
            raise UnknownRequest(f"there is no delayed request {file}")

    def _path(self, file: str) -> str:
        return os.path.join(self.folder, file)
