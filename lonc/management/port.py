"""The public name of :mod:`lonc.control.port`."""

from lonc.control.port import *  # noqa: F403
