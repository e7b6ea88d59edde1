"""The public name of :mod:`lonc.control.commands`."""

from lonc.control.commands import *  # noqa: F403
