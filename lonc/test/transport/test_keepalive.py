# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""What keeps firewalls from forgetting a connection."""

from __future__ import annotations

import socket

from lonc.test.fixtures.stage import HostTestCase, Stage


class KeepaliveTests(HostTestCase):
    """The options of a connection to a lond."""

    def test_keepalive(self) -> None:
        """The kernel asks for us, as the settings say."""
        stage = Stage(self, keepalive_time=7, keepalive_interval=3, keepalive_probes=2)
        (lond,) = stage.connect()
        tcp = socket.IPPROTO_TCP
        self.assertEqual(
            lond.wire.options,
            {
                (tcp, socket.TCP_KEEPIDLE): 7,
                (tcp, socket.TCP_KEEPINTVL): 3,
                (tcp, socket.TCP_KEEPCNT): 2,
            },
        )
