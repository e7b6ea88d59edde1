"""Arguments and options shared by several commands, and those that select a lonc."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import click

from lonc.wire.printable import printable

P = ParamSpec("P")
T = TypeVar("T")

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

#: Maximum duration in seconds: ten years. Anything longer is a mistake.
_LONGEST: Final = 3650 * 86_400.0


def in_seconds(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> float | None:
    """Convert a duration: a number of seconds, or one followed by ``s``, ``m``, ``h`` or ``d``."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)([smhd]?)", value, re.ASCII)
    converted = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0.0 < converted <= _LONGEST:
        raise click.BadParameter(f"{value!r} is not a duration such as 90, 90s, 5m, 2h or 1d")
    return converted


def _host_id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse an id that is not ASCII, which no table can contain."""
    if not value.isascii():
        raise click.ClickException(f"{printable(value)} is not in hosts.tab")
    return value


def not_empty(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse an empty value, as from an empty variable: for the daemon it would mean all hosts."""
    if not value.strip():
        raise click.BadParameter("it is empty")
    return value


def _one_host_id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return _host_id(context, parameter, not_empty(context, parameter, value))


def _file(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse a file name that is not UTF-8, which lonnet and lonc never create."""
    if any(0xDC80 <= ord(each) <= 0xDCFF for each in value):
        raise click.ClickException(f"no delayed request {printable(value)}")
    return value


one_file = click.argument("file", callback=_file)
json_option = click.option("--json", "wants_json", is_flag=True, help="Print one JSON object.")


def sort_option(default: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return the option for the column to sort by."""
    return click.option(
        "--sort",
        metavar="COLUMN",
        default=default,
        show_default=True,
        help="The column to sort by.",
    )


reverse_option = click.option("--reverse", is_flag=True, help="Reverse the order.")
limit_option = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Show only the first N."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
any_host = click.argument("host", required=False, default="", callback=_host_id)
one_host = click.argument("host", callback=_one_host_id)


def confirm(question: str, yes: bool) -> None:
    """
    Ask for confirmation, unless it was given on the command line.

    :raises click.Abort: the answer is no.
    :raises click.UsageError: there is no terminal.
    """
    if yes:
        return
    try:
        click.confirm(printable(question), abort=True)
    except click.Abort:
        if sys.stdin is None or not sys.stdin.isatty():
            click.echo()
            raise click.UsageError("there is no terminal for a confirmation: use --yes") from None
        raise


#: The exit status if no daemon answers.
NO_DAEMON: Final = 3


def chosen() -> dict[str, str]:
    """Return the options that select a lonc, given before or after a command's name."""
    found: dict[str, str] = click.get_current_context().find_root().ensure_object(dict)
    return found


def targeted(command: Callable[P, T]) -> Callable[P, T]:
    """Add the three options that select a lonc to a command; they are stored in the context."""

    def keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.find_root().ensure_object(dict)[str(parameter.name)] = value

    for flags, metavar, text in (
        (("--standalone",), "FOLDER", "The lonc of `twistd lonc --standalone FOLDER`."),
        (("--management",), "ENDPOINT", "The lonc whose management port this is."),
        (("--config", "-c"), "FILE", "The lonc of this loncapa.conf [default: the usual one]."),
    ):
        option = click.option(*flags, metavar=metavar, help=text, expose_value=False, callback=keep)
        command = option(command)
    return command
