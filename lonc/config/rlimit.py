"""
The limit of open files, and how many hosts and clients it is sufficient for.
"""

from __future__ import annotations

import errno
import os
import resource

#: Descriptors for all that is no client and no connection: logs, the event loop, threads'
#: files, the management ports (32 for each level, and TLS handshakes), the standard library's.
SPARE = 192

#: Hosts that are served however low the limit is.
FEWEST_HOSTS = 16

#: Clients that are served however low the limit is.
FEWEST_CLIENTS = 16


def needed_files(hosts: int, max_connections: int, max_clients: int) -> int:
    """Return how many descriptors a table of this size can come to need."""
    return hosts * (1 + max_connections) + max_clients + SPARE


def room_for_hosts(limit: int, sockets: int) -> int:
    """
    Return how many hosts can be served.

    Half of what is not spare is kept back for clients and connections: a host that has its socket
    and nothing left to serve it with is of no use.

    :param limit: the limit of open files.
    :param sockets: of each host.
    """
    return max(FEWEST_HOSTS, (limit - SPARE) // 2 // sockets)


def room_for_clients(limit: int, sockets: int, connections: int) -> int:
    """
    Return how many clients can be served without using the reserve.

    :param limit: the limit of open files.
    :param sockets: of all hosts.
    :param connections: of all hosts at most; they get half of what is left if need be.
    """
    rest = limit - SPARE - sockets
    return max(FEWEST_CLIENTS, rest - min(connections, rest // 2))


def raise_file_limit(needed: int) -> int:
    """
    Raise the soft limit of open files, and with the right to do so the hard one.

    :return: the limit in force, which may be lower than what is needed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return soft
    for wanted, ceiling in ((needed, max(needed, hard)), (min(needed, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, ceiling))
        except (ValueError, OSError):
            continue
        break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def why_no_file() -> str:
    """Return why no further file, socket or connection can be opened; empty where they can."""
    try:
        os.close(os.dup(0))
    except OSError as error:
        return "" if error.errno == errno.EBADF else str(error.strerror)
    return ""
