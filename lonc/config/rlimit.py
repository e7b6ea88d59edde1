"""
The limit on open files, and how many hosts and clients it allows.
"""

from __future__ import annotations

import errno
import os
import resource

from lonc.config.settings import Settings

#: Descriptors for everything but clients and connections: logs, the event loop, files of threads,
#: the management ports (32 for each level, and TLS handshakes), the standard library.
SPARE = 192

#: Hosts that are served however low the limit is.
FEWEST_HOSTS = 16

#: Clients that are served however low the limit is.
FEWEST_CLIENTS = 16


def sockets_of_a_host(settings: Settings) -> int:
    """Return the maximum number of sockets of a host."""
    return 2 if settings.socket_names == "both" else 1


def needed_files(settings: Settings, hosts: int) -> int:
    """Return the maximum number of descriptors needed for a number of hosts."""
    for_each = sockets_of_a_host(settings) + settings.max_connections
    return hosts * for_each + settings.max_clients + SPARE


def room_for_hosts(settings: Settings, limit: int) -> int:
    """
    Return how many hosts can be served.

    Half of the descriptors, without SPARE, is reserved for clients and connections: a host with a
    socket and no descriptors to serve it is useless.

    :param limit: the limit on open files.
    """
    return max(FEWEST_HOSTS, (limit - SPARE) // 2 // sockets_of_a_host(settings))


def room_for_clients(settings: Settings, limit: int, hosts: int) -> int:
    """
    Return how many clients can be served without using the reserve.

    Connections to londs get at most half of what the hosts' sockets leave.

    :param limit: the limit on open files.
    :param hosts: number of hosts served.
    """
    rest = limit - SPARE - hosts * sockets_of_a_host(settings)
    return max(FEWEST_CLIENTS, rest - min(hosts * settings.max_connections, rest // 2))


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
