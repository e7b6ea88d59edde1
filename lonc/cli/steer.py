"""
Commands that change something: ``lonc pause``, ``resume``, ``retry``, ``reconnect``, ``debug``,
``reload``, ``stop``.
"""

from __future__ import annotations

import click

from lonc.cli.arguments import any_host, confirm, in_seconds, not_empty, one_host, yes_option
from lonc.cli.target import asks, who
from lonc.control.client import ManagementClient
from lonc.report.units import duration
from lonc.wire.printable import printable


@click.command()
@one_host
@click.option("--reason", metavar="R", required=True, callback=not_empty,
              help="The reason, shown to everybody.")  # fmt: skip
@click.option("--for", "seconds", callback=in_seconds, metavar="DURATION",
              help="How long, such as 90s, 5m, 2h or 1d [default: until resumed].")  # fmt: skip
@click.option("--fail", is_flag=True, help="Requests get con_lost at once instead of waiting.")
@asks
async def pause(
    lonc: ManagementClient, host: str, reason: str, seconds: float | None, fail: bool
) -> None:
    """
    Stop sending requests to HOST for a while.

    This returns when requests in flight have ended. Other requests wait, up to the queue
    timeout.
    """
    await lonc.pause(host, who(), reason, seconds or 0.0, fail)
    end = f"for {duration(seconds)}" if seconds else f"until `lonc resume {host}`"
    click.echo(f"{printable(host)} is paused {end}; nothing is in flight.")
    if fail:
        click.echo("Requests get con_lost at once.")
    else:
        limit = {each.name: each.value for each in await lonc.settings()}["loncQueueTimeout"]
        click.echo(f"Requests wait, and get con_lost after {limit} s (loncQueueTimeout).")


@click.command()
@one_host
@asks
async def resume(lonc: ManagementClient, host: str) -> None:
    """End the pause of HOST."""
    await lonc.resume(host)
    click.echo(f"{printable(host)} is no longer paused.")


@click.command()
@any_host
@asks
async def retry(lonc: ManagementClient, host: str) -> None:
    """Restore the retries of HOST, or of all hosts: a DEAD one is probed at once."""
    await lonc.reset_retries(host)
    click.echo(f"The retries of {printable(host) or 'all hosts'} are reset.")


@click.command()
@any_host
@click.option("--yes", is_flag=True, help="Do not ask before closing those of all hosts.")
@asks
async def reconnect(lonc: ManagementClient, host: str, yes: bool) -> None:
    """Close the connections of HOST, or of all hosts; their requests get con_lost."""
    confirm("Close the connections of all hosts?", yes or bool(host))
    await lonc.close_connections(host)
    click.echo(f"The connections of {printable(host) or 'all hosts'} are closed.")


@click.command()
@one_host
@click.argument("level", type=click.IntRange(0, 9))
@asks
async def debug(lonc: ManagementClient, host: str, level: int) -> None:
    """Set the debug level of HOST, 0 (off) to 9; `all` means all hosts."""
    await lonc.set_debug_level("" if host == "all" else host, level)
    click.echo(f"The debug level of {printable(host)} is {level}.")


@click.command()
@asks
async def reload(lonc: ManagementClient) -> None:
    """Read the configuration and the host table again, and show what has changed."""
    for line in (await lonc.reload()).split("\n"):
        click.echo(printable(line))


@click.command()
@yes_option
@asks
async def stop(lonc: ManagementClient, yes: bool) -> None:
    """Stop lonc, as TERM does."""
    confirm("Stop lonc? No client is served then.", yes)
    await lonc.stop()
    click.echo("lonc stops.")
