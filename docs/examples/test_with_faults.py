# mypy: allow-untyped-calls
"""
A test with a lond that has a fault: ``trial docs/examples/test_with_faults.py``.

The sockets are real, but time can be skipped, so a timeout of a minute takes no time.
"""

from twisted.trial.unittest import TestCase

from lonc.testing import CON_LOST, STALL, ServedHost, Step


class SilentLondTests(TestCase):
    """A lond that does not answer."""

    async def test_put(self) -> None:
        """A request ends after a minute, and the status contains the cause."""
        host = ServedHost(self)
        host.faults.order(Step.REQUEST, STALL, command=b"put")
        reply = host.ask("put:msu:alice:grades:essay=A")
        await host.reached("put")
        host.skip(60)
        self.assertEqual(await reply, CON_LOST)
        self.assertEqual(host.status.con_lost["timeout"], 1)
