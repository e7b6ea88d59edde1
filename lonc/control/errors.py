"""
What the management port can answer in place of a result (row S18).

The daemon raises some of these; they stand apart from the commands so that it need not import AMP.
"""

from __future__ import annotations


class ManagementError(Exception):
    """Why a command was not carried out, in one line for a person."""


class UnknownHost(ManagementError):
    """There is no such host in the table."""


class UnknownFile(ManagementError):
    """There is no such delayed request."""


class NotAllowed(ManagementError):
    """Whoever asks may see, and not steer; or not see this."""


class NotDone(ManagementError):
    """It cannot be done now, and why."""


class BadArguments(ManagementError):
    """A command has not the arguments that it takes."""


class BadLevel(ManagementError):
    """A debug level is a number from 0 to 9."""


class ReportFailed(ManagementError):
    """The status file could not be written."""


class ReloadFailed(ManagementError):
    """The table or the configuration is unusable; what was in force stays in force."""


class InternalError(ManagementError):
    """Something is wrong inside lonc; its log says what."""


class NoAnswer(ManagementError):
    """For the client only: lonc was not reached, or its answer did not come in time."""
