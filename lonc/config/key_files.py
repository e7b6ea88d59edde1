"""
Key files: passing a session key to a lond on the same machine (protocol, section 9).

lonc writes the key to a file that only its own user can read, and sends the lond the
file's path. The lond, which runs as the same user or as root, reads the file and deletes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from typing import Final

import attrs

from lonc.disk.files import CREATE, READ
from lonc.wire.printable import quoted

_KEY: Final = re.compile(rb"([0-9A-Fa-f]{32})\n?")
_NAME: Final = re.compile(r"[0-9a-f]{16}")


class KeyFileError(Exception):
    """A path from a caller is not a key file. The message is readable and names the path."""


@attrs.frozen
class KeyFile:
    """
    A file that exists until a lond deletes it or `remove` is called.

    :ivar path: its path.
    :ivar key: its content, 32 hex digits.
    """

    path: str
    key: bytes

    @property
    def taken(self) -> bool:
        """Whether it was deleted, which only a process that can read it can do."""
        try:
            os.lstat(self.path)
        except OSError as error:
            return error.errno == errno.ENOENT
        return False

    def remove(self) -> None:
        """Delete it if the lond has not, and the folder if it is empty."""
        for remove, path in ((os.unlink, self.path), (os.rmdir, os.path.dirname(self.path))):
            with contextlib.suppress(OSError):
                remove(path)


@attrs.frozen
class KeyFolder:
    """
    The folder of lonc's key files, which exist only until a lond has read them.

    :ivar path: a folder of mode 700 for lonc only; it exists as long as there is a file in it.
    """

    path: str

    def make(self) -> KeyFile:
        """
        Write a new key to a new file.

        :raises OSError: it cannot be created, or others have access to the folder.
        """
        if ":" in self.path:
            raise OSError(errno.EINVAL, "a lond cannot be told a name with a colon", self.path)
        from Crypto.Random import get_random_bytes

        key = get_random_bytes(16).hex().encode()
        made = KeyFile(os.path.join(self.path, get_random_bytes(8).hex()), key)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        self._check_private()
        with open(os.open(made.path, CREATE, 0o600), "wb", buffering=0) as file:
            try:
                file.write(key)
            except OSError as error:
                made.remove()
                raise OSError(error.errno, error.strerror, made.path) from None
        return made

    def _check_private(self) -> None:
        """Raise OSError if another user could create files in the folder."""
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode) or not _is_private(found):
            raise OSError(errno.EPERM, "not a folder that is lonc's alone", self.path)

    def sweep(self) -> None:
        """Remove files left behind by a crash; nothing else may use the folder meanwhile."""
        with contextlib.suppress(OSError):
            self._check_private()
            for name in filter(_NAME.fullmatch, os.listdir(self.path)):
                os.unlink(os.path.join(self.path, name))
            os.rmdir(self.path)

    def read_and_delete(self, path: bytes) -> bytes:
        """
        Read a key file and delete it, as a lond does; return its 32 hex digits.

        The path comes from the caller, so only files in this folder with such a name are touched.

        :raises KeyFileError: it is not a key file, or not in this folder.
        """
        shown = quoted(os.fsdecode(path), 200)
        folder, name = os.path.split(os.fsdecode(path))
        if folder != self.path or not _NAME.fullmatch(name):
            raise KeyFileError(f"{shown}: not a key file of this cluster")
        try:
            self._check_private()
            with open(os.open(path, READ), "rb") as file:
                found = os.fstat(file.fileno())
                private = stat.S_ISREG(found.st_mode) and _is_private(found)
                key = _KEY.fullmatch(file.read(40)) if private else None
            if key is None:
                raise KeyFileError(f"{shown}: not a key file of the same user")
            os.unlink(path)
        except OSError as error:
            raise KeyFileError(f"{shown}: {error.strerror}") from None
        return key[1]


def _is_private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & 0o077
