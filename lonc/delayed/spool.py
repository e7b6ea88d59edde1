"""
The folder of delayed requests (protocol section 6; rows F7 and F8): find, read, remove, set aside.

With a key their sealed forms (see :mod:`lonc.delayed.sealing`) take the place of requests in the
clear.

Everything here blocks, and is called in a thread; nothing here knows a reactor. Whatever step the
machine stops at, a request is in the folder or among those set aside, perhaps in both; in the
clear, or sealed, or both.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from itertools import count

import attrs

from lonc.delayed.names import host_of, is_kept, is_unfinished
from lonc.delayed.outbox import is_being_stored
from lonc.delayed.sealer import seal_file
from lonc.delayed.sealing import OVERHEAD, SEALED, NotAuthentic, numbered, own_name, seal, unseal
from lonc.disk.files import (
    LINKED,
    Changed,
    Files,
    Stamp,
    StepHook,
    Unfinished,
    Unusable,
    check,
    check_own_folder,
    check_owner,
    held_against,
    make_own_folder,
    new_file,
    open_file,
    sync_folder,
)

#: Scans, a second apart, and seconds without a change after which a list of the folder still holds:
#: some file systems have a clock of two seconds.
SETTLED = 3

#: After so many scans the folder is listed though nothing seems to have changed.
LIST_ANYWAY = 60


#: Seconds after which what is half written is the work of a crash. Who stores a request needs a
#: moment; the day is for a disk that hangs, and for clocks that are set.
UNFINISHED_AGE = 86_400.0


@attrs.frozen
class Found:
    """
    What is in the folder.

    :ivar requests: the names of the requests for each host id, in order of name.
    :ivar plain: those of which there is a file in the clear.
    :ivar sealed: those of which there is a sealed form.
    :ivar kept: how many were set aside.
    """

    requests: dict[str, list[str]]
    plain: frozenset[str]
    sealed: frozenset[str]
    kept: int = 0


@attrs.frozen
class Taken:
    """
    A whole request.

    :ivar line: with one newline, at its end.
    :ivar files: what it is in: one file, or its sealed form and then the one in the clear.
    """

    line: bytes
    files: Files


class Spool:
    """
    A folder of delayed requests.

    :ivar folder: where they are.
    :ivar kept: where those go that are set aside; inside ``folder``, and made when needed.
    :ivar key: seals them; None: what is sealed cannot be read, and what is not stays so.
    :param step: called before each step on the disk with its name; a test stops there.
    :param now: gives the Unix time.
    """

    def __init__(
        self,
        folder: str,
        kept: str,
        key: bytes | None = None,
        step: StepHook = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self.folder = folder
        self.kept = kept
        self._found: Found | None = None
        self._last_state: tuple[tuple[int, int, int], ...] = ()
        self._same_scans = 0
        self._kept_changed = 0
        self._kept_count = 0
        self.key = key
        self._step = step

    def path(self, name: str) -> str:
        """Return where a request of this name is."""
        return os.path.join(self.folder, name)

    def scan(self) -> Found:
        """
        Return what is there, the very same record as the last time where nothing has changed.

        No file is opened, and none looked at but what a crash left unfinished: after a day it is
        deleted. A missing folder is made, for its owner and group as far as
        the umask allows: lonnet, which writes here, runs as the same user.

        :raise OSError: the folder can neither be read nor made.
        """
        self._step("scan")
        state = self._state()
        self._same_scans = self._same_scans + 1 if state == self._last_state else 0
        self._last_state = state
        if self._found is not None and self._is_settled(state):
            return self._found
        self._found = None
        self._found = self._list()
        return self._found

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        """Return what is different once a name has come or gone, here or among those set aside."""
        found = []
        for folder in (self.folder, self.kept):
            with contextlib.suppress(OSError):
                info = os.lstat(folder)
                found.append((info.st_ino, info.st_mtime_ns, info.st_ctime_ns))
        return tuple(found)

    def _is_settled(self, state: tuple[tuple[int, int, int], ...]) -> bool:
        """
        Return whether there can have been no change since the last list.

        One within the same tick of a file system's clock leaves no trace, so the list counts only
        when it was made well after the last change, by this machine's clock and by the number of
        scans. Every now and then it is made anyway.
        """
        if self._same_scans < SETTLED or self._same_scans % LIST_ANYWAY == 0:
            return False
        newest = max((max(mtime, ctime) for _, mtime, ctime in state), default=0)
        return newest < (self._now() - SETTLED) * 1e9

    def _list(self) -> Found:
        files = [] if make_own_folder(self.folder, 0o770) else os.listdir(self.folder)
        requests: dict[str, set[str]] = {}
        forms: dict[bool, list[str]] = {True: [], False: []}
        for file in files:
            if is_unfinished(file):
                self._clear_old(self.path(file))
                continue
            name = file.removesuffix(SEALED)
            is_sealed = name != file
            host_id = host_of(own_name(file) if is_sealed else file)
            if host_id is not None:
                requests.setdefault(host_id, set()).add(name)
                forms[is_sealed].append(name)
        return Found(
            # What has the form is ASCII: the order is that of the bytes.
            {host_id: sorted(names) for host_id, names in sorted(requests.items())},
            plain=frozenset(forms[False]),
            sealed=frozenset(forms[True]),
            kept=self._count_kept() if os.path.basename(self.kept) in files else 0,
        )

    def _count_kept(self) -> int:
        """Count what was set aside; the folder is looked at when it has changed."""
        with contextlib.suppress(OSError):  # there is no such folder, or none of ours
            check_own_folder(self.kept)
            changed = os.lstat(self.kept).st_mtime_ns
            if changed != self._kept_changed:
                # A change within the same tick of the clock is seen with the next scan.
                self._kept_changed = changed if changed < time.time_ns() - 10**9 else 0
                self._kept_count = sum(map(is_kept, os.listdir(self.kept)))
            return self._kept_count
        return 0

    def _clear_old(self, path: str) -> None:
        with contextlib.suppress(OSError):  # who writes it has named it meanwhile; or it stays
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode) and info.st_mtime < self._now() - UNFINISHED_AGE:
                self._step("remove unfinished")
                os.unlink(path)

    # ------------------------------------------------------------------ reading

    def take(self, name: str, max_line: int, still: Stamp | None = None) -> Taken:
        """
        Read a request (row F7), its sealed form first.

        :param max_line: bytes that its line may have, the newline not counted.
        :param still: a state in which the file has been long enough to be whole as it is.
        :raise Unfinished: it has no newline at its end yet, or nothing in it.
        :raise Unusable: it cannot be read, or holds no request that can be sent.
        :raise FileNotFoundError: it has gone.
        :raise OSError: something else that passes.
        """
        if self.key is not None:
            with contextlib.suppress(FileNotFoundError):
                return self._take_sealed(self.key, name, max_line)
        data, stamp, links = self._content(name, max_line)
        is_linked = links > 1 and not is_being_stored(self.path(name), stamp)
        if stamp != still and (is_linked or not (data.endswith(b"\n") and data.strip())):
            raise Unfinished(stamp)
        if is_linked:  # of what lonc may read and its other user may not, for all we know
            raise Unusable(LINKED, {name: stamp})
        return _taken(data, {name: stamp})

    def _take_sealed(self, key: bytes, name: str, max_line: int) -> Taken:
        data, stamp, _ = self._content(name + SEALED, max_line, OVERHEAD)
        files = {name + SEALED: stamp}
        try:
            content = unseal(key, name, data)
        except NotAuthentic as fault:
            raise Unusable(str(fault), files) from None
        with contextlib.suppress(FileNotFoundError, Unusable, Unfinished):
            plain, stamp, _ = self._content(name, max_line)
            if plain == content:
                files[name] = stamp
        return _taken(content, files)

    def _content(self, file: str, max_line: int, overhead: int = 0) -> tuple[bytes, Stamp, int]:
        """Read a file as a whole; return its content, its state, and how many names it has."""
        path = self.path(file)
        limit = max_line + 1 + overhead
        with open_file(path, self._step) as opened:
            before = Stamp.of(os.fstat(opened.fileno()))
            with held_against(path, before):
                data = opened.read(limit + 1)
            self._step("look again")
            info = os.fstat(opened.fileno())
            stamp = Stamp.of(info)
        if len(data) > limit:
            raise Unusable(f"it is longer than the limit of {max_line} bytes", {file: stamp})
        if stamp != before:
            raise Unfinished(stamp)
        return data, stamp, info.st_nlink

    def stamps(self, names: Iterable[str]) -> Files:
        """Return the states in which requests in the clear are now; no file is opened."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError):
                found[name] = Stamp.of(os.lstat(self.path(name)))
        return found

    # ------------------------------------------------------------------ clearing away

    def remove(self, files: Files) -> None:
        """
        Delete a request that is done with; what has been deleted is taken out of ``files``.

        :raise Changed: what was written meanwhile has not been sent.
        :raise OSError: it cannot be deleted.
        """
        for file, stamp in list(files.items()):
            with contextlib.suppress(FileNotFoundError):
                check(self.path(file), stamp)
                self._step("remove request")
                os.unlink(self.path(file))
            del files[file]

    def keep(self, name: str, files: Files, ending: str, note: bytes) -> str:
        """
        Set a request aside with a note beside it (row F8), both sealed if there is a key.

        What bears the name there already stays: the new one gets ``~1``, ``~2`` and so on.

        :param files: is kept true to the disk: a sealed form takes the place of what it is of.
        :param ending: :data:`ANSWER` or :data:`REASON`, what the note's name ends in.
        :return: the request's new path.
        :raise Changed: it is not in that state any more.
        :raise OSError: it cannot be moved, or has gone, or a power failure may still undo the move.
        """
        for file, stamp in files.items():
            check(self.path(file), stamp)
        if self.key is not None and name in files:
            self._seal_one(name, files)
        self._step("make kept")
        if make_own_folder(self.kept, 0o700):
            sync_folder(self.folder)
        check_owner(self.kept)
        target, note_path = self._write_note(own_name(name), ending, note)
        file = next(iter(files))
        if file.endswith(SEALED):
            target += SEALED
        try:
            self._step("move request")
            os.rename(self.path(file), target)
        except OSError:
            os.unlink(note_path)
            raise
        self._step("close request to others")
        # Not sooner: nobody else can put a link in its place here.
        info = os.lstat(target)
        if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
            with contextlib.suppress(PermissionError):  # it is another user's
                os.chmod(target, 0o600)
        self._step("sync kept")
        sync_folder(self.kept)
        self._step("sync folder")
        sync_folder(self.folder)
        return target

    def _seal_one(self, name: str, files: Files) -> None:
        """Let a sealed form take the place of a request in the clear, if it can be read."""
        try:
            form = self.seal(name, files[name])
        except Unfinished:
            raise Changed(f"{self.path(name)} has changed since it was read") from None
        except Unusable:
            return
        files.clear()
        files[form] = Stamp.of(os.lstat(self.path(form)))

    def _write_note(self, name: str, ending: str, note: bytes) -> tuple[str, str]:
        """Write the note under the first free name; return the request's path and its own."""
        for number in count():
            target = os.path.join(self.kept, numbered(name, number))
            if os.path.lexists(target) or os.path.lexists(target + SEALED):
                continue
            path = target + ending + ("" if self.key is None else SEALED)
            with contextlib.suppress(FileExistsError), new_file(path, "note", self._step) as file:
                file.write(note if self.key is None else seal(self.key, path, note))
                break
        return target, path

    # ------------------------------------------------------------------ sealing

    def seal(self, name: str, still: Stamp | None) -> str:
        """
        Put a sealed form in the place of a request in the clear; return the form's name.

        :param still: a state in which the file has been long enough to be whole as it is.
        :raise: what :func:`lonc.delayed.sealer.seal_file` raises.
        """
        assert self.key is not None
        return seal_file(self.key, self.folder, name, lambda stamp: stamp == still, self._step)

    def kept_in_clear(self) -> list[str]:
        """
        Return the names of those files, notes included, that were set aside and are not sealed.

        :raise OSError: the folder cannot be read.
        """
        try:
            check_own_folder(self.kept)
        except FileNotFoundError:
            return []
        files = os.listdir(self.kept)
        return [
            file
            for file in sorted(files)
            if not file.endswith(SEALED) and host_of(own_name(file)) is not None
        ]

    def seal_kept(self, file: str) -> str:
        """Seal such a file; otherwise like :meth:`seal`."""
        assert self.key is not None
        return seal_file(self.key, self.kept, file, lambda _: True, self._step)


def _taken(data: bytes, files: Files) -> Taken:
    if not data.strip():
        raise Unusable("it is empty", files)
    line, _, rest = data.lstrip(b"\n").partition(b"\n")
    if rest.strip():
        # Sending the first and deleting the file would lose the others.
        raise Unusable("it holds more than one line", files)
    return Taken(line + b"\n", files)
