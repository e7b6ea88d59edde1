# twisted.protocols.amp has no annotations:
# mypy: allow-untyped-calls
"""Bounds for what comes over AMP, on both sides: a box may be of any size, and a key may not."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp


class BoundedAMP(amp.AMP):
    """
    AMP that ends a connection at the first box that it has no room for.

    :cvar longest_box: bytes of a box at most, keys and values together.
    """

    longest_box: int
    transport: Any
    paused: bool
    _currentKey: bytes
    _box_size = 0

    def refuse(self, why: str) -> None:
        """End the connection: the other side does not speak AMP as lonc does."""
        self.paused = True  # nothing that has come is looked at any more
        if self.transport is not None:
            self.transport.abortConnection()

    def proto_value(self, string: bytes) -> str:
        """Take a value of a box."""
        self._box_size += len(self._currentKey) + len(string)
        if self._box_size > self.longest_box:
            self.refuse(f"a box is longer than {self.longest_box} bytes")
        state: str = super().proto_value(string)
        return state

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Take a whole box."""
        self._box_size = 0
        super().ampBoxReceived(box)

    def lengthLimitExceeded(self, length: int) -> None:
        """Keys end at 255 bytes; text in any other protocol looks like a longer one."""
        self.refuse(f"this is not AMP: a key of {length} bytes")
