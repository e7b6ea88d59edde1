"""All hosts, live, in the terminal: ``lonc top``."""

from __future__ import annotations

import click

from lonc.cli.options import targeted
from lonc.cli.target import TIMEOUT, no_daemon, target, who
from lonc.control.errors import NoAnswer


@click.command()
@targeted
def top() -> None:
    """Show the hosts live, with keys to sort, pause, resume and retry."""
    try:
        from lonc.cli.screen import run
    except ModuleNotFoundError:
        raise click.ClickException("`lonc top` needs Textual: pip install 'lonc[top]'") from None
    try:
        run(target().endpoint(), TIMEOUT, who(), target().certificates())
    except NoAnswer as error:
        raise no_daemon(error) from None
