"""The options by which a lonc is found, which every command takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec

import click

P = ParamSpec("P")

#: The exit status when no daemon answers.
NO_DAEMON: Final = 3


class Chosen:
    """
    What the command line says of which lonc is meant; before or behind a command's name.

    :ivar config: a ``loncapa.conf``.
    :ivar management: a client endpoint's description.
    :ivar standalone: the folder of ``twistd lonc --standalone``.
    """

    def __init__(self) -> None:
        self.config: str | None = None
        self.management: str | None = None
        self.standalone: str | None = None


def chosen() -> Chosen:
    """Return what the command line says."""
    found = click.get_current_context().find_root().ensure_object(Chosen)
    assert isinstance(found, Chosen)
    return found


def targeted(command: Callable[P, Any]) -> Callable[P, Any]:
    """Give a command the three options by which a lonc is found; they are kept in the context."""

    def keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            setattr(context.find_root().ensure_object(Chosen), str(parameter.name), value)

    for flags, metavar, text in (
        (("--standalone",), "FOLDER", "The lonc of `twistd lonc --standalone FOLDER`."),
        (("--management",), "ENDPOINT", "The lonc whose management port this is."),
        (("--config", "-c"), "FILE", "The lonc of this loncapa.conf [default: the usual one]."),
    ):
        option = click.option(*flags, metavar=metavar, help=text, expose_value=False, callback=keep)
        command = option(command)
    return command
