"""What is said of a configuration that can be used."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from lonc.config.auth_modes import read_access
from lonc.config.judgement import configuration_problems
from lonc.report.kinds import CONFIGURED
from lonc.report.problems import Problem
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.daemon_in_memory import a_table
from lonc.test.fixtures.doubles import some_settings


class ConfigurationTests(SynchronousTestCase):
    """Each kind is found where it is, and not where it is not."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder, 0o755)
        self.settings = some_settings(self.folder, host_id="l1")
        self.table = a_table()

    def found(
        self, needed: int = 10, limit: int = 100, user: int = 5, **settings: Any
    ) -> list[Problem]:
        """Return what is wrong."""
        changed = attrs.evolve(self.settings, **settings)
        access = read_access(changed, self.table)
        problems = list(configuration_problems(changed, self.table, access, needed, limit, user))
        self.assertLessEqual({each.kind for each in problems}, set(CONFIGURED))
        return problems

    def one(self, **changes: Any) -> tuple[str, str, str]:
        """Return kind, subject and text of the one problem that there is."""
        (found,) = self.found(**changes)
        return found.kind, found.subject, found.what

    def test_well(self) -> None:
        """There is nothing to say."""
        self.assertEqual(self.found(), [])

    def test_lines(self) -> None:
        """A line that does nothing is named by its place, in the settings and in the table."""
        told = "a.conf, line 1: PerlSetVar loncX: no such"
        self.assertEqual(self.one(warnings=(told,)), ("setting-unused", "a.conf, line 1", told))
        self.table = attrs.evolve(self.table, problems=("hosts.tab, line 3: what?",))
        self.assertEqual(self.one()[:2], ("table-row", "hosts.tab, line 3"))

    def test_own_id(self) -> None:
        """A machine that is not in its own table is unknown to others."""
        self.assertEqual(self.one(host_id="l9")[:2], ("own-id-missing", self.settings.hosts_file))

    def test_folders(self) -> None:
        """The folders of sockets, delayed requests and logs, where everybody may write."""
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
        """The private key, where everybody may read it."""
        files = Authority(self.folder).issue("l1.test")
        named: dict[str, Any] = {
            "certificate_authority": os.path.abspath(files.authority),
            "certificate": os.path.abspath(files.certificate),
            "private_key": os.path.abspath(files.key),
        }
        os.chmod(files.key, 0o640)
        self.assertEqual(self.found(**named), [])
        os.chmod(files.key, 0o644)
        self.assertEqual(self.one(**named)[:2], ("key-readable", named["private_key"]))

    def test_certificate(self) -> None:
        """One that is set and cannot be used."""
        names = ("certificate_authority", "certificate", "private_key")
        named: dict[str, Any] = dict.fromkeys(names, "/missing")
        self.assertEqual(self.one(**named)[:2], ("certificate-unusable", "/missing"))

    def test_nobody_may_manage(self) -> None:
        """A port to which nobody may come."""
        port = "lonctls:8664"
        self.assertEqual(self.one(management_tls=port)[0], "nobody-may-manage")
        names = (("a.test", True),)
        self.assertEqual(self.found(management_tls=port, management_names=names), [])

    def test_open_management(self) -> None:
        """A port without levels is told, and makes nothing unwell."""
        (found,) = self.found(management="tcp:7000:interface=127.0.0.1")
        self.assertEqual((found.kind, found.level), ("management-open", "note"))

    def test_root(self) -> None:
        """Sockets that are root's alone, in a folder that was made for another."""
        if os.getuid() == 0:
            self.assertEqual(self.found(user=0), [])
            os.chown(self.settings.sock_dir, 1, -1)
        self.assertEqual(self.one(user=0)[:2], ("runs-as-root", ""))
        self.assertEqual(self.found(), [])
        self.assertEqual(self.found(user=0, socket_group=5), [])
        self.assertEqual(self.found(user=0, socket_mode=0o666), [])

    def test_too_many_hosts(self) -> None:
        """Hosts that are not served are counted, and some are named."""
        rows = "".join(f"h{number}:d:access:h{number}.test:10.0.0.1\n" for number in range(9))
        self.table = a_table(rows).first(2, "h0")
        kind, _, what = self.one(host_id="h0", needed=9, limit=7)
        self.assertEqual(kind, "hosts-not-served")
        self.assertTrue(what.startswith("7 hosts of the table cannot be served: 9 files may"), what)
        self.assertTrue(what.endswith("room for 2: h2, h3, h4, h5, h6 and 2 more"), what)

    def test_open_files(self) -> None:
        """A limit that may be too low."""
        self.assertEqual(self.found(needed=77, limit=77), [])
        self.assertEqual(self.one(needed=78, limit=77)[0], "open-files")
