"""Clients and their requests: ``lonc clients``, ``slow``, ``trace``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import click

from lonc.cli.arguments import any_host, json_option, reverse_option, sort_option
from lonc.cli.tables import Column, listing, numbers
from lonc.cli.target import asks
from lonc.control.client import ManagementClient
from lonc.report.records import ClientStatus, RequestRecord
from lonc.report.units import clock_time, duration, measured, size
from lonc.wire.printable import printable

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
        click.echo(_json_line(record) if wants_json else _line(record))
        sys.stdout.flush()
        if count is not None:
            count -= 1
            if count == 0:
                break


def _json_line(record: RequestRecord) -> str:
    return json.dumps({"schema": 1, **attrs.asdict(record)})


def _line(record: RequestRecord) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(record.when))
    return printable(
        f"{clock}  {record.host_id}  {record.pid}  {record.command}"
        f"  {size(record.size)} > {size(record.reply_size)}"
        f"  queue {duration(record.queue)}  lond {duration(record.lond)}  {record.outcome}"
        + (f"  {record.contents}" if record.contents else "")
    )
