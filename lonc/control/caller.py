"""Who is at the other end of a management connection, for the commands that come over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lonc.control.access import Level, Visitor
from lonc.control.errors import NotAllowed
from lonc.control.log import ManagementLog

#: What is told who may not have something, by the level that it takes.
_REFUSALS: Final = {
    Level.SEE: "may see nothing: it is not in loncManagementNames",
    Level.STEER: "may see, and not steer",
    Level.OWN: "may not see that: it is for lonc's own user and root",
}


class Caller:
    """
    Whoever gives the commands of one connection.

    :param visitor: tells who it is: asked each time, for names in the settings may change.
    """

    def __init__(self, visitor: Callable[[], Visitor], log: ManagementLog) -> None:
        self._visitor = visitor
        self._log = log

    @property
    def level(self) -> Level:
        """What the caller may do."""
        return self._visitor().level

    def require(self, level: Level, what: str) -> None:
        """
        Check that the caller may have what is asked for.

        :raises lonc.control.errors.NotAllowed: that is not so.
        """
        visitor = self._visitor()
        if visitor.level < level:
            self._log.not_allowed(visitor.who, what)
            raise NotAllowed(f"{visitor.who} {_REFUSALS[level]} ({what})")

    def note(self, asked: str, host_id: str) -> None:
        """Log what the caller asks for."""
        self._log.asked(asked, host_id, self._visitor().who)
