"""Which daemon a command asks, where its configuration tells."""

from __future__ import annotations

import click
from twisted.trial.unittest import SynchronousTestCase

from lonc.cli.target import client_endpoint
from lonc.test.fixtures.doubles import some_settings


class EndpointTests(SynchronousTestCase):
    """Where to connect to, by where lonc listens for the management."""

    def endpoint(self, management: str) -> str:
        """Return where a command connects to for a setting."""
        return client_endpoint(some_settings("/sockets", management=management))

    def test_found(self) -> None:
        """A daemon that listens on a socket or by TCP is found, if need be on this machine."""
        for management, endpoint in (
            ("unix:/run/lonc.amp:mode=660", "unix:/run/lonc.amp"),
            ("tcp:4242", "tcp:127.0.0.1:4242"),
            ("tcp:port=4242:interface=192.0.2.7", "tcp:192.0.2.7:4242"),
            ("tcp6:4242", r"tcp:\:\:1:4242"),
            (r"tcp6:4242:interface=2001\:db8\:\:1", r"tcp:2001\:db8\:\:1:4242"),
        ):
            self.assertEqual(self.endpoint(management), endpoint)

    def test_not_found(self) -> None:
        """Of another endpoint nothing tells where it is: the option is named."""
        error = self.assertRaises(
            click.ClickException, self.endpoint, "systemd:domain=UNIX:index=0"
        )
        self.assertIn("loncManagement is systemd: say where to connect to with", error.message)
        self.assertIn("--management, such as unix:/sockets/lonc.amp", error.message)
