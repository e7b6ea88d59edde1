"""Whether another lonc was installed."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

import lonc
from lonc.disk import code


class ReplacedTests(SynchronousTestCase):
    """Code that runs, and code on disk."""

    def test_installed_anew(self) -> None:
        """What runs is on disk until an upgrade replaces or removes it, however alike it is."""
        self.assertFalse(code.is_replaced())
        path = self.mktemp()
        self.patch(lonc, "__file__", path)
        self.assertTrue(code.is_replaced())
        with open(path, "w"):
            self.assertTrue(code.is_replaced())
            self.patch(code, "_STARTED_WITH", code._stamp())
            self.assertFalse(code.is_replaced())
        with open(f"{path}.new", "w"):
            os.replace(f"{path}.new", path)
        self.assertTrue(code.is_replaced())
