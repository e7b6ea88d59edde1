"""
Fault injection: what a lond does wrong, at which step, and how often.

This module is pure. Example::

    faults = Faults()
    faults.order(Step.KEY, STALL)                              # no key, ever
    faults.order(Step.REQUEST, CLOSE, times=1, command=b"put")  # the next put only
    faults.order(Step.REQUEST, Fault(delay=3.0, pause=0.001))   # late, and byte by byte
    faults.clear()

``faults`` is passed to `lonc.lond.protocol.LondFactory`, and may be changed at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

import attrs

#: Seconds between two pieces of an endless line.
_BREATH: Final = 0.001
#: One such piece.
_PIECE: Final = b"x" * 65536


class Step(Enum):
    """When a fault happens: at the lond's answer to the given input (protocol, sections 2, 9)."""

    CONNECT = "connect"  #: the connection itself; no answer
    INIT = "init"  #: ``init``: the challenge
    LOCAL = "local"  #: ``init:local``: ``ok:local``
    SSL = "ssl"  #: ``init:ssl``: ``ok:ssl``
    TLS = "tls"  #: the TLS handshake of the caller: that of the lond, which is not a line
    TLS_KEY = "tls-key"  #: TLS is established: the key; faults, too, send data inside TLS
    TLS_END = "tls-end"  #: the end of TLS, after the key; no answer
    CHALLENGE = "challenge"  #: the challenge sent back: ``ok``
    VERSION = "version"  #: ``version``: the revision
    SETHOST = "sethost"  #: ``sethost``: ``ok``
    KEY = "key"  #: ``ekey``: the build key
    REQUEST = "request"  #: any request


class Close(Enum):
    """Closing the connection."""

    CLOSE = "close"


#: A single action of a lond: wait (seconds), send bytes, or close.
Act = float | bytes | Close


@attrs.frozen(kw_only=True)
class Fault:
    """
    A fault of an answer. The fields can be combined; with the defaults nothing is changed.

    During a fault the connection does nothing else, since a lond answers one line at a time; its
    time limits still apply.

    :ivar delay: seconds before the answer.
    :ivar instead: sent instead of the answer, without an additional newline.
    :ivar cut: number of bytes omitted at the end of the answer.
    :ivar after: sent after the answer, in the same segment unless ``after_delay`` is set.
    :ivar after_delay: seconds between the answer and ``after``.
    :ivar endless: an endless line follows, as long as the caller reads it.
    :ivar pause: seconds between the bytes of the answer, which are then sent one at a time.
    :ivar close: close the connection at the end.
    """

    delay: float = 0.0
    instead: bytes | None = None
    cut: int = 0
    after: bytes = b""
    after_delay: float = 0.0
    endless: bool = False
    pause: float = 0.0
    close: bool = False

    def acts(self, answer: bytes) -> Iterator[Act]:
        """Yield the actions of the fault for an answer (with newline), in order."""
        said = answer if self.instead is None else self.instead
        said = said[: len(said) - self.cut]
        together = b"" if self.after_delay else self.after
        if self.delay:
            yield self.delay
        if self.pause:
            for byte in said + together:
                yield bytes([byte])
                yield self.pause
        elif said + together:
            yield said + together
        if self.after_delay:
            yield self.after_delay
            yield self.after
        while self.endless:
            yield _PIECE
            yield _BREATH
        if self.close:
            yield Close.CLOSE


REFUSE: Final = Fault(instead=b"refused\n", close=True)
REFUSE_WITHOUT_NEWLINE: Final = Fault(instead=b"refused", close=True)
STALL: Final = Fault(instead=b"")
CLOSE: Final = Fault(instead=b"", close=True)
SPLIT: Final = Fault(pause=0.001)
SLOW: Final = Fault(delay=3.0)
NO_NEWLINE: Final = Fault(cut=1, close=True)
ENDLESS: Final = Fault(instead=b"", endless=True)
EXTRA_LINE: Final = Fault(after=b"nobody asked\n")
NOT_A_CHALLENGE: Final = Fault(instead=b"who goes there\n")
NOT_OK: Final = Fault(instead=b"no\n")
NOT_A_KEY: Final = Fault(instead=b"not a key\n")
NOT_A_FRAME: Final = Fault(instead=b"enc:5:zz\n")

#: The faults above by name.
NAMED: Final[dict[str, Fault]] = {
    "refuse": REFUSE,
    "refuse-without-newline": REFUSE_WITHOUT_NEWLINE,
    "stall": STALL,
    "close": CLOSE,
    "split": SPLIT,
    "slow": SLOW,
    "no-newline": NO_NEWLINE,
    "endless": ENDLESS,
    "extra-line": EXTRA_LINE,
    "not-a-challenge": NOT_A_CHALLENGE,
    "not-ok": NOT_OK,
    "not-a-key": NOT_A_KEY,
    "not-a-frame": NOT_A_FRAME,
}


@attrs.define
class _Order:
    step: Step
    fault: Fault
    times: int | None
    command: bytes


class Faults:
    """The faults of a lond, oldest first; none initially."""

    def __init__(self) -> None:
        self._orders: list[_Order] = []

    def order(
        self, step: Step, fault: Fault, *, times: int | None = None, command: bytes = b""
    ) -> None:
        """
        Add a fault. If several apply, the oldest is used until its number of times is reached.

        :param times: how often; None: forever.
        :param command: only for requests with this command word; empty: for any.
        """
        self._orders.append(_Order(step, fault, times, command))

    def clear(self, step: Step | None = None) -> None:
        """Remove the faults of a step, or all."""
        self._orders = [order for order in self._orders if step not in (None, order.step)]

    def next_fault(self, step: Step, command: bytes = b"") -> Fault | None:
        """Return the fault to apply now, and count it; None for a correct answer."""
        for order in self._orders:
            if order.step is step and order.command in (b"", command):
                if order.times is not None:
                    order.times -= 1
                    if order.times <= 0:
                        self._orders.remove(order)
                return order.fault
        return None
