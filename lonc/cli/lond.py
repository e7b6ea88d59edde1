"""Make a lond of the embedded cluster fail, and recover: ``lonc-lond``."""

from __future__ import annotations

import os

import click

from lonc.cli.main import main as run
from lonc.config.hosts import read_host_table
from lonc.lond import illness


@click.command(epilog="; ".join(f"{name}: {what}" for name, what in illness.ILLNESSES.items()))
@click.option(
    "--standalone",
    "folder",
    metavar="FOLDER",
    default="var",
    help="The folder of `twistd lonc --standalone` [default: var].",
)
@click.argument("host", required=False)
@click.argument("state", required=False, type=click.Choice([*illness.ILLNESSES]))
def lond(folder: str, host: str | None, state: str | None) -> None:
    """
    Set the state of the lond of HOST, in the cluster started by `make run`.

    Without STATE print its state; without HOST those of all.
    """
    table = read_host_table(os.path.join(folder, "tabs", "hosts.tab"))
    if host is not None and host not in table.hosts:
        raise click.ClickException(f"{host} is not in hosts.tab")
    if host is not None and state is not None:
        illness.write(folder, host, state)
        click.echo(f"The lond of {host} is to be {state}: {illness.ILLNESSES[state]}.")
        click.echo("The cluster follows within a second, or when it is started.")
        return
    ill = illness.read(folder)
    for each in table.hosts if host is None else [host]:
        click.echo(f"{each}  {ill.get(each, illness.WELL)}")


def main() -> None:
    """Run the command."""
    run(command=lond, name="lonc-lond")


if __name__ == "__main__":
    main()
