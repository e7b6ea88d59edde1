"""
Delayed requests on their way: their file goes when their answer is known to be theirs.

A lond that says a line too many answers each later request on that connection with the answer to
the one before. So the answer to a delayed request counts when the connection has answered ``ping``
rightly since, or when the request was the first one on it and ``ping`` tells nothing. Before the
lond's answer to ``ping`` is known, it is learned from the connection of a first request: one line
too many may have come before that.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from lonc.wire.request import LONC, Cause, ConLost, Provable


class Delivery:
    """
    Who asks a delayed request, and hears by which connection the answer came.

    :param host_id: who is asked, for the text of the error.
    :param counts: asked once ``ping`` has not proven the answer to a first request: whether it
        counts all the same.
    :ivar is_first: whether it has to be the first request on its connection.
    :ivar outcome: fires with the answer, and with the connection that has to be proven, None where
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
        """Keep the reply until it is known where it came from."""
        self._reply = reply

    def came_by(self, connection: Provable | None) -> None:
        """Fire with the reply, which this connection has brought; None: it is lonc's own."""
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
