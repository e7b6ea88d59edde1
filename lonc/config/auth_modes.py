"""
The authentication modes to offer each host's lond, from settings and table (protocol, section 9).
"""

from __future__ import annotations

import ipaddress
import os
import socket

import attrs

from lonc.config.certificates import CertificateError, CertificateFiles, Certificates
from lonc.config.hosts import Host, HostTable, normal_target, same_target
from lonc.config.key_files import KeyFolder
from lonc.config.settings import Settings, SettingsError
from lonc.wire.handshake import AuthModes


@attrs.frozen
class Access:
    """
    The authentication modes that the settings and the table in force allow.

    :ivar certificates: those for TLS; None if it is not used.
    :ivar unusable: why the configured certificates are unusable; empty otherwise.
    :ivar key_folder: the folder of key files.
    """

    certificates: Certificates | None
    unusable: str
    key_folder: KeyFolder
    _insecure: bool
    _own: Host | None
    _here: dict[str, bool] = attrs.field(init=False, factory=dict, eq=False, repr=False)
    #: By whether the lond is on this machine, and the name of its certificate: most hosts have the
    #: same ones.
    _modes: dict[tuple[bool, str], AuthModes] = attrs.field(
        init=False, factory=dict, eq=False, repr=False
    )

    @property
    def warning(self) -> str:
        """A readable line if TLS is not used although it is configured or needed; else empty."""
        if self.unusable:
            return f"{self.unusable}; TLS is not used"
        if self.certificates is not None or self._insecure:
            return ""
        return (
            "loncAllowInsecure is 0 and no certificate is set: only the lond of this machine can "
            "be reached"
        )

    def auth_modes(self, host: Host) -> AuthModes:
        """Return the authentication modes to offer a host's lond."""
        certificates, is_here = self.certificates, self._is_here(host)
        name = normal_target(host.hostname) if certificates is not None else ""
        if (is_here, name) not in self._modes:
            self._modes[is_here, name] = AuthModes(
                key_files=self.key_folder if is_here else None,
                certificates=certificates,
                insecure=self._insecure,
                name=name,
            )
        return self._modes[is_here, name]

    def _is_here(self, host: Host) -> bool:
        """Whether a host's lond is on this machine; our host name in its row proves nothing."""
        if self._own is not None and same_target(host.target, self._own.target):
            return True
        if host.address is None:
            return False
        if host.address not in self._here:
            self._here[host.address] = is_address_of_ours(host.address)
        return self._here[host.address]


def read_access(settings: Settings, table: HostTable) -> Access:
    """
    Read the certificates named in the settings, and determine the possible modes.

    :raises SettingsError: the certificates are unusable, and loncAllowInsecure is 0.
    """
    certificates, unusable = None, ""
    try:
        files = certificate_files(settings)
        if files is not None:
            certificates = files.read(settings.certificate_name_check)
    except (CertificateError, SettingsError) as error:
        if not settings.allow_insecure:
            raise SettingsError(f"{error}; without TLS loncAllowInsecure cannot be 0") from None
        unusable = str(error)
    return Access(
        certificates=certificates,
        unusable=unusable,
        key_folder=KeyFolder(settings.key_dir),
        insecure=settings.allow_insecure,
        own=table.hosts.get(settings.host_id),
    )


def is_address_of_ours(address: str) -> bool:
    """Whether an IP address is local: only then is it the source address of a connection to it."""
    if ipaddress.ip_address(address).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # which sends nothing: it only chooses a source address
            source = probe.getsockname()[0]
    except OSError:
        return False
    return bool(ipaddress.ip_address(source) == ipaddress.ip_address(address))


def certificate_files(settings: Settings) -> CertificateFiles | None:
    """
    Return the paths of the certificates, or None if none are configured.

    :raises SettingsError: only some are configured.
    """
    named = {
        "lonnetCertificateAuthority": settings.certificate_authority,
        "lonnetCertificate": settings.certificate,
        "lonnetPrivateKey": settings.private_key,
    }
    if not any(named.values()):
        return None
    paths = []
    for variable, name in named.items():
        if name is None:
            raise SettingsError(f"{settings.config_file}: PerlSetVar {variable} is missing")
        path = os.path.join(settings.certificate_directory or "", name)
        if not os.path.isabs(path):
            raise SettingsError(
                f"{settings.config_file}: PerlSetVar lonCertificateDirectory is missing, "
                f"where {name} is"
            )
        paths.append(path)
    return CertificateFiles(*paths)
