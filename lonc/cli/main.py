"""
The ``lonc`` command, for administrators.

Any error ends it with one line that gives the reason, and status 1; 3 if no lonc answers, and
64 for an invalid command line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from lonc import __version__
from lonc.cli import streams
from lonc.cli.arguments import NO_DAEMON, targeted
from lonc.wire.printable import printable

#: The exit status of a usage error, as in ``sysexits.h``; no state of lonc has it.
USAGE: Final = 64

#: The commands of each module, and their texts in the list of commands. Modules are imported on
#: demand, because that would take most of the time of ``lonc --help``.
MODULES: Final = {
    "status": {"status": "Show the overall state, and what to do about problems."},
    "hosts": {"hosts": "List the hosts, the worst first; or show HOST in detail."},
    "requests": {
        "clients": "List the open clients, of HOST or of all, those with the most requests first.",
        "slow": "Show the slowest 100 recent requests, and where their time was spent.",
        "trace": "Show requests as they end, of HOST or of all, until Ctrl-C.",
        "ask": "Send REQUEST to HOST, and print the answer.",
    },
    "configuration": {
        "settings": "List every setting in force, its source, "
        "and the value now in the file if that differs.",
        "check": "Check configuration, tables, folders, certificates, limits and sockets; "
        "change nothing.",
    },
    "top": {"top": "Show the hosts live, with keys to sort, filter, pause, resume and retry."},
    "delayed": {
        "delayed": "Manage requests that wait on disk for their host.",
        "make-delayed-key": "Create a key that seals delayed requests.",
        "show-delayed": "Show a sealed delayed request, or the note beside one that was set aside.",
    },
    "steer": {
        "pause": "Stop sending requests to HOST for a while.",
        "resume": "End the pause of HOST.",
        "retry": "Restore the retries of HOST, or of all hosts: a DEAD one is probed at once.",
        "reconnect": "Close the connections of HOST, or of all hosts; their requests get con_lost.",
        "debug": "Set the debug level of HOST, 0 (off) to 9; `all` means all hosts.",
        "reload": "Read the configuration and the host table again, and show what has changed.",
        "stop": "Stop lonc, as TERM does.",
    },
}

#: The module and the text of each command.
COMMANDS: Final = {
    name: (module, text) for module, texts in MODULES.items() for name, text in texts.items()
}


class Commands(click.Group):
    """The commands, imported on demand."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return their names."""
        return sorted(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command with this name, or None."""
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        command = getattr(import_module(f"lonc.cli.{module}"), name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List them with their descriptions."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(context)])

    @property
    def all(self) -> dict[str, click.Command]:
        """All of them, by name."""
        context = click.Context(self)
        found = {name: self.get_command(context, name) for name in COMMANDS}
        return {name: command for name, command in found.items() if command is not None}


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(__version__, message="lonc %(version)s")
@targeted
@click.pass_context
def commands(context: click.Context) -> None:
    """
    Query and control lonc. The daemon itself is `twistd lonc`.

    It is found through loncapa.conf, or with --management, --config or --standalone, before or
    after the name of a command.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(
    arguments: Sequence[str] | None = None,
    command: click.Command = commands,
    name: str = "lonc",
) -> None:
    """
    Run a command.

    :raises SystemExit: after printing one line, if something is wrong.
    """
    streams.prepare()
    status, message = _run(arguments, command, name)
    if message and "--monitoring" in (sys.argv if arguments is None else arguments):
        # Nagios shows standard output, and 3 means "unknown" there.
        status, state = (2, "CRITICAL") if status == NO_DAEMON else (3, "UNKNOWN")
        print(f"LONC {state} - {printable(message).replace('|', '/')}", flush=True)
        message = ""
    if message:
        streams.report_error(message)
    if status:
        raise SystemExit(status)


def _run(arguments: Sequence[str] | None, command: click.Command, name: str) -> tuple[int, str]:
    """Return the exit status, and an error message."""
    try:
        try:
            command.main(arguments, prog_name=name, standalone_mode=False)
        finally:
            sys.stdout.flush()
    except SystemExit as ended:
        return int(ended.code or 0), ""
    except click.Abort:
        return 1, ""
    except click.UsageError as error:
        used = name if error.ctx is None else error.ctx.command_path
        return USAGE, f"{error.format_message().removesuffix('.')}; see {used} --help"
    except click.ClickException as error:
        return error.exit_code, error.format_message()
    except BrokenPipeError:
        streams.discard(sys.stdout)
        return 1, ""  # the reader has closed the pipe
    except OSError as error:
        if error.filename is not None:
            return 1, f"{error.filename}: {error.strerror}"
        streams.discard(sys.stdout)
        return 1, f"standard output: {error.strerror}"
    except Exception as error:
        from lonc.config.hosts import TableError
        from lonc.config.settings import SettingsError
        from lonc.control.errors import ManagementError
        from lonc.daemon.pidfile import PidFileError

        if not isinstance(error, ManagementError | PidFileError | SettingsError | TableError):
            raise
        return 1, str(error)
    return 0, ""
