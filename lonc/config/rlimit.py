"""
The limit on open files, and how many hosts and clients it allows.
"""

from __future__ import annotations

import errno
import os
import resource

#: Descriptors for everything but clients and connections: logs, the event loop, files of threads,
#: the management ports (32 for each level, and TLS handshakes), the standard library.
SPARE = 192

#: Hosts that are served however low the limit is.
FEWEST_HOSTS = 16

#: Clients that are served however low the limit is.
FEWEST_CLIENTS = 16


def needed_files(hosts: int, max_connections: int, max_clients: int) -> int:
    """Return the maximum number of descriptors needed for a table of this size."""
    return hosts * (1 + max_connections) + max_clients + SPARE


def room_for_hosts(limit: int, sockets: int) -> int:
    """
    Return how many hosts can be served.

    Half of the descriptors, without SPARE, is reserved for clients and connections: a host with a
    socket and no descriptors to serve it is useless.

    :param limit: the limit on open files.
    :param sockets: number of sockets of each host.
    """
    return max(FEWEST_HOSTS, (limit - SPARE) // 2 // sockets)


def room_for_clients(limit: int, sockets: int, connections: int) -> int:
    """
    Return how many clients can be served without using the reserve.

    :param limit: the limit on open files.
    :param sockets: number of sockets of all hosts.
    :param connections: maximum for all hosts; they get at most half of the rest.
    """
    rest = limit - SPARE - sockets
    return max(FEWEST_CLIENTS, rest - min(connections, rest // 2))


def raise_file_limit(needed: int) -> int:
    """
    Raise the soft limit on open files, and if permitted the hard one.

    :return: the limit in force, which may be lower than needed.
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
    """Return why no more files can be opened; empty if they can."""
    try:
        os.close(os.dup(0))
    except OSError as error:
        return "" if error.errno == errno.EBADF else str(error.strerror)
    return ""
