"""
The public names of what manages a running lonc: the client, the AMP commands and their errors.

AMP takes two megabytes, so what needs it is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lonc.control.client import ManagementClient
    from lonc.control.commands import (
        About,
        CloseConnections,
        ListHosts,
        Reload,
        Report,
        RereadTable,
        ResetRetries,
        SetDebugLevel,
        Stop,
    )
    from lonc.control.daemon import Daemon
    from lonc.control.errors import (
        BadLevel,
        InternalError,
        ManagementError,
        NoAnswer,
        NotAllowed,
        NotDone,
        ReloadFailed,
        ReportFailed,
        UnknownFile,
        UnknownHost,
    )
    from lonc.control.server import ManagementFactory, ManagementProtocol

__all__ = [
    "About",
    "BadLevel",
    "CloseConnections",
    "Daemon",
    "InternalError",
    "ListHosts",
    "ManagementClient",
    "ManagementError",
    "ManagementFactory",
    "ManagementProtocol",
    "NoAnswer",
    "NotAllowed",
    "NotDone",
    "Reload",
    "ReloadFailed",
    "Report",
    "ReportFailed",
    "RereadTable",
    "ResetRetries",
    "SetDebugLevel",
    "Stop",
    "UnknownFile",
    "UnknownHost",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from lonc.control import client, commands, errors, server

    return next(
        vars(module)[name] for module in (client, commands, errors, server) if name in vars(module)
    )
