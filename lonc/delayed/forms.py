"""
Puts sealed forms in the place of files in the clear.

A form is written under another name, synced and renamed, and the folder is synced, before the file
in the clear goes. So whatever step the machine stops at, one of them is there, or both. When both
are found it is seen that they are the same, and the one in the clear goes.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import BinaryIO

from lonc.delayed.outbox import is_being_stored
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

#: Bytes that are sealed at a time.
PART = 1024 * 1024

#: What a form's name ends in while it is written.
SEALING = "~sealing"

#: Whether to leave it at what has been done.
Enough = Callable[[], bool]

#: The name of a file's sealed form, or what was in the way.
Outcome = str | Unfinished | Unusable | Changed | OSError


class Forms:
    """
    Seals the files of one folder.

    :param step: called before each step on the disk with its name; a test stops there.
    """

    def __init__(self, key: bytes, folder: str, step: StepHook) -> None:
        self._key = key
        self._folder = folder
        self._step = step

    def replace(
        self,
        names: Iterable[str],
        is_whole: Callable[[str, Stamp], bool],
        enough: Enough,
    ) -> dict[str, Outcome]:
        """
        Put sealed forms in the place of files.

        :param is_whole: whether a file is whole in this state without a newline at its end.
        :return: for each that was looked at, what became of it.
        """
        outcomes: dict[str, Outcome] = {}
        written: dict[str, tuple[str, Stamp]] = {}
        for name in names:
            try:
                written[name] = self._write(name, is_whole)
            except (Unfinished, Unusable, OSError) as error:
                outcomes[name] = error
            if enough():
                break
        try:
            self._step("sync forms")
            sync_folder(self._folder)
        except OSError as error:
            return outcomes | dict.fromkeys(written, error)
        for name, (form, stamp) in written.items():
            try:
                check(self._path(name), stamp)
                self._step("remove plain")
                os.unlink(self._path(name))
                outcomes[name] = form
            except (Changed, OSError) as error:
                outcomes[name] = error
        return outcomes

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _write(self, name: str, is_whole: Callable[[str, Stamp], bool]) -> tuple[str, Stamp]:
        """Write a file's form, unless it is there; return its name, and of which state it is."""
        path = self._path(name)
        with open_file(path, self._step) as file:
            stamp = Stamp.of(os.fstat(file.fileno()))
            parts = _Parts(file, path, stamp, self._step)
            if os.fstat(file.fileno()).st_nlink > 1 and not is_being_stored(path, stamp):
                # Somebody may be about to take the other name away, as who stores it may be.
                if is_whole(name, stamp):
                    raise Unusable(LINKED, {name: stamp})
                raise Unfinished(stamp)
            if not is_whole(name, stamp) and not parts.end_in_newline():
                raise Unfinished(stamp)
            for number in count():
                form = numbered(name, number) + SEALED
                if not os.path.lexists(self._path(form)):
                    break
                if self._is_form(form, parts):
                    return form, stamp
            writing = path + SEALING
            with contextlib.suppress(FileNotFoundError):
                os.unlink(writing)  # a crash has left it
            with new_file(writing, "form", self._step) as target:
                target.writelines(seal_parts(self._key, name, parts))
                self._step("look again")
                if Stamp.of(os.fstat(file.fileno())) != stamp:
                    raise Unfinished(stamp)
            try:
                self._step("name form")
                os.rename(writing, self._path(form))
            except OSError:
                os.unlink(writing)
                raise
        return form, stamp

    def _is_form(self, form: str, parts: _Parts) -> bool:
        """Return whether this is a form of the file, as a crash leaves it beside it."""
        try:
            with open_file(self._path(form), self._step) as sealed:
                if os.fstat(sealed.fileno()).st_size != parts.stamp.size + OVERHEAD:
                    return False
                return is_form_of(self._key, form, sealed, parts)
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
