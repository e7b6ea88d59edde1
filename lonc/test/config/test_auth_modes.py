"""The authentication modes that settings and table allow."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.auth_modes import Access, certificate_files, is_address_of_ours, read_access
from lonc.config.hosts import HostTable, parse_host_table
from lonc.config.settings import SettingsError
from lonc.test.fixtures.certificates import Authority, as_settings
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
        """Return what these settings allow."""
        return read_access(some_settings(self.folder, **settings), a_table(table))

    def auth_modes(self, to: str, **settings: Any) -> AuthModes:
        """Return the modes to offer a host's lond."""
        return self.access(**settings).auth_modes(a_table().hosts[to])


class LocalTests(AccessTestCase):
    """Key files, for londs on the same machine."""

    def test_own_machine(self) -> None:
        """
        They are offered to our own row, to rows with its target, and to addresses of this machine.
        A row with our host name may lead anywhere.
        """
        for own, local in (("l1", {"l1", "l6", "l7"}), ("l5", {"l5", "l7", "l8"}), ("l9", {"l7"})):
            offered = {
                to
                for to in a_table().hosts
                if self.auth_modes(to, host_id=own).key_files is not None
            }
            self.assertEqual(offered, local)

    def test_own_addresses(self) -> None:
        """Loopback addresses are local, and addresses for documentation are nobody's."""
        for address in ("127.0.0.1", "127.1.2.3", "::1"):
            self.assertTrue(is_address_of_ours(address))
        for address in ("203.0.113.1", "2001:db8::1", "255.255.255.255"):
            self.assertFalse(is_address_of_ours(address))

    def test_folder(self) -> None:
        """They are in lonc's own folder beside the sockets."""
        self.assertEqual(self.access().key_folder.path, os.path.join(self.folder, "lonc.keys"))
        self.assertEqual(self.auth_modes("l1").key_files, self.access().key_folder)


class CertificateTests(AccessTestCase):
    """TLS, if there are certificates."""

    def test_offered(self) -> None:
        """It is offered to every host, with the host's name, if there are certificates."""
        access = self.access()
        self.assertEqual((access.certificates, access.warning), (None, ""))
        self.assertEqual(self.auth_modes("l2"), AuthModes())
        for host_id, name in (("l1", "one.test"), ("l2", "two.test"), ("l5", "two.test")):
            modes = self.auth_modes(host_id, **self.named)
            self.assertEqual(modes.certificates, self.files.read())
            self.assertEqual((modes.name, modes.insecure), (name, True))
        self.assertFalse(self.auth_modes("l2", **self.named, allow_insecure=False).insecure)

    def test_paths(self) -> None:
        """With absolute paths no folder is necessary, and a folder alone is no reason to warn."""
        found = certificate_files(some_settings(**as_settings(self.files)))
        self.assertEqual(found, self.files)
        self.assertEqual(self.access(certificate_directory=self.folder).warning, "")

    def test_equal(self) -> None:
        """The modes are equal until something changes, so that connections can stay."""
        for host_id in ("l1", "l2"):
            modes = self.auth_modes(host_id, **self.named)
            self.assertEqual(modes, self.auth_modes(host_id, **self.named))
            self.assertNotEqual(modes, self.auth_modes(host_id))
            for changed in ({"allow_insecure": False}, {"certificate_name_check": False}):
                self.assertNotEqual(modes, self.auth_modes(host_id, **self.named, **changed))
        # Without TLS the host name does not matter.
        other = a_table(TABLE.replace("two.test", "three.test")).hosts["l2"]
        self.assertEqual(self.access().auth_modes(other), self.auth_modes("l2"))


class UnusableTests(AccessTestCase):
    """Certificates that are configured and cannot be used."""

    def problems(self, **changes: str | None) -> str:
        """Return the warning; if TLS is required, it must be an error instead."""
        settings = self.named | changes
        access = self.access(**settings)
        self.assertIsNone(access.certificates)
        warning = access.warning
        self.assertTrue(warning.endswith("; TLS is not used"))
        with self.assertRaises(SettingsError) as caught:
            self.access(**settings, allow_insecure=False)
        self.assertEqual(
            str(caught.exception).partition(";")[0::2],
            (warning.partition(";")[0], " without TLS loncAllowInsecure cannot be 0"),
        )
        return warning

    def test_missing_file(self) -> None:
        """A missing file is named."""
        for name in ("certificate_authority", "certificate", "private_key"):
            path = os.path.join(self.folder, "missing.pem")
            self.assertIn(f"{path}: No such file", self.problems(**{name: "missing.pem"}))

    def test_not_all_set(self) -> None:
        """A setting that is missing beside the others is named."""
        for name, variable in (
            ("certificate_authority", "lonnetCertificateAuthority"),
            ("certificate", "lonnetCertificate"),
            ("private_key", "lonnetPrivateKey"),
            ("certificate_directory", "lonCertificateDirectory"),
        ):
            told = self.problems(config_file="/a.conf", **{name: None})
            self.assertIn(f"/a.conf: PerlSetVar {variable} is missing", told)

    def test_nothing_set(self) -> None:
        """If TLS is required and nothing is set, a warning says that only our own lond is left."""
        warning = self.access(allow_insecure=False).warning
        self.assertIn("only the lond of this machine can be reached", warning)
        self.assertEqual(self.auth_modes("l2", allow_insecure=False), AuthModes(insecure=False))
        self.assertIsNotNone(self.auth_modes("l1", allow_insecure=False).key_files)
