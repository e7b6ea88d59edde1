# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""Tests for lonc.config.exposure."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.exposure import exposed
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.doubles import some_settings


class ExposureTests(SynchronousTestCase):
    """What others can get at is told, and nothing else."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder, 0o755)
        self.settings = some_settings(self.folder)

    def test_folders(self) -> None:
        """The folders of sockets and of delayed requests, where everybody may write."""
        self.assertEqual(list(exposed(self.settings, None)), [])
        os.mkdir(self.settings.delayed_dir, 0o770)
        self.assertEqual(list(exposed(self.settings, None)), [])
        for folder in (self.settings.sock_dir, self.settings.delayed_dir):
            os.chmod(folder, 0o1777)
            (line,) = exposed(self.settings, None)
            self.assertIn(f"{folder} can be written by everybody", line)
            os.chmod(folder, 0o755)

    def test_key(self) -> None:
        """The private key, where everybody may read it."""
        certificates = Authority(self.folder).issue("l1.test").read()
        os.chmod(certificates.files.key, 0o640)
        self.assertEqual(list(exposed(self.settings, certificates)), [])
        os.chmod(certificates.files.key, 0o644)
        (line,) = exposed(self.settings, certificates)
        self.assertIn(f"{certificates.files.key} can be read by everybody", line)
