"""
The ``lonc`` command: what an administrator does beside the daemon.

Whatever goes wrong ends it with one line that says why, and status 1.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

import click

from lonc import __version__
from lonc.config.settings import SettingsError, read_settings
from lonc.delayed.sealing import NotAuthentic, UnusableKey, make_key_file, read_key_file, unseal


@click.group(invoke_without_command=True)
@click.version_option(__version__, message="lonc %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Look after lonc. The daemon itself is `twistd lonc`."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@commands.command()
@click.argument("file")
def make_delayed_key(file: str) -> None:
    """
    Make a key that seals delayed requests.

    FILE is made, with 32 random bytes that only its owner can read. Nothing is ever overwritten.
    Run this as the user that lonc runs as.
    """
    make_key_file(file)
    click.echo("The key is made. Keep a copy elsewhere, and put into loncapa.conf:")
    path = os.path.abspath(file).replace("\\", r"\\").replace('"', r"\"")
    click.echo(f'PerlSetVar loncDelayedKeyFile "{path}"')


@commands.command()
@click.argument("file")
@click.option("--key", metavar="KEYFILE", help="The key [default: the one in loncapa.conf].")
@click.option("--config", metavar="FILE", help="This loncapa.conf [default: as for the daemon].")
def show_delayed(file: str, key: str | None, config: str | None) -> None:
    """
    Show a sealed delayed request, or the note beside one that was set aside.

    FILE is a sealed file, with the name that lonc gave it.
    """
    key_file = key or read_settings(config, {}).delayed_key_file
    if key_file is None:
        raise UnusableKey("no key: loncapa.conf has no loncDelayedKeyFile; see --key")
    secret = read_key_file(key_file)
    try:
        # Asked first because opening a pipe could wait for ever.
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise click.ClickException(f"{file}: not a file")
        with open(file, "rb") as opened:
            content = unseal(secret, file, opened.read())
    except NotAuthentic as error:
        raise click.ClickException(f"{file}: {error}") from None
    sys.stdout.buffer.write(content)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    :raise SystemExit: with one line, when something is wrong.
    """
    try:
        commands.main(arguments, prog_name="lonc", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        raise SystemExit(f"lonc: {error.format_message()}") from None
    except SettingsError as error:
        raise SystemExit(f"lonc: {error}") from None
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise SystemExit(f"lonc: {where}{error.strerror}") from None
    except click.Abort:
        raise SystemExit(1) from None
