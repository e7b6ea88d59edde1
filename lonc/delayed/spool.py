"""
The folder of delayed requests (protocol section 6; rows F7 and F8): finding, reading, sealing,
removing and setting aside files.

Programs write requests to the folder itself. With a key, lonc seals each of them into a subfolder
(see :mod:`lonc.delayed.sealing`); without one it sends them from where they are. Requests that it
will not send are moved to another subfolder.

All methods block, and are called in a thread; this module uses no reactor. At whatever step the
machine stops, a request is in one of these folders, or in two.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import attrs

from lonc.delayed.names import (
    KEPT_FOLDER,
    NOTES,
    SEALED,
    SEALED_FOLDER,
    has_another_name,
    host_of,
    host_of_file,
    is_kept,
    is_unfinished,
    numbered,
    order,
    own_name,
)
from lonc.delayed.sealing import (
    OVERHEAD,
    NotAuthentic,
    PlainStays,
    free_name,
    seal,
    seal_file,
    unseal,
)
from lonc.disk.files import (
    LINKED,
    Changed,
    Files,
    RestingFolder,
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
from lonc.report.problems import Problem, problem

#: Seconds after which an unfinished file must have been left by a crash. Storing a request takes a
#: moment; a day allows for hanging disks and clock changes.
UNFINISHED_AGE = 86_400.0

#: The mode of the folder of sealed requests: programs in the folder's group, which store requests,
#: may check whether one of theirs is there.
SEALED_MODE = 0o710


@attrs.frozen
class Found:
    """
    The result of a scan.

    :ivar requests: host id -> files of its requests, in the order in which they are sent.
    :ivar unsealed: number of files where programs store requests.
    :ivar kept: number of requests that were set aside.
    """

    requests: dict[str, list[str]]
    unsealed: int = 0
    kept: int = 0


class Spool:
    """
    A folder of delayed requests.

    :ivar folder: the folder where programs store them.
    :ivar sealed: the subfolder of sealed ones, created when needed.
    :ivar kept: the subfolder of those set aside, created when needed.
    :ivar key: the key; None if files are neither sealed nor unsealed.
    :ivar faults: problems of the folders at the last scan.
    :ivar step: called with the name of each step on the disk before it; used by tests.
    :param now: returns the Unix time.
    """

    def __init__(
        self,
        folder: str,
        key: bytes | None = None,
        step: StepHook = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self.folder = folder
        self.sealed = self.path(SEALED_FOLDER.rstrip("/"))
        self.kept = self.path(KEPT_FOLDER.rstrip("/"))
        self.key = key
        self.faults: list[Problem] = []
        self.step = step
        self._found: Found | None = None
        self._resting = RestingFolder()

    def path(self, file: str) -> str:
        """Return the absolute path of a file."""
        return os.path.join(self.folder, file)

    def scan(self) -> Found:
        """
        Return the content; the same object as the last time if nothing has changed.

        No file is opened. Unfinished files left by a crash are deleted after a day. A missing
        folder is created with mode 0770, subject to the umask: lonnet, which writes here, runs as
        the same user.

        :raises OSError: the folder can neither be read nor created.
        """
        self.step("scan")
        self.faults = []
        if not self._resting.rests(self.folder, self.sealed, self.kept):
            self._found = None
        if self._found is None:
            self._found = self._list()
        for folder in (self.folder, self.sealed, self.kept):
            self._check_folder(folder)
        return self._found

    def _check_folder(self, folder: str) -> None:
        """Record problems with access to a folder."""
        try:
            check_own_folder(folder)
            if folder != self.folder:
                check_owner(folder)
            # Only if the two differ: not every system supports checks for the effective user.
            effective = os.geteuid() != os.getuid()
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=effective):
                raise PermissionError(errno.EACCES, "lonc may not read and write there")
        except FileNotFoundError:
            return  # created when needed
        except OSError as error:
            what = f"{folder}: {error.strerror}"
            self.faults.append(problem("delayed-folder", folder, what))
            return
        disk = os.statvfs(folder)
        if folder == self.folder and (disk.f_bavail == 0 or (disk.f_files and not disk.f_favail)):
            what = f"the disk of {folder} is full"
            self.faults.append(problem("delayed-disk-full", folder, what))

    def _list(self) -> Found:
        there = [] if make_own_folder(self.folder, 0o770) else os.listdir(self.folder)
        stored = [*self._requests(there)]
        sealed: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(self.sealed).st_mode):  # otherwise it is among the faults
                sealed += self._requests(self.files(SEALED_FOLDER))
        kept = 0
        with contextlib.suppress(OSError):  # which is among the faults
            kept = sum(map(is_kept, self.files(KEPT_FOLDER)))
        requests: dict[str, list[str]] = {}
        for file in sorted([*stored, *sealed], key=order):
            requests.setdefault(host_of_file(file) or "", []).append(file)
        return Found(requests, len(stored), kept)

    def files(self, folder: str) -> list[str]:
        """
        List the folder or, by its name with a slash, one of its subfolders, which may be missing.

        :raises OSError: it cannot be read, or is a link.
        """
        path = self.path(folder.rstrip("/"))
        try:
            check_own_folder(path)
        except FileNotFoundError:
            return []
        return [folder + name for name in os.listdir(path)]

    def _requests(self, files: Iterable[str]) -> Iterator[str]:
        """Select the requests, and delete old unfinished files."""
        for file in files:
            if is_unfinished(os.path.basename(file)):
                self._clear_old(self.path(file))
            elif host_of_file(file) is not None:
                yield file

    def _clear_old(self, path: str) -> None:
        with contextlib.suppress(OSError):  # it was renamed meanwhile, or cannot be deleted
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode) and info.st_mtime < self._now() - UNFINISHED_AGE:
                self.step("remove unfinished")
                os.unlink(path)

    # ------------------------------------------------------------------ reading

    def read(self, file: str, max_line: int, still: Stamp | None = None) -> tuple[bytes, Stamp]:
        """
        Read a request (row F7); return its line, with one newline at its end, and its file's state.

        :param max_line: maximum length of its line in bytes, without the newline.
        :param still: a state in which the file was unchanged for long enough to be complete.
        :raises Unfinished: it has no newline at its end yet, or is empty.
        :raises Unusable: it cannot be read, or does not contain a request that can be sent.
        :raises FileNotFoundError: it was deleted.
        :raises OSError: another error, possibly temporary.
        """
        if file.endswith(SEALED):
            data, stamp, _ = self._content(file, max_line, OVERHEAD)
            assert self.key is not None
            try:
                data = unseal(self.key, file, data)
            except NotAuthentic as fault:
                raise Unusable(str(fault), stamp) from None
            return _line(data, stamp), stamp
        data, stamp, is_linked = self._content(file, max_line)
        if stamp != still and (is_linked or not (data.endswith(b"\n") and data.strip())):
            raise Unfinished(stamp)
        if is_linked:  # it may be a file that only lonc can read
            raise Unusable(LINKED, stamp)
        return _line(data, stamp), stamp

    def _content(self, file: str, max_line: int, overhead: int = 0) -> tuple[bytes, Stamp, bool]:
        """Read a whole file; return its content, its state, and whether it has another name."""
        path = self.path(file)
        limit = max_line + 1 + overhead
        with open_file(path, self.step) as opened:
            before = Stamp.of(os.fstat(opened.fileno()))
            with held_against(before):
                data = opened.read(limit + 1)
            self.step("look again")
            info = os.fstat(opened.fileno())
            stamp = Stamp.of(info)
        if len(data) > limit:
            raise Unusable(f"it is longer than the limit of {max_line} bytes", stamp)
        if stamp != before:
            raise Unfinished(stamp)
        return data, stamp, has_another_name(path, info)

    def stamps(self, files: Iterable[str]) -> Files:
        """Return the current states of files, without opening them."""
        found = {}
        for file in files:
            with contextlib.suppress(OSError):
                found[file] = Stamp.of(os.lstat(self.path(file)))
        return found

    # ------------------------------------------------------------------ removing

    def remove(self, files: Files) -> None:
        """
        Delete files of requests that are done.

        :raises Changed: a file has new content, which was not sent.
        :raises OSError: it cannot be deleted.
        """
        for file, stamp in files.items():
            with contextlib.suppress(FileNotFoundError):
                check(self.path(file), stamp)
                self.step("remove request")
                os.unlink(self.path(file))

    def set_aside(self, files: Files, ending: str, note: bytes) -> str:
        """
        Set a request aside with a note beside it (row F8), both sealed if there is a key.

        An existing file of that name is kept: the new one gets ``~1``, ``~2`` and so on.

        :param files: the request's file, in the state in which it was read, and other files to
            delete. It is updated: a sealed form replaces its file.
        :param ending: :data:`ANSWER` or :data:`REASON`, the ending of the note's name.
        :return: the request's new path.
        :raises Changed: it is no longer in that state.
        :raises OSError: it cannot be moved, was deleted, or the move could not be synced.
        """
        file, *others = files
        check(self.path(file), files[file])
        for other in others:
            self.remove({other: files[other]})
            del files[other]  # not before: a failure must not forget it
        if self.key is not None and not file.endswith(SEALED):
            file = self._seal_unless_unusable(file, files)
        self.step("make kept")
        if make_own_folder(self.kept, 0o700):
            sync_folder(self.folder)
        check_owner(self.kept)
        target, note_path = self._write_note(own_name(file), ending, note)
        if file.endswith(SEALED):
            target += SEALED
        try:
            self.step("move request")
            os.rename(self.path(file), target)
        except OSError:
            os.unlink(note_path)
            raise
        self.step("close request to others")
        # Only now, because here nobody else can replace it by a link.
        info = os.lstat(target)
        if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
            with contextlib.suppress(PermissionError):  # it belongs to another user
                os.chmod(target, 0o600)
        self.step("sync kept")
        sync_folder(self.kept)
        self.step("sync folder")
        sync_folder(os.path.dirname(self.path(file)))
        return target

    def _seal_unless_unusable(self, file: str, files: Files) -> str:
        """Seal the file of a request, and put its form into `files`; return it, or the file."""
        stays: PlainStays | None = None
        try:
            form = self.seal(file, files[file])
        except Unfinished:
            raise Changed(f"{self.path(file)} has changed since it was read") from None
        except Unusable:
            return file
        except PlainStays as fault:
            form, stays = SEALED_FOLDER + fault.form, fault
        plain = files.pop(file)
        files[form] = Stamp.of(os.lstat(self.path(form)))
        if stays is not None:
            files[file] = plain  # to be deleted with its form
            raise stays
        return form

    def _write_note(self, name: str, ending: str, note: bytes) -> tuple[str, str]:
        """Write the note under the first free name; return the paths of request and note."""
        for number in count():
            target = os.path.join(self.kept, numbered(name, number))
            if any(os.path.lexists(target + what) for what in ("", SEALED, *NOTES)):
                continue
            path = target + ending + ("" if self.key is None else SEALED)
            with contextlib.suppress(FileExistsError), new_file(path, "note", self.step) as file:
                file.write(note if self.key is None else seal(self.key, path, note))
                break
        return target, path

    # ------------------------------------------------------------------ sealing

    def seal(self, file: str, still: Stamp | None = None) -> str:
        """
        Replace a file by a sealed form in the folder of sealed ones; return the form.

        A file that is already sealed is moved.

        :param still: a state in which the file was unchanged for long enough to be complete.
        :raises Exception: those of :func:`lonc.delayed.sealing.seal_file`.
        """
        assert self.key is not None
        self.step("make sealed folder")
        if make_own_folder(self.sealed, SEALED_MODE):
            sync_folder(self.folder)
        check_owner(self.sealed)
        if file.endswith(SEALED):
            return SEALED_FOLDER + self._move_sealed(self.folder, self.sealed, file)
        return SEALED_FOLDER + seal_file(self.key, self.path(file), self.sealed, still, self.step)

    def _move_sealed(self, folder: str, target: str, file: str) -> str:
        """Move a sealed file to the first free name in another folder; return the name."""
        name = free_name(target, own_name(file))
        self.step("move sealed")
        os.rename(os.path.join(folder, file), os.path.join(target, name))
        self.step("sync sealed folder")
        sync_folder(target)
        self.step("sync folder")
        sync_folder(folder)
        return name

    def kept_in_clear(self) -> list[str]:
        """
        Return the unsealed files among those set aside, including notes.

        :raises OSError: the folder cannot be read.
        """
        return [
            file
            for file in sorted(self.files(KEPT_FOLDER))
            if host_of(own_name(file)) is not None and not file.endswith(SEALED)
        ]

    def seal_kept(self, file: str) -> str:
        """Seal such a file in its folder; otherwise like :meth:`seal`."""
        assert self.key is not None
        path = self.path(file)
        return seal_file(self.key, path, self.kept, Stamp.of(os.lstat(path)), self.step)

    def unfold(self) -> int:
        """
        Move sealed files back to the folder itself, where an older lonc looks for them.

        :return: the number of files.
        :raises OSError: not all could be moved.
        """
        there = sorted(self.files(SEALED_FOLDER), key=order)
        files = [file for file in there if file.endswith(SEALED) and host_of_file(file)]
        for file in files:
            self._move_sealed(self.sealed, self.folder, os.path.basename(file))
        with contextlib.suppress(OSError):  # not empty, or missing
            os.rmdir(self.sealed)
        return len(files)


def _line(data: bytes, stamp: Stamp) -> bytes:
    if not data.strip():
        raise Unusable("it is empty", stamp)
    line, _, rest = data.lstrip(b"\n").partition(b"\n")
    if rest.strip():
        # Sending the first and deleting the file would lose the others.
        raise Unusable("it contains more than one line", stamp)
    return line + b"\n"
