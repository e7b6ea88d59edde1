"""The daemon in memory: its certificates, and the authentication modes that it offers."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.logger import LogLevel

from lonc.config.certificates import CertificateFiles
from lonc.config.key_files import KeyFolder
from lonc.config.settings import SettingsError
from lonc.control.errors import ReloadFailed
from lonc.daemon.upkeep import LOOK
from lonc.service import LoncService
from lonc.test.fixtures.certificates import Authority, as_settings
from lonc.test.fixtures.daemon_in_memory import TABLE, ServiceTestCase, a_table

#: l2 is on another machine.
FAR = a_table(TABLE.replace("127.0.0.2", "203.0.113.2"))


class AuthModesTests(ServiceTestCase):
    """Certificates and authentication modes while the daemon runs."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.folder)

    def use(self, files: CertificateFiles, **changes: Any) -> None:
        """Configure certificates, and other settings."""
        self.settings = attrs.evolve(self.first, **as_settings(files), **changes)

    def told(self, level: LogLevel) -> list[str]:
        """Return what was logged about certificates."""
        return [line for line in self.notes.at(level) if "certificate" in line]

    def problems(self, daemon: LoncService) -> list[tuple[str, str]]:
        """Return kind and level of each problem."""
        return [(each.kind, each.level) for each in daemon.problems]

    def test_expires(self) -> None:
        """
        The status has the file and the days left. They are a problem from 21 days before the end
        on, logged once, and a critical one afterwards; a reload reports that at once.
        """
        about = self.started().reporter.about()
        self.assertEqual((about.certificate, about.certificate_days), ("", 0.0))
        self.assertEqual(self.told(LogLevel.warn), [])
        for days, kind, level, logged in (
            (22.0, "", "", LogLevel.warn),
            (20.9, "certificate-ends", "warning", LogLevel.warn),
            (-0.5, "certificate-ended", "critical", LogLevel.critical),
        ):
            self.setUp()
            files = self.authority.issue("l1.test", ends=days)
            daemon = self.started()
            self.use(files)
            answer = self.successResultOf(daemon.reload()).split("\n")
            expired = f"problem: the certificate {files.certificate} has expired"
            self.assertEqual(expired in answer, days < 0.0)
            about = daemon.reporter.about()
            self.assertEqual(about.certificate, files.certificate)
            self.assertAlmostEqual(about.certificate_days, days, places=2)
            for _ in range(3):
                self.clock.advance(LOOK)
                self.assertEqual(self.problems(daemon), [(kind, level)] if kind else [])
                self.assertEqual(len(self.told(logged)), bool(kind))

    def test_unusable(self) -> None:
        """A certificate that cannot be used is a problem, at the start and at HUP."""
        files = self.authority.issue("l1.test")
        os.unlink(files.key)
        self.use(files)
        daemon = self.started()
        warning = f"{files.key}: No such file or directory; TLS is not used"
        self.assertEqual(self.problems(daemon), [("certificate-unusable", "warning")])
        self.assertEqual(self.told(LogLevel.warn), [f"a problem: {warning} (certificate-unusable)"])
        self.assertIn(f"\nproblem: {warning}", self.successResultOf(daemon.reload()))
        self.assertEqual(len(self.told(LogLevel.warn)), 1)

    def test_no_longer_usable(self) -> None:
        """A certificate that becomes unusable stays in use; without one lonc does not start."""
        for allow_insecure in (True, False):
            self.setUp()
            files = self.authority.issue("l1.test", ends=100.0)
            self.use(files, allow_insecure=allow_insecure)
            daemon = self.started()
            os.unlink(files.key)
            for again in (daemon.reload, daemon.reread_table):
                failure = self.failureResultOf(again(), ReloadFailed)
                self.assertIn(f"{files.key}: No such file or directory", str(failure.value))
            self.assertAlmostEqual(daemon.reporter.about().certificate_days, 100.0, places=2)
        with self.assertRaises(SettingsError):
            self.made()

    def test_renewed(self) -> None:
        """A new certificate is used from the next HUP on."""
        self.use(self.authority.issue("l1.test", ends=5.0))
        daemon = self.started()
        self.use(self.authority.issue("l1.test", ends=100.0))
        daemon.reload()
        self.assertAlmostEqual(daemon.reporter.about().certificate_days, 100.0, places=2)

    def opening(self, host_id: str) -> bytes:
        """Return what the first connection to a host's lond sends first."""
        said: list[bytes] = []
        self.network.prepare = lambda lond: setattr(lond.wire, "heard", said.append)
        self.client(host_id, b"ping\n")
        self.advance(0)
        return said[0]

    def test_modes(self) -> None:
        """Only londs on this machine are sent a key file, according to the table in force."""
        key_file = b"init:local:" + os.fsencode(self.first.key_dir) + b"/"
        self.table = FAR
        daemon = self.started()
        self.assertTrue(self.opening("l1").startswith(key_file))
        self.assertEqual(self.opening("l2"), b"init\n")
        self.table = a_table(TABLE)
        daemon.reread_table()
        self.assertTrue(self.opening("l2").startswith(key_file))

    def test_tls(self) -> None:
        """With certificates, other londs are asked for TLS from the next HUP on."""
        self.table = FAR
        daemon = self.started()
        self.use(self.authority.issue("l1.test"))
        daemon.reload()
        self.assertEqual(self.opening("l2"), b"init:ssl\n")

    def test_left_by_a_crash(self) -> None:
        """Key files left by a crash are deleted at the start."""
        folder = KeyFolder(self.first.key_dir)
        folder.make()
        self.started()
        self.assertFalse(os.path.exists(folder.path))
