"""lonc: a local concentrator of lond connections, as a Twisted plugin."""

__version__ = "0.1.0"
