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

LOND_PORT = next(each for each in PARAMETERS if each.variable == "londPort")


def prepare_cluster(folder: str, given: dict[str, str]) -> str:
    """
    Create missing files of a cluster; return the path of its ``loncapa.conf``.

    :param given: settings given as options.
    :raises lonc.config.settings.SettingsError: that failed.
    """
    from lonc.lond.cluster import ClusterError, prepare

    # Checked first, because it is written to the new loncapa.conf.
    port = given.get("lond-port")
    try:
        return prepare(folder, None if port is None else LOND_PORT.read(port, "--lond-port"))
    except ClusterError as error:
        raise SettingsError(str(error)) from None


def check_cluster(settings: Settings, table: HostTable) -> None:
    """
    Check that the ports of the londs are available.

    :raises lonc.config.settings.SettingsError: one is not.
    """
    from lonc.lond.cluster import ClusterError, NoPort, check_ports

    try:
        check_ports(table, settings.lond_port)
    except ClusterError as error:
        advice = f"; {ANOTHER_PORT}" if isinstance(error, NoPort) else ""
        raise SettingsError(f"{error}{advice}") from None


def cluster(
    reactor: Any, folder: str, settings: Settings, table: HostTable, access: Access
) -> IService:
    """Return the service of the londs."""
    from lonc.lond.cluster import Cluster

    certificates = access.certificates
    return Cluster(
        reactor,
        os.path.abspath(folder),
        table,
        settings.lond_port,
        settings.host_id,
        None if certificates is None else certificates.files.context(ssl.PROTOCOL_TLS_SERVER),
        access.key_folder,
    )


def screen(folder: str, settings: Settings, table: HostTable) -> str:
    """Return the text that is printed once everything is running."""
    from lonc.lond import illness

    hosts = table.hosts.values()
    ill = []
    with contextlib.suppress(OSError):  # logged by the cluster
        ill = [f"{host_id} is {state}" for host_id, state in illness.read(folder).items()]
    return SCREEN.format(
        ids=", ".join(host.id for host in hosts),
        londs=", ".join(f"{host.id} at {host.target}:{settings.lond_port}" for host in hosts),
        ill=f"\n  still     {', '.join(ill)}: lonc-lond makes them well" if ill else "",
        sockets=_near(settings.sock_dir),
        folder=_near(os.path.abspath(folder)),
        log=_near(settings.log_file),
        page=address(settings.http),
        last=[host.id for host in hosts][-1],
        lonc=_command("lonc", os.path.abspath(folder)),
        lond=_command("lonc-lond", os.path.abspath(folder)),
    )


def table_server(reactor: Any, port: int, table: HostTable) -> IService:
    """Return the service that serves the host table over HTTP."""
    from lonc.lond.table_server import TableServer, table_text

    text = table_text(table.hosts.values())
    return TableServer(reactor, port, lambda: text)


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
