"""
Disk work: calls in threads with a limit, and files that are opened and written with care.

Nothing here knows what a file holds.
"""
