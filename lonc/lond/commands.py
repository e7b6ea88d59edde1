"""
The answers of the lond to requests: those commands that a first run and tests need.

A request for data is ``command:domain:user:namespace:what``. Keys and values have been escaped by
the caller (``%3d`` for ``=``) and are stored so; only the numbers of ``inc`` and the regular
expression of ``dump`` are unescaped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final
from urllib.parse import unquote_to_bytes

from lonc.lond.regexp import RegexpError, matching
from lonc.lond.store import Place, Store, StoreError
from lonc.report.events import Logger

log = Logger()

#: The answer to an unknown command.
UNKNOWN: Final = b"unknown_cmd"

#: Commands whose answers are encrypted, even if the request was not.
SECRET: Final = frozenset({b"eget"})

_NUMBER: Final = re.compile(rb"[+-]?[0-9]{1,18}(\.[0-9]{1,9})?")


class CommandError(Exception):
    """An invalid request; the message follows ``error:`` in the answer."""


def _load_average() -> float:
    return os.getloadavg()[0]


class Commands:
    """
    The commands of one lond.

    :param host_id: its own host id.
    :param load: returns the machine's load.
    """

    def __init__(
        self, host_id: str, store: Store, load: Callable[[], float] = _load_average
    ) -> None:
        self._host_id = host_id
        self._store = store
        self._load = load

    def answer(self, request: bytes, caller: str) -> bytes:
        """
        Answer a request; both are without a newline.

        Errors are answers, too: ``unknown_cmd``, or ``error:`` and the reason.

        :param caller: the host id of the lonc.
        """
        word, _, rest = request.partition(b":")
        try:
            if word in self._PLAIN:
                return self._PLAIN[word](self, caller)
            if word in self._ON_DATA:
                place, what = _place(rest)
                with self._store.transaction():
                    return self._ON_DATA[word](self, place, what)
        except (CommandError, RegexpError) as error:
            return b"error:" + str(error).encode()
        except StoreError as error:
            log.critical("Data of {lond}: {error}", lond=self._host_id, error=error)
            return b"error:the data cannot be read or written, the lond's log says why"
        return UNKNOWN

    def _ping(self, caller: str) -> bytes:
        return self._host_id.encode()

    def _pong(self, caller: str) -> bytes:
        return f"{self._host_id}:{caller}".encode()

    def _load_now(self, caller: str) -> bytes:
        return b"%.2f" % self._load()

    def _put(self, place: Place, what: bytes | None) -> bytes:
        self._store.put(place, _pairs(what))
        return b"ok"

    def _get(self, place: Place, what: bytes | None) -> bytes:
        return b"&".join(self._store.get(place, _needed(what).split(b"&")))

    def _del(self, place: Place, what: bytes | None) -> bytes:
        self._store.delete(place, _needed(what).split(b"&"))
        return b"ok"

    def _keys(self, place: Place, what: bytes | None) -> bytes:
        if what is not None:
            raise CommandError("keys takes a domain, a user and a namespace, and no more")
        return b"&".join(key for key, _ in self._store.items(place))

    def _dump(self, place: Place, what: bytes | None) -> bytes:
        items = self._store.items(place)
        if what:
            found = matching(what, [key for key, _ in items])
            items = [item for item in items if item[0] in found]
        return b"&".join(key + b"=" + value for key, value in items)

    def _inc(self, place: Place, what: bytes | None) -> bytes:
        for key, amount in _pairs(what, default=b"1"):
            (value,) = self._store.get(place, [key])
            total = _number(value or b"0") + _number(amount or b"1")
            escaped = f"{total.normalize():f}".replace("-", "%2d").replace(".", "%2e").encode()
            self._store.put(place, [(key, escaped)])
        return b"ok"

    _PLAIN: Final[dict[bytes, Callable[[Commands, str], bytes]]] = {
        b"ping": _ping,
        b"pong": _pong,
        b"load": _load_now,
    }
    _ON_DATA: Final[dict[bytes, Callable[[Commands, Place, bytes | None], bytes]]] = {
        b"put": _put,
        b"get": _get,
        b"eget": _get,
        b"del": _del,
        b"keys": _keys,
        b"dump": _dump,
        b"inc": _inc,
    }


def _place(rest: bytes) -> tuple[Place, bytes | None]:
    """Split the arguments of a command into place and the rest, which is None if missing."""
    parts = rest.split(b":", 3)
    if len(parts) < 3 or not all(parts[:3]):
        raise CommandError("the command takes a domain, a user and a namespace")
    domain, user, namespace, *what = parts
    return (domain, user, namespace), what[0] if what else None


def _needed(what: bytes | None) -> bytes:
    if not what:
        raise CommandError("no key is given")
    return what


def _pairs(what: bytes | None, default: bytes | None = None) -> list[tuple[bytes, bytes]]:
    """
    Split ``key=value&key=value``.

    :param default: the value of a key without ``=``; None: this is an error.
    """
    pairs = []
    for pair in _needed(what).removesuffix(b"&").split(b"&"):
        key, equals, value = pair.partition(b"=")
        if not key or (not equals and default is None):
            raise CommandError("not of the form key=value&key=value")
        pairs.append((key, value if equals else default or b""))
    return pairs


def _number(escaped: bytes) -> Decimal:
    text = unquote_to_bytes(escaped)
    if not _NUMBER.fullmatch(text):
        raise CommandError("not a number to count with")
    return Decimal(text.decode())
