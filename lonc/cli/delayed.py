"""
Delayed requests, those that failed, and the key that seals them: ``lonc delayed``,
``make-delayed-key``, ``show-delayed``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import click

from lonc.cli.arguments import (
    any_host,
    confirm,
    json_option,
    one_file,
    sort_option,
    targeted,
    yes_option,
)
from lonc.cli.streams import write
from lonc.cli.tables import Column, listing, numbers
from lonc.cli.target import asks, target
from lonc.control.client import ManagementClient
from lonc.daemon.pidfile import PidFile
from lonc.delayed.sealing import (
    OVERHEAD,
    NotAuthentic,
    UnusableKey,
    make_key_file,
    read_key_file,
    unseal,
)
from lonc.delayed.spool import Spool
from lonc.disk.files import read_file
from lonc.report.records import DelayedStatus
from lonc.report.units import count, duration, size
from lonc.wire.printable import printable

COLUMNS: Final[Sequence[Column[DelayedStatus]]] = (
    Column("host", lambda each: each.host_id),
    Column("command", lambda each: each.command or "sealed", 7),
    numbers("age", 9, lambda each: each.age, duration),
    numbers("size", 4, lambda each: each.size, size),
    numbers("tries", 5, lambda each: each.tries),
    Column("last answer", lambda each: each.last_answer or "-", 6),
    Column("file", lambda each: each.file),
)


@click.group()
@targeted
def delayed() -> None:
    """Manage requests that wait on disk for their host."""


@delayed.command("list")
@any_host
@json_option
@sort_option("age")
@asks
async def list_(lonc: ManagementClient, host: str, wants_json: bool, sort: str) -> None:
    """List the delayed requests, of HOST or of all, the oldest first."""
    rows = [each for each in await lonc.delayed(host) if not each.kept]
    listing("delayed", rows, COLUMNS, sort, wants_json, "There are no delayed requests.")


@delayed.command()
@any_host
@json_option
@sort_option("age")
@asks
async def kept(lonc: ManagementClient, host: str, wants_json: bool, sort: str) -> None:
    """List the requests that failed and are kept, with the lond's answers."""
    rows = [each for each in await lonc.delayed(host) if each.kept]
    listing("kept", rows, COLUMNS, sort, wants_json, "No request is kept.")


@delayed.command("show")
@one_file
@asks
async def show_(lonc: ManagementClient, file: str) -> None:
    """Show the content of a delayed request, decrypted if it is sealed."""
    content, more = await lonc.show_delayed(file)
    write(content)
    if more:
        click.echo("... (truncated)", err=True)


@delayed.command()
@any_host
@asks
async def retry(lonc: ManagementClient, host: str) -> None:
    """Try to send the delayed requests of HOST, or of all hosts, now."""
    await lonc.retry_delayed(host)
    click.echo(f"The delayed requests of {printable(host) or 'all hosts'} are tried now.")


@delayed.command()
@one_file
@yes_option
@asks
async def drop(lonc: ManagementClient, file: str, yes: bool) -> None:
    """Delete a delayed request for good: the change it requests is not made."""
    confirm(f"Delete {file} for good?", yes)
    await lonc.drop_delayed(file)
    click.echo(f"{printable(file)} is deleted.")


@delayed.command()
@one_file
@asks
async def requeue(lonc: ManagementClient, file: str) -> None:
    """Move a kept request back to those that are sent."""
    await lonc.requeue_delayed(file)
    click.echo(f"{printable(file)} is sent again.")


@delayed.command()
@targeted
def unfold() -> None:
    """
    Move sealed requests to where an earlier lonc looks for them.

    lonc must not be running, because it would move them back.
    """
    settings = target().settings()
    pid_file = PidFile(settings.pid_file)
    pid_file.acquire()
    try:
        moved = Spool(settings.delayed_dir).unfold()
    finally:
        pid_file.abandon()
    click.echo(f"{count(moved, 'sealed request')} moved to {settings.delayed_dir}.")


#: Maximum size of a sealed request in bytes, from the maximum of loncMaxLine.
SIZE_LIMIT: Final = 1024 * 1024 * 1024 + OVERHEAD


@click.command()
@click.argument("file")
def make_delayed_key(file: str) -> None:
    """
    Create a key that seals delayed requests.

    FILE is created with 32 random bytes that only its owner can read. An existing file is never
    overwritten. Run this as the user that lonc runs as.
    """
    make_key_file(file)
    click.echo("Key created. Keep a copy elsewhere, and add to loncapa.conf:")
    path = os.path.abspath(file).replace("\\", r"\\").replace('"', r"\"")
    click.echo(f'PerlSetVar loncDelayedKeyFile "{path}"')


@click.command()
@click.argument("file")
@click.option("--key", metavar="KEYFILE", help="The key [default: the one in loncapa.conf].")
@targeted
def show_delayed(file: str, key: str | None) -> None:
    """
    Show a sealed delayed request, or the note beside one that was set aside.

    FILE must have the name that lonc gave it.
    """
    key_file = key or target().settings().delayed_key_file
    if key_file is None:
        raise UnusableKey("no key: loncapa.conf has no loncDelayedKeyFile; see --key")
    secret = read_key_file(key_file)
    try:
        content = unseal(secret, file, read_file(file, SIZE_LIMIT))
    except OSError as error:  # read errors do not contain the file
        raise click.ClickException(f"{file}: {error.strerror}") from None
    except NotAuthentic as error:
        raise click.ClickException(f"{file}: {error}") from None
    write(content)
