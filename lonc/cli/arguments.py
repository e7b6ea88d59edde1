"""Arguments and options that several commands have, and those by which a lonc is found."""

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

#: Seconds: ten years. What is longer is a mistake, and has no date that a clock can show.
_LONGEST: Final = 3650 * 86_400.0


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A time in seconds, or with ``s``, ``m``, ``h`` or ``d`` behind the number."""

    name = "duration"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)([smhd]?)", str(value), re.ASCII)
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not 0.0 < seconds <= _LONGEST:
            self.fail(f"{value!r} is no duration such as 90, 90s, 5m, 2h or 1d", parameter, context)
        return seconds


def _host_id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what cannot be sent as text, as no table can have it."""
    if not value.isascii():
        raise click.ClickException(f"{printable(value)} is not in hosts.tab")
    return value


def not_empty(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what a script's empty variable leaves: to the daemon it would mean all hosts."""
    if not value.strip():
        raise click.BadParameter("it is empty")
    return value


def _one_host_id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return _host_id(context, parameter, not_empty(context, parameter, value))


def _file(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what cannot be sent as text: lonnet and lonc name no file so."""
    if any(0xDC80 <= ord(each) <= 0xDCFF for each in value):
        raise click.ClickException(f"no delayed request {printable(value)}")
    return value


one_file = click.argument("file", callback=_file)
json_option = click.option("--json", "wants_json", is_flag=True, help="One JSON object.")


def sort_option(default: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return the option that names the column to sort by."""
    return click.option(
        "--sort", metavar="COLUMN", default=default, show_default=True, help="By which."
    )


reverse_option = click.option("--reverse", is_flag=True, help="The other way round.")
limit_option = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="No more than the first N."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
any_host = click.argument("host", required=False, default="", callback=_host_id)
one_host = click.argument("host", callback=_one_host_id)


def confirm(question: str, yes: bool) -> None:
    """
    Have a person say yes, unless the command line did.

    :raises click.Abort: the answer is no.
    :raises click.UsageError: there is nobody to ask.
    """
    if yes:
        return
    try:
        click.confirm(printable(question), abort=True)
    except click.Abort:
        if sys.stdin is None or not sys.stdin.isatty():
            click.echo()
            raise click.UsageError(
                "there is no terminal to ask at: --yes does it unasked"
            ) from None
        raise


#: The exit status when no daemon answers.
NO_DAEMON: Final = 3


def chosen() -> dict[str, str]:
    """Return which lonc the command line means, before or behind a command's name."""
    found: dict[str, str] = click.get_current_context().find_root().ensure_object(dict)
    return found


def targeted(command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the three options by which a lonc is found; they are kept in the context."""

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
