"""
The management port: its AMP commands, both of its sides, and where it listens.

Nothing here serves a request, or changes more than what a command asks for. AMP takes two
megabytes, so what needs it is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lonc.management.client import ManagementClient
    from lonc.management.commands import (
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
    from lonc.management.daemon import Daemon
    from lonc.management.errors import (
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
    from lonc.management.server import ManagementFactory, ManagementProtocol

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
    from lonc.management import client, commands, errors, server

    return next(
        vars(module)[name] for module in (client, commands, errors, server) if name in vars(module)
    )
