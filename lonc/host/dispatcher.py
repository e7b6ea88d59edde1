"""The former name of :mod:`lonc.host.machine`, until 1.0."""

from __future__ import annotations

import warnings

from lonc.host.machine import Machine


def __getattr__(name: str) -> type[Machine]:
    if name != "Dispatcher":
        raise AttributeError(name)
    told = "lonc.host.dispatcher.Dispatcher: use lonc.host.machine.Machine"
    warnings.warn(told, DeprecationWarning, stacklevel=2)
    return Machine
