"""
``--standalone``: lonc with a cluster of its own, and what to try on it.
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

#: What ``--standalone`` tells once all is running.
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

#: What helps where a port is taken.
ANOTHER_PORT = "--lond-port takes another port, as in make run PORT=6663"

LOND_PORT = next(each for each in PARAMETERS if each.variable == "londPort")


def prepare_cluster(folder: str, given: dict[str, str]) -> str:
    """
    Make a cluster's files where there are none; return the path of its ``loncapa.conf``.

    :param given: the settings that were given as options.
    :raises lonc.config.settings.SettingsError: that cannot be done.
    """
    from lonc.lond.cluster import ClusterError, prepare

    # It is checked first, because it goes into the new loncapa.conf.
    port = given.get("lond-port")
    try:
        return prepare(folder, None if port is None else LOND_PORT.read(port, "--lond-port"))
    except ClusterError as error:
        raise SettingsError(str(error)) from None


def check_cluster(settings: Settings, table: HostTable) -> None:
    """
    Check that the londs can have their ports.

    :raises lonc.config.settings.SettingsError: one cannot.
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
    """Return the londs."""
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
    """Return what is told once all is running."""
    from lonc.lond import illness

    hosts = table.hosts.values()
    ill = []
    with contextlib.suppress(OSError):  # which the cluster logs
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
    """Return what serves the host table over HTTP."""
    from lonc.lond.table_server import TableServer, table_text

    text = table_text(table.hosts.values())
    return TableServer(reactor, port, lambda: text)


def _command(name: str, folder: str) -> str:
    """Return how to call one for the cluster in a folder; that in `var` it finds by itself."""
    command = _near(os.path.join(os.path.dirname(sys.executable), name))
    try:
        find_config_file()
    except SettingsError:
        if folder == os.path.abspath("var"):
            return command
    return f"{command} --standalone {shlex.quote(_near(folder))}"


def _near(path: str) -> str:
    """Return an absolute path as it is shortest to type in the source folder."""
    if not os.path.isdir(os.path.join("docs", "examples")):
        return path  # the screen's commands are typed elsewhere
    return min(path, os.path.relpath(path), key=len)
