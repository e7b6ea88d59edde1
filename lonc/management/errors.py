"""The public name of :mod:`lonc.control.errors`."""

from lonc.control.errors import *  # noqa: F403
