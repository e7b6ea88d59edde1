"""
``--standalone``: lonc with its own cluster, and commands to try with it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import ssl
import sys
from typing import Any

from twisted.application.service import IService

from lonc.config.auth_modes import Access
from lonc.config.hosts import HostTable
from lonc.config.settings import PARAMETERS, Settings, SettingsError, find_config_file
from lonc.lond import illness
from lonc.lond.cluster import Cluster, ClusterError, NoPort, check_ports, prepare
from lonc.lond.table_server import TableServer, table_text
from lonc.web.port import address

#: Printed by ``--standalone`` once everything is running.
SCREEN = """
lonc serves a cluster of its own: {ids}

  londs     {londs}{ill}
  sockets   {sockets}/<host>
  data      {folder}/data/<host>.sqlite
  log       {log}
  page      {page}

Try it from another terminal, in this folder:

  {lonc} ask {last} ping
  {lonc} ask {last} put:msu:alice:grades:essay=A
  {lonc} ask {last} get:msu:alice:grades:essay
  {lonc} status
  {lonc} hosts

Make a lond fail, and see what lonc reports (stopped, silent, slow, breaking, estranged; well):

  {lond} {last} silent

Ctrl-C ends it; the data is kept.
"""

#: Advice if a port is in use.
ANOTHER_PORT = "--lond-port takes another port, as in make run PORT=6663"

#: Reads a port given as an option: every port has the range of londPort.
PORT = next(each for each in PARAMETERS if each.variable == "londPort")


class Standalone:
    """
    The cluster of ``--standalone``.

    :param folder: its folder.
    :param table_port: the HTTP port on which its host table is served; None for none.
    :raises lonc.config.settings.SettingsError: not a port.
    """

    def __init__(self, folder: str, table_port: str | None) -> None:
        self._folder = folder
        self._table_port = None
        if table_port is not None:
            self._table_port = PORT.read(table_port, "--table-port")

    def prepare(self, given: dict[str, str]) -> str:
        """
        Create missing files; return the path of ``loncapa.conf``.

        :param given: settings given as options.
        :raises lonc.config.settings.SettingsError: that failed.
        """
        # Checked first, because it is written to the new loncapa.conf.
        port = given.get("lond-port")
        lond_port = None if port is None else PORT.read(port, "--lond-port")
        try:
            return prepare(self._folder, lond_port)
        except ClusterError as error:
            raise SettingsError(str(error)) from None

    def check(self, settings: Settings, table: HostTable) -> None:
        """
        Check that the ports of the londs are available.

        :raises lonc.config.settings.SettingsError: one is not.
        """
        try:
            check_ports(table, settings.lond_port)
        except ClusterError as error:
            advice = f"; {ANOTHER_PORT}" if isinstance(error, NoPort) else ""
            raise SettingsError(f"{error}{advice}") from None

    def services(
        self, reactor: Any, settings: Settings, table: HostTable, access: Access
    ) -> list[IService]:
        """Return the service of the londs, and the one that serves the host table."""
        own, port = access.certificates, settings.lond_port
        tls = None if own is None else own.files.context(ssl.PROTOCOL_TLS_SERVER)
        folder, keys = os.path.abspath(self._folder), access.key_folder
        services: list[IService] = [
            Cluster(reactor, folder, table, port, settings.host_id, tls, keys)
        ]
        if self._table_port is not None:
            text = table_text(table.hosts.values())
            services.append(TableServer(reactor, self._table_port, lambda: text))
        return services

    def screen(self, settings: Settings, table: HostTable) -> str:
        """Return the text that is printed once everything is running."""
        hosts = table.hosts.values()
        folder = os.path.abspath(self._folder)
        ill = []
        with contextlib.suppress(OSError):  # logged by the cluster
            ill = [f"{host_id} is {state}" for host_id, state in illness.read(folder).items()]
        return SCREEN.format(
            ids=", ".join(host.id for host in hosts),
            londs=", ".join(f"{host.id} at {host.target}:{settings.lond_port}" for host in hosts),
            ill=f"\n  still     {', '.join(ill)}: lonc-lond makes them well" if ill else "",
            sockets=_near(settings.sock_dir),
            folder=_near(folder),
            log=_near(settings.log_file),
            page=address(settings.http),
            last=[host.id for host in hosts][-1],
            lonc=_command("lonc", folder),
            lond=_command("lonc-lond", folder),
        )


def _command(name: str, folder: str) -> str:
    """Return a command for the cluster in a folder; the one in `var` is found by itself."""
    command = _near(os.path.join(os.path.dirname(sys.executable), name))
    try:
        find_config_file()
    except SettingsError:
        if folder == os.path.abspath("var"):
            return command
    return f"{command} --standalone {shlex.quote(_near(folder))}"


def _near(path: str) -> str:
    """Return the shorter of an absolute path and its relative form, in the source folder."""
    if not os.path.isdir(os.path.join("docs", "examples")):
        return path  # the commands are typed in another folder
    return min(path, os.path.relpath(path), key=len)
