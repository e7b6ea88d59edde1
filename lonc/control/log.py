"""What the management port leaves in the log; whoever connects could fill it, so it is limited."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from lonc.report.events import Logger, RateLimited

log = Logger()


class ManagementLog:
    """Writes these lines."""

    def __init__(self, clock: IReactorTime) -> None:
        self._limited = RateLimited(clock, 60.0)
        self._limited_asking = RateLimited(clock, 10.0)

    def closed(self, why: str, kind: str) -> None:
        """
        Log that a connection is closed; clients may do so as often as they like.

        :param kind: so much of the reason that they cannot make as many as they like of it.
        """
        self._warn(kind, "Management connection closed: {why}{more}", why=why)

    def not_understood(self, why: str) -> None:
        """Log that a command was not understood."""
        self._warn("not understood", "Management command not understood: {why}{more}", why=why)

    def fault(self, failure: Failure, command: bytes) -> None:
        """Log a fault of lonc's own."""
        if self._limited.allow("fault") is not None:
            log.failure("Management command {command} failed", failure, command=command)

    def not_allowed(self, who: str, what: str) -> None:
        """Log that somebody asked for what he may not have."""
        message = "Not allowed over the management port: {what} for {who}{more}"
        self._warn("not allowed", message, what=what, who=who)

    def _warn(self, key: str, message: str, **fields: str) -> None:
        more = self._limited.allow(key)
        if more is not None:
            log.warn(message, more=more, **fields)

    def asked(self, asked: str, host_id: str, who: str) -> None:
        """Log what somebody has asked for, though a program may ask all the time."""
        more = self._limited_asking.allow(f"{asked} {host_id} {who}")
        if more is not None:
            message = "Asked over the management port by {who}: {asked}{more}"
            log.info(message, who=who, asked=asked, more=more, host_id=host_id)
