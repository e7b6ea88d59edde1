"""
Puts a sealed form in the place of a file, so that no crash loses or doubles what is in it.

Everything here blocks, and is called in a thread.
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

#: Bytes that are sealed at a time.
PART = 1024 * 1024


class PlainStays(Exception):
    """
    A file has its sealed form, and cannot be deleted.

    :ivar form: the form.
    :ivar stamp: the state of the file of which the form is.
    :ivar error: why.
    """

    def __init__(self, form: str, stamp: Stamp, error: OSError) -> None:
        super().__init__(str(error))
        self.form = form
        self.stamp = stamp
        self.error = error


def free_name(folder: str, own_name: str) -> str:
    """Return the first name for a sealed form that nothing in a folder has."""
    names = (numbered(own_name, number) + SEALED for number in count())
    return next(name for name in names if not os.path.lexists(os.path.join(folder, name)))


def seal_file(
    key: bytes, path: str, target: str, is_whole: Callable[[Stamp], bool], step: StepHook
) -> str:
    """
    Put a sealed form into a folder in the place of a file in the clear; return the form's name.

    It is written under another name, synced and renamed, and its folder is synced, before the file
    in the clear goes. So whatever step the machine stops at, one of them is there, or both. When
    both are found it is seen that they are the same, and the one in the clear goes.

    :param target: the folder of the form, which may be that of the file.
    :param is_whole: whether the file is whole in this state without a newline at its end.
    :param step: called before each step on the disk with its name; a test stops there.
    :raise Unfinished: it may still be being written.
    :raise Unusable: it cannot be read, or holds nothing that can be sealed.
    :raise Changed: it has changed meanwhile; it and the form of what it was are there.
    :raise PlainStays: the form is there, and the file in the clear cannot be deleted.
    :raise OSError: something else that passes.
    """
    form, stamp = _write_form(key, path, target, is_whole, step)
    step("sync forms")
    sync_folder(target)
    check(path, stamp)
    try:
        step("remove plain")
        os.unlink(path)
    except OSError as error:
        raise PlainStays(form, stamp, error) from None
    return form


def _write_form(
    key: bytes, path: str, target: str, is_whole: Callable[[Stamp], bool], step: StepHook
) -> tuple[str, Stamp]:
    """Write a file's form, unless it is there; return its name, and of which state it is."""
    name = os.path.basename(path)
    with open_file(path, step) as file:
        stamp = Stamp.of(os.fstat(file.fileno()))
        parts = _Parts(file, path, stamp, step)
        if os.fstat(file.fileno()).st_nlink > 1 and not is_being_stored(path, stamp):
            # Somebody may be about to take the other name away, as who stores it may be.
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
            os.unlink(writing)  # a crash has left it
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
        with held_against(self.stamp):
            self._step("read request")
            while part := self._file.read(PART):
                yield part

    def end_in_newline(self) -> bool:
        """Return whether there is something, and a newline at its end."""
        if not any(part.strip() for part in self):
            return False
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"
