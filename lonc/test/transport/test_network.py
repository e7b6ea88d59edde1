"""The network of a real reactor."""

from __future__ import annotations

import os
import socket
import stat

from twisted.trial.unittest import TestCase

from lonc.test.fixtures.networks import ConnectFactory, Listener
from lonc.transport.network import network


class RealReactorTests(TestCase):
    """With the real reactor."""

    async def test_relay(self) -> None:
        """It connects, listens with the given mode, and leaves a file that replaced its own."""
        from twisted.internet import reactor

        chosen = network(reactor)
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.relpath(os.path.join(folder, "s"))
        listener, receiver = Listener(), ConnectFactory()
        port = chosen.listenUNIX(path, listener, 5, 0o640)
        mode = stat.S_IMODE(os.stat(path).st_mode)
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port_number = server.getsockname()
            chosen.connectTCP(host, port_number, receiver, 5)
            await receiver.built
            server.accept()[0].close()
            await receiver.done
        assert receiver.made is not None
        seen: list[object] = [mode, receiver.made.events, receiver.events[2:]]
        os.unlink(path)
        with open(path, "w"):
            pass
        stopped = port.stopListening()
        assert stopped is not None
        await stopped
        seen.append(os.path.exists(path))
        self.assertEqual(seen, [0o640, ["ConnectionDone"], ["lost: ConnectionDone"], True])
