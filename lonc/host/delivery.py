"""
Delayed requests on their way: their file goes when their answer is known to be theirs.

A lond that says a line too many answers each later request on that connection with the answer to
the one before. So the answer to a delayed request counts when the connection has answered ``ping``
rightly since, or when the request was the first one on it.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from lonc.wire.request import LONC, Cause, ConLost, Provable


class Delivery:
    """
    Who asks a delayed request, and hears by which connection the answer came.

    :param host_id: who is asked, for the text of the error.
    :ivar counts: whether it has to be the first request on its connection: so its answer counts
        without a proof.
    :ivar outcome: fires with the answer, and with the connection that has to be proven, None where
        it counts already; fails with :exc:`lonc.wire.request.ConLost`.
    """

    program = known_program = LONC

    def __init__(self, host_id: str, counts: bool) -> None:
        self.outcome: Deferred[tuple[bytes, Provable | None]] = Deferred()
        self._host_id = host_id
        self.counts = counts
        self._reply = b""

    def answered(self, reply: bytes) -> None:
        """Keep the reply until it is known where it came from."""
        self._reply = reply

    def came_by(self, connection: Provable | None) -> None:
        """Fire with the reply, which this connection has brought; None: it is lonc's own."""
        reply, self._reply = self._reply, b""
        if not reply:
            return
        if self.counts and connection is not None:
            connection.prove()  # so that it is known what the lond answers to ping
            connection = None
        self.outcome.callback((reply, connection))

    def lost(self, cause: Cause) -> None:
        """Fail with the cause."""
        self.outcome.errback(ConLost(cause, self._host_id))
