"""
What keeps the daemon running: supervisor, reload, periodic work, signals, pid file, take-over.

Requests do not pass through this package.
"""
