"""
Sending delayed requests: their files are deleted when their answers are known to belong to them.

After a surplus line of a lond, each later request on that connection gets the answer to the
previous one. So the answer to a delayed request only counts after ``ping`` has been answered
correctly on the connection, or, if ``ping`` is not useful, when the request was the first one on
it. As long as the lond's answer to ``ping`` is unknown, requests are also sent as the first ones,
and the answer is learned there.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from lonc.wire.request import LONC, Cause, ConLost, Provable


class Delivery:
    """
    The asker of a delayed request, which also learns the connection of the answer.

    :param host_id: for the text of the error.
    :param counts: called if ``ping`` has not proven the answer to a first request; returns whether
        it counts nevertheless.
    :ivar is_first: whether it must be the first request on its connection.
    :ivar outcome: fires with the answer, and with the connection that has to be proven, or None if
        it counts already; fails with :exc:`lonc.wire.request.ConLost`.
    """

    program = known_program = LONC

    def __init__(self, host_id: str, is_first: bool, counts: Callable[[], bool]) -> None:
        self.outcome: Deferred[tuple[bytes, Provable | None]] = Deferred()
        self._host_id = host_id
        self.is_first = is_first
        self._counts = counts
        self._reply = b""

    def answered(self, reply: bytes) -> None:
        """Keep the reply until its connection is known."""
        self._reply = reply

    def came_by(self, connection: Provable | None) -> None:
        """Fire with the reply and its connection, which is None for a reply of lonc itself."""
        reply, self._reply = self._reply, b""
        if not reply:
            return
        if not self.is_first or connection is None:
            self.outcome.callback((reply, connection))
            return

        def judge(in_step: bool) -> None:
            counts = in_step or self._counts()
            self.outcome.callback((reply, None if counts else connection))

        connection.prove().addCallback(judge)

    def lost(self, cause: Cause) -> None:
        """Fail with the cause."""
        self.outcome.errback(ConLost(cause, self._host_id))
