"""TCP keepalive: a connection that nobody uses and that has gone without a word is noticed."""

from __future__ import annotations

import socket

from twisted.internet.interfaces import ITCPTransport


def keep_alive(transport: ITCPTransport, idle: int, interval: int, probes: int) -> None:
    """
    Have the kernel ask an idle peer whether it is still there.

    :param idle: seconds of silence before it is asked first.
    :param interval: seconds between two questions.
    :param probes: questions without an answer after which the connection breaks.
    """
    transport.setTcpKeepAlive(True)
    handle = transport.getHandle()  # type: ignore[attr-defined]  # Twisted's have it all the same
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
    getattr(transport, "forget_handle", bool)()
