"""
Faults to order: what a lond does wrong, at which step, and how often.

This module is pure. A demonstration, or a test, orders like this::

    faults = Faults()
    faults.order(Step.KEY, STALL)                              # no key, ever
    faults.order(Step.REQUEST, CLOSE, times=1, command=b"put")  # the next put only
    faults.order(Step.REQUEST, Fault(delay=3.0, pause=0.001))   # late, and byte by byte
    faults.clear()

and hands ``faults`` to `lonc.lond.protocol.LondFactory`. Orders may change while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

import attrs

#: Seconds between two pieces of a line that never ends.
_BREATH: Final = 0.001
#: One such piece.
_PIECE: Final = b"x" * 65536


class Step(Enum):
    """Where a fault happens: at the lond's answer to what comes in (protocol, sections 2 and 9)."""

    CONNECT = "connect"  #: the connection itself, where a lond has nothing to say
    INIT = "init"  #: ``init``: the challenge
    LOCAL = "local"  #: ``init:local``: ``ok:local``
    SSL = "ssl"  #: ``init:ssl``: ``ok:ssl``
    TLS = "tls"  #: the caller's part of establishing TLS: the lond's, which is no line
    TLS_KEY = "tls-key"  #: TLS is established: the key, inside it; so is what a fault sends
    TLS_END = "tls-end"  #: the end of TLS, behind the key, where a lond has nothing to say
    CHALLENGE = "challenge"  #: the challenge sent back: ``ok``
    VERSION = "version"  #: ``version``: the revision
    SETHOST = "sethost"  #: ``sethost``: ``ok``
    KEY = "key"  #: ``ekey``: the build key
    REQUEST = "request"  #: any request


class Close(Enum):
    """The act that is no bytes: hang up."""

    CLOSE = "close"


#: What a lond does, one after the other: wait so many seconds, send bytes, or close.
Act = float | bytes | Close


@attrs.frozen(kw_only=True)
class Fault:
    """
    How an answer goes wrong. The fields combine; a Fault without any changes nothing.

    While one is under way its connection does nothing else, as a lond answers a line at a time;
    its own time limits hold.

    :ivar delay: seconds before the answer.
    :ivar instead: these bytes take the place of the answer; no newline is added.
    :ivar cut: so many bytes at the end of the answer are held back.
    :ivar after: bytes that follow the answer, in the same segment unless ``after_delay`` is set.
    :ivar after_delay: seconds between the answer and ``after``.
    :ivar endless: a line without an end follows, for as long as the caller takes it.
    :ivar pause: seconds between the bytes of the answer, each then in a segment of its own.
    :ivar close: hang up at the end.
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
        """Play the fault on an answer, newline included: yield what to do, in order."""
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

#: The faults above by the name a person calls them.
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
    """The orders that stand, oldest first; a lond without any makes no fault."""

    def __init__(self) -> None:
        self._orders: list[_Order] = []

    def order(
        self, step: Step, fault: Fault, *, times: int | None = None, command: bytes = b""
    ) -> None:
        """
        Order a fault. Where several fit, the oldest serves until its times are over.

        :param times: how often; for ever when None.
        :param command: only for requests with this command word; for any when empty.
        """
        self._orders.append(_Order(step, fault, times, command))

    def clear(self, step: Step | None = None) -> None:
        """Forget the orders for a step, or all."""
        self._orders = [order for order in self._orders if step not in (None, order.step)]

    def next_fault(self, step: Step, command: bytes = b"") -> Fault | None:
        """Return the fault to make now, and count it; None for a plain answer."""
        for order in self._orders:
            if order.step is step and order.command in (b"", command):
                if order.times is not None:
                    order.times -= 1
                    if order.times <= 0:
                        self._orders.remove(order)
                return order.fault
        return None
