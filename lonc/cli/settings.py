"""The settings in force: ``lonc settings``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import click

from lonc.cli.arguments import json_option, sort_option
from lonc.cli.tables import Column, listing
from lonc.cli.target import asks
from lonc.config.kinds import GROUP, MODE
from lonc.config.settings import PARAMETERS
from lonc.control.client import ManagementClient
from lonc.report.records import SettingStatus

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
