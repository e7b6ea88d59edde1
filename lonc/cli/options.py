"""The options by which a lonc is found, which every command takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import click

P = ParamSpec("P")
T = TypeVar("T")

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
