"""
Key files: how lonc and a lond on the same machine agree on a session key (protocol, section 9).

lonc writes the key into a file that nobody but its own user can read, and tells the lond the
file's name. The lond, which runs as the same user, reads the file and deletes it.
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
    """What a caller named is no key file. The message is for a person and names the path."""


@attrs.frozen
class KeyFile:
    """
    A file that exists until a lond takes it or `remove` is called.

    :ivar path: where it is.
    :ivar key: what it holds: 32 hex digits.
    """

    path: str
    key: bytes

    @property
    def taken(self) -> bool:
        """Whether it is gone: only who can read it can delete it."""
        try:
            os.lstat(self.path)
        except OSError as error:
            return error.errno == errno.ENOENT
        return False

    def remove(self) -> None:
        """Delete it if the lond has not, and the folder with the last one."""
        for remove, path in ((os.unlink, self.path), (os.rmdir, os.path.dirname(self.path))):
            with contextlib.suppress(OSError):
                remove(path)


@attrs.frozen
class KeyFolder:
    """
    Where lonc's key files are, each for the moment that a lond needs to read it.

    :ivar path: a folder of mode 700 that nobody else uses; it is there as long as a file is in it.
    """

    path: str

    def make(self) -> KeyFile:
        """
        Write a new key into a new file.

        :raises OSError: it cannot be made, or the folder is not lonc's alone.
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
        """Remove what a crash left behind; nobody else may use the folder meanwhile."""
        with contextlib.suppress(OSError):
            self._check_private()
            for name in filter(_NAME.fullmatch, os.listdir(self.path)):
                os.unlink(os.path.join(self.path, name))
            os.rmdir(self.path)

    def read_and_delete(self, path: bytes) -> bytes:
        """
        Read a key file and delete it, as a lond does; return its 32 hex digits.

        The name comes from whoever calls, so nothing is touched that is not such a file.

        :raises KeyFileError: when it is none, or not in this folder.
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
