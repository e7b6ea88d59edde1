# mypy: allow-untyped-calls
"""
A test against a lond that is told to do wrong: ``trial docs/examples/test_with_faults.py``.

The sockets are real and the time can be skipped, so a time limit of a minute takes no time at all.
"""

from twisted.trial.unittest import TestCase

from lonc.testing import CON_LOST, STALL, ServedHost, Step


class SilentLondTests(TestCase):
    """What becomes of a request when the lond does not answer it."""

    async def test_put(self) -> None:
        """It ends when its minute is over, and the status tells the cause."""
        host = ServedHost(self)
        host.faults.order(Step.REQUEST, STALL, command=b"put")
        reply = host.ask("put:msu:alice:grades:essay=A")
        await host.reached("put")
        host.skip(60)
        self.assertEqual(await reply, CON_LOST)
        self.assertEqual(host.status.con_lost["timeout"], 1)
