"""The commands for the key that seals delayed requests."""

from __future__ import annotations

import os
from typing import Final

import click

from lonc.cli import streams
from lonc.cli.arguments import targeted
from lonc.cli.target import target
from lonc.delayed.sealing import (
    OVERHEAD,
    NotAuthentic,
    UnusableKey,
    make_key_file,
    read_key_file,
    unseal,
)
from lonc.disk.files import read_file

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
    streams.write(content)
