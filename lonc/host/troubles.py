"""
Log messages about a host's connections, mostly about failures (rows S10, S15 and F2).

Others could cause any of these messages arbitrarily often, so each kind is rate limited.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from lonc.host.connection_states import Trouble
from lonc.report.events import Logger, RateLimited

#: Seconds between messages about a host that remains DEAD: its probes fail once a minute.
TOLD_AGAIN: Final = 3600.0

#: Seconds between messages of the same kind.
APART: Final = 10.0

log = Logger()


class TroubleLog:
    """
    The log messages about one machine.

    :ivar host_id: to which they are attributed: that of the first host.
    """

    __slots__ = ("_away", "_clock", "_lines", "host_id")

    def __init__(self, host_id: str, clock: IReactorTime) -> None:
        self.host_id = host_id
        self._clock = clock
        self._lines = RateLimited(clock, APART)
        self._away = RateLimited(clock, TOLD_AGAIN)

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

    def tell_failed(self, at: str, trouble: Trouble, reason: str, *, away: bool) -> None:
        """
        Log that a connection failed.

        :param at: its destination.
        :param away: whether the host was already DEAD: then it is logged once an hour.
        """
        if away and self._away.allow() is None:
            return
        more = self._lines.allow(trouble.value)
        if more is not None:
            log.warn(
                "connection to {at} {trouble}: {reason}{more}",
                at=at,
                trouble=trouble.value,
                reason=reason,
                more=more,
                host_id=self.host_id,
            )

    def tell_died(self, at: str, trouble: Trouble, reason: str) -> None:
        """Log that the host became DEAD because a connection failed."""
        self._away = RateLimited(self._clock, TOLD_AGAIN)
        self._away.allow()  # counts as the message of the first hour
        log.critical(
            "host marked dead: con_lost at once until it answers a probe; "
            "connection to {at} {trouble}: {reason}",
            at=at,
            trouble=trouble.value,
            reason=reason,
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
