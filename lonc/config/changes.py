"""What another configuration changes, setting by setting and host by host, for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from lonc.config.hosts import Changes, Host, HostTable
from lonc.config.parameters import PARAMETERS
from lonc.config.settings import Settings

#: Fields of a host that are told of; what else its line has concerns nobody who connects.
_TOLD: Final = ("domain", "role", "name", "address")


def changed_settings(before: Settings, after: Settings) -> Iterator[str]:
    """Yield a line for each setting that has another value."""
    for each in PARAMETERS:
        if getattr(before, each.attribute) != getattr(after, each.attribute):
            old, _ = before.written.get(each.variable, ("?", ""))
            new, source = after.written.get(each.variable, ("?", "?"))
            yield f"{each.variable}: {new}, was {old} ({source})"


def changed_hosts(before: HostTable, after: HostTable, changes: Changes) -> Iterator[str]:
    """Yield a line for each host that is new, gone or another."""
    for host_id in changes.new:
        yield f"{host_id}: new, at {after.hosts[host_id].target}"
    for host_id in changes.gone:
        yield f"{host_id}: gone"
    for host_id in (*changes.changed, *changes.same):
        told = "; ".join(_differences(before.hosts[host_id], after.hosts[host_id]))
        if told:
            yield f"{host_id}: {told}"


def _differences(before: Host, after: Host) -> Iterator[str]:
    old, new = attrs.asdict(before), attrs.asdict(after)
    for name in _TOLD:
        if old[name] != new[name]:
            yield f"{name} {new[name] or 'none'}, was {old[name] or 'none'}"
