"""
The library for Python programs: ask a host, or leave a request that must not be lost.

It speaks with a running lonc as any client does, and knows nothing of what happens inside one.
"""

from lonc.client.clients import (
    CON_DELAYED,
    CON_FAILED,
    CON_LOST,
    Client,
    Connection,
    Limits,
    Reply,
    TwistedClient,
)

__all__ = [
    "CON_DELAYED",
    "CON_FAILED",
    "CON_LOST",
    "Client",
    "Connection",
    "Limits",
    "Reply",
    "TwistedClient",
]
