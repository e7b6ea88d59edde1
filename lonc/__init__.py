"""lonc: a local concentrator of lond connections, as a Twisted plug-in."""

__version__ = "0.1.0"
