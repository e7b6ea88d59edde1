"""
Ask several machines concurrently for their load: ``python client_twisted.py SOCKETS HOST...``.

SOCKETS is lonc's folder of sockets, ``lonSockDir``; nothing else is needed.
"""

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from lonc.client import Reply, TwistedClient


async def main(reactor: Any, sock_dir: str, *hosts: str) -> None:
    """Print the answers, waiting up to a minute."""
    client = TwistedClient(reactor, sock_dir)
    try:
        asked: list[Deferred[Reply]] = [client.ask(host, "load", timeout=60) for host in hosts]
        for host, reply in zip(hosts, await gatherResults(asked), strict=True):
            print(f"{host}: {reply.text}", f"({reply.why})" if reply.why else "")
        sys.stdout.flush()
    except (ValueError, OSError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for output that is no longer read
        raise SystemExit(f"client_twisted.py: {error}") from None


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: client_twisted.py SOCKETS HOST...")
    react(main, sys.argv[1:])
