# mypy: allow-untyped-calls
"""
Serve a host inside a Twisted program, and send requests to it: ``python docs/examples/embed.py
FOLDER``.

It uses the embedded lond, on a free port of 127.0.0.1. The host's UNIX socket is created in FOLDER.
"""

import os
import sys
from random import Random
from typing import Any

from twisted.internet.task import LoopingCall, react
from twisted.internet.threads import deferToThread

from lonc.config.hosts import Host
from lonc.config.settings import Settings
from lonc.host.dependencies import HostDependencies
from lonc.host.resolver import addresses_of
from lonc.host.service import HostService
from lonc.local.limits import Clients
from lonc.lond.protocol import LondFactory
from lonc.transport.unix_socket import SocketError


async def main(reactor: Any, folder: str) -> None:
    """Serve the host l2 and send it three requests."""
    lond = LondFactory(reactor, "l2", "l1")
    port = reactor.listenTCP(0, lond, interface="127.0.0.1")

    settings = Settings(
        config_file="",
        host_id="l1",
        tab_dir=folder,
        sock_dir=folder,
        daemons_dir=folder,
        doc_root=folder,
        lond_port=port.getHost().port,
    )
    clients = Clients(settings, reactor)
    around = HostDependencies(
        clock=reactor,
        network=reactor,
        look_up=lambda name: deferToThread(addresses_of, name),
        random=Random(),
        clients=clients,
        revived=lambda host_id: print(f"{host_id} is back"),
    )
    row = Host("l2", "local", "access", "l2.localhost", "127.0.0.1", line=1)
    host = HostService(row, settings, around)

    def sweep() -> None:
        # Applies the time limits, as LoncService would do.
        now = reactor.seconds()
        clients.sweep(now)
        host.sweep(now)

    limits = LoopingCall(sweep)
    limits.start(0.25)
    host.startService()
    for request in (b"ping\n", b"put:msu:alice:grades:essay=A\n", b"get:msu:alice:grades:essay\n"):
        answer = await host.ask(request)
        print(answer.decode().rstrip("\n"))
    print(host.status(delayed=0, last_log="").text)
    await host.stopService()
    limits.stop()
    await lond.close_connections()
    await port.stopListening()


async def run(reactor: Any, folder: str) -> None:
    """Run it; report errors in one line."""
    try:
        await main(reactor, folder)
        sys.stdout.flush()
    except (SocketError, OSError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for output that is no longer read
        raise SystemExit(f"embed.py: {error}") from None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: embed.py FOLDER")
    react(run, [sys.argv[1]])
