"""The daemon in memory: its certificates, and the key files of the one before."""

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
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.daemon_in_memory import TABLE, ServiceTestCase, a_table


class CertificatesTests(ServiceTestCase):
    """The own certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.folder)

    def use(self, files: CertificateFiles, **changes: Any) -> None:
        """Set certificates, and whatever else."""
        self.settings = attrs.evolve(
            self.first,
            certificate_authority=files.authority,
            certificate=files.certificate,
            private_key=files.key,
            **changes,
        )

    def told(self, level: LogLevel) -> list[str]:
        """Return what was logged of the own certificate."""
        return [line for line in self.notes.at(level) if "certificate" in line]

    def problems(self, daemon: LoncService) -> list[tuple[str, str]]:
        """Return kind and level of each problem."""
        return [(each.kind, each.level) for each in daemon.problems]

    def test_none(self) -> None:
        """Without one the status says so, and nothing is warned of."""
        daemon = self.started()
        about = daemon.reporter.about()
        self.assertEqual((about.certificate, about.certificate_days), ("", 0.0))
        self.assertEqual(self.told(LogLevel.warn), [])

    def test_days(self) -> None:
        """The status has the file and how long it is still valid; 22 days are long enough."""
        files = self.authority.issue("l1.test", ends=22.0)
        self.use(files)
        about = self.started().reporter.about()
        self.assertEqual(about.certificate, files.certificate)
        self.assertAlmostEqual(about.certificate_days, 22.0, places=2)
        self.assertEqual(self.told(LogLevel.warn), [])

    def test_ends(self) -> None:
        """It is a problem from 21 days before its end on, and a worse one behind that."""
        files = self.authority.issue("l1.test", ends=20.9)
        self.use(files)
        daemon = self.started()
        self.clock.advance(LOOK)
        self.assertEqual(self.problems(daemon), [("certificate-ends", "warning")])
        line = (
            f"a problem: the certificate {files.certificate} expires in 21 days (certificate-ends)"
        )
        self.assertEqual(self.told(LogLevel.warn), [line])
        self.clock.advance(10 * LOOK)
        self.assertEqual(self.told(LogLevel.warn), [line])

    def test_ended(self) -> None:
        """One whose time is over is critical; the status goes below zero."""
        self.use(self.authority.issue("l1.test", ends=-0.5))
        daemon = self.started()
        self.clock.advance(LOOK)
        self.assertEqual(self.problems(daemon), [("certificate-ended", "critical")])
        self.assertEqual(len(self.told(LogLevel.critical)), 1)
        self.assertAlmostEqual(daemon.reporter.about().certificate_days, -0.5, places=2)

    def test_reload_tells_of_one_that_ended(self) -> None:
        """Whoever puts one in force whose time is over is told so by the answer."""
        daemon = self.started()
        files = self.authority.issue("l1.test", ends=-0.5)
        self.use(files)
        told = self.successResultOf(daemon.reload())
        self.assertIn(f"problem: the certificate {files.certificate} has expired", told.split("\n"))

    def test_unusable(self) -> None:
        """One that cannot be used is a warning that names the file, at the start and at HUP."""
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
        """One that was in use and cannot be read at HUP stays in use: nothing goes in the clear."""
        files = self.authority.issue("l1.test")
        self.use(files)
        daemon = self.started()
        os.unlink(files.key)
        failure = self.failureResultOf(daemon.reload(), ReloadFailed)
        self.assertIn(f"{files.key}: No such file or directory", str(failure.value))
        self.assertGreater(daemon.reporter.about().certificate_days, 0)

    def test_unusable_where_the_clear_is_closed(self) -> None:
        """Where nothing goes without it lonc does not start, and a HUP changes nothing."""
        files = self.authority.issue("l1.test")
        self.use(files, allow_insecure=False)
        daemon = self.started()
        good = daemon.reporter.about().certificate_days
        os.unlink(files.key)
        for again in (daemon.reload, daemon.reread_table):
            failure = self.failureResultOf(again(), ReloadFailed)
            self.assertIn(f"nothing is changed: {files.key}: No such file", str(failure.value))
        self.assertAlmostEqual(daemon.reporter.about().certificate_days, good, places=2)
        with self.assertRaises(SettingsError):
            self.made()

    def test_renewed(self) -> None:
        """At HUP a new certificate is taken over."""
        self.use(self.authority.issue("l1.test", ends=5.0))
        daemon = self.started()
        self.use(self.authority.issue("l1.test", ends=100.0))
        daemon.reload()
        self.assertAlmostEqual(daemon.reporter.about().certificate_days, 100.0, places=2)


class WaysTests(ServiceTestCase):
    """The hosts learn which ways in are open to them."""

    def opening(self, host_id: str) -> bytes:
        """Return what the first connection to a host opens with."""
        said: list[bytes] = []
        self.network.prepare = lambda lond: setattr(lond.wire, "heard", said.append)
        self.client(host_id, b"ping\n")
        self.advance(0)
        return said[0]

    def test_own_host(self) -> None:
        """Our own lond is named a key file, the other is not."""
        self.table = a_table(TABLE.replace("127.0.0.2", "203.0.113.2"))
        self.started()
        folder = os.path.join(self.folder, "lonc.keys")
        self.assertTrue(self.opening("l1").startswith(b"init:local:" + os.fsencode(folder) + b"/"))
        self.assertEqual(self.opening("l2"), b"init\n")

    def test_changed_table(self) -> None:
        """It is the table in force that tells which host is on our machine."""
        self.table = a_table(TABLE.replace("127.0.0.2", "203.0.113.2"))
        daemon = self.started()
        self.assertEqual(self.opening("l2"), b"init\n")
        self.table = a_table(TABLE)
        daemon.reread_table()
        self.assertTrue(self.opening("l2").startswith(b"init:local:"))

    def test_certificates(self) -> None:
        """With certificates the others are asked for TLS, from the next HUP on."""
        self.table = a_table(TABLE.replace("127.0.0.2", "203.0.113.2"))
        daemon = self.started()
        files = Authority(self.folder).issue("l1.test")
        self.settings = attrs.evolve(
            self.first,
            certificate_authority=files.authority,
            certificate=files.certificate,
            private_key=files.key,
        )
        daemon.reload()
        self.assertEqual(self.opening("l2"), b"init:ssl\n")

    def test_left_by_a_crash(self) -> None:
        """Key files of a lonc that crashed go at the start."""
        folder = KeyFolder(self.first.key_dir)
        folder.make()
        self.started()
        self.assertFalse(os.path.exists(folder.path))
