"""Ask a lond over its host's own socket, as a client does: ``lonc ask``."""

from __future__ import annotations

import sys

import click

from lonc.cli.target import target, targeted
from lonc.client import CON_LOST, Client


@click.command()
@click.argument("host")
@click.argument("request")
@click.option(
    "--timeout", type=click.FloatRange(0.0, min_open=True), metavar="SECONDS",
    help="How long to wait [default: a bit longer than lonc does].",
)  # fmt: skip
@targeted
def ask(host: str, request: str, timeout: float | None) -> None:
    """
    Send REQUEST to HOST, and print the answer.

    Ends with 1 at con_lost, for which the reason is told. A REQUEST that begins with `encrypt:`
    goes to the lond enciphered.
    """
    try:
        reply = Client(target().settings()).ask(host, request, timeout)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    sys.stdout.buffer.write(reply + b"\n")
    sys.stdout.buffer.flush()
    if reply == CON_LOST:
        if reply.why:
            click.echo(f"lonc: {reply.why}", err=True)
        raise SystemExit(1)
