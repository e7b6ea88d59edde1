"""
The library for Python programs: ask a host, or leave a request that must not be lost.

It speaks with a running lonc as any client does, and knows nothing of what happens inside one.
:class:`Client` blocks, :class:`TwistedClient` returns Deferreds. Values are escaped and unescaped
by :mod:`lonc.wire.escaping`.

A request is ``str``, which is sent as UTF-8, or ``bytes``; it has no newline. A ``Reply`` is
``bytes`` without the newline. ``con_lost`` is a reply like any other, never an exception: nobody
knows then whether the request was done. It comes from lonc, and from here when lonc does not run,
closes the connection, or does not answer in time; ``reply.why`` says which it was.
"""

from lonc.client.blocking import Client, Connection
from lonc.client.exchange import CON_DELAYED, CON_FAILED, CON_LOST, Limits, Reply
from lonc.client.twisted import TwistedClient

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
