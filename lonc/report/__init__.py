"""
Output for people: the status, the logs, the process title.

Nothing here makes decisions for the daemon.
"""
