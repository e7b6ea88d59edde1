"""
Sealed files: encryption and authentication of delayed requests.

AES-256-GCM, with a random nonce for each file. The name of the file, and so the host that the
request is for, is authenticated together with its content. This module uses no reactor.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

from lonc.config.settings import Settings, SettingsError
from lonc.disk.files import CREATE, READ, sync_folder

if TYPE_CHECKING:
    from Crypto.Cipher._mode_gcm import GcmMode

#: Ending of the name of a sealed file. No host id contains a ``~``, so other programs do not take
#: such a file for a request.
SEALED: Final = "~sealed"

KEY_SIZE: Final = 32  # bytes

_MAGIC: Final = b"lonc sealed 1\n"
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_HEAD_SIZE: Final = len(_MAGIC) + _NONCE_SIZE

#: Additional bytes of a sealed file.
OVERHEAD: Final = _HEAD_SIZE + _TAG_SIZE


class Key(bytes):
    """A key, which is not shown in logs and tracebacks."""

    def __repr__(self) -> str:
        return "<key>"

    __str__ = __repr__


class NotAuthentic(Exception):
    """A file was not sealed with this key under this name."""


class UnusableKey(SettingsError):
    """A key file is unusable, or cannot be created. The message is a line that names it."""


# Sealing


def numbered(name: str, number: int) -> str:
    """Return a name with a number, or the name itself for 0."""
    return f"{name}~{number}" if number else name


def own_name(file: str) -> str:
    """
    Return the authenticated name, for the path or name of a file or its sealed form.

    It excludes numbers, because a file may get one when it is moved.
    """
    return re.sub(r"~\d+", "", os.path.basename(file).removesuffix(SEALED), flags=re.ASCII)


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


# The key file


def make_key_file(path: str) -> None:
    """
    Write a new random key to a new file that only its owner can read.

    :raises UnusableKey: it cannot be written, or exists already and is left unchanged.
    """
    try:
        fd = os.open(path, CREATE, 0o600)
    except FileExistsError:
        raise UnusableKey(f"{path}: it exists, and is left unchanged") from None
    except OSError as error:
        raise UnusableKey(f"{path}: {error.strerror}") from None
    from Crypto.Random import get_random_bytes

    key = get_random_bytes(KEY_SIZE)
    try:
        with open(fd, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(fd)
        sync_folder(os.path.dirname(path) or ".")
    except OSError as error:
        os.unlink(path)
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
