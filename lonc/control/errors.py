"""
Errors that the management port can answer (row S18).

They are separate from the commands so that the daemon can raise them without importing AMP.
"""

from __future__ import annotations


class ManagementError(Exception):
    """A command was not carried out; the message is a readable line."""


class UnknownHost(ManagementError):
    """There is no such host in the table."""


class UnknownFile(ManagementError):
    """There is no such delayed request."""


class NotAllowed(ManagementError):
    """The client lacks the required access level."""


class NotDone(ManagementError):
    """It cannot be done now; the message says why."""


class BadArguments(ManagementError):
    """A command has missing or wrong arguments."""


class BadLevel(ManagementError):
    """The debug level is not a number from 0 to 9."""


class ReportFailed(ManagementError):
    """The status file could not be written."""


class ReloadFailed(ManagementError):
    """The table or the configuration is unusable; what was in force stays in force."""


class InternalError(ManagementError):
    """An internal error of lonc; its log has the details."""


class NoAnswer(ManagementError):
    """Raised by the client: lonc was not reached, or did not answer in time."""
