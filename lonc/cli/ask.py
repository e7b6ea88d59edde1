"""Send a request over a host's socket, as a client does: ``lonc ask``."""

from __future__ import annotations

import os

import click

from lonc.cli.arguments import Duration, targeted
from lonc.cli.streams import report_error, write
from lonc.cli.target import START, target
from lonc.client import CON_LOST, Client
from lonc.client.installation import Installation
from lonc.config.hosts import TableError, read_both_tables
from lonc.config.settings import Settings
from lonc.daemon.pidfile import holder_of


@click.command()
@click.argument("host")
@click.argument("request")
@click.option(
    "--timeout", type=Duration(), metavar="DURATION",
    help="How long to wait, such as 90s or 5m [default: slightly longer than lonc].",
)  # fmt: skip
@targeted
def ask(host: str, request: str, timeout: float | None) -> None:
    """
    Send REQUEST to HOST, and print the answer.

    After con_lost the exit status is 1, and the reason is printed. A REQUEST that begins with
    `encrypt:` is sent to the lond encrypted.
    """
    settings = target().settings()
    try:
        path, _ = Installation(settings, None, None).socket(host)
        if not os.path.lexists(path):
            raise click.ClickException(_why_no_socket(host, path, settings))
        reply = Client(settings).ask(host, os.fsencode(request), timeout)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    write(reply + b"\n")
    if reply == CON_LOST:
        if reply.why:
            report_error(reply.why)
        raise SystemExit(1)


def _why_no_socket(host: str, path: str, settings: Settings) -> str:
    try:
        table = read_both_tables(
            settings.hosts_file, settings.fetched_hosts_file, settings.max_host_id, lenient=True
        )
    except TableError as error:
        return str(error)
    if host not in table.hosts:
        return f"{host} is not in hosts.tab"
    runs = holder_of(settings.pid_file)
    return f"{path} does not exist; {'lonc status tells why' if runs else START}"
