"""The problems of a usable configuration."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from lonc.config import current
from lonc.config.certificates import CertificateFiles
from lonc.config.current import InForce
from lonc.config.hosts import HostTable
from lonc.report.kinds import CONFIGURED
from lonc.report.problems import Problem
from lonc.test.fixtures.certificates import Authority, as_settings
from lonc.test.fixtures.daemon_in_memory import a_table
from lonc.test.fixtures.doubles import some_settings


class ConfigurationTests(SynchronousTestCase):
    """Each kind of problem is found in a configuration that has it, and in no other."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder, 0o755)
        self.settings = some_settings(self.folder, host_id="l1")
        self.table = a_table()
        self.limit = 10_000
        self.patch(current, "raise_file_limit", lambda needed: self.limit)
        self.run_as(5)

    def run_as(self, user: int) -> None:
        """Run lonc as this user."""
        self.patch(os, "geteuid", lambda: user)

    def found(self, **settings: Any) -> list[Problem]:
        """Return the problems with these settings."""
        problems = InForce((attrs.evolve(self.settings, **settings), self.table)).problems()
        self.assertLessEqual({each.kind for each in problems}, set(CONFIGURED))
        return problems

    def one(self, **settings: Any) -> tuple[str, str, str]:
        """Return kind, subject and text of the only problem."""
        (found,) = self.found(**settings)
        return found.kind, found.subject, found.what

    def test_none(self) -> None:
        """A configuration in order has no problem."""
        self.assertEqual(self.found(), [])

    def test_lines(self) -> None:
        """A line without effect in the settings or the table is named by file and number."""
        told = "a.conf, line 1: PerlSetVar loncX: no such"
        self.assertEqual(self.one(warnings=(told,)), ("setting-unused", "a.conf, line 1", told))
        self.table = HostTable(self.table.hosts, ("hosts.tab, line 3: what?",))
        self.assertEqual(self.one()[:2], ("table-row", "hosts.tab, line 3"))

    def test_own_id(self) -> None:
        """A machine missing from its own table is unknown to the others."""
        self.assertEqual(self.one(host_id="l9")[:2], ("own-id-missing", self.settings.hosts_file))

    def test_folders(self) -> None:
        """Everybody can write to the folder of sockets, delayed requests or logs."""
        for folder in (self.settings.delayed_dir, self.settings.logs_dir):
            os.makedirs(folder, 0o770)
        self.assertEqual(self.found(), [])
        for folder in (self.settings.sock_dir, self.settings.delayed_dir, self.settings.logs_dir):
            os.chmod(folder, 0o1777)
            self.assertEqual(
                self.one(), ("folder-open", folder, f"{folder} can be written by everybody")
            )
            os.chmod(folder, 0o755)

    def test_key(self) -> None:
        """Everybody can read the private key."""
        files = Authority(self.folder).issue("l1.test")
        named = as_settings(files)
        os.chmod(files.key, 0o640)
        self.assertEqual(self.found(**named), [])
        os.chmod(files.key, 0o644)
        self.assertEqual(self.one(**named)[:2], ("key-readable", named["private_key"]))

    def test_certificate(self) -> None:
        """A configured certificate cannot be used."""
        named = as_settings(CertificateFiles("/missing", "/missing", "/missing"))
        self.assertEqual(self.one(**named)[:2], ("certificate-unusable", "/missing"))

    def test_management(self) -> None:
        """The TLS port has no names that may use it; a port over TCP has no access levels."""
        port = "lonctls:8664"
        self.assertEqual(self.one(management_tls=port)[0], "nobody-may-manage")
        names = (("a.test", True),)
        self.assertEqual(self.found(management_tls=port, management_names=names), [])
        (found,) = self.found(management="tcp:7000:interface=127.0.0.1")
        self.assertEqual((found.kind, found.level), ("management-open", "note"))

    def test_root(self) -> None:
        """Sockets would be for root only, in a folder that belongs to another user."""
        if os.getuid() == 0:
            self.run_as(0)
            self.assertEqual(self.found(), [])
            os.chown(self.settings.sock_dir, 1, -1)
        self.run_as(0)
        self.assertEqual(self.one()[:2], ("runs-as-root", ""))
        self.assertEqual(self.found(socket_group=5), [])
        self.assertEqual(self.found(socket_mode=0o666), [])
        self.run_as(5)
        self.assertEqual(self.found(), [])

    def test_too_many_hosts(self) -> None:
        """Hosts that are not served are counted, and some of them are named."""
        self.limit = 7
        names = "room for 16: h16, h17, h18, h19, h20"
        for hosts, told in ((21, names), (23, f"{names} and 2 more")):
            self.table = a_table("".join(f"h{n}:d:access:h.test:10.0.0.1\n" for n in range(hosts)))
            kind, _, what = self.one(host_id="h0")
            self.assertEqual(kind, "hosts-not-served")
            self.assertRegex(
                what, f"^{hosts - 16} hosts of the table cannot be served: [0-9]+ files"
            )
            self.assertTrue(what.endswith(told), what)

    def test_open_files(self) -> None:
        """The limit on open files is too low for all clients and connections."""
        self.limit = needed = InForce((self.settings, self.table)).needed_files
        self.assertEqual(self.found(), [])
        self.limit = needed - 1
        self.assertEqual(self.one()[0], "open-files")
