"""
Replaces a file by its sealed form, so that no crash loses or duplicates its content.

All functions block, and are called in a thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import count
from typing import BinaryIO

from lonc.delayed.names import SEALING
from lonc.delayed.outbox import is_being_stored
from lonc.delayed.sealing import OVERHEAD, SEALED, is_form_of, numbered, seal_parts
from lonc.disk.files import (
    LINKED,
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

#: Bytes sealed at a time.
PART = 1024 * 1024


class PlainStays(OSError):
    """
    The sealed form exists, but the unsealed file cannot be deleted.

    :ivar form: the name of the form.
    :ivar stamp: the state of the file from which the form was made.
    """

    def __init__(self, error: OSError, form: str, stamp: Stamp) -> None:
        super().__init__(error.errno, error.strerror)
        self.form = form
        self.stamp = stamp


def free_name(folder: str, own_name: str) -> str:
    """Return the first free name for a sealed form in a folder."""
    names = (numbered(own_name, number) + SEALED for number in count())
    return next(name for name in names if not os.path.lexists(os.path.join(folder, name)))


def seal_file(
    key: bytes, path: str, target: str, is_whole: Callable[[Stamp], bool], step: StepHook
) -> str:
    """
    Replace a file by its sealed form in a folder; return the form's name.

    The form is written under another name, synced and renamed, and its folder is synced, before the
    file is deleted. So whenever the machine stops, one of them exists, or both. If both exist with
    the same content, the unsealed one is deleted.

    :param target: the folder of the form, which may be that of the file.
    :param is_whole: whether the file is complete in this state without a newline at its end.
    :param step: called with the name of each step on the disk before it; used by tests.
    :raises Unfinished: it may still be being written.
    :raises Unusable: it cannot be read, or has no content that can be sealed.
    :raises Changed: it has changed meanwhile; it exists beside the form of its previous content.
    :raises PlainStays: the form exists, but the file cannot be deleted.
    :raises OSError: another error, possibly temporary.
    """
    form, stamp = _write_form(key, path, target, is_whole, step)
    step("sync forms")
    sync_folder(target)
    check(path, stamp)
    try:
        step("remove plain")
        os.unlink(path)
    except OSError as error:
        raise PlainStays(error, form, stamp) from None
    return form


def _write_form(
    key: bytes, path: str, target: str, is_whole: Callable[[Stamp], bool], step: StepHook
) -> tuple[str, Stamp]:
    """Write the form of a file unless it exists; return its name, and the file's state."""
    name = os.path.basename(path)
    with open_file(path, step) as file:
        stamp = Stamp.of(os.fstat(file.fileno()))
        parts = _Parts(file, path, stamp, step)
        if os.fstat(file.fileno()).st_nlink > 1 and not is_being_stored(path, stamp):
            # The other name may be about to be removed, as while the request is stored.
            if is_whole(stamp):
                raise Unusable(LINKED, stamp)
            raise Unfinished(stamp)
        if not is_whole(stamp) and not parts.end_in_newline():
            raise Unfinished(stamp)
        for number in count():
            form = numbered(name, number) + SEALED
            form_path = os.path.join(target, form)
            if not os.path.lexists(form_path):
                break
            if _is_form(key, form_path, parts, step):
                return form, stamp
        writing = os.path.join(target, name + SEALING)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(writing)  # left by a crash
        with new_file(writing, "form", step) as made:
            made.writelines(seal_parts(key, name, parts))
            step("look again")
            if Stamp.of(os.fstat(file.fileno())) != stamp:
                raise Unfinished(stamp)
        try:
            step("name form")
            os.rename(writing, form_path)
        except OSError:
            os.unlink(writing)
            raise
    return form, stamp


def _is_form(key: bytes, form: str, parts: _Parts, step: StepHook) -> bool:
    """Return whether this is a form of the file, which a crash may have left beside it."""
    try:
        with open_file(form, step) as sealed:
            if os.fstat(sealed.fileno()).st_size != parts.stamp.size + OVERHEAD:
                return False
            return is_form_of(key, os.path.basename(form), sealed, parts)
    except Unusable:
        return False


class _Parts:
    """The content of an open file in parts; can be iterated repeatedly."""

    def __init__(self, file: BinaryIO, path: str, stamp: Stamp, step: StepHook) -> None:
        self.stamp = stamp
        self._file = file
        self._path = path
        self._step = step

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        with held_against(self.stamp):
            self._step("read request")
            while part := self._file.read(PART):
                yield part

    def end_in_newline(self) -> bool:
        """Return whether the file is not blank and ends in a newline."""
        if not any(part.strip() for part in self):
            return False
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"
