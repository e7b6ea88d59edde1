# ruff: noqa: F403, F405
"""
The public names for managing a running lonc: the client, the AMP commands and their errors.

Importing AMP takes two megabytes, so these names are imported on demand.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lonc.control.client import ManagementClient
    from lonc.control.commands import *
    from lonc.control.errors import *
    from lonc.control.port import ManagementPortError
    from lonc.control.server import ManagementFactory, ManagementProtocol

__all__ = [
    "About",
    "BadArguments",
    "BadLevel",
    "CloseConnections",
    "DropDelayed",
    "HandOver",
    "InternalError",
    "ListClients",
    "ListConnections",
    "ListDelayed",
    "ListHosts",
    "ListProblems",
    "ListSettings",
    "ListSlow",
    "ManagementClient",
    "ManagementError",
    "ManagementFactory",
    "ManagementPortError",
    "ManagementProtocol",
    "NoAnswer",
    "NotAllowed",
    "NotDone",
    "Pause",
    "Reload",
    "ReloadFailed",
    "Report",
    "ReportFailed",
    "RequeueDelayed",
    "RereadTable",
    "ResetRetries",
    "Resume",
    "RetryDelayed",
    "SetDebugLevel",
    "ShowDelayed",
    "Stop",
    "Trace",
    "UnknownFile",
    "UnknownHost",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    for module in ("errors", "port", "client", "commands", "server"):
        found = vars(import_module(f"lonc.control.{module}"))
        if name in found:
            return found[name]
    raise AttributeError(name)
