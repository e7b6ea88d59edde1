"""
Sealed files: encryption and authentication of delayed requests, and the file with the key.

AES-256-GCM, with a random nonce for each file. The name of the file, and so the host that the
request is for, is authenticated together with its content. A file is replaced by its sealed form so
that no crash loses or duplicates its content.

This module uses no reactor; functions that open files block, and are called in a thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, BinaryIO, Final

from lonc.config.settings import Settings, SettingsError
from lonc.delayed.names import SEALED, SEALING, has_another_name, numbered, own_name
from lonc.disk.files import (
    LINKED,
    READ,
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

if TYPE_CHECKING:
    from Crypto.Cipher._mode_gcm import GcmMode

KEY_SIZE: Final = 32  # bytes

_MAGIC: Final = b"lonc sealed 1\n"
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_HEAD_SIZE: Final = len(_MAGIC) + _NONCE_SIZE

#: Additional bytes of a sealed file.
OVERHEAD: Final = _HEAD_SIZE + _TAG_SIZE

#: Bytes sealed at a time.
PART = 1024 * 1024


class Key(bytes):
    """A key, which is not shown in logs and tracebacks."""

    def __repr__(self) -> str:
        return "<key>"

    __str__ = __repr__


class NotAuthentic(Exception):
    """A file was not sealed with this key under this name."""


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


class UnusableKey(SettingsError):
    """A key file is unusable, or cannot be created. The message is a line that names it."""


# Sealing


def seal(key: bytes, file: str, content: bytes) -> bytes:
    """Return the content of a sealed file with that name (see :func:`own_name`)."""
    return b"".join(seal_parts(key, file, [content]))


def seal_parts(
    key: bytes, file: str, parts: Iterable[bytes], nonce: bytes = b""
) -> Iterator[bytes]:
    """
    Seal content that is too long for memory, in parts.

    :param nonce: only for comparison with an existing file; a new file gets a new one.
    """
    from Crypto.Random import get_random_bytes

    nonce = nonce or get_random_bytes(_NONCE_SIZE)
    cipher = _cipher(key, file, nonce)
    yield _MAGIC + nonce
    for part in parts:
        yield cipher.encrypt(part)
    yield cipher.digest()


def is_form_of(key: bytes, file: str, sealed: BinaryIO, parts: Iterable[bytes]) -> bool:
    """Return whether an open sealed file has exactly this content."""
    head = sealed.read(_HEAD_SIZE)
    if len(head) < _HEAD_SIZE:
        return False
    sealed.seek(0)
    again = seal_parts(key, file, parts, head[-_NONCE_SIZE:])
    return all(sealed.read(len(part)) == part for part in again) and not sealed.read(1)


def unseal(key: bytes, file: str, sealed: bytes) -> bytes:
    """
    Return the content of a sealed file.

    :param file: its path or name.
    :raises NotAuthentic: it is not a sealed file, or not sealed with this key under this name.
    """
    head, body, tag = sealed[:_HEAD_SIZE], sealed[_HEAD_SIZE:-_TAG_SIZE], sealed[-_TAG_SIZE:]
    if len(sealed) < OVERHEAD or not head.startswith(_MAGIC):
        raise NotAuthentic("it is not a sealed file, or only a part of one")
    try:
        content: bytes = _cipher(key, file, head[-_NONCE_SIZE:]).decrypt_and_verify(body, tag)
    except ValueError:
        raise NotAuthentic(
            "it was sealed with another key, or has been changed or renamed since"
        ) from None
    return content


def _cipher(key: bytes, file: str, nonce: bytes) -> GcmMode:
    # Imported here, because it takes two megabytes and most machines seal nothing.
    from Crypto.Cipher import AES

    cipher = AES.new(key, AES.MODE_GCM, nonce=nonce, mac_len=_TAG_SIZE)
    return cipher.update(_MAGIC + os.fsencode(own_name(file)))


# Files


def free_name(folder: str, own_name: str) -> str:
    """Return the first free name for a sealed form in a folder."""
    names = (numbered(own_name, number) + SEALED for number in count())
    return next(name for name in names if not os.path.lexists(os.path.join(folder, name)))


def seal_file(key: bytes, path: str, target: str, still: Stamp | None, step: StepHook) -> str:
    """
    Replace a file by its sealed form in a folder; return the form's name.

    The form is written under another name, synced and renamed, and its folder is synced, before the
    file is deleted. So whenever the machine stops, one of them exists, or both. If both exist with
    the same content, the unsealed one is deleted.

    :param target: the folder of the form, which may be that of the file.
    :param still: a state in which the file is complete without a newline at its end.
    :param step: called with the name of each step on the disk before it; used by tests.
    :raises Unfinished: it may still be being written.
    :raises Unusable: it cannot be read, or has no content that can be sealed.
    :raises Changed: it has changed meanwhile; it exists beside the form of its previous content.
    :raises PlainStays: the form exists, but the file cannot be deleted.
    :raises OSError: another error, possibly temporary.
    """
    form, stamp = _write_form(key, path, target, still, step)
    try:
        step("sync forms")
        sync_folder(target)
    except OSError:
        check(path, stamp)
        # The file stays, and is sent as it is; its form would be sent as well.
        os.unlink(os.path.join(target, form))
        raise
    check(path, stamp)
    try:
        step("remove plain")
        os.unlink(path)
    except OSError as error:
        raise PlainStays(error, form, stamp) from None
    return form


def _write_form(
    key: bytes, path: str, target: str, still: Stamp | None, step: StepHook
) -> tuple[str, Stamp]:
    """Write the form of a file unless it exists; return its name, and the file's state."""
    name = os.path.basename(path)
    with open_file(path, step) as file:
        info = os.fstat(file.fileno())
        stamp = Stamp.of(info)
        parts = partial(_parts, file, stamp, step)
        if has_another_name(path, info):
            # The other name may be about to be removed, as while the request is stored.
            raise Unusable(LINKED, stamp) if stamp == still else Unfinished(stamp)
        if stamp != still and not _is_complete(parts()):
            raise Unfinished(stamp)
        for number in count():
            form = numbered(name, number) + SEALED
            form_path = os.path.join(target, form)
            if not os.path.lexists(form_path):
                break
            if _is_form(key, form_path, stamp, parts, step):
                return form, stamp
        writing = os.path.join(target, name + SEALING)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(writing)  # left by a crash
        with new_file(writing, "form", step) as made:
            made.writelines(seal_parts(key, name, parts()))
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


def _is_form(
    key: bytes, form: str, stamp: Stamp, parts: Callable[[], Iterator[bytes]], step: StepHook
) -> bool:
    """Return whether this is a form of a file, which a crash may have left beside it."""
    try:
        with open_file(form, step) as sealed:
            if os.fstat(sealed.fileno()).st_size != stamp.size + OVERHEAD:
                return False
            return is_form_of(key, os.path.basename(form), sealed, parts())
    except Unusable:
        return False


def _parts(file: BinaryIO, stamp: Stamp, step: StepHook) -> Iterator[bytes]:
    """Read an open file from its beginning."""
    file.seek(0)
    with held_against(stamp):
        step("read request")
        while part := file.read(PART):
            yield part


def _is_complete(parts: Iterable[bytes]) -> bool:
    """Return whether content is not blank, and ends in a newline."""
    is_blank, last = True, b""
    for last in parts:
        is_blank = is_blank and not last.strip()
    return not is_blank and last.endswith(b"\n")


# The key file


def make_key_file(path: str) -> None:
    """
    Write a new random key to a new file that only its owner can read.

    :raises UnusableKey: it cannot be written, or exists already and is left unchanged.
    """
    from Crypto.Random import get_random_bytes

    try:
        with new_file(path, "key") as file:
            file.write(get_random_bytes(KEY_SIZE))
            sync_folder(os.path.dirname(path) or ".")
    except FileExistsError:
        raise UnusableKey(f"{path}: it exists, and is left unchanged") from None
    except OSError as error:
        raise UnusableKey(f"{path}: {error.strerror}") from None


def read_key_file(path: str, owners: Collection[int] | None = None) -> Key:
    """
    Return the key in a file.

    :param owners: allowed owners of the file; None for any.
    :raises UnusableKey: it cannot be read, others have access to it, or it is not a key.
    """
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "not a regular file"
            raise UnusableKey(f"{path}: it is {what}; a key must be a file itself")
        with open(os.open(path, READ), "rb") as file:
            info = os.fstat(file.fileno())
            key = file.read(KEY_SIZE + 1)
    except OSError as error:
        raise UnusableKey(f"{path}: {error.strerror}") from None
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        raise UnusableKey(
            f"{path}: its mode is {mode:04o}, so others have access to it: make it 0600"
        )
    if owners is not None and info.st_uid not in owners:
        raise UnusableKey(
            f"{path}: it belongs to user {info.st_uid}, not to lonc's own user or root"
        )
    if len(key) != KEY_SIZE:
        size = "more" if len(key) > KEY_SIZE else str(len(key))
        raise UnusableKey(f"{path}: a key has {KEY_SIZE} bytes, this file has {size}")
    return Key(key)


def key_of(settings: Settings) -> Key | None:
    """
    Return the key configured in the settings, or None.

    :raises UnusableKey: it is unusable.
    """
    if settings.delayed_key_file is None:
        return None
    try:
        return read_key_file(settings.delayed_key_file, {0, os.geteuid()})
    except UnusableKey as error:
        raise UnusableKey(f"loncDelayedKeyFile: {error}") from None
