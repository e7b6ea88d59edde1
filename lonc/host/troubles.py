"""
Log messages about a host's connections, mostly about failures, and the last failure (rows S10, S15
and F2).

Others could cause any of these messages arbitrarily often, so each kind is rate limited.
"""

from __future__ import annotations

import time
from typing import Final

from twisted.internet.interfaces import IReactorTime

from lonc.host.connection_states import Trouble
from lonc.local.limits import Clients
from lonc.report.events import Logger, RateLimited
from lonc.report.status import LastFailure

#: Seconds between messages about a host that remains DEAD: its probes fail once a minute.
TOLD_AGAIN: Final = 3600.0

#: Seconds between messages of the same kind.
APART: Final = 10.0

#: Shared by all londs, and replaced as a whole.
_NO_FAILURE: Final = LastFailure()

log = Logger()


class TroubleLog:
    """
    The log messages about one machine.

    :param at: the destination of its connections.
    :ivar host_id: to which they are attributed: that of the first host.
    :ivar last_failure: the last failure of a connection, for the status.
    """

    __slots__ = ("_at", "_clients", "_clock", "_lines", "_silent_until", "host_id", "last_failure")

    def __init__(self, host_id: str, at: str, clock: IReactorTime, clients: Clients) -> None:
        self.host_id = host_id
        self.last_failure = _NO_FAILURE
        self._at = at
        self._clock = clock
        self._clients = clients
        self._lines = RateLimited(clock, APART)
        self._silent_until = 0.0  # about its probes while it is DEAD

    def tell_ready(self, count: int) -> None:
        """Log that a connection is ready, with the number of connections."""
        if self._lines.allow(str(count)) is not None:
            log.info("connection {count} is ready", count=count, success=True, host_id=self.host_id)

    def tell_other_way(self, reason: str) -> None:
        """Log that a connection failed and another authentication mode is tried."""
        more = self._lines.allow("other way")
        if more is not None:
            log.warn(
                "the lond does not accept this authentication mode, trying another: {reason}{more}",
                reason=reason,
                more=more,
                host_id=self.host_id,
            )

    def tell_failed(
        self, trouble: Trouble, reason: str, *, died: bool = False, away: bool = False
    ) -> None:
        """
        Log that a connection failed.

        :param died: whether that made the host DEAD.
        :param away: whether the host has not been up since it was DEAD before: then it is logged
            once an hour.
        """
        self.last_failure = {"what": f"{trouble.value}: {reason}", "when": time.time()}
        if trouble is Trouble.NO_FILES:
            # Rate limited, since it may happen for every request.
            self._clients.warn("files", self.host_id, f"no connection attempted: {reason}")
        elif died and not away:
            self._silent_until = self._clock.seconds() + TOLD_AGAIN
            log.critical(
                "host marked dead: con_lost at once until it answers a probe; "
                "connection to {at} {trouble}: {reason}",
                at=self._at,
                trouble=trouble.value,
                reason=reason,
                host_id=self.host_id,
            )
        elif not away or self._clock.seconds() >= self._silent_until:
            if away:
                self._silent_until = self._clock.seconds() + TOLD_AGAIN
            more = self._lines.allow(trouble.value)
            if more is not None:
                log.warn(
                    "connection to {at} {trouble}: {reason}{more}",
                    at=self._at,
                    trouble=trouble.value,
                    reason=reason,
                    more=more,
                    host_id=self.host_id,
                )

    def tell_out_of_step(self, count: int, reason: str) -> None:
        """Log how many answers of a connection may have reached the wrong clients."""
        more = self._lines.allow("out of step")
        if more is not None:
            log.critical(
                "the lond is out of step, {count} answers may have reached the wrong clients: "
                "{reason}{more}",
                count=count,
                reason=reason,
                more=more,
                host_id=self.host_id,
            )

    def tell_cannot_be_asked(self, count: int) -> None:
        """Log that connections are replaced after `count` requests, since ping is no check."""
        if self._lines.allow("ping") is not None:
            log.warn(
                "its answers to ping differ or are missing: each connection is replaced after "
                "{count} requests",
                count=count,
                host_id=self.host_id,
            )
