"""Deprecated methods and attributes of the daemon, kept until 1.0 for programs that embed lonc."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import attrs

from lonc.control.reporter import Reporter
from lonc.daemon.outside import Choices
from lonc.host.service import HostService

_REPORTED: Final = ("about", "host_ids", "status", "statuses", "status_text", "report")

#: Deprecated methods and their replacements.
FORMER: Final = {name: f"use reporter.{name}" for name in _REPORTED} | {
    "reset_retries": "use reset_retries of each of its hosts",
    "close_connections": "use close_connections of each of its hosts",
    "set_debug": "set debug_level of each of its hosts",
}


def former(name: str, reporter: Reporter, hosts: Mapping[str, HostService]) -> Callable[..., Any]:
    """Return the replacement of a deprecated method, with a DeprecationWarning."""
    warnings.warn(f"LoncService.{name}: {FORMER[name]}", DeprecationWarning, stacklevel=3)
    return getattr(reporter, name) if name in _REPORTED else partial(_steer, hosts, name)


def _steer(hosts: Mapping[str, HostService], name: str, host_id: str | None, *level: int) -> None:
    for host in hosts.values() if host_id is None else [hosts[host_id]]:
        if name == "set_debug":
            (host.debug_level,) = level
        else:
            getattr(host, name)()


class _Chooser(Protocol):
    choices: Choices


class FormerChoice:
    """A deprecated attribute that sets one of `Choices`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, daemon: _Chooser | None, owner: type) -> bool:
        choices = Choices() if daemon is None else daemon.choices
        return bool(getattr(choices, self._name))

    def __set__(self, daemon: _Chooser, value: bool) -> None:
        told = f"LoncService.{self._name}: make_daemon(..., {self._name}=True) chooses it"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        daemon.choices = attrs.evolve(daemon.choices, **{self._name: bool(value)})
