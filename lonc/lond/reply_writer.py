"""Sending the replies of a lond on one connection, with faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lonc.lond.faults import Act, Close, Faults, Step


@attrs.define(eq=False)
class ReplyWriter:
    """
    Sends one reply at a time.

    :param faults: the faults to apply.
    :param clock: for the pauses of faults.
    :param write: sends bytes.
    :param hang_up: closes the connection, if a fault demands it.
    :param go_on: called at the end of a reply that took time.

    :ivar choked: whether the caller does not read; faults are suspended meanwhile.
    """

    _faults: Faults
    _clock: IReactorTime
    _write: Callable[[bytes], None]
    _hang_up: Callable[[], None]
    _go_on: Callable[[], None]
    #: The remaining actions of a fault.
    _acts: Iterator[Act] | None = attrs.field(init=False, default=None)
    _wrap: Callable[[bytes], bytes] = attrs.field(init=False, default=bytes)
    _wait: IDelayedCall | None = attrs.field(init=False, default=None)  # until the next action
    choked: bool = attrs.field(init=False, default=False)

    @property
    def busy(self) -> bool:
        """Whether a reply is being sent, or nothing can be sent."""
        return self._acts is not None or self.choked

    @property
    def interrupted(self) -> bool:
        """Whether a fault is in progress."""
        return self._acts is not None

    def say(
        self,
        step: Step,
        said: bytes,
        command: bytes = b"",
        wrap: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """
        Send a reply, with a fault if one applies.

        :param said: the whole reply, with its newline.
        :param command: the command word of the request.
        :param wrap: applied to each piece before it is sent.
        """
        fault = self._faults.next_fault(step, command)
        if fault is not None:
            self._acts = fault.acts(said)
            self._wrap = wrap
            self._act()
        elif said:
            self._write(wrap(said))

    def _act(self) -> None:
        """Perform the actions of a fault, up to its next pause."""
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
        """Continue after a pause of the fault or the caller."""
        if self._wait is not None and self._wait.active():
            return
        self._wait = None
        if self.choked:
            return
        if self._acts is not None:
            self._act()
        self._go_on()

    def stop(self) -> None:
        """Stop sending."""
        if self._wait is not None and self._wait.active():
            self._wait.cancel()
        self._wait = None
        self._acts = None
