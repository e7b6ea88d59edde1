"""Which daemon a command contacts, by its configuration."""

from __future__ import annotations

import click
from twisted.trial.unittest import SynchronousTestCase

from lonc.cli.target import client_endpoint
from lonc.test.fixtures.doubles import some_settings


class EndpointTests(SynchronousTestCase):
    """The client endpoint that belongs to the management port."""

    def endpoint(self, management: str) -> str:
        """Return the client endpoint for a value of the setting."""
        return client_endpoint(some_settings("/sockets", management=management))

    def test_found(self) -> None:
        """UNIX sockets and TCP ports are found; without an address, on this machine."""
        for management, endpoint in (
            ("unix:/run/lonc.amp:mode=660", "unix:/run/lonc.amp"),
            ("tcp:4242", "tcp:127.0.0.1:4242"),
            ("tcp:port=4242:interface=192.0.2.7", "tcp:192.0.2.7:4242"),
            ("tcp6:4242", r"tcp:\:\:1:4242"),
            (r"tcp6:4242:interface=2001\:db8\:\:1", r"tcp:2001\:db8\:\:1:4242"),
        ):
            self.assertEqual(self.endpoint(management), endpoint)

    def test_not_found(self) -> None:
        """For other endpoints, the error message names the option to give."""
        error = self.assertRaises(
            click.ClickException, self.endpoint, "systemd:domain=UNIX:index=0"
        )
        self.assertIn("loncManagement is systemd: say where to connect to with", error.message)
        self.assertIn("--management, such as unix:/sockets/lonc.amp", error.message)
