"""What a lond says on one connection: at once, or as a fault will have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lonc.lond.faults import Act, Close, Faults, Step


@attrs.define(eq=False)
class ReplyWriter:
    """
    Says one thing at a time.

    :param faults: what is to go wrong.
    :param clock: gives a fault its pauses.
    :param write: sends bytes.
    :param hang_up: ends the connection, where a fault wants that.
    :param go_on: called when something that took a while has been said.

    :ivar choked: whether the caller takes nothing; a fault waits as long.
    """

    _faults: Faults
    _clock: IReactorTime
    _write: Callable[[bytes], None]
    _hang_up: Callable[[], None]
    _go_on: Callable[[], None]
    #: What a fault still has to do.
    _acts: Iterator[Act] | None = attrs.field(init=False, default=None)
    _wrap: Callable[[bytes], bytes] = attrs.field(init=False, default=bytes)
    _wait: IDelayedCall | None = attrs.field(init=False, default=None)  # until its next act
    choked: bool = attrs.field(init=False, default=False)

    @property
    def busy(self) -> bool:
        """Whether something is still being said, or cannot be."""
        return self._acts is not None or self.choked

    @property
    def interrupted(self) -> bool:
        """Whether a fault is under way."""
        return self._acts is not None

    def say(
        self,
        step: Step,
        said: bytes,
        command: bytes = b"",
        wrap: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """
        Say something, or do wrong what is ordered to go wrong.

        :param said: all of it, its newline included.
        :param command: the command word of the request that it answers.
        :param wrap: makes of each piece what is sent.
        """
        fault = self._faults.next_fault(step, command)
        if fault is not None:
            self._acts = fault.acts(said)
            self._wrap = wrap
            self._act()
        elif said:
            self._write(wrap(said))

    def _act(self) -> None:
        """Do what a fault has to do, up to its next pause."""
        assert self._acts is not None
        for act in self._acts:
            if isinstance(act, bytes):
                self._write(self._wrap(act))
            elif isinstance(act, Close):
                self._hang_up()
                break
            else:
                self._wait = self._clock.callLater(act, self.resume)
                return
        self._acts = None

    def resume(self) -> None:
        """Go on after a pause, the fault's own or the caller's."""
        if self._wait is not None and self._wait.active():
            return
        self._wait = None
        if self.choked:
            return
        if self._acts is not None:
            self._act()
        self._go_on()

    def stop(self) -> None:
        """Say nothing more."""
        if self._wait is not None and self._wait.active():
            self._wait.cancel()
        self._wait = None
        self._acts = None
