"""
Whether loncnew, or a lonc with another ``lonDaemons``, already serves the hosts' sockets.

loncnew does not lock ``lonc.pid``: a lonc beside it would overwrite that file, delete it at its
end, and get none of the sockets.
"""

from __future__ import annotations

from itertools import islice

from lonc.config.hosts import HostTable
from lonc.config.settings import Settings
from lonc.transport.unix_socket import listener_at

#: Hosts that are looked at: a lonc serves all hosts of its table.
LOOKED_AT = 20


def who_serves(settings: Settings, table: HostTable) -> str:
    """
    Return a sentence about who listens on the hosts' sockets; empty if nobody does.

    A program on the socket of a single host is no lonc, and the other hosts can be served all the
    same: more than half of the sockets have to be taken.
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
