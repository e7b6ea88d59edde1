"""A name that programs know from before."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lonc.host import dispatcher
from lonc.host.machine import Machine


class FormerNameTests(SynchronousTestCase):
    """What ``lonc.host.machine`` was called."""

    def test_dispatcher(self) -> None:
        """The former name is the same class, and says what it is called now; others are none."""
        self.assertIs(dispatcher.Dispatcher, Machine)
        (warning,) = self.flushWarnings([self.test_dispatcher])
        self.assertIs(warning["category"], DeprecationWarning)
        self.assertIn("use lonc.host.machine.Machine", warning["message"])
        self.assertFalse(hasattr(dispatcher, "Connector"))
