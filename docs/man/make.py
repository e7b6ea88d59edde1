"""
Write the manual pages ``lonc.1`` and ``twistd-lonc.1``: ``make man``.

They are generated from the definitions by which the commands parse their arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import click

from lonc import __version__
from lonc.cli.main import commands
from lonc.tap import Options

HERE = os.path.dirname(os.path.abspath(__file__))


def roff(text: str) -> str:
    """Escape a text for troff."""
    text = re.sub(r"\s+", " ", text.strip()).replace("\\", r"\e").replace("-", r"\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def head(name: str, text: str) -> Iterator[str]:
    """Yield the beginning of a page."""
    yield f'.TH {roff(name.upper())} 1 "" "lonc {__version__}" "LON\\-CAPA"'
    yield from (".SH NAME", f"{roff(name)} \\- {roff(text)}")


def paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs, separated by empty lines in the text."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", roff(paragraph))


def named(term: str, text: str) -> Iterator[str]:
    """Yield a term and its description."""
    yield from (".TP", f".B {roff(term)}", roff(text))


def options(command: click.Command) -> Iterator[str]:
    """Yield the options of a command."""
    context = click.Context(command)
    for each in command.get_params(context):
        record = each.get_help_record(context)
        if record is not None and isinstance(each, click.Option):
            yield from named(*record)


def described(command: click.Command, name: str) -> Iterator[str]:
    """Yield the section of a command, or of all commands of a group."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in sorted(command.list_commands(context)):
            each = command.get_command(context, word)
            assert each is not None
            yield from described(each, f"{name} {word}")
        return
    usage_line = " ".join(command.collect_usage_pieces(click.Context(command)))
    yield from (f".SS {roff(f'{name} {usage_line}')}", *paragraphs(command.help or ""))
    yield from options(command)


def lonc_page() -> Iterator[str]:
    """Yield the lines of ``lonc.1``."""
    yield from head("lonc", "control and inspect a running lonc")
    yield from (".SH SYNOPSIS", ".B lonc", roff("[OPTIONS] COMMAND [ARGUMENTS]"))
    yield from (".SH DESCRIPTION", *paragraphs(commands.help or ""))
    yield from (".SH OPTIONS", *options(commands), ".SH COMMANDS")
    yield from described(commands, "lonc")
    yield ".SH EXIT STATUS"
    yield from named("0", "Done; for lonc status: all is well.")
    yield from named("1", "It failed; or there are warnings; or con_lost.")
    yield from named("2", "lonc status: something is critical; lonc check: lonc would not start.")
    yield from named("3", "No lonc answers.")
    yield from named("64", "Wrong command line.")
    yield from (".SH SEE ALSO", ".BR twistd-lonc (1)".replace("-", r"\-"))


def twistd_page() -> Iterator[str]:
    """Yield the lines of ``twistd-lonc.1``."""
    yield from head("twistd-lonc", "serve the programs of a LON-CAPA machine")
    yield from (".SH SYNOPSIS", ".B twistd", roff("[twistd's options] lonc [options]"))
    yield from (".SH DESCRIPTION", *paragraphs(Options.longdesc), ".SH OPTIONS")
    parameters: list[Any] = [
        (long, short, " VALUE", text) for long, short, _, text, *_ in Options.optParameters
    ]
    flags: list[Any] = [(long, short, "", text) for long, short, text in Options.optFlags]
    for long, short, value, text in sorted((*parameters, *flags), key=lambda each: str(each[0])):
        yield from named((f"-{short}, " if short else "") + f"--{long}{value}", text)
    yield from (
        ".SH SIGNALS",
        roff("INT and TERM stop it; HUP makes it reload the configuration and the table."),
    )
    yield from (".SH SEE ALSO", ".BR lonc (1),", ".BR twistd (1)")


def main() -> None:
    """Write both pages."""
    for name, lines in (("lonc.1", lonc_page()), ("twistd-lonc.1", twistd_page())):
        with open(os.path.join(HERE, name), "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
