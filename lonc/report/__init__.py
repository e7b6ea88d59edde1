"""
What people read: the status, the logs, the process title.

Nothing here decides anything.
"""
