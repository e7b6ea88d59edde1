"""Which ways in are open, by the settings and the table."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.auth_modes import Access, certificate_files, is_address_of_ours, read_access
from lonc.config.hosts import HostTable, parse_host_table
from lonc.config.settings import SettingsError
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.doubles import some_settings
from lonc.wire.handshake import AuthModes

TABLE = """\
l1:d:library:one.test:203.0.113.1
l2:d:library:two.test:203.0.113.2
l3:d:access:ONE.test:203.0.113.3
l4:d:access:one.test:two.test
l5:d:access:two.test:one.test
l6:d:access:six.test:203.0.113.1
l7:d:access:seven.test:127.0.0.7
l8:d:access:eight.test:One.Test
"""


def a_table(text: str = TABLE) -> HostTable:
    """Return the table of a text."""
    return parse_host_table(text.encode(), "hosts.tab")


class AccessTestCase(SynchronousTestCase):
    """Settings with certificates in a folder."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.files = Authority(self.folder).issue("one.test")
        self.named = {
            "certificate_directory": self.folder,
            "certificate_authority": os.path.basename(self.files.authority),
            "certificate": os.path.basename(self.files.certificate),
            "private_key": os.path.basename(self.files.key),
        }

    def access(self, table: str = TABLE, **settings: Any) -> Access:
        """Return what is open by these settings."""
        return read_access(some_settings(self.folder, **settings), a_table(table))

    def auth_modes(self, to: str, **settings: Any) -> AuthModes:
        """Return what is open to a host."""
        return self.access(**settings).auth_modes(a_table().hosts[to])


class LocalTests(AccessTestCase):
    """Key files, for a lond on the same machine."""

    def test_own_machine(self) -> None:
        """They are for our own row, those with its target, and addresses of this machine; a row
        that bears our name may lead anywhere."""
        for own, local in (("l1", {"l1", "l6", "l7"}), ("l5", {"l5", "l7", "l8"}), ("l9", {"l7"})):
            open_to = {
                to
                for to in a_table().hosts
                if self.auth_modes(to, host_id=own).key_files is not None
            }
            self.assertEqual(open_to, local)

    def test_addresses_of_ours(self) -> None:
        """Loopback is ours in both families; what is for examples in books is nobody's."""
        for address in ("127.0.0.1", "127.1.2.3", "::1"):
            self.assertTrue(is_address_of_ours(address))
        for address in ("203.0.113.1", "2001:db8::1", "255.255.255.255"):
            self.assertFalse(is_address_of_ours(address))

    def test_who_we_are(self) -> None:
        """Which row is ours is what lonHostID says; without a row of ours there are none."""
        self.assertIsNotNone(self.auth_modes("l8", host_id="l5").key_files)
        self.assertIsNone(self.auth_modes("l1", host_id="l5").key_files)
        self.assertIsNone(self.auth_modes("l1", host_id="l9").key_files)

    def test_folder(self) -> None:
        """They are in a folder of lonc's own beside the sockets."""
        self.assertEqual(self.access().key_folder.path, os.path.join(self.folder, "lonc.keys"))
        self.assertEqual(self.auth_modes("l1").key_files, self.access().key_folder)


class CertificateTests(AccessTestCase):
    """TLS, where there are certificates."""

    def test_none(self) -> None:
        """Without certificates there is no TLS, and nothing to warn of."""
        access = self.access()
        self.assertEqual((access.certificates, access.warnings), (None, ()))
        self.assertEqual(self.auth_modes("l2"), AuthModes())

    def test_there(self) -> None:
        """With them there is, for every host, in that host's name."""
        for host_id, name in (("l1", "one.test"), ("l2", "two.test"), ("l5", "two.test")):
            modes = self.auth_modes(host_id, **self.named)
            self.assertEqual(modes.certificates, self.files.read())
            self.assertEqual((modes.name, modes.insecure), (name, True))

    def test_paths(self) -> None:
        """A file may stand elsewhere; then no folder has to be named."""
        found = certificate_files(
            some_settings(
                certificate_authority=self.files.authority,
                certificate=self.files.certificate,
                private_key=self.files.key,
            )
        )
        self.assertEqual(found, self.files)

    def test_name_check(self) -> None:
        """The setting turns the check of the name off, and does not leave it unnoticed."""
        checked = self.auth_modes("l2", **self.named).certificates
        unchecked = self.auth_modes("l2", **self.named, certificate_name_check=False).certificates
        self.assertEqual(unchecked, self.files.read(check_names=False))
        self.assertNotEqual(checked, unchecked)

    def test_equal(self) -> None:
        """What is open compares equal as long as nothing has changed, so that nothing is moved."""
        for host_id in ("l1", "l2"):
            self.assertEqual(
                self.auth_modes(host_id, **self.named), self.auth_modes(host_id, **self.named)
            )
            self.assertNotEqual(self.auth_modes(host_id, **self.named), self.auth_modes(host_id))
            closed = self.auth_modes(host_id, **self.named, allow_insecure=False)
            self.assertNotEqual(self.auth_modes(host_id, **self.named), closed)

    def test_name_does_not_matter_without(self) -> None:
        """Without TLS another host name changes nothing."""
        other = a_table(TABLE.replace("two.test", "three.test")).hosts["l2"]
        self.assertEqual(self.access().auth_modes(other), self.auth_modes("l2"))


class UnusableTests(AccessTestCase):
    """Certificates that are set and cannot be used."""

    def problems(self, **changes: str | None) -> str:
        """Return the warning, after a look at what comes of it where TLS is a must."""
        settings = self.named | changes
        access = self.access(**settings)
        self.assertIsNone(access.certificates)
        (warning,) = access.warnings
        self.assertTrue(warning.endswith("; TLS is not used"))
        with self.assertRaises(SettingsError) as caught:
            self.access(**settings, allow_insecure=False)
        self.assertEqual(
            str(caught.exception).partition(";")[0::2],
            (warning.partition(";")[0], " without TLS loncAllowInsecure cannot be 0"),
        )
        return warning

    def test_missing_file(self) -> None:
        """The file is named: a warning where it can be done without, an error where not."""
        for name in ("certificate_authority", "certificate", "private_key"):
            path = os.path.join(self.folder, "missing.pem")
            self.assertIn(f"{path}: No such file", self.problems(**{name: "missing.pem"}))

    def test_not_all_set(self) -> None:
        """So it is with a setting that is missing beside the others."""
        for name, variable in (
            ("certificate_authority", "lonnetCertificateAuthority"),
            ("certificate", "lonnetCertificate"),
            ("private_key", "lonnetPrivateKey"),
            ("certificate_directory", "lonCertificateDirectory"),
        ):
            told = self.problems(config_file="/a.conf", **{name: None})
            self.assertIn(f"/a.conf: PerlSetVar {variable} is missing", told)

    def test_nothing_set(self) -> None:
        """Where TLS is a must and nothing is set there is a warning: only our own lond is left."""
        (warning,) = self.access(allow_insecure=False).warnings
        self.assertIn("only the lond of this machine can be reached", warning)
        self.assertEqual(self.auth_modes("l2", allow_insecure=False), AuthModes(insecure=False))
        self.assertIsNotNone(self.auth_modes("l1", allow_insecure=False).key_files)

    def test_folder_alone(self) -> None:
        """A folder without a file named in it is nothing to warn of."""
        self.assertEqual(self.access(certificate_directory=self.folder).warnings, ())

    def test_must(self) -> None:
        """Where TLS is a must and the certificates are good the clear is closed."""
        self.assertFalse(self.auth_modes("l2", **self.named, allow_insecure=False).insecure)
