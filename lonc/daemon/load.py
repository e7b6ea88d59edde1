# Twisted's endpoints have no annotations:
# mypy: allow-untyped-calls
"""
Reads and checks the configuration, in the same way at the start, at a reload and in ``lonc check``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from lonc.config.auth_modes import Access, read_access
from lonc.config.current import Configuration
from lonc.config.hosts import HostTable, TableError, read_both_tables
from lonc.config.settings import Settings, SettingsError, folder_errors, read_settings
from lonc.control.port import ManagementPortError, check_description
from lonc.delayed.sealing import UnusableKey, key_of
from lonc.transport.endpoint_port import server_endpoint

#: Settings that are read even if others are wrong, so that errors in folders and tables are found.
_FOLDERS: Final = ("lonTabDir", "lonSockDir", "lonDaemons", "lonDocRoot", "loncSocketNames")


@attrs.frozen
class Loader:
    """
    Reads ``loncapa.conf`` and the tables.

    :ivar config_file: path of ``loncapa.conf``.
    :ivar options: options of the command line, which override it.
    """

    config_file: str
    options: Mapping[str, str] = attrs.field(factory=dict)

    def settings(self) -> Settings:
        """
        Read only the settings.

        :raises SettingsError: they are unusable.
        """
        return read_settings(self.config_file, self.options)

    def table(self, settings: Settings, lenient: bool = False) -> HostTable:
        """
        Read the host tables.

        :param lenient: ignore an unusable fetched table. This is for the start; a running lonc
            keeps the previous table instead.
        :raises TableError: there is no usable table.
        """
        return read_both_tables(
            settings.hosts_file,
            settings.fetched_hosts_file,
            settings.max_host_id,
            lenient,
        )

    def everything(self, lenient: bool = False) -> Configuration:
        """
        Read and check the whole configuration.

        :param lenient: as for :meth:`table`.
        :raises SettingsError: it is unusable; ``errors`` has all errors found.
        :raises TableError: only the table is unusable.
        """
        errors: list[Exception] = []
        table: HostTable | None = None
        access: Access | None = None
        try:
            settings = self.settings()
        except SettingsError as error:
            errors += error.errors
            try:
                settings = read_settings(self.config_file, self.options, only=_FOLDERS)
            except SettingsError:
                raise error from None
        errors += folder_errors(settings)
        try:
            key_of(settings)
        except UnusableKey as error:
            errors.append(error)
        try:
            table = self.table(settings, lenient)
        except TableError as error:
            if os.path.isdir(settings.tab_dir):  # otherwise already reported
                errors.append(error)
        try:
            access = read_access(settings, table or HostTable({}, ()))
        except SettingsError as error:
            errors.append(error)
        else:
            errors += _port_errors(settings, access)
        if errors or table is None:
            raise errors[0] if len(errors) == 1 else SettingsError(*errors)
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
            server_endpoint(None, settings.http)
    except Exception:  # endpoints raise any exception
        usual = "tcp:8080:interface=127.0.0.1"
        yield SettingsError(f"loncHTTP: {settings.http}: not a server endpoint such as {usual}")
