"""
What keeps the daemon running: the supervisor of hosts, reload, signals, pid file, limits.

No request passes through here.
"""
