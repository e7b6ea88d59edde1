"""Requests: ``lonc ask`` sends one; ``clients``, ``slow`` and ``trace`` show those of clients."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import click

from lonc.cli.arguments import (
    any_host,
    in_seconds,
    json_option,
    reverse_option,
    sort_option,
    targeted,
)
from lonc.cli.streams import report_error, write
from lonc.cli.tables import Column, listing, numbers
from lonc.cli.target import START, asks, target
from lonc.client import CON_LOST, Client
from lonc.client.exchange import Installation
from lonc.config.hosts import TableError, read_both_tables
from lonc.config.settings import Settings
from lonc.control.client import ManagementClient
from lonc.daemon.pidfile import holder_of
from lonc.report.records import ClientStatus, RequestRecord
from lonc.report.units import clock_time, duration, measured, size
from lonc.wire.printable import printable


@click.command()
@click.argument("host")
@click.argument("request")
@click.option(
    "--timeout", callback=in_seconds, metavar="DURATION",
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


CLIENT_COLUMNS: Final[Sequence[Column[ClientStatus]]] = (
    Column("host", lambda client: client.host_id),
    Column("pid", lambda client: f"{client.pid}", 9, lambda client: client.pid, number=True),
    Column("user", lambda client: client.user, 7),
    numbers("open", 5, lambda client: max(0.0, time.time() - client.since), duration),
    numbers("requests", 6, lambda client: client.requests),
    Column("waits for", lambda client: client.waits_for or "-", 8),
    numbers("waiting", 8, lambda client: client.waiting, measured),
)


@click.command()
@any_host
@json_option
@sort_option("requests")
@reverse_option
@asks
async def clients(
    lonc: ManagementClient, host: str, wants_json: bool, sort: str, reverse: bool
) -> None:
    """List the open clients, of HOST or of all, those with the most requests first."""
    rows, empty = await lonc.clients(host), "No client is connected."
    listing("clients", rows, CLIENT_COLUMNS, sort, wants_json, empty, reverse)


REQUEST_COLUMNS: Final[Sequence[Column[RequestRecord]]] = (
    Column("time", lambda request: clock_time(request.when), 6, lambda request: request.when),
    Column("host", lambda request: request.host_id),
    Column("pid", lambda request: f"{request.pid}", 4, lambda request: request.pid, number=True),
    Column("command", lambda request: request.command),
    numbers("size", 2, lambda request: request.size, size),
    numbers("reply", 2, lambda request: request.reply_size, size),
    numbers("queue", 6, lambda request: request.queue, duration),
    numbers("connect", 3, lambda request: request.connecting, measured),
    numbers("handshake", 3, lambda request: request.handshake, measured),
    numbers("lond", 6, lambda request: request.lond, duration),
    numbers("total", 8, lambda request: request.total, duration),
    Column("outcome", lambda request: request.outcome, 7),
)


@click.command()
@any_host
@json_option
@sort_option("total")
@asks
async def slow(lonc: ManagementClient, host: str, wants_json: bool, sort: str) -> None:
    """Show the slowest 100 recent requests, and where their time was spent."""
    rows, empty = await lonc.slow(host), "No recent requests."
    listing("slow", rows, REQUEST_COLUMNS, sort, wants_json, empty, as_object=_with_total)


def _with_total(record: RequestRecord) -> Mapping[str, object]:
    return attrs.asdict(record) | {"total": record.total}


@click.command()
@any_host
@click.option("--contents", is_flag=True, help="Show the requests themselves; for the owner only.")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after N requests.")
@asks
async def trace(
    lonc: ManagementClient, host: str, contents: bool, wants_json: bool, count: int | None
) -> None:
    """Show requests as they end, of HOST or of all, until Ctrl-C."""
    async for record in lonc.trace(host, contents):
        as_object = {"schema": 1, **attrs.asdict(record)}
        click.echo(json.dumps(as_object) if wants_json else _line(record))
        sys.stdout.flush()
        if count is not None:
            count -= 1
            if count == 0:
                break


def _line(record: RequestRecord) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(record.when))
    return printable(
        f"{clock}  {record.host_id}  {record.pid}  {record.command}"
        f"  {size(record.size)} > {size(record.reply_size)}"
        f"  queue {duration(record.queue)}  lond {duration(record.lond)}  {record.outcome}"
        + (f"  {record.contents}" if record.contents else "")
    )
