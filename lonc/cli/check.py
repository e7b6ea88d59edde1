"""Check the configuration without starting anything: ``lonc check``."""

from __future__ import annotations

from typing import Final

import click
from rich.text import Text

from lonc.cli.arguments import json_option, targeted
from lonc.cli.tables import STYLES, as_json, console
from lonc.cli.target import target
from lonc.config.settings import SettingsError
from lonc.daemon.check import LEVELS, Checked
from lonc.daemon.check import check as look_at
from lonc.wire.printable import printable

#: The overall states, and the exit status for each level.
STATES: Final = ("ok", "warning", "error")
INDENT: Final = 1 + max(map(len, LEVELS))  #: Width of the column of levels.
STATE: Final = {"ok": 0, "note": 0, "warning": 1, "critical": 1, "error": 2}


@click.command()
@json_option
@targeted
def check(wants_json: bool) -> None:
    """
    Check configuration, tables, folders, certificates, limits and sockets; change nothing.

    The exit status is 0, 1 with warnings, or 2 if lonc would not start.
    """
    try:
        found = list(look_at(target().config_file()))
    except SettingsError as error:  # a start would find no file either
        found = [Checked("error", str(error))]
    status = max(STATE[each.level] for each in found)
    if wants_json:
        as_json(state=STATES[status], checked=found)
    else:
        for each in sorted(found, key=lambda each: -LEVELS.index(each.level)):
            _show(each)
    raise SystemExit(status)


def _show(each: Checked) -> None:
    out = console()
    line = Text(f"{each.level:<{INDENT}}", style=STYLES[each.level])
    line.append(printable(each.what), style="not bold default")
    out.print(line)
    if each.advice:
        out.print(f"{'':{INDENT}}{printable(each.advice)}", style="dim")
