"""
Whether loncnew, or a lonc with another ``lonDaemons``, serves these sockets already.

loncnew has no lock on ``lonc.pid``: a lonc beside it would take that file for its own, write its
number into it, and get none of the sockets.
"""

from __future__ import annotations

from itertools import islice

from lonc.config.hosts import HostTable
from lonc.config.settings import Settings
from lonc.transport.unix_socket import listener_at

#: So many hosts of the table are looked at: whoever serves a table serves all of it.
LOOKED_AT = 20


def who_serves(settings: Settings, table: HostTable) -> str:
    """
    Tell who listens on the hosts' sockets; empty where that is nobody.

    One program on the socket of one host is no lonc, and keeps the others from nothing: more than
    half of them have to be taken.
    """
    hosts = list(islice(table.hosts.values(), LOOKED_AT))
    by_name = settings.socket_names == "hostname"
    paths = [settings.socket_path(host.hostname if by_name else host.id) for host in hosts]
    found = [(path, pid) for path in paths if (pid := listener_at(path)) is not None]
    if 2 * len(found) <= len(paths):
        return ""
    path, pid = found[0]
    who = f"process {pid}" if pid else "a process"
    return f"loncnew or another lonc serves the sockets in {settings.sock_dir}: {who} has {path}"
