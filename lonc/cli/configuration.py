"""The configuration, in force and in files: ``lonc settings``, ``check``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import click
from rich.text import Text

from lonc.cli.arguments import json_option, sort_option, targeted
from lonc.cli.tables import STYLES, Column, as_json, console, listing
from lonc.cli.target import asks, target
from lonc.config.kinds import GROUP, MODE
from lonc.config.settings import PARAMETERS, SettingsError
from lonc.control.client import ManagementClient
from lonc.daemon.check import LEVELS, Checked
from lonc.daemon.check import check as look_at
from lonc.report.records import SettingStatus
from lonc.wire.printable import printable

SETTING_COLUMNS: Final[Sequence[Column[SettingStatus]]] = (
    Column("setting", lambda setting: setting.name),
    Column("value", lambda setting: setting.value),
    Column("unit", lambda setting: setting.unit, 3),
    Column("from", lambda setting: setting.source, 6),
    Column("the file says", lambda setting: setting.differs or "", 7),
)


@click.command()
@json_option
@sort_option("setting")
@asks
async def settings(lonc: ManagementClient, wants_json: bool, sort: str) -> None:
    """List every setting in force, its source, and the value now in the file if that differs."""
    rows, empty = await lonc.settings(), "There are no settings."
    listing("settings", rows, SETTING_COLUMNS, sort, wants_json, empty, as_object=_with_numbers)


def _with_numbers(setting: SettingStatus) -> Mapping[str, object]:
    """Return a setting for JSON: seconds, bytes and counts as numbers, switches as booleans."""
    kinds = {each.variable: each.kind for each in PARAMETERS if each.kind not in (MODE, GROUP)}

    def value(text: str) -> object:
        with contextlib.suppress(ValueError, KeyError):
            parsed = kinds[setting.name].parse(text)
            if isinstance(parsed, int | float):
                return parsed
        return text

    changed = {"value": value(setting.value), "differs": value(setting.differs)}
    return attrs.asdict(setting) | changed


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
