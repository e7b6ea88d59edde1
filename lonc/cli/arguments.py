"""Arguments and options that several commands have."""

from __future__ import annotations

import click

json_option = click.option("--json", "wants_json", is_flag=True, help="One JSON object.")
host_argument = click.argument("host", required=False, default="")
