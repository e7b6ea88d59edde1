"""A live view of all hosts in the terminal: ``lonc top``."""

from __future__ import annotations

import sys

import click

from lonc.cli.arguments import targeted
from lonc.cli.target import TIMEOUT, no_daemon, target, who
from lonc.control.errors import NoAnswer


@click.command()
@targeted
def top() -> None:
    """Show the hosts live, with keys to sort, filter, pause, resume and retry."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.ClickException("there is no terminal to show it in; see lonc hosts")
    try:
        from lonc.cli.screen import run
    except ModuleNotFoundError:
        raise click.ClickException("`lonc top` needs Textual: pip install 'lonc[top]'") from None
    try:
        run(target().endpoint(), TIMEOUT, who(), target().certificates())
    except NoAnswer as error:
        raise no_daemon(error) from None
