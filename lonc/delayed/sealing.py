"""
Sealed files: delayed requests that only who holds the key can read, or make.

AES-256-GCM, with a nonce of its own for each file. The file's name is authenticated along with its
content, and with the name the host that the request is for. Nothing here knows a reactor.
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

#: What the name of a sealed file ends in. No host id holds a ``~``, so no reader of the folder
#: takes such a file for a request in the clear.
SEALED: Final = "~sealed"

KEY_SIZE: Final = 32  # bytes

_MAGIC: Final = b"lonc sealed 1\n"
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_HEAD_SIZE: Final = len(_MAGIC) + _NONCE_SIZE

#: Bytes that a sealed file has more than its content.
OVERHEAD: Final = _HEAD_SIZE + _TAG_SIZE


class Key(bytes):
    """A key, which does not show itself in logs and tracebacks."""

    def __repr__(self) -> str:
        return "<key>"

    __str__ = __repr__


class NotAuthentic(Exception):
    """A file is not what was sealed with this key under this name; the message says so."""


class UnusableKey(SettingsError):
    """A key file cannot be used, or made. The message is one line and names it."""


# Sealing


def numbered(name: str, number: int) -> str:
    """Return the name of the file that is the number-th of this name; 0: it itself."""
    return f"{name}~{number}" if number else name


def own_name(file: str) -> str:
    """
    Return the name that is authenticated, for the path or the name of a file or its sealed form.

    It is without numbers: a file may get one when it is moved.
    """
    return re.sub(r"~\d+", "", os.path.basename(file).removesuffix(SEALED), flags=re.ASCII)


def seal(key: bytes, file: str, content: bytes) -> bytes:
    """Return what to write into a file of that name (see :func:`own_name`)."""
    return b"".join(seal_parts(key, file, [content]))


def seal_parts(
    key: bytes, file: str, parts: Iterable[bytes], nonce: bytes = b""
) -> Iterator[bytes]:
    """
    Seal what is too long to be held in memory.

    :param nonce: only to see what was sealed before; a new file gets a new one.
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

    :param file: its path or its name.
    :raise NotAuthentic: it is none, or was not sealed with this key under this name.
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
    # Here, because it brings two megabytes along and most machines seal nothing.
    from Crypto.Cipher import AES

    cipher = AES.new(key, AES.MODE_GCM, nonce=nonce, mac_len=_TAG_SIZE)
    return cipher.update(_MAGIC + os.fsencode(own_name(file)))


# The key file


def make_key_file(path: str) -> None:
    """
    Write a new random key into a new file that only its owner can read.

    :raise UnusableKey: it cannot be written, or is there already and left as it is.
    """
    try:
        fd = os.open(path, CREATE, 0o600)
    except FileExistsError:
        raise UnusableKey(f"{path}: it exists, and is left as it is") from None
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

    :param owners: whose the file may be; None: anybody's, for who only wants to look.
    :raise UnusableKey: it cannot be read, others can read it, or it holds no key.
    """
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no regular file"
            raise UnusableKey(f"{path}: it is {what}; a key has to be a file itself")
        with open(os.open(path, READ), "rb") as file:
            info = os.fstat(file.fileno())
            key = file.read(KEY_SIZE + 1)
    except OSError as error:
        raise UnusableKey(f"{path}: {error.strerror}") from None
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        raise UnusableKey(
            f"{path}: its mode is {mode:04o}, so others have a way to it: make it 0600"
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
    Return the key that the settings name; None when they name none.

    :raise UnusableKey: it cannot be used.
    """
    if settings.delayed_key_file is None:
        return None
    try:
        return read_key_file(settings.delayed_key_file, {0, os.geteuid()})
    except UnusableKey as error:
        raise UnusableKey(f"loncDelayedKeyFile: {error}") from None
