"""
The ``lonc`` command: what an administrator does beside the daemon.

Whatever goes wrong ends it with one line that says why, and status 1; 3 where no lonc answers, and
64 where the command line cannot be understood.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from typing import Final

import click

from lonc import __version__
from lonc.cli import ask, check, delayed, hosts, requests, settings, status, steer, streams, top
from lonc.cli.target import NO_DAEMON, NoDaemon, target, targeted
from lonc.config.settings import SettingsError
from lonc.control.errors import ManagementError
from lonc.delayed.sealing import NotAuthentic, UnusableKey, make_key_file, read_key_file, unseal

#: The exit status of a usage error, as ``sysexits.h`` has it: no state of lonc is that.
USAGE: Final = 64


@click.group(invoke_without_command=True)
@click.version_option(__version__, message="lonc %(version)s")
@targeted
@click.pass_context
def commands(context: click.Context) -> None:
    """
    Look after lonc. The daemon itself is `twistd lonc`.

    It is found by loncapa.conf, or by --management, --config, --standalone, before a command's name
    or behind it.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    *(status.status, hosts.hosts, requests.clients, requests.slow, requests.trace),
    *(settings.settings, top.top),
    *(ask.ask, check.check, delayed.delayed),
    *(steer.pause, steer.resume, steer.retry, steer.reconnect, steer.debug),
    *(steer.reload, steer.stop),
):
    commands.add_command(command)


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
@targeted
def show_delayed(file: str, key: str | None) -> None:
    """
    Show a sealed delayed request, or the note beside one that was set aside.

    FILE is a sealed file, with the name that lonc gave it.
    """
    key_file = key or target().settings().delayed_key_file
    if key_file is None:
        raise UnusableKey("no key: loncapa.conf has no loncDelayedKeyFile; see --key")
    secret = read_key_file(key_file)
    try:
        # Asked first because opening a pipe could wait for ever.
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise click.ClickException(f"{file}: not a file")
        with open(file, "rb") as opened:
            content = unseal(secret, file, opened.read())
    except OSError as error:  # that of a read names no file
        raise click.ClickException(f"{file}: {error.strerror}") from None
    except NotAuthentic as error:
        raise click.ClickException(f"{file}: {error}") from None
    streams.write(content)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    :raise SystemExit: with one line, when something is wrong.
    """
    streams.prepare()
    status, message = _run(arguments)
    if message:
        streams.complain(message)
    if status:
        raise SystemExit(status)


def _run(arguments: Sequence[str] | None) -> tuple[int, str]:
    """Return the exit status, and what is wrong."""
    try:
        try:
            commands.main(arguments, prog_name="lonc", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except SystemExit as ended:
        return int(ended.code or 0), ""
    except click.Abort:
        return 1, ""
    except click.UsageError as error:
        command = "lonc" if error.ctx is None else error.ctx.command_path
        return USAGE, f"{error.format_message().removesuffix('.')}; see {command} --help"
    except NoDaemon as error:
        return NO_DAEMON, error.format_message()
    except click.ClickException as error:
        return 1, error.format_message()
    except (SettingsError, ManagementError) as error:
        return 1, str(error)
    except BrokenPipeError:
        streams.discard(sys.stdout)
        return 1, ""  # whoever read the listing has seen enough
    except OSError as error:
        if error.filename is not None:
            return 1, f"{error.filename}: {error.strerror}"
        streams.discard(sys.stdout)
        return 1, f"standard output: {error.strerror}"
    return 0, ""
