# Twisted's endpoints have no annotations:
# mypy: allow-untyped-calls
"""
How the configuration is read and judged: the same at the start, at a reload and by ``lonc check``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import attrs
from twisted.internet.endpoints import serverFromString

from lonc.config.auth_modes import Access, read_access
from lonc.config.current import Configuration
from lonc.config.hosts import HostTable, TableError, read_both_tables
from lonc.config.kinds import SettingsErrors
from lonc.config.settings import Settings, SettingsError, folder_errors, read_settings
from lonc.control.port import ManagementPortError, check_description
from lonc.delayed.sealing import UnusableKey, key_of


@attrs.frozen
class Loader:
    """
    Reads ``loncapa.conf`` and the tables.

    :ivar config_file: where the settings are.
    :ivar options: those of the command line, which win.
    """

    config_file: str
    options: Mapping[str, str] = attrs.field(factory=dict)

    def settings(self) -> Settings:
        """
        Read the settings alone.

        :raises SettingsError: they cannot be used.
        """
        return read_settings(self.config_file, self.options)

    def table(self, settings: Settings, lenient: bool = False) -> HostTable:
        """
        Read the tables that the settings name.

        :param lenient: serve without a fetched table that cannot be used. A start serves what it
            can; while lonc runs, a table that served is better than a part of it.
        :raises TableError: there is none that can be used.
        """
        return read_both_tables(
            settings.hosts_file,
            settings.fetched_hosts_file,
            settings.max_host_id,
            lenient,
        )

    def everything(self, lenient: bool = False) -> Configuration:
        """
        Read all there is, and see whether it can be used.

        :param lenient: as of :meth:`table`.
        :raises SettingsError: something cannot; its ``errors`` are all that was found.
        :raises TableError: the table alone cannot.
        """
        settings = self.settings()
        table: HostTable | None = None
        access: Access | None = None
        errors: list[SettingsError | TableError] = [*folder_errors(settings)]
        try:
            key_of(settings)
        except UnusableKey as error:
            errors.append(error)
        try:
            table = self.table(settings, lenient)
        except TableError as error:
            if os.path.isdir(settings.tab_dir):  # else that has been said
                errors.append(error)
        try:
            access = read_access(settings, table or HostTable({}, ()))
        except SettingsError as error:
            errors.append(error)
        else:
            errors += _port_errors(settings, access)
        if errors or table is None:
            raise errors[0] if len(errors) == 1 else SettingsErrors(errors)
        return settings, table


def _port_errors(settings: Settings, access: Access) -> Iterator[SettingsError]:
    for variable, description in (
        ("loncManagement", settings.management),
        ("loncManagementTLS", settings.management_tls),
    ):
        try:
            if description is not None:
                check_description(description, access.certificates)
        except ManagementPortError as error:
            yield SettingsError(f"{variable}: {error}")
    try:
        if settings.http is not None:
            serverFromString(None, settings.http)
    except Exception:  # endpoints raise whatever they like, and say it in words of their own
        usual = "tcp:8080:interface=127.0.0.1"
        yield SettingsError(f"loncHTTP: {settings.http}: no server endpoint, such as {usual}")
