"""
What keeps the daemon running: supervisor, reload, reporter, signals, pid file.

No request passes through here.
"""
